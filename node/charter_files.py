"""What the members agreed on, as files of a home: `charter.toml`, `charter.sig/<name>.sig` and `member.toml`.

The digest that members sign is over the charter's contents, not over the file, so comments and spacing may
differ between homes. A signature file holds 128 hex digits.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import tomli_w

from folkmoot.node.config import Home
from folkmoot.node.toml import load
from folkmoot.protocol.charter import Charter, verify_charter
from folkmoot.protocol.charter_rules import check_charter
from folkmoot.protocol.charter_tables import Member
from folkmoot.protocol.errors import CharterError

SIGNATURE_SIZE = 64
"""Bytes of an Ed25519 signature."""

_HEADER = """\
# The agreement of this federation, signed by all members (charter.sig/). Comments and spacing may be changed;
# anything else makes it another charter, which nobody has signed.

"""


def write_charter(home: Home, charter: Charter, signatures: Mapping[str, bytes]) -> None:
    """Write the charter and the signatures, by member name, that are there so far; replaces what stood there.

    Raises `CharterError` if a file cannot be written.
    """
    _write(home.charter, _HEADER + render_charter(charter))
    for name, signature in signatures.items():
        _write(signature_path(home, name), signature.hex() + "\n")


def read_charter(home: Home) -> Charter:
    """The charter of `home` as it stands, its signatures unread.

    Raises `CharterError`, or `ConfigError` for a bad key; both name the file.
    """
    if not home.charter.is_file():
        raise CharterError(
            f"{home.charter}: no charter: copy charter.toml and charter.sig/ from another member"
        )
    charter = load(home.charter, Charter)
    check_charter(charter, str(home.charter))
    return charter


def load_charter(home: Home) -> Charter:
    """The charter of `home`, signed by every member; raises as `read_charter` and for any bad signature."""
    charter = read_charter(home)
    signatures = {member.name: _read_signature(home, member.name) for member in charter.members}
    try:
        verify_charter(charter, signatures)
    except CharterError as error:
        raise CharterError(
            f"{home.charter}: {error} Restore the file as it was signed, or have every member sign this one"
        ) from error
    return charter


def signature_path(home: Home, name: str) -> Path:
    """Where the signature of the member called `name` stands."""
    return home.charter_signatures / f"{name}.sig"


def render_charter(charter: Charter) -> str:
    """`charter` as TOML, every term written out, defaults too; a table that it does not have is left out."""
    tables = msgspec.to_builtins(charter)
    return tomli_w.dumps({key: value for key, value in tables.items() if value is not None})


def write_member(home: Home, member: Member) -> None:
    """Write `member.toml`: what goes into the charter about this member. Raises `CharterError`."""
    _write(home.member, tomli_w.dumps(msgspec.to_builtins(member)))


def load_member(home: Home) -> Member:
    """Read `member.toml`; raises `ConfigError` naming the file and what is wrong with it."""
    return load(home.member, Member)


def _read_signature(home: Home, name: str) -> bytes:
    path = signature_path(home, name)
    try:
        signature = bytes.fromhex(path.read_text(encoding="ascii"))
    except FileNotFoundError as error:
        raise CharterError(f"{path}: {name} has not signed the charter: ask for this file") from error
    except OSError as error:
        raise CharterError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError:  # not ASCII, or not hex
        signature = b""
    if len(signature) != SIGNATURE_SIZE:
        raise CharterError(f"{path}: not {2 * SIGNATURE_SIZE} hex digits: ask {name} for the file again")
    return signature


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CharterError(f"{path}: cannot be written: {error.strerror}") from error
