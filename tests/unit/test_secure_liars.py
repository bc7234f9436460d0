"""Members of a secure federation that lie, each in one way: named by the others, and the model is not touched.

Real engines, disks, keys and masks (`living_federation`), in virtual time.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from living_federation import House, LivingFederation, in_virtual_time
from structlog.testing import capture_logs

from folkmoot.node.archive import Archive
from folkmoot.node.masked_sums import MaskedSums
from folkmoot.node.masking import Masking
from folkmoot.node.rooms import Rooms
from folkmoot.node.train.vectors import read_vector
from folkmoot.protocol.charter import Averaging
from folkmoot.protocol.effects import Check, SumParts
from folkmoot.protocol.events import Checked, Encoded, PartsSummed
from folkmoot.protocol.messages import Roster
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


async def expected_model(federation: LivingFederation, path: Path, members: list[House]) -> np.ndarray:  # type: ignore[type-arg]
    """The first model, from the updates that these members' trainers make once more."""
    (path / "base").write_bytes(federation.initial)
    updates = []
    for house in members:
        await house.trainer.fit(1, path / "base", path / "update")
        updates.append(read_vector(path / "update", federation.charter.model.parameters).astype(np.float64))
    return np.asarray(federation.made.base + np.mean(updates, axis=0))


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
        first = honest[0].watched.rounds[1]
        assert (BOB in first.participants) == survives
        model = np.frombuffer(honest[0].models.read(first.model), dtype="<f4")
        expected = await expected_model(federation, path, federation.houses if survives else honest)
        assert np.abs(model - expected).max() < 1e-2
        assert len({house.watched.rounds[ROUNDS].model.root for house in honest}) == 1

    in_virtual_time(story)
    return told[0]


def honest_houses(federation: LivingFederation) -> list[House]:
    return [house for house in federation.houses if house.me != BOB]


@pytest.mark.parametrize(
    ("lie", "kind", "survives"),
    [
        (AddsOne, "wrong sum", True),
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
    assert any(line.get("event") == "misbehaviour" and line.get("member") == NAME for line in logs)
    accused = {name for house in honest_houses(federation) for name, _ in house.watched.accusations}
    assert accused == {NAME}


def test_shards_that_are_not_those_committed_to_are_refused(tmp_path: Path) -> None:
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
