"""The member's privacy log on the disk, HOME/privacy.jsonl: what of its budget is spent. `protocol/privacy.py` says how
it is written.

A line is on the disk before anything of its update leaves the node, so that no crash makes spending forgotten. Losing
the file would: keep it with your backups. Everything here blocks.
"""

import os
from pathlib import Path

from folkmoot.node.disk import raise_if_full
from folkmoot.protocol.errors import FolkmootError, RemoteProtocolError
from folkmoot.protocol.privacy import Log, Logged, Owner, Spending, encode_line, read_log
from folkmoot.protocol.types import Digest


class PrivacyLogError(FolkmootError):
    """The log cannot be read, written or relied on; the message names it and says what to do."""

    exit_code = 3


class PrivacyLog:
    """An open log; one process writes it."""

    def __init__(self, path: Path, log: Log) -> None:
        self._path = path
        self.log = log

    @classmethod
    def open(cls, path: Path, owner: Owner, promised: Digest | None = None) -> "PrivacyLog":
        """The log at `path`, made if there is none.

        `promised`: a chain to which this node has committed; raises `PrivacyLogError` for a log without it, one of
        another member or federation, or one that is damaged.
        """
        try:
            log = cls._load(path, owner)
        except OSError as error:
            raise_if_full(error, path)
            raise PrivacyLogError(f"{path}: {error.strerror}") from error
        except RemoteProtocolError as error:
            raise PrivacyLogError(f"{path}: {error}: put it back from a backup") from error
        if log.owner != owner:
            raise PrivacyLogError(
                f"{path}: it is {log.owner.member}'s in federation {log.owner.federation[:16]}, not {owner.member}'s "
                f"in {owner.federation[:16]}: every home has its own"
            )
        if promised and promised not in {log.chain, *(line.chain for line in log.lines)}:
            raise PrivacyLogError(
                f"{path}: it lacks updates that this node has committed to, so what is spent is not known: put the "
                "newest one back from a backup"
            )
        return cls(path, log)

    @staticmethod
    def _load(path: Path, owner: Owner) -> Log:
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            text = b""
        whole = text.rfind(b"\n") + 1
        if whole < len(text):  # written when the node died: nothing of that update had left it
            os.truncate(path, whole)
        if whole == 0:
            _append(path, encode_line(owner))
            return Log.begin(owner)
        return read_log(text[:whole])

    def charge(self, spending: Spending) -> Logged:
        """Write a line down, durably; raises `PrivacyLogError`, `DiskFull`."""
        log = self.log.add(spending)
        try:
            _append(self._path, encode_line(spending))
        except OSError as error:
            raise_if_full(error, self._path)
            raise PrivacyLogError(f"{self._path}: cannot be written: {error.strerror}") from error
        self.log = log
        return log.lines[-1]


def _append(path: Path, line: bytes) -> None:
    is_new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        data = memoryview(line + b"\n")
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
