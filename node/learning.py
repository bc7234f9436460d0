"""One round's local training: run the trainer, check what it gave, describe it for READY.

The trainer is another process and its output is not trusted: length and finiteness are checked here, on bytes that
were read into the daemon's own memory (PROTOCOL section 6).
"""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from folkmoot.node.store import Journal
from folkmoot.node.train.vectors import read_vector
from folkmoot.node.train.wire import TrainerError
from folkmoot.node.trainer import FitResult, Trainer
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.events import Trained
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.ring import Layout, compute_exponents
from folkmoot.protocol.types import Digest, Round

DISCLOSURE = "disclosure"
"""Journal kind of the salts and contents behind a READY's commitments; opened to auditors only."""


class Disclosure(msgspec.Struct, frozen=True):
    """What the salted commitments of one READY stand for."""

    round: Round
    salts: tuple[bytes, bytes, bytes]
    manifest: bytes
    privacy_log: bytes
    report: bytes


@dataclass(frozen=True, slots=True)
class Learning:
    """Training as this node does it.

    `manifest` is the digest of the member's data files, `timeout` the seconds that one fit may take in all.
    """

    charter: Charter
    trainer: Trainer
    journal: Journal
    updates: Path
    manifest: Digest
    timeout: float

    def update_path(self, round_: Round) -> Path:
        """Where this round's update lies, until the round is closed."""
        return self.updates / f"update-{round_:06d}.f32"

    async def fit(self, round_: Round, base: BlobRef, model: Path) -> Trained:
        """Train on the vector in file `model`; raises `TrainerError`, `StoreError`."""
        self.updates.mkdir(parents=True, exist_ok=True)
        with trio.move_on_after(self.timeout):
            result = await self.trainer.fit(round_, model, self.update_path(round_))
            return await trio.to_thread.run_sync(self._describe, round_, base, result)
        raise TrainerError("stalled", f"training took more than trainer.timeout = {self.timeout:g} s")

    def _describe(self, round_: Round, base: BlobRef, result: FitResult) -> Trained:
        averaging = self.charter.averaging
        vector = read_vector(result.update, self.charter.model.parameters)
        _sync(result.update)
        layout = Layout(self.charter.model.sizes)
        exponents = compute_exponents(vector, layout, averaging.exponent_min, averaging.exponent_max)
        report = msgspec.json.encode({"train_loss": result.train_loss, **result.metrics}, order="sorted")
        salts = (secrets.token_bytes(32), secrets.token_bytes(32), secrets.token_bytes(32))
        disclosure = Disclosure(round_, salts, self.manifest, b"", report)
        self.journal.append([(round_, DISCLOSURE, msgspec.msgpack.encode(disclosure))])
        return Trained(
            round=round_,
            base=base.root,
            exponents=exponents.tobytes(),
            manifest=digest("folkmoot/v1/manifest", salts[0], self.manifest),
            privacy_log=digest("folkmoot/v1/privacy-log", salts[1]),
            report=digest("folkmoot/v1/report", salts[2], report),
            num_examples=result.num_examples,
            accuracy=result.metrics.get("accuracy"),
        )

    def forget_before(self, round_: Round) -> None:
        """Drop the updates of closed rounds."""
        for path in self.updates.glob("update-*.f32"):
            if path < self.update_path(round_):
                path.unlink(missing_ok=True)


def data_manifest(*files: Path) -> Digest:
    """Digest of the member's data files, by content; a file that is not there counts as empty."""
    parts = []
    for path in files:
        contents = path.read_bytes() if path.is_file() else b""
        parts.append(digest("folkmoot/v1/data-file", contents))
    return digest("folkmoot/v1/data", *parts)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
