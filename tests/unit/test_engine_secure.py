"""The engine in secure mode, among three others in virtual time: liars are named, disks and keys may fail."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from living_federation import House, LivingFederation, in_virtual_time
from structlog.testing import capture_logs

from folkmoot.node.archive import ArchiveError
from folkmoot.node.masked_sums import MaskedSums
from folkmoot.protocol.charter_tables import Averaging, Secrecy, Tensor
from folkmoot.protocol.effects import Check, SumParts
from folkmoot.protocol.events import Checked, PartsSummed

ALICE, BOB, CAROL, DAVE = range(4)

Story = Callable[[LivingFederation], Awaitable[None]]


TENSORS = (Tensor(name="weight", shape=(100, 2)),)
"""Enough values that every member has some to sum."""


def tell(path: Path, story: Story, rounds: int = 2, **terms: object) -> None:
    terms.setdefault("tensors", TENSORS)
    terms["averaging"] = Averaging(mode="secure", weight_cap=100)

    async def begin() -> None:
        await story(LivingFederation(path / "federation", rounds=rounds, **terms))

    in_virtual_time(begin)


class WrongSums(MaskedSums):
    """Adds something to its sums, so that the model would be another one."""

    def sum_parts(self, effect: SumParts) -> PartsSummed:
        done = super().sum_parts(effect)
        if not done.sum.size:
            return done
        data = bytearray(self._archive.read(done.sum))
        data[0] ^= 1
        return replace(done, sum=self._archive.add_bytes(data))


class WrongPrints(MaskedSums):
    """Signs other fingerprints than those of its shards."""

    def check(self, effect: Check) -> Checked:
        done = super().check(effect)
        return replace(done, mine=tuple((first + 1, second) for first, second in done.mine))


def accused(federation: LivingFederation, by: int) -> set[tuple[str, str]]:
    return set(federation.houses[by].watched.accusations)


def test_who_signs_a_wrong_sum_is_named_by_everybody_and_changes_nothing(tmp_path: Path) -> None:
    models = []

    async def story(federation: LivingFederation) -> None:
        await federation.run()
        models.append([record.statement.model for record in federation.chain.records()])

    async def lying(federation: LivingFederation) -> None:
        federation.houses[BOB].sums = WrongSums
        await story(federation)
        honest = [house for house in federation.houses if house.me != BOB]
        named = [accused(federation, house.me) for house in honest]
        assert any(("bob", "wrong sum") in one for one in named)
        assert all({name for name, _ in one} <= {"bob"} for one in named)

    # The model fills few shards: it takes some rounds until a filled one is surely bob's to sum.
    tell(tmp_path / "honest", story, rounds=6)
    tell(tmp_path / "lying", lying, rounds=6)
    assert models[0] == models[1]


def test_who_signs_wrong_fingerprints_is_named(tmp_path: Path) -> None:
    async def story(federation: LivingFederation) -> None:
        federation.houses[CAROL].sums = WrongPrints
        await federation.run()
        named = set.union(*(accused(federation, member) for member in (ALICE, BOB, DAVE)))
        assert named == {("carol", "wrong fingerprint")}

    tell(tmp_path, story)


def test_a_disk_that_fails_costs_a_member_its_part_and_no_more(tmp_path: Path) -> None:
    class Failing(MaskedSums):
        def check(self, effect: Check) -> Checked:
            raise ArchiveError("archive/blobs/ab/abcd: Input/output error")

    async def story(federation: LivingFederation) -> None:
        federation.houses[DAVE].sums = Failing
        await federation.run()
        federation.check()

    with capture_logs() as logs:
        tell(tmp_path, story)
    (said,) = {line["error"] for line in logs if line["event"] == "secure mode: cannot go on"}
    assert "Input/output error" in said


def test_an_update_that_is_gone_costs_its_member_the_round(tmp_path: Path) -> None:
    """It said READY for it, and masks nothing else."""

    async def story(federation: LivingFederation) -> None:
        async def live(house: House) -> None:
            house.on_say = lambda data: remove_update(house)
            await house.live()

        await federation.run({BOB: live})
        federation.check()
        assert all(BOB not in done.participants for done in federation.houses[ALICE].watched.rounds.values())

    with capture_logs() as logs:
        tell(tmp_path, story)
    assert any(line["event"] == "cannot encode my update" for line in logs)


def remove_update(house: House) -> None:
    for path in (house.path / "updates").glob("update-*.f32"):
        path.unlink()


def test_masks_are_erased_with_their_epoch(tmp_path: Path) -> None:
    async def story(federation: LivingFederation) -> None:
        await federation.run()
        federation.check()
        assert all(house.archive.masked_epochs() == [3, 4] for house in federation.houses)

    tell(tmp_path, story, rounds=5, secrecy=Secrecy(epoch=1, dispute_epochs=1))
