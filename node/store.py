"""The journal: what this node signed and must remember, in HOME/store.sqlite.

Nothing leaves the node before it stands here (PROTOCOL 2.10): each append is one transaction, on disk when it
returns. A node without its journal cannot know what it has signed, so a missing one is an error and never
silently made anew: `Journal.create` is for founding, `Journal.open` for everything after.

Also here, under the same guarantee: the outbox of ledger transactions, the content keys of open mode and the mask
secrets of secure mode.
Every method may be called from any thread.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self, TypeAlias
from zlib import crc32

import msgspec

from folkmoot.node.database import Database, StoreDamaged, StoreError, StoreInUse
from folkmoot.protocol.journal import Said, decode_entry
from folkmoot.protocol.types import Digest, MemberId, Round

__all__ = [
    "KILL_AFTER_ENTRY",
    "KILL_AT_WRITE",
    "Journal",
    "JournalEntry",
    "OutboxRow",
    "Secret",
    "StoreDamaged",
    "StoreError",
    "StoreInUse",
    "kill_after_entry",
    "kill_at_write",
]

JournalEntry: TypeAlias = tuple[Round, str, bytes]
"""(round, kind, body)."""

KILL_AT_WRITE = "FOLKMOOT_TEST_KILL_AT_WRITE"
"""Environment variable, for tests: the daemon kills itself at that call of the write hook."""

KILL_AFTER_ENTRY = "FOLKMOOT_TEST_KILL_AFTER_ENTRY"
"""The same, once an entry of that kind is on disk, or a "said" entry of a body with that tag."""

PERMITTED = "permitted"
"""Kind of the rows that hold permits which this node has answered (`disputes.py`)."""

_APPLICATION = 0x464D4A4C  # "FMJL", tells our files from any other SQLite file
_VERSION = 3
_PAGE = 256
PRUNED_AT_ONCE = 1000
"""Rounds that one call of `prune` forgets at most."""
_SETTLED = "(state IN ('final', 'dropped'))"
_OUTBOX = "round, statement, nonce, raw, hash, state, first_seen"

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, round INTEGER NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE INDEX journal_round ON journal (round);
CREATE TABLE secrets (
    round INTEGER NOT NULL, roster BLOB NOT NULL, member INTEGER NOT NULL, key BLOB NOT NULL,
    PRIMARY KEY (round, roster, member)
) STRICT;
CREATE TABLE epochs (epoch INTEGER PRIMARY KEY, secret BLOB NOT NULL) STRICT;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, round INTEGER NOT NULL, statement BLOB NOT NULL, nonce INTEGER,
    raw BLOB, hash BLOB, state TEXT NOT NULL, first_seen REAL NOT NULL
) STRICT;
"""


class Secret(msgspec.Struct, frozen=True):
    """The content key of `member`'s payload under one roster. Its repr does not show the key."""

    round: Round
    roster: Digest
    member: MemberId
    key: bytes

    def __repr__(self) -> str:
        return f"Secret(round={self.round}, roster={self.roster.hex()[:16]}, member={self.member}, key=…)"


class OutboxRow(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to put a statement on the ledger.

    `state` is "new" (nothing sent), "sent" or "mined", and at the end "final" or "dropped" (replaced, or
    another submitter's won). `nonce`, `raw` and `hash` are None until a transaction is signed. `first_seen`:
    Unix seconds.
    """

    id: int = 0
    round: Round
    statement: Digest
    nonce: int | None = None
    raw: bytes | None = None
    hash: bytes | None = None
    state: str = "new"
    first_seen: float


class Journal:
    """The open store; see `create` and `open`. One process writes, others may read beside it."""

    def __init__(self, database: Database, on_append: Callable[[JournalEntry], None] | None = None) -> None:
        self._database = database
        self._on_append = on_append

    @staticmethod
    def create(path: Path, *, replacement: bool = False) -> None:
        """Make an empty store at `path`, whole or not at all; raises `StoreError` if anything is there
        already.

        `replacement` records that an earlier journal was lost: such a node does not know what it has signed.
        """
        origin = "replacement" if replacement else "founding"
        Database.create(
            path,
            _APPLICATION,
            _VERSION,
            f"{_SCHEMA}INSERT INTO meta VALUES ('origin', CAST('{origin}' AS BLOB));",
        )

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        read_only: bool = False,
        on_write: Callable[[int], None] | None = None,
        on_append: Callable[[JournalEntry], None] | None = None,
    ) -> Self:
        """Open an existing store.

        `on_write(n)` is called before (odd n) and after (even n) each commit, `on_append` with each entry that is on
        disk: tests kill the process there.
        Raises `StoreError` if the file is missing, damaged, of another version, or (for writing) open in
        another process.
        """
        if not path.is_file():
            raise StoreDamaged(
                path, "the journal is missing, and without it a node cannot know what it has signed"
            )
        database = Database(path, _APPLICATION, _VERSION, read_only=read_only, on_write=on_write)
        return cls(database, on_append)

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    def check(self) -> None:
        """Raise `StoreDamaged` unless the whole file is in order; what stands in the rows is not looked at."""
        self._database.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let another process have it."""
        self._database.close()

    @property
    def is_replacement(self) -> bool:
        """Whether an earlier journal was lost, and the node has yet to sit out for it (PROTOCOL 2.10)."""
        return self.meta("origin") == b"replacement"

    def end_replacement(self) -> None:
        """It stands here through which round the node sits out: from then on this is a journal like any other."""
        self.set_meta("origin", b"replaced")

    def bind(self, federation: Digest, charter: Digest) -> None:
        """Tie the store to a federation at the first call; later raise `StoreError` unless it is the same."""
        for what, value in (("federation", federation), ("charter", charter)):
            known = self.meta(what)
            if known is None:
                self.set_meta(what, value)
            elif known != value:
                raise StoreError(
                    f"{self._database.path}: this journal belongs to {what} {known.hex()[:16]}, not "
                    f"{value.hex()[:16]}: use the home that was made for this federation"
                )

    def meta(self, key: str) -> bytes | None:
        """A named value, None if it was never set."""
        rows = self._database.query("SELECT value FROM meta WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    def set_meta(self, key: str, value: bytes) -> None:
        """Set a named value, durable on return."""
        with self._database.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def append(self, entries: Sequence[JournalEntry], secrets: Sequence[Secret] = ()) -> None:
        """Add `entries` in order, and `secrets`: all or nothing, durable on return; raises `StoreError`."""
        with self._database.transaction() as db:
            db.executemany(
                "INSERT INTO journal (round, kind, body, crc) VALUES (?, ?, ?, ?)",
                [(*entry, _crc(*entry)) for entry in entries],
            )
            db.executemany(
                "INSERT OR REPLACE INTO secrets VALUES (?, ?, ?, ?)",
                [(secret.round, secret.roster, secret.member, secret.key) for secret in secrets],
            )
        if self._on_append is not None:
            for entry in entries:
                self._on_append(entry)

    def entries(self, first_round: Round = 0) -> Iterator[tuple[int, Round, str, bytes]]:
        """(seq, round, kind, body) of all entries from `first_round` on, in the order of writing.

        Raises `StoreDamaged` for a row that is not what was written.
        """
        first = self._database.query("SELECT min(seq) FROM journal WHERE round >= ?", (first_round,))[0][0]
        after = (first or 0) - 1
        while rows := self._database.query(
            "SELECT seq, round, kind, body, crc FROM journal WHERE seq > ? AND round >= ? ORDER BY seq LIMIT ?",
            (after, first_round, _PAGE),
        ):
            for seq, round_, kind, body, crc in rows:
                if crc != _crc(round_, kind, body):
                    raise StoreDamaged(self.path, f"entry {seq} ({kind} of round {round_}) is damaged")
                yield seq, round_, kind, body
            after = rows[-1][0]

    @property
    def pruned_before(self) -> Round:
        """Entries of rounds below this one are gone: nothing may be signed for them."""
        value = self.meta("pruned_before")
        return int(value) if value is not None else 0

    def prune(self, before_round: Round) -> None:
        """Forget what stands here of rounds below `before_round`: entries, content keys, transactions that are settled.

        At most `PRUNED_AT_ONCE` rounds at a time, or it would take long. The floor is remembered, and what is forgotten
        is overwritten; what a file system or disk keeps of overwritten blocks is beyond reach.
        """
        oldest = self._database.query("SELECT min(round) FROM journal")[0][0]
        floor = min(before_round, (oldest or 0) + PRUNED_AT_ONCE)
        if oldest is None or floor <= max(oldest, self.pruned_before):
            return
        with self._database.transaction() as db:
            db.execute("DELETE FROM journal WHERE round < ?", (floor,))
            db.execute("DELETE FROM secrets WHERE round < ?", (floor,))
            db.execute(f"DELETE FROM outbox WHERE round < ? AND {_SETTLED}", (floor,))
            db.execute("INSERT OR REPLACE INTO meta VALUES ('pruned_before', ?)", (b"%d" % floor,))
        self._database.query("PRAGMA wal_checkpoint(TRUNCATE)")

    def secrets(self, number: Round) -> list[Secret]:
        """The content keys kept for round `number`, of all its rosters."""
        rows = self._database.query(
            "SELECT round, roster, member, key FROM secrets WHERE round = ? ORDER BY roster, member",
            (number,),
        )
        return [Secret(*row) for row in rows]

    def secret(self, number: Round, roster: Digest, member: MemberId) -> bytes | None:
        """One content key, None if it is not here."""
        rows = self._database.query(
            "SELECT key FROM secrets WHERE round = ? AND roster = ? AND member = ?", (number, roster, member)
        )
        return rows[0][0] if rows else None

    def entries_of(self, number: Round, kind: str) -> list[bytes]:
        """The bodies of one kind of entry of round `number`, in the order of writing."""
        rows = self._database.query(
            "SELECT body FROM journal WHERE round = ? AND kind = ? ORDER BY seq", (number, kind)
        )
        return [body for (body,) in rows]

    def latest(self, kind: str) -> bytes | None:
        """The body of the newest entry of one kind, None if there is none."""
        rows = self._database.query(
            "SELECT body FROM journal WHERE kind = ? ORDER BY seq DESC LIMIT 1", (kind,)
        )
        return rows[0][0] if rows else None

    def add_epoch(self, epoch: int, secret: bytes) -> None:
        """Keep the mask secret of an epoch, durable on return; raises `StoreError` if it has another one."""
        with self._database.transaction() as db:
            db.execute("INSERT INTO epochs VALUES (?, ?)", (epoch, secret))

    def epoch_secret(self, epoch: int) -> bytes | None:
        """The mask secret of an epoch, None if it is not here (any more)."""
        rows = self._database.query("SELECT secret FROM epochs WHERE epoch = ?", (epoch,))
        return rows[0][0] if rows else None

    def epochs(self) -> list[int]:
        """The epochs whose mask secrets are here, ascending."""
        return [epoch for (epoch,) in self._database.query("SELECT epoch FROM epochs ORDER BY epoch")]

    def erase_epochs(self, before_epoch: int) -> None:
        """Overwrite the mask secrets of all epochs below `before_epoch`, and drop the log that had them."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM epochs WHERE epoch < ?", (before_epoch,))
        self._database.query("PRAGMA wal_checkpoint(TRUNCATE)")

    def outbox_insert(self, row: OutboxRow) -> OutboxRow:
        """Add `row` (its `id` is ignored), durable on return; gives it back with its id."""
        with self._database.transaction() as db:
            cursor = db.execute(
                f"INSERT INTO outbox ({_OUTBOX}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                _columns(row),
            )
        assert cursor.lastrowid is not None
        return msgspec.structs.replace(row, id=cursor.lastrowid)

    def outbox_update(self, row: OutboxRow) -> None:
        """Replace the row of the same id, durable on return; raises `StoreError` if there is none."""
        with self._database.transaction() as db:
            cursor = db.execute(
                f"UPDATE outbox SET ({_OUTBOX}) = (?, ?, ?, ?, ?, ?, ?) WHERE id = ?",
                (*_columns(row), row.id),
            )
            if cursor.rowcount != 1:
                raise StoreError(f"{self._database.path}: the outbox has no row {row.id}")

    def outbox_pending(self) -> list[OutboxRow]:
        """The rows that are neither final nor dropped, oldest first."""
        return self._outbox(f"NOT {_SETTLED}")

    def outbox_of(self, statement: Digest) -> list[OutboxRow]:
        """All attempts to record one statement, oldest first."""
        return self._outbox("statement = ?", statement)

    def _outbox(self, condition: str, *values: object) -> list[OutboxRow]:
        rows = self._database.query(f"SELECT id, {_OUTBOX} FROM outbox WHERE {condition} ORDER BY id", values)
        return [OutboxRow(**dict(zip(OutboxRow.__struct_fields__, row, strict=True))) for row in rows]


def kill_at_write(call: int) -> Callable[[int], None]:
    """An `on_write` hook for tests: SIGKILL to this very process at the `call`-th call."""

    def hook(number: int) -> None:
        if number == call:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def kill_after_entry(word: str) -> Callable[[JournalEntry], None]:
    """An `on_append` hook for tests, see `KILL_AFTER_ENTRY`."""

    def hook(entry: JournalEntry) -> None:
        _, kind, body = entry
        if kind == word or (kind == "said" and _tag_said(body) == word):
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def _tag_said(body: bytes) -> object:
    entry = decode_entry(body)
    return type(entry.signed.body).__struct_config__.tag if isinstance(entry, Said) else None


def _crc(round_: Round, kind: str, body: bytes) -> int:
    """SQLite finds damage in its own structure only."""
    return crc32(body, crc32(f"{round_} {kind}".encode()))


def _columns(row: OutboxRow) -> tuple[object, ...]:
    """The row's values without its id, in the order of the table."""
    return msgspec.structs.astuple(row)[1:]
