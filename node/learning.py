"""One round's local training: run the trainer, check what it gave, describe it for READY.

The trainer is another process and its output is not trusted: length and finiteness are checked here, on bytes that
were read into the daemon's own memory (PROTOCOL section 6).
"""

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path

import msgspec
import numpy as np
import trio
from safetensors import SafetensorError, safe_open

from folkmoot.node.disk import raise_if_full
from folkmoot.node.limits import Uploads
from folkmoot.node.member_state import MemberState, Residuals
from folkmoot.node.privacy_log import PrivacyLog
from folkmoot.node.store import Journal
from folkmoot.node.train.vectors import check_finite, read_vector
from folkmoot.node.train.wire import Metrics, TrainerError
from folkmoot.node.trainer import FitResult, KeptVector, Measured, Trainer
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.events import Trained
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.metrics import select_metrics
from folkmoot.protocol.privacy import Spending
from folkmoot.protocol.ring import Float32s, Layout, compute_exponents
from folkmoot.protocol.secure.masked_noise import exponent_bounds
from folkmoot.protocol.toml import ConfigError
from folkmoot.protocol.traffic import upload_bytes
from folkmoot.protocol.types import Digest, Round

DISCLOSURE = "disclosure"
"""Journal kind of the salts and contents behind a READY's commitments; opened to auditors only."""


class Disclosure(msgspec.Struct, frozen=True):
    """What the salted commitments of one READY stand for.

    And what secure mode tells nobody, but has to hold the node to: how many rows were trained on, and the SHA-256 of
    the update's file.
    """

    round: Round
    salts: tuple[bytes, bytes, bytes]
    manifest: bytes
    privacy_log: bytes
    report: bytes
    num_examples: int
    update: Digest

    @property
    def salted_manifest(self) -> Digest:
        """What READY says of the data; tells which READY this belongs to."""
        return digest("folkmoot/v1/manifest", self.salts[0], self.manifest)


@dataclass(frozen=True, slots=True)
class Learning:
    """Training as this node does it.

    `manifest` is the digest of the member's data files, `timeout` the seconds that one fit may take in all; `mask_key`
    gives secure mode's public key for a round, and blocks.
    """

    charter: Charter
    trainer: Trainer
    journal: Journal
    updates: Path
    manifest: Digest
    timeout: float
    mask_key: Callable[[Round], bytes] | None = None
    kept: Mapping[str, MemberState] = field(default_factory=dict)
    """What the trainer reads and writes besides, by name."""
    residuals: Residuals | None = None
    """What was lost of earlier updates and is added to the next, where the charter has error feedback."""
    uploads: Uploads | None = None
    """What this node may send in a round."""
    privacy_log: PrivacyLog | None = None
    """What of the privacy budget is spent, where the charter has one."""

    def update_path(self, round_: Round) -> Path:
        """Where this round's update lies, until the round is closed."""
        return self.updates / f"update-{round_:06d}.f32"

    async def fit(self, round_: Round, base: BlobRef, model: Path) -> tuple[Trained, dict[str, Metrics]]:
        """Train on the snapshot in file `model`; raises `TrainerError`, `StoreError`, `DiskFull`.

        Also returns the measures of the member's own models. Nothing is trained that could not be sent.
        """
        self.check_upload(round_)
        try:
            self.updates.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise_if_full(error, self.updates)
            raise TrainerError("model", f"{self.updates}: {error.strerror}") from error
        with trio.move_on_after(self.timeout):
            spent = self.privacy_log.log.costs(self.charter, round_) if self.privacy_log else ()
            kept = {
                name: KeptVector(state.before(round_), state.staged(round_, base.root))
                for name, state in self.kept.items()
            }
            span = self.charter.fragment(round_)
            fragment = None if span is None else (*span, self.charter.update_values)
            result = await self.trainer.fit(round_, model, self.update_path(round_), kept, spent, fragment)
            trained = await trio.to_thread.run_sync(self._describe, round_, base, result)
            return trained, result.beside
        raise TrainerError("stalled", f"training took more than trainer.timeout = {self.timeout:g} s")

    def check_upload(self, round_: Round) -> None:
        """Raise `TrainerError` of kind `limit` if this round's update takes more than this node may send."""
        if self.uploads is not None:
            self.uploads.check(round_, upload_bytes(self.charter))

    async def evaluate(self, round_: Round, model: Path) -> Measured:
        """Measure the snapshot in file `model`, from which `round_` would start; raises `TrainerError`."""
        before = {name: state.before(round_) for name, state in self.kept.items()}
        return await self.trainer.evaluate(
            model, {name: path for name, path in before.items() if path is not None}
        )

    def _describe(self, round_: Round, base: BlobRef, result: FitResult) -> Trained:
        vector = read_vector(result.update, self.charter.update_values)
        _sync(result.update)
        for name, state in self.kept.items():
            staged = state.staged(round_, base.root)
            if not staged.is_file():
                raise TrainerError("protocol", f"it did not write the vector {name!r} that is kept: {staged}")
            read_vector(staged, state.values)
            _sync(staged)
        mask_key = self.mask_key(round_) if self.mask_key is not None else b""
        layout = Layout(self.charter.update_sizes)
        sent = self._with_residual(round_, vector)
        exponents = compute_exponents(sent, layout, *exponent_bounds(self.charter))
        salts = (secrets.token_bytes(32), secrets.token_bytes(32), secrets.token_bytes(32))
        chain, commitment = self._charge(round_, base, result, salts[1])
        told = self._told(result)
        report = msgspec.json.encode(told, order="sorted")
        disclosure = Disclosure(
            round=round_,
            salts=salts,
            manifest=self.manifest,
            privacy_log=chain,
            report=report,
            num_examples=self.charter.claimed_examples(result.num_examples),
            update=_file_digest(result.update),
        )
        self.journal.append([(round_, DISCLOSURE, msgspec.msgpack.encode(disclosure))])
        return Trained(
            round=round_,
            base=base.root,
            exponents=exponents.tobytes(),
            manifest=disclosure.salted_manifest,
            privacy_log=commitment,
            report=digest("folkmoot/v1/report", salts[2], report),
            num_examples=disclosure.num_examples,
            metrics=select_metrics(result.metrics),
            mask_key=mask_key,
        )

    # --- a privacy budget -------------------------------------------------------------------------------------------

    def _charge(self, round_: Round, base: BlobRef, result: FitResult, salt: bytes) -> tuple[bytes, Digest]:
        """The update is about to leave: what it costs is written down before. The log's chain, and READY's word on it.

        Without a budget the chain is empty. Raises `TrainerError` for an update that is not worth its price.
        """
        if self.privacy_log is None:
            return b"", digest("folkmoot/v1/privacy-log", salt)
        if result.cost is None:
            raise TrainerError("protocol", "it does not say what its update costs of the privacy budget")
        privacy = self.charter.privacy
        if not result.epsilon <= float(privacy.epsilon):
            raise TrainerError(
                "budget", f"its update brings epsilon to {result.epsilon}, of {privacy.epsilon}"
            )
        spending = Spending(
            round=round_,
            base=base.root.hex(),
            cost=result.cost,
            clip=privacy.clip,
            epsilon=result.epsilon,
            salt=salt.hex(),
        )
        logged = self.privacy_log.charge(spending)
        return logged.chain, logged.commitment

    def _told(self, result: FitResult) -> dict[str, float]:
        """What an auditor may be shown. Of rows that are to stay hidden no noise hides the loss."""
        return {} if self.charter.is_private else {"train_loss": result.train_loss, **result.metrics}

    def spent(self, round_: Round) -> float:
        """Epsilon of the budget that `round_` shares; 0 where there is none."""
        return self.privacy_log.log.spent(self.charter, round_) if self.privacy_log else 0.0

    def _with_residual(self, round_: Round, update: Float32s) -> Float32s:
        """What is to be written down; its scales, not the update's, must leave room for it."""
        kept = self.residuals.before(round_) if self.residuals is not None else None
        if kept is None:
            return update
        with np.errstate(over="ignore"):
            total = np.add(update, read_vector(kept, self.charter.update_values))
        check_finite(total, f"the update of round {round_} with what was lost of earlier ones")
        return total

    def forget_before(self, round_: Round) -> None:
        """Drop the updates of closed rounds."""
        for path in self.updates.glob("update-*.f32"):
            if path < self.update_path(round_):
                path.unlink(missing_ok=True)


def promised_chain(journal: Journal) -> Digest | None:
    """The privacy log's chain to which the newest READY committed; None if there was none. Raises `StoreError`."""
    row = journal.latest(DISCLOSURE)
    return (msgspec.msgpack.decode(row, type=Disclosure).privacy_log or None) if row else None


def data_manifest(*files: Path) -> Digest:
    """Digest of the member's data files, by content; a file that is not there counts as empty.

    Reads them whole (piece by piece); raises `ConfigError` if one cannot be read.
    """
    return digest("folkmoot/v1/data", *(_file_digest(path) for path in files))


def _file_digest(path: Path) -> Digest:
    if not path.is_file():
        return sha256().digest()
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").digest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def check_data(train: Path, test: Path, charter: Charter) -> None:
    """Raise `ConfigError` unless the built-in trainer can use the data files; looks at their headers only.

    The held-out file may be missing: then nothing is measured.
    """
    inputs = charter.model.features
    is_regression = charter.data is not None and charter.data.task == "regression"
    target, what = ("F32", "number") if is_regression else ("I64", "class")
    if not train.is_file():
        raise ConfigError(f"{train}: no such file: put your examples there, or set data.train in node.toml")
    for path in filter(Path.is_file, (train, test)):
        found = _shapes(path)
        if set(found) != {"x", "y"}:
            raise ConfigError(f"{path}: holds the tensors {sorted(found)}: it must hold 'x' and 'y'")
        (x_type, x), (y_type, y) = found["x"], found["y"]
        if x_type != "F32" or len(x) != 2 or x[1] != inputs or not x[0]:
            raise ConfigError(
                f"{path}: x is {x_type} {x}: the charter's model takes F32 [rows, {inputs}], at least one row"
            )
        if y_type != target or y != x[:1]:
            raise ConfigError(
                f"{path}: y is {y_type} {y}: it must be {target} {x[:1]}, one {what} for each row of x"
            )


def _shapes(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of every tensor of a safetensors file."""
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            return {name: (piece.get_dtype(), piece.get_shape()) for name, piece in slices.items()}
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: not a safetensors file ({error}): see data in node.toml") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
