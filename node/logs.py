"""Logs: JSON lines in HOME/logs/node.log for machines, short lines on stderr for people.

What libraries log through the standard library comes out in the same two places, from WARNING on. What peers
do wrong is counted by `Once`, so that a flood of bad messages gives one line and a number.
"""

import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter
from structlog.typing import Processor

from folkmoot.node.config import LogConfig
from folkmoot.protocol.errors import FolkmootError

FILE_NAME = "node.log"
_USUAL = LogConfig()


class LogError(FolkmootError):
    """The log cannot be written where it belongs; the message names the place."""

    exit_code = 2


_OURS = logging.getLogger("folkmoot")
_SHARED: Sequence[Processor] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)


# This file owns structlog: everything goes through the standard library's logger "folkmoot".
structlog.configure(
    processors=[structlog.stdlib.filter_by_level, *_SHARED, ProcessorFormatter.wrap_for_formatter],
    logger_factory=lambda *_: _OURS,
    wrapper_class=BoundLogger,
)


def logger(**context: object) -> BoundLogger:
    """A logger whose lines carry `context`. Outside `logging_to` only warnings show, raw, on stderr."""
    bound: BoundLogger = structlog.get_logger(**context)
    return bound


@contextmanager
def logging_to(directory: Path, config: LogConfig = _USUAL, stream: TextIO | None = None) -> Iterator[None]:
    """Within the block log to `directory`/node.log (made if needed) and, for people, to `stream` (stderr).

    Raises `LogError` if the file cannot be opened.
    """
    file = _open_file(directory, config)
    human = logging.StreamHandler(stream or sys.stderr)
    file.setFormatter(_formatter(structlog.processors.JSONRenderer()))
    human.setFormatter(_formatter(structlog.dev.ConsoleRenderer(colors=human.stream.isatty())))
    root = logging.getLogger()
    earlier = root.level, _OURS.level
    root.setLevel(logging.WARNING)
    _OURS.setLevel(config.level.upper())
    for handler in (file, human):
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in (file, human):
            root.removeHandler(handler)
        with suppress(OSError):  # a full disk does not take the end of it
            file.close()
        root.setLevel(earlier[0])
        _OURS.setLevel(earlier[1])


class Once:
    """Logs the first event of each (kind, peer) and counts them all.

    Peers outside the federation choose their own ids, so at most `MAX_PEERS` pairs are told apart; later ones
    are counted, and logged once, as peer "others".
    """

    MAX_PEERS = 1024

    def __init__(self, log: BoundLogger) -> None:
        self._log = log
        self._counts: Counter[tuple[str, str]] = Counter()

    def note(self, kind: str, peer: str, **details: object) -> None:
        """Count one event of `kind` by `peer`; `details` are only logged, and only the first time."""
        key = (kind, peer)
        if key not in self._counts and len(self._counts) >= self.MAX_PEERS:
            key = (kind, "others")
        self._counts[key] += 1
        if self._counts[key] == 1:
            self._log.warning(kind, peer=key[1], note="further ones are only counted", **details)

    def counts(self) -> dict[str, int]:
        """How many events of each kind there were, over all peers."""
        totals: Counter[str] = Counter()
        for (kind, _), count in self._counts.items():
            totals[kind] += count
        return dict(totals)

    def log_totals(self) -> None:
        """Log how often each (kind, peer) came, if more than once; for the end of a run."""
        for (kind, peer), count in sorted(self._counts.items()):
            if count > 1:
                self._log.info("total", kind=kind, peer=peer, count=count)


class _LogFile(RotatingFileHandler):
    """A node goes on without its log file: what it cannot take is on stderr all the same, and so is why, once."""

    _has_complained = False

    def flush(self) -> None:
        """What was written is in the file: a later fault is a new one."""
        super().flush()
        self._has_complained = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Called while the fault is handled."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._has_complained:
            self._has_complained = True
            with suppress(OSError):  # which may lie on the same disk
                sys.stderr.write(f"{self.baseFilename}: lines are missing: {error.strerror}\n")


def rotate(path: Path, config: LogConfig) -> None:
    """Set aside a log that another process writes (by appending), if it is large enough. Raises `OSError`.

    It keeps its file open, so its contents are copied; what it writes at that very moment may be lost.
    """
    if not path.exists() or path.stat().st_size < config.max_bytes:
        return
    older = [path.with_name(f"{path.name}.{number}") for number in range(1, config.keep + 1)]
    for newer, old in zip(reversed(older[:-1]), reversed(older[1:]), strict=True):
        if newer.exists():
            newer.replace(old)
    shutil.copyfile(path, older[0])
    os.truncate(path, 0)


def _open_file(directory: Path, config: LogConfig) -> RotatingFileHandler:
    path = directory / FILE_NAME
    try:
        if not directory.is_dir():
            directory.mkdir(parents=True)
        return _LogFile(path, maxBytes=config.max_bytes, backupCount=config.keep, encoding="utf-8")
    except OSError as error:
        place = path if directory.is_dir() else directory
        raise LogError(
            f"{place}: the log cannot be written: {error.strerror}: {directory} must be a folder of this user"
        ) from error


def _formatter(renderer: Processor) -> logging.Formatter:
    return ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[ProcessorFormatter.remove_processors_meta, renderer],
    )
