"""One SQLite file, used so that a commit is on disk when it returns and one process at a time writes.

Write-ahead log with synchronous=FULL; one connection behind a lock, usable from any thread, since all writes
are short. SQLite's errors leave here as `StoreError`, which names the file and says what to do.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import RLock
from typing import IO, Any

from folkmoot.node.disk import DiskFull, has_room, raise_if_full
from folkmoot.protocol.errors import FolkmootError

# The last is about a statement; ours fit the schema, so that it is the schema which no longer is what it was.
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_BUSY_SECONDS = 10.0
_LEAST_WAL = 1 << 18  # bytes that SQLite needs beside the file for any write


class StoreError(FolkmootError):
    """The journal is missing, damaged, in use or another federation's; the message names file and remedy."""


class StoreDamaged(StoreError):
    """The journal is missing or damaged; `problem` says how."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"{path}: {problem}: restore the newest copy of it; if there is none, run "
            f"'folkmoot repair --home {path.parent} --fix'"
        )
        self.problem = problem


class StoreInUse(StoreError):
    """Another process writes this journal: the node is running."""


class Database:
    """An open SQLite file of ours. Many processes may read; one writes, and holds `<file>.lock` as long."""

    def __init__(
        self,
        path: Path,
        application: int,
        version: int,
        *,
        read_only: bool = False,
        on_write: Callable[[int], None] | None = None,
    ) -> None:
        """Open the existing file `path`, made by `create` with the same `application` and `version`.

        `on_write(n)` is called with n = 1, 2, 3 … twice per commit: odd calls when the transaction is written
        but not committed, even ones when it is on disk. Raises `StoreError`, also for a damaged file.
        """
        self.path = path
        self._on_write = on_write
        self._writes = 0
        self._lock = RLock()
        self._claim = None if read_only else _claim(path)
        try:
            self._connection = _connect(path, application, version, read_only)
        except BaseException:
            self._release()
            raise

    @staticmethod
    def create(path: Path, application: int, version: int, schema: str) -> None:
        """Make a new file at `path` (mode 0600), whole or not at all; `StoreError` if there is one."""
        unfinished = path.with_name(path.name + ".new")
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.unlink(missing_ok=True)
            try:
                os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                with closing(sqlite3.connect(unfinished)) as connection:
                    connection.execute(f"PRAGMA application_id = {application}")
                    connection.execute(f"PRAGMA user_version = {version}")
                    connection.executescript(schema)
                os.link(unfinished, path)  # unlike a rename, refuses to replace
            except FileExistsError as error:
                raise StoreError(f"{path}: there is a journal already: it will not be overwritten") from error
            finally:
                unfinished.unlink(missing_ok=True)
            _sync_directory(path.parent)

    def check(self) -> None:
        """Read all of the file and all of its indexes; raises `StoreDamaged`."""
        (verdict,) = self.query("PRAGMA integrity_check(1)")[0]
        if verdict != "ok":
            raise StoreDamaged(self.path, f"the journal is damaged ({verdict})")

    def close(self) -> None:
        """Close the file and let another process have it."""
        with self._lock, explained(self.path):
            self._connection.close()
            self._release()

    def query(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        """All rows of a statement that changes nothing."""
        with self._lock, explained(self.path):
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What the block does is on disk when it ends, or, if it raises, undone."""
        with self._lock, explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._reached_write()
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.rollback()
                raise
            self._reached_write()

    def _reached_write(self) -> None:
        self._writes += 1
        if self._on_write is not None:
            self._on_write(self._writes)

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.close()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into a `StoreError`, or into `DiskFull`."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise StoreDamaged(path, f"the journal is damaged ({error})") from error
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) in _DAMAGED:
            raise StoreDamaged(path, f"the journal is damaged ({error})") from error
        if _is_full(error, path):
            raise DiskFull(path) from error
        raise StoreError(f"{path}: {error}: check the disk and permissions, then start again") from error
    except OSError as error:
        raise_if_full(error, path)
        raise StoreError(f"{path}: {error.strerror or error}: check the disk and permissions") from error


def _is_full(error: sqlite3.Error, path: Path) -> bool:
    """SQLite knows ENOSPC where it writes; a quota, or a file that it cannot make or map, reads like a broken disk."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    is_doubtful = code & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
    return code == sqlite3.SQLITE_FULL or (is_doubtful and not has_room(path.parent, _LEAST_WAL))


def _connect(path: Path, application: int, version: int, read_only: bool) -> sqlite3.Connection:
    with explained(path):
        uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS
        )
        try:
            _check(connection, path, application, version)
            if not read_only:
                for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
                    connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection


def _check(connection: sqlite3.Connection, path: Path, application: int, version: int) -> None:
    """Refuse a file that is not ours, of another version or damaged."""
    (found_application,) = connection.execute("PRAGMA application_id").fetchone()
    (found_version,) = connection.execute("PRAGMA user_version").fetchone()
    if found_application != application:
        raise StoreDamaged(path, "this is not a Folkmoot journal")
    if found_version != version:
        raise StoreError(
            f"{path}: journal of version {found_version}, this program reads {version}: install its own"
        )
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreDamaged(path, f"the journal is damaged ({verdict})")


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Within the block no other process writes the file `path`, which need not be there; raises `StoreInUse`."""
    with _claim(path):
        yield


def _claim(path: Path) -> IO[bytes]:
    """The lock that the writing process holds; the system lets go of it when the process dies."""
    with explained(path):
        claim = path.with_name(path.name + ".lock").open("ab")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            claim.close()
            raise StoreInUse(
                f"{path}: another process has this journal open: is this node running?"
            ) from error
        return claim


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
