"""A member within its own limits: what it cannot send it leaves out, says so, and goes on with the others."""

from pathlib import Path

import pytest
from living_federation import LivingFederation, in_virtual_time

from folkmoot.node.limits import Uploads
from folkmoot.node.train.wire import TrainerError
from folkmoot.protocol.charter_tables import Averaging
from folkmoot.protocol.traffic import upload_bytes

ROUNDS, ALICE, BOB = 3, 0, 1


def test_an_update_counts_with_what_was_sent_before_in_its_round() -> None:
    sent = 1000
    uploads = Uploads(500, lambda: sent)
    uploads.check(1, 500)
    sent += 300
    uploads.check(1, 200)
    with pytest.raises(TrainerError, match=r"limits\.max_upload") as caught:
        uploads.check(1, 201)
    assert caught.value.kind == "limit" and not uploads.are_spent
    sent += 200
    assert uploads.are_spent
    uploads.check(2, 500)  # another round
    Uploads(0, lambda: sent).check(1, 10**12)


@pytest.mark.parametrize("mode", ["open", "secure"])
def test_who_may_not_send_its_update_follows_the_others(tmp_path: Path, mode: str) -> None:
    async def play() -> LivingFederation:
        averaging = Averaging(mode="secure" if mode == "secure" else "open")
        federation = LivingFederation(tmp_path, rounds=ROUNDS, averaging=averaging)
        needed = upload_bytes(federation.charter)
        federation.houses[ALICE].max_upload = 1000 * needed + 10**9
        federation.houses[BOB].max_upload = needed - 1
        await federation.run()
        return federation

    federation = in_virtual_time(play)
    federation.check()
    alice, bob = federation.houses[ALICE].watched, federation.houses[BOB].watched
    assert sorted(bob.rounds) == sorted(alice.rounds) == list(range(1, ROUNDS + 1))
    assert not any(done.included for done in bob.rounds.values())
    assert all(done.included for done in alice.rounds.values())
    assert all("limits.max_upload" in reason for reason in bob.reasons) and bob.reasons
    assert not any(alice.reasons)


@pytest.mark.parametrize("mode", ["open", "secure"])
def test_what_an_update_takes_is_no_less_than_what_is_sent_of_it(tmp_path: Path, mode: str) -> None:
    async def play() -> tuple[int, int]:
        averaging = Averaging(mode="secure" if mode == "secure" else "open", codec="f32")
        federation = LivingFederation(tmp_path, rounds=1, averaging=averaging)
        await federation.run()
        archive = federation.houses[ALICE].archive
        payload = max(path.stat().st_size for path in archive.root.glob("blobs/??/*"))
        return upload_bytes(federation.charter), payload

    estimate, largest = in_virtual_time(play)
    assert largest < estimate < 10 * largest
