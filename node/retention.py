"""What a node that runs for months need not keep: old models, what its journal says of old rounds, and old payloads.

Nothing goes that a round which is not final yet needs, or a dispute that may still be opened; payloads and records go
only if the operator says so. Everything here blocks.
"""

from dataclasses import dataclass, field

from folkmoot.node.archive import Archive, Models
from folkmoot.node.config import StorageConfig
from folkmoot.node.store import Journal
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.journal import (
    Adopted,
    Attested,
    Began,
    Entry,
    Locked,
    RolledBack,
    decode_entry,
    entry_tag,
)
from folkmoot.protocol.messages import Commitment, Sum
from folkmoot.protocol.record import RoundRecord, decode_record
from folkmoot.protocol.types import Digest, Round

JOURNAL_ROUNDS = 1000
"""Final rounds of which the journal tells: a reorganisation that undoes more is one for people."""

STEP = 100
"""Rounds after which journal and archive are gone through again."""

_NAMING_MODELS = tuple(entry_tag(kind) for kind in (Began, Locked, Attested, Adopted, RolledBack))


@dataclass(slots=True)
class Retention:
    """For one term of a node, whose `charter` says how long disputes may be opened."""

    charter: Charter
    journal: Journal
    archive: Archive
    models: Models
    storage: StorageConfig
    _models_of: dict[Round, set[Digest]] = field(default_factory=dict)
    _looked_at: Round | None = None

    # --- models -----------------------------------------------------------------------------------------------------

    def begin(self, settled: Round) -> None:
        """Before a node works: remove the models of earlier lives that it need not keep.

        `settled`: the round up to which it is done and the record is final. What the journal names for later rounds
        stays, whatever became of it.
        """
        for _, round_, kind, body in self.journal.entries(settled + 1 - self.storage.keep_models):
            if kind in _NAMING_MODELS:
                self._models_of.setdefault(round_, set()).update(_models_in(decode_entry(body)))
        kept = self._for_ever.union(*self._models_of.values())
        for model in self.models.digests() - kept:
            self.models.remove(model)

    @property
    def _for_ever(self) -> set[Digest]:
        """What the federation began with: whoever joins may need it."""
        model = self.charter.model
        return {
            bytes.fromhex(root) for root in (model.initial, model.personal_start, model.frozen_values) if root
        }

    def promoted(self, round_: Round, model: Digest) -> None:
        """A round ended with this model."""
        self._models_of.setdefault(round_, set()).add(model)

    # --- rounds that are final --------------------------------------------------------------------------------------

    def settle(self, settled: Round) -> None:
        """Rounds up to `settled` are done here and final: forget what lies far enough behind."""
        self._forget_models(settled - self.storage.keep_models)
        if self._looked_at is None or settled >= self._looked_at + STEP:
            self._looked_at = settled
            self.journal.prune(self._floor(settled, max(JOURNAL_ROUNDS, self.storage.keep_models)))
            if self.storage.keep_archive:
                self._forget_rounds(self._floor(settled, self.storage.keep_archive))

    def _forget_models(self, through: Round) -> None:
        behind = [round_ for round_ in self._models_of if round_ <= through]
        old = set[Digest]().union(*(self._models_of.pop(round_) for round_ in behind))
        for model in old - self._for_ever.union(*self._models_of.values()):
            self.models.remove(model)

    def _floor(self, settled: Round, keep: int) -> Round:
        """The first round of which all has to stay: the last `keep` final ones, and those that may be disputed."""
        if not self.charter.is_secure:
            return settled + 1 - keep
        disputed = self.charter.epoch_of(max(settled, 1)) - self.charter.secrecy.dispute_epochs
        return min(settled + 1 - keep, 1 + disputed * self.charter.secrecy.epoch)

    def _forget_rounds(self, before: Round) -> None:
        rounds = self.archive.rounds()
        old = [round_ for round_ in rounds if round_ < before]
        if not old:
            return
        # A member may commit to an old payload again, which would take it from the round that stays.
        kept = set[Digest]().union(
            *(self._payloads_of(round_) or () for round_ in rounds if round_ >= before)
        )
        for round_ in old:
            self._forget_round(round_, kept)

    def _forget_round(self, round_: Round, kept: set[Digest]) -> None:
        """The record goes last: as long as it is there, this is to be done again. A damaged one is left to people."""
        payloads = self._payloads_of(round_)
        if payloads is None:
            return
        for root in payloads - kept:
            self.archive.remove(root)
        self.archive.remove_record(round_)

    def _payloads_of(self, round_: Round) -> set[Digest] | None:
        """What a round's record names; None where it is damaged."""
        try:
            return _payloads_in(decode_record(self.archive.record(round_) or b""))
        except RemoteProtocolError:
            return None


def _models_in(entry: Entry) -> set[Digest]:
    match entry:
        case Began(base=model) | Attested(model=model) | RolledBack(base=model):
            return {model.root}
        case Adopted(final=final):
            return {final.model.root}
        case Locked(model=model) if model is not None:
            return {model.root}
        case _:
            return set()


def _payloads_in(record: RoundRecord) -> set[Digest]:
    """What the archive has under its own name of a round; masked shards go with their epoch."""
    sums = record.unmasking.sums if record.unmasking is not None else ()
    bodies = [signed.body for signed in (*record.commitments, *sums)]
    return {body.root for body in bodies if isinstance(body, Commitment | Sum)}
