"""Permits as files: `permit.toml`, and a signature of each member that agrees in `permit.sig/<name>.sig` beside it.

As with charters, what is signed is the contents, not the file, and a signature file holds 128 hex digits.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import tomli_w

from folkmoot.protocol.secure.permit import Permit, parse_permit
from folkmoot.protocol.toml import ConfigError

_MAX_PERMIT = 64 * 1024
_SIGNATURE_SIZE = 64
_HEADER = """\
# Read it before you sign: whoever holds the auditor's key will see the updates of these members in this round.

"""


@dataclass(frozen=True)
class SignedPermit:
    """A permit with the signatures (by member name) that lie beside it; neither is checked yet."""

    permit: Permit
    signatures: dict[str, bytes]


def load_permit(path: Path) -> SignedPermit:
    """Read a permit and the signatures beside it; one that is malformed is as if it were not there.

    Raises `ConfigError`.
    """
    try:
        if path.stat().st_size > _MAX_PERMIT:
            raise ConfigError(f"{path}: more than {_MAX_PERMIT} bytes: this is no permit")
        permit = parse_permit(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a permit: {error}") from error
    found = {one.stem: _signature(one) for one in sorted(_folder(path).glob("*.sig"))}
    return SignedPermit(permit, {name: signature for name, signature in found.items() if signature})


def write_permit(path: Path, permit: Permit) -> None:
    """Write a permit that nobody has signed yet; raises `ConfigError` if something is there."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_HEADER + tomli_w.dumps(msgspec.to_builtins(permit)))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def write_signature(path: Path, name: str, signature: bytes) -> Path:
    """Put a member's signature beside the permit at `path`; returns where. Raises `ConfigError`."""
    place = _folder(path) / f"{name}.sig"
    try:
        place.parent.mkdir(exist_ok=True)
        place.write_text(signature.hex() + "\n", encoding="ascii")
    except OSError as error:
        raise ConfigError(f"{place}: cannot be written: {error.strerror}") from error
    return place


def _folder(path: Path) -> Path:
    return path.with_suffix(".sig")


def _signature(path: Path) -> bytes | None:
    try:
        signature = bytes.fromhex(path.read_text(encoding="ascii")[:256])
    except (OSError, ValueError):
        return None
    return signature if len(signature) == _SIGNATURE_SIZE else None
