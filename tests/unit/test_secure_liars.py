"""Members of a secure federation that lie, each in one way: named by the others, and the model is not touched.

Real engines, disks, keys and masks (`living_federation`), in virtual time.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from lattice import add_unseen
from living_federation import House, LivingFederation, in_virtual_time, signed_within
from structlog.testing import capture_logs

from folkmoot.node.archive import Archive
from folkmoot.node.masked_sums import MaskedSums
from folkmoot.node.masking import Masking
from folkmoot.node.network import serving
from folkmoot.node.rooms import Rooms
from folkmoot.node.train.vectors import read_vector
from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.charter_tables import Averaging
from folkmoot.protocol.effects import Check, SumParts
from folkmoot.protocol.events import Checked, Encoded, PartsSummed
from folkmoot.protocol.messages import Roster, decode_frame
from folkmoot.protocol.secure.fingerprint import Challenge, challenge_seed
from folkmoot.protocol.types import Digest, MemberId, Round

BOB = 1
NAME = "bob"
ROUNDS = 4

Lie = Callable[[Rooms], Rooms]


class AddsOne(MaskedSums):
    """An owner whose sums are off by one in one coordinate."""

    def sum_parts(self, effect: SumParts) -> PartsSummed:
        honest = super().sum_parts(effect)
        data = bytearray(self._archive.read(honest.sum))
        if not data:  # the model is so small that some shards are empty
            return honest
        data[0] ^= 1
        return replace(honest, sum=self._archive.add_bytes(data))


class AddsOrthogonally(MaskedSums):
    """An owner that adds what the challenge of the round before would not have seen; it cannot know the next one."""

    known: ClassVar[Challenge | None] = None

    def sum_parts(self, effect: SumParts) -> PartsSummed:
        honest = super().sum_parts(effect)
        data = self._archive.read(honest.sum)
        challenge = AddsOrthogonally.known
        if challenge is None or not data:
            return honest
        wrong = add_unseen(self._layout, challenge, effect.shard, data)
        of_sum = [challenge.of_sum(effect.shard, partial(list, [one])) for one in (data, wrong)]
        assert wrong != data and of_sum[0] == of_sum[1]
        return replace(honest, sum=self._archive.add_bytes(wrong))

    def check(self, effect: Check) -> Checked:
        roots = [ref.root for ref in effect.sums]
        AddsOrthogonally.known = Challenge(self._layout, challenge_seed(effect.survivors.digest, roots))
        return super().check(effect)


class SignsWrongly(MaskedSums):
    """A survivor whose fingerprint is not that of its shard."""

    def check(self, effect: Check) -> Checked:
        honest = super().check(effect)
        (first, second), *rest = honest.mine
        return replace(honest, mine=((first ^ 1, second), *rest))


class DealsBadly(Masking):
    """A dealer that gives everybody else the share of somebody else."""

    def encode(
        self, round_: Round, roster: Digest, terms: Roster, update: Path
    ) -> tuple[Encoded, tuple[MemberId, ...]]:
        encoded, unusable = super().encode(round_, roster, terms, update)
        place = [ready.member for ready in terms.readies].index(BOB)
        others = encoded.dealt[1:] + encoded.dealt[:1]
        dealt = tuple(encoded.dealt[at] if at == place else share for at, share in enumerate(others))
        return replace(encoded, dealt=dealt), unusable


class ServesAnother(Masking):
    """A sender whose masked shards are not those that it committed to."""

    def encode(
        self, round_: Round, roster: Digest, terms: Roster, update: Path
    ) -> tuple[Encoded, tuple[MemberId, ...]]:
        encoded, unusable = super().encode(round_, roster, terms, update)
        store = self._archive.masked(self._charter.epoch_of(round_))
        for root in encoded.shards:
            place = store.place(root)
            data = bytearray(place.read_bytes() if place.is_file() else b"")
            if data:
                data[0] ^= 1
                place.write_bytes(data)
        return encoded, unusable


def lying(house: House, lie: type[MaskedSums] | type[Masking]) -> Callable[..., Rooms]:
    honest = house._rooms
    federation, archive = house.federation, house.archive

    def rooms(*arguments: object) -> Rooms:
        made: Rooms = honest(*arguments)  # type: ignore[arg-type]
        if issubclass(lie, MaskedSums):
            return replace(made, sums=lie(federation.charter, archive, house.models))
        updates = house.path / "updates"
        return replace(
            made, masking=lie(federation.made.federation, BOB, made.journal, Archive(archive.root), updates)
        )

    return rooms


async def expected_model(federation: LivingFederation, path: Path, round_: Round) -> np.ndarray:  # type: ignore[type-arg]
    """A round's model, from the updates that its participants' trainers make once more."""
    honest = federation.houses[0]
    before = honest.models.read(honest.watched.rounds[round_ - 1].model) if round_ > 1 else federation.initial
    (path / "base").write_bytes(before)
    updates = []
    for member in honest.watched.rounds[round_].participants:
        await federation.houses[member].trainer.fit(round_, path / "base", path / "update")
        updates.append(read_vector(path / "update", federation.charter.model.parameters).astype(np.float64))
    return np.asarray(np.frombuffer(before, dtype="<f4") + np.mean(updates, axis=0))


def tell(path: Path, lie: type[MaskedSums] | type[Masking], survives: bool) -> LivingFederation:
    """Rounds with a lying Bob, who owns another shard in each; checks what must hold whoever lies."""
    told = []

    async def story() -> None:
        federation = LivingFederation(
            path / "federation", rounds=ROUNDS, averaging=Averaging(mode="secure", weight_cap=1)
        )
        told.append(federation)
        federation.houses[BOB]._rooms = lying(federation.houses[BOB], lie)  # type: ignore[method-assign]
        await federation.run()
        honest = [house for house in federation.houses if house.me != BOB]
        assert (BOB in honest[0].watched.rounds[1].participants) == survives
        for round_, promote in honest[0].watched.rounds.items():
            model = np.frombuffer(honest[0].models.read(promote.model), dtype="<f4")
            assert np.abs(model - await expected_model(federation, path, round_)).max() < 1e-2
        assert len({house.watched.rounds[ROUNDS].model.root for house in honest}) == 1

    in_virtual_time(story)
    return told[0]


def honest_houses(federation: LivingFederation) -> list[House]:
    return [house for house in federation.houses if house.me != BOB]


@pytest.mark.parametrize(
    ("lie", "kind", "survives"),
    [
        (AddsOne, "wrong sum", True),
        (AddsOrthogonally, "wrong sum", True),
        (SignsWrongly, "wrong fingerprint", True),
        (DealsBadly, "bad share", False),
    ],
)
def test_a_liar_is_named_and_its_word_kept(
    lie: type[MaskedSums] | type[Masking], kind: str, survives: bool, tmp_path: Path
) -> None:
    with capture_logs() as logs:
        federation = tell(tmp_path, lie, survives)
    named = [(NAME, kind) in house.watched.accusations for house in honest_houses(federation)]
    assert sum(named) >= 2
    lines = [line for line in logs if line.get("event") == "misbehaviour" and line.get("member") == NAME]
    assert lines
    for line in lines:
        proof = bytes.fromhex(str(line["proof"]))
        assert any(house.archive.path(ref_of(proof).root) for house in honest_houses(federation))
        assert BOB in {signed.member for signed in signed_within(decode_frame(proof))}
    accused = {name for house in honest_houses(federation) for name, _ in house.watched.accusations}
    assert accused == {NAME}


def test_shards_that_are_not_those_committed_to_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_read_chunk", lambda file, length, *_: os.pread(file, length, 0))
    federation = tell(tmp_path, ServesAnother, survives=False)
    # Each owner of a shard fetches bob's; in some federations a house owns none that is filled.
    refusing = [house for house in honest_houses(federation) if house.once.counts().get("bad blob")]
    assert len(refusing) >= 2


class LosesSums(MaskedSums):
    """A member whose disk loses a sum before it is checked; no liar, but it used to be stuck until a restart."""

    lost = 0

    def check(self, effect: Check) -> Checked:
        if self.lost < 2:
            self.lost += 1
            for ref in effect.sums:
                self._archive.place(ref.root).unlink(missing_ok=True)
        return super().check(effect)


def test_a_member_that_loses_sums_fetches_them_again(tmp_path: Path) -> None:
    with capture_logs() as logs:
        federation = tell(tmp_path, LosesSums, survives=True)
    assert any("cannot go on" in str(line.get("event")) for line in logs)
    assert not any(house.watched.accusations for house in federation.houses)
    assert BOB in federation.houses[0].watched.rounds[ROUNDS].participants


class DamagedOnce(Masking):
    """A member whose disk damages its own masked shards once, as soon as they are committed to; no liar either."""

    damaged: ClassVar[dict[Digest, tuple[Digest, ...]]] = {}
    again = 0

    def encode(
        self, round_: Round, roster: Digest, terms: Roster, update: Path
    ) -> tuple[Encoded, tuple[MemberId, ...]]:
        encoded, unusable = super().encode(round_, roster, terms, update)
        if roster in self.damaged:
            assert encoded.shards == self.damaged[roster]
            DamagedOnce.again += 1
            return encoded, unusable
        self.damaged[roster] = encoded.shards
        store = self._archive.masked(self._charter.epoch_of(round_))
        for place in filter(Path.is_file, map(store.place, encoded.shards)):
            place.write_bytes(bytes(place.stat().st_size))
        return encoded, unusable


def test_a_member_whose_own_shards_are_damaged_makes_them_again(tmp_path: Path) -> None:
    """When a peer asks for one (who owns no other), and when it needs one itself."""
    federation = tell(tmp_path, DamagedOnce, survives=True)
    assert DamagedOnce.again >= ROUNDS
    for house in federation.houses:
        assert not house.watched.accusations
        assert "bad blob" not in house.once.counts()
