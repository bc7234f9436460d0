"""The charters of a home: the founding one, which all members signed, and those that amendments put in its place.

Amended charters lie in HOME/charters/DIGEST.toml, taken from a proposal or fetched from peers. Which of them are in
force, and when, only the ledger says: the amendments that it has finally recorded are kept in the journal, with the
term that this node works in.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from folkmoot.node.charter_files import load_charter, render_charter
from folkmoot.node.config import Home, load_config
from folkmoot.node.store import Journal
from folkmoot.node.toml import load
from folkmoot.protocol.charter import Charter, federation_id
from folkmoot.protocol.charter_rules import check_charter
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.timeline import Timeline
from folkmoot.protocol.types import Digest, Round

AMENDMENTS = "amendments"
"""Journal meta: the amendments that the ledger has finally recorded, in order."""

TERM = "term"
"""Journal meta: the first round of the charter under which this node works."""

_HEADER = """\
# An amended charter of this federation; the ledger says from which round on it is in force. Comments and spacing may be
# changed; anything else makes it another charter.

"""


def amended_path(home: Home, digest: Digest) -> Path:
    """Where the amended charter of that digest lies."""
    return home.charters / f"{digest.hex()}.toml"


def keep_charter(home: Home, charter: Charter) -> Path:
    """Put an amended charter into the home, if it is not there; where it lies. Raises `CharterError`."""
    path = amended_path(home, charter.digest)
    if path.is_file() and _read_amended(home, charter.digest) == charter:
        return path
    partial = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(_HEADER + render_charter(charter), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise CharterError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def kept_charters(home: Home, digests: Sequence[Digest]) -> dict[Digest, Charter]:
    """Those of the named charters that the home has. Raises `FolkmootError` for one that is damaged."""
    found = {digest: _read_amended(home, digest) for digest in digests}
    return {digest: charter for digest, charter in found.items() if charter is not None}


def _read_amended(home: Home, digest: Digest) -> Charter | None:
    path = amended_path(home, digest)
    if not path.is_file():
        return None
    charter = load(path, Charter)
    check_charter(charter, str(path))
    if charter.digest != digest:
        raise CharterError(
            f"{path}: is not the charter that it is called after (digest {charter.digest.hex()}): remove it, and "
            "start the node, which looks for the right one in its archive and at the other members"
        )
    return charter


def load_timeline(home: Home, amendments: Sequence[Amendment] | None = None) -> Timeline:
    """The charters of a home by round. `amendments`: as the ledger has them; else those that the journal knows.

    Raises `FolkmootError` where the founding charter or node.toml is not in order.
    """
    founding = load_charter(home)
    contract = bytes.fromhex(load_config(home).ledger.contract[2:])
    known = read_amendments(home) if amendments is None else amendments
    charters = kept_charters(home, [one.charter for one in known])
    federation = federation_id(founding.digest, founding.ledger.chain_id, contract)
    return Timeline(federation, founding, known, charters)


def read_amendments(home: Home) -> tuple[Amendment, ...]:
    """The amendments that this home's node knows, beside a node that runs; none where there is no journal yet."""
    if not home.store.is_file():
        return ()
    with Journal.open(home.store, read_only=True) as journal:
        return known_amendments(journal)


def known_amendments(journal: Journal) -> tuple[Amendment, ...]:
    """The amendments in the journal, in order."""
    kept = journal.meta(AMENDMENTS)
    return msgspec.msgpack.decode(kept, type=tuple[Amendment, ...]) if kept is not None else ()


def keep_amendments(journal: Journal, amendments: Sequence[Amendment]) -> None:
    """Remember them, durably: before anything is done that only they allow."""
    journal.set_meta(AMENDMENTS, msgspec.msgpack.encode(tuple(amendments)))


def working_term(journal: Journal) -> Round:
    """The first round of the charter under which this node works; 1 until it has come to an amendment."""
    return int(journal.meta(TERM) or 1)


def enter_term(journal: Journal, first: Round) -> None:
    """From now on this node works under the charter that is in force from round `first` on."""
    journal.set_meta(TERM, str(first).encode())


def load_charter_in_work(home: Home) -> Charter:
    """The charter under which this home's node works, or is to begin. Raises as `load_timeline`."""
    timeline = load_timeline(home)
    if not home.store.is_file():
        return timeline.founding
    with Journal.open(home.store, read_only=True) as journal:
        return timeline.charter_at(working_term(journal))
