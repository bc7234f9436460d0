"""What is wrong with a home's journal, archive and models, and what can be done about it.

Everything is held to something else: blobs and models to their names, records and journal entries to the signatures in
them. What is damaged and can be had again is removed; a journal is never removed, but set aside. In its place comes one
that knows that it is new: its node asks its peers what it signed, and sits out (PROTOCOL section 2, rule 10).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from folkmoot.ledger.signing import KeyVerifier
from folkmoot.node.archive import Archive, ArchiveError, BlobStore, Models
from folkmoot.node.charters import known_amendments, load_timeline
from folkmoot.node.config import Home, NodeConfig, load_config
from folkmoot.node.database import StoreDamaged, claimed
from folkmoot.node.learning import DISCLOSURE
from folkmoot.node.model_file import read_start
from folkmoot.node.status_file import StatusError, read_status
from folkmoot.node.store import PERMITTED, Journal
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import verify_final
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.journal import decode_entry, own_signed
from folkmoot.protocol.messages import Final
from folkmoot.protocol.record import decode_record
from folkmoot.protocol.timeline import Timeline
from folkmoot.protocol.typed_data import Domain
from folkmoot.protocol.types import DIGEST_SIZE, Round

_FETCHED = "it is removed; what the round in work needs of it comes from the others"
_UNREADABLE = "check the disk, and that the node's user may read it"
_COPY = "another member's archive has it, if an auditor asks for it"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it should be; `mend` does what `remedy` says, None where only people can."""

    path: Path
    problem: str
    remedy: str
    mend: Callable[[], None] | None = None


def find_faults(home: Home) -> Iterator[Fault]:
    """Read all of a home that a node wrote; raises `FolkmootError` where charter or node.toml are not in order."""
    config, timeline = load_config(home), _timeline(home)
    rules = _Rules(config, timeline)
    yield from _journal_faults(home, rules)
    archive = Archive(home.archive)
    yield from _blob_faults(archive, sorted((archive.root / "blobs").glob("*/*")), f"{_FETCHED}; {_COPY}")
    for epoch in archive.masked_epochs():
        masked = archive.masked(epoch)
        yield from _blob_faults(masked, sorted(masked.folder.glob("*")), f"{_FETCHED}; {_COPY}")
    yield from _record_faults(archive, rules)
    yield from _model_faults(home, timeline)
    yield from _status_faults(home)


def replace_journal(home: Home) -> None:
    """Set the journal aside, if there is one, and begin a new one that knows what it is.

    Raises `StoreInUse` while the node runs.
    """
    with claimed(home.store):
        number = 1
        while (aside := home.path / f"{home.store.name}.damaged-{number}").exists():
            number += 1
        # The file itself first: without its log it would read as an older one.
        for suffix in ("", "-wal", "-shm"):
            part = home.path / f"{home.store.name}{suffix}"
            if part.exists():
                part.rename(home.path / f"{aside.name}{suffix}")
        Journal.create(home.store, replacement=True)


class _Rules:
    """How signatures of a round are checked: with the keys of the charter that was in force in it."""

    def __init__(self, config: NodeConfig, timeline: Timeline) -> None:
        self._domain = Domain(timeline.founding.ledger.chain_id, bytes.fromhex(config.ledger.contract[2:]))
        self._timeline = timeline
        self._verifiers: dict[Round, KeyVerifier] = {}

    def verifier(self, round_: Round) -> KeyVerifier | None:
        """None where that charter is not here."""
        span = self._timeline.span_at(round_)
        if span.charter is None:
            return None
        if span.first not in self._verifiers:
            self._verifiers[span.first] = KeyVerifier(self._timeline.federation_at(round_), self._domain)
        return self._verifiers[span.first]

    def check_final(self, final: Final, round_: Round) -> None:
        """Raise `FolkmootError` unless these attestations record that round."""
        verifier = self.verifier(round_)
        if verifier is None:
            return
        statement = verify_final(final, self._timeline.federation_at(round_), verifier)
        if statement.round != round_:
            raise FolkmootError(f"it records round {statement.round}")


def _timeline(home: Home) -> Timeline:
    """With the amendments that the journal knows, where it can be read."""
    try:
        with Journal.open(home.store, read_only=True) as journal:
            return load_timeline(home, known_amendments(journal))
    except StoreDamaged:
        return load_timeline(home, ())


def _journal_faults(home: Home, rules: _Rules) -> Iterator[Fault]:
    try:
        with Journal.open(home.store, read_only=True) as journal:
            journal.check()
            for row in journal.entries():
                _check_row(home.store, *row, rules)
    except StoreDamaged as error:
        remedy = (
            "what is left of it is set aside, and a new one begun: the node asks the others what it signed, and sits "
            "out for about two rounds"
        )
        yield Fault(home.store, error.problem, remedy, partial(replace_journal, home))


def _check_row(path: Path, seq: int, round_: Round, kind: str, body: bytes, rules: _Rules) -> None:
    if kind in (DISCLOSURE, PERMITTED):
        return
    try:
        signed, verifier = own_signed(decode_entry(body)), rules.verifier(round_)
        if signed is not None and verifier is not None:
            verifier.verify(signed)
    except FolkmootError as error:
        raise StoreDamaged(path, f"entry {seq} ({kind} of round {round_}): {error}") from error


def _blob_faults(store: BlobStore, paths: list[Path], remedy: str) -> Iterator[Fault]:
    for path in paths:
        try:
            root = bytes.fromhex(path.stem)
        except ValueError:
            continue
        if len(root) != DIGEST_SIZE or path != store.place(root):  # on its way, or not ours
            continue
        try:
            store.leaves(BlobRef(root, path.stat().st_size))
        except ArchiveError as error:
            if isinstance(error.__cause__, OSError):  # it may well be good
                yield Fault(path, f"it cannot be read: {error.__cause__.strerror}", _UNREADABLE)
            else:
                yield Fault(path, "its bytes are not those that its name says", remedy, path.unlink)


def _record_faults(archive: Archive, rules: _Rules) -> Iterator[Fault]:
    for round_ in archive.rounds():
        try:
            record = decode_record(archive.record(round_) or b"")
            rules.check_final(Final(record.attestations, record.model), round_)
        except FolkmootError as error:
            path = archive.record_path(round_)
            aside = path.with_suffix(".record.damaged")
            yield Fault(path, str(error), f"it is set aside; {_COPY}", partial(_move, path, aside))


def _model_faults(home: Home, timeline: Timeline) -> Iterator[Fault]:
    yield from _blob_faults(Models(home.models), sorted(home.models.glob("*.f32")), _FETCHED)
    if home.initial_model.is_file():  # who joined later may have none
        try:
            read_start(home.initial_model, timeline.founding)
        except FolkmootError as error:
            yield Fault(home.initial_model, str(error), "copy another member's")


def _status_faults(home: Home) -> Iterator[Fault]:
    try:
        read_status(home.status)
    except StatusError as error:
        yield Fault(home.status, str(error), "it is removed; the node writes it anew", home.status.unlink)


def _move(path: Path, to: Path) -> None:
    path.rename(to)
