"""Four members in secure mode without network or machine: journals, archives and updates on disk, masking and sums."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from shutil import copyfile

import msgspec
import numpy as np
import trio
from audited_federation import NAMES, AuditedFederation

from folkmoot.node.archive import Archive, Models
from folkmoot.node.learning import Learning
from folkmoot.node.masked_sums import MaskedSums
from folkmoot.node.masking import Masking
from folkmoot.node.member_state import MemberStates
from folkmoot.node.store import Journal
from folkmoot.node.train.vectors import Vector, write_vector
from folkmoot.node.trainer import FitResult, KeptVectors, Measured
from folkmoot.protocol.blob import BlobRef, ref_of
from folkmoot.protocol.certificates import Federation, compute_exponents
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import Averaging, Secrecy, Tensor
from folkmoot.protocol.effects import Check, SumParts, Unmask
from folkmoot.protocol.events import Encoded
from folkmoot.protocol.messages import (
    Commitment,
    Ready,
    Roster,
    Seeds,
    Signed,
    Survivor,
    SurvivorSet,
    body_digest,
    roster_digest,
)
from folkmoot.protocol.privacy import Cost
from folkmoot.protocol.secure.circles import Circles
from folkmoot.protocol.secure.dealing import open_crowds
from folkmoot.protocol.secure.gathering import sums_digest
from folkmoot.protocol.secure.masks import Crowd
from folkmoot.protocol.types import Digest, MemberId, Round

EVERYBODY = tuple(range(len(NAMES)))
PARAMETERS = 300
CAP = 100


def examples_of(member: MemberId) -> int:
    """Rows that a member trains on: weights differ."""
    return CAP - 10 * member


class GivenTrainer:
    """Writes the update that the test put into `update`."""

    def __init__(self, num_examples: int) -> None:
        self.num_examples = num_examples
        self.update: Vector = np.zeros(PARAMETERS, np.float32)

    async def fit(
        self,
        round: int,
        base: Path,
        update: Path,
        kept: KeptVectors,
        spent: Sequence[Cost],
        fragment: tuple[int, int, int] | None = None,
    ) -> FitResult:
        await trio.lowlevel.checkpoint()
        write_vector(update, self.update)
        return FitResult({"examples": 1.0}, update=update, num_examples=self.num_examples, train_loss=0.5)

    async def evaluate(self, model: Path, kept: Mapping[str, Path]) -> Measured:
        await trio.lowlevel.checkpoint()
        return Measured({})


class MaskedMember:
    """One member's disk, and what works on it; `restart` loses everything else."""

    def __init__(self, federation: Federation, me: MemberId, path: Path, base: Vector) -> None:
        self.federation, self.me, self.path = federation, me, path
        self.archive, self.models = Archive(path / "archive"), Models(path / "models")
        self.base = self.models.add_bytes(base.data)
        self.trainer = GivenTrainer(examples_of(me))
        Journal.create(path / "store.sqlite")
        self._open()

    def restart(self) -> None:
        """A new process on the same files."""
        self.journal.close()
        self._open()

    def _open(self) -> None:
        self.journal = Journal.open(self.path / "store.sqlite")
        updates, charter = self.path / "updates", self.federation.charter
        self.states = MemberStates.of(charter, updates)
        self.masking = Masking(self.federation, self.me, self.journal, self.archive, self.states.residuals)
        self.sums = MaskedSums(charter, self.archive, self.models)
        self.learning = Learning(
            charter, self.trainer, self.journal, updates, bytes(32), 60.0, self.masking.mask_key
        )

    def train(self, round_: Round, update: Vector) -> Signed:
        """This member's READY on `update`."""
        self.trainer.update = update
        place = self.models.place(self.base.root)
        trained, _ = trio.run(partial(self.learning.fit, round_, self.base, place))
        body = Ready(
            round=round_,
            base=trained.base,
            exponents=trained.exponents,
            manifest=trained.manifest,
            privacy_log=trained.privacy_log,
            report=trained.report,
            num_examples=0,
            mask_key=trained.mask_key,
        )
        return Signed(self.me, body, bytes(64))

    def encode(self, roster: Roster) -> Encoded:
        """Its masked shards, and what it deals; nobody's key is unusable."""
        encoded, unusable = self.masking.encode(
            roster.round, roster_digest(0, roster), roster, self.learning.update_path(roster.round)
        )
        assert unusable == ()
        return encoded


class MaskedFederation:
    """Four of them, and what a machine would put together for them."""

    def __init__(self, path: Path, ring: int = 16, parameters: int = PARAMETERS, **secrecy: int) -> None:
        made = AuditedFederation()
        tensors = (Tensor(name="all", shape=(parameters,)),)
        self.charter: Charter = msgspec.structs.replace(
            made.charter,
            model=msgspec.structs.replace(made.charter.model, tensors=tensors),
            averaging=Averaging(mode="secure", weight_cap=CAP),
            secrecy=msgspec.convert({"ring": ring, **secrecy}, Secrecy),
        )
        self.federation = Federation(bytes(range(32)), self.charter)
        self.base = np.random.default_rng(1).normal(size=parameters).astype("<f4")
        self.members = [
            MaskedMember(self.federation, me, path / name, self.base) for me, name in enumerate(NAMES)
        ]

    def roster(self, round_: Round, updates: Sequence[Vector]) -> Roster:
        """Everybody trains, and a proposer names all of them."""
        signed = [member.train(round_, update) for member, update in zip(self.members, updates, strict=True)]
        return self.roster_of(signed)

    def circles(self, roster: Roster) -> Circles:
        return Circles.of_roster(self.federation, roster_digest(0, roster), roster)

    def roster_of(self, signed: Sequence[Signed], attempt: int = 0) -> Roster:
        bodies = [one.body for one in signed if isinstance(one.body, Ready)]
        exponents = compute_exponents(bodies, self.charter.faults)
        return Roster(bodies[0].round, attempt, bodies[0].base, tuple(signed), exponents)

    def commitments(self, roster: Roster, encoded: Sequence[Encoded]) -> tuple[Signed, ...]:
        return tuple(
            Signed(
                member,
                Commitment(
                    federation=self.federation.id,
                    round=roster.round,
                    roster=roster_digest(0, roster),
                    member=member,
                    root=one.payload.root,
                    size=one.payload.size,
                    key=one.key,
                    shards=one.shards,
                    shares=one.shares,
                    seeds=one.seeds,
                ),
                bytes(64),
            )
            for member, one in enumerate(encoded)
        )

    def survivors(
        self, roster: Roster, commitments: Sequence[Signed], staying: Sequence[MemberId]
    ) -> SurvivorSet:
        chosen = tuple(Survivor(member, body_digest(commitments[member].body)) for member in staying)
        return SurvivorSet(roster.round, roster.base, bytes(32), bytes(32), roster_digest(0, roster), chosen)

    def share_archives(self) -> None:
        """Everybody has everybody's masked shards and sums."""
        for member in self.members:
            for other in self.members:
                for source in other.path.glob("archive/[bm]*/**/*"):
                    target = member.path / source.relative_to(other.path)
                    if source.is_file() and not target.exists():
                        target.parent.mkdir(parents=True, exist_ok=True)
                        copyfile(source, target)

    def sum_all(self, survivors: SurvivorSet, commitments: Sequence[Signed]) -> tuple[BlobRef, ...]:
        """Each member sums its shard."""
        staying = tuple(commitments[survivor.member] for survivor in survivors.survivors)
        summed = [
            member.sums.sum_parts(SumParts(survivors, (staying,), member.me)).sum for member in self.members
        ]
        self.share_archives()
        return tuple(summed)

    def crowds(self, roster: Roster, survivors: SurvivorSet, encoded: Sequence[Encoded]) -> tuple[Crowd, ...]:
        """What is left in the sums: from released shares and seeds."""
        staying = [survivor.member for survivor in survivors.survivors]
        circles = self.circles(roster)
        gone = circles.left_out(staying[0], survivors)
        shares = {
            member: {holder + 1: encoded[member].dealt[holder] for holder in staying} for member in staying
        }
        seeds = [
            Seeds(
                roster.round,
                survivors.digest,
                member,
                tuple((one, encoded[member].pair_seeds[one]) for one in gone),
            )
            for member in staying
        ]
        return open_crowds(circles, survivors, shares, seeds)

    def check(self, survivors: SurvivorSet, sums: tuple[BlobRef, ...], mine: Signed | None = None) -> Check:
        return Check(survivors, 1, sums, self.name(survivors, sums), mine)

    def name(self, survivors: SurvivorSet, sums: tuple[BlobRef, ...]) -> Digest:
        return sums_digest(survivors.digest, tuple(ref.root for ref in sums))

    def unmask(
        self,
        roster: Roster,
        survivors: SurvivorSet,
        sums: tuple[BlobRef, ...],
        encoded: Sequence[Encoded],
    ) -> Unmask:
        crowds = self.crowds(roster, survivors, encoded)
        name = self.name(survivors, sums)
        return Unmask(ref_of(self.base.data), survivors, roster, sums, name, crowds)
