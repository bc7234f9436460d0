"""Rule 10: after a restart a node says the same bytes, and goes on where it stopped."""

import pytest
from msgspec.structs import replace
from one_node import (
    ALL,
    FINAL,
    LAST,
    ME,
    NEW_MODEL,
    OTHER,
    ROSTER,
    aggregated,
    arrive,
    commit,
    decide,
    fire,
    in_exchange,
    locked,
    others,
    start,
    town,
    voted,
)
from small_federation import Driver, bodies, frames, mark, of_kind

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.effects import (
    Encode,
    Fit,
    Promote,
    StartTimer,
)
from folkmoot.protocol.events import (
    PeerUp,
    SnapshotReady,
    Started,
)
from folkmoot.protocol.journal import Adopted, Attested, Began, Entry
from folkmoot.protocol.messages import (
    Hello,
    Lock,
    Propose,
    Ready,
    Signed,
    Vote,
    encode,
)
from folkmoot.protocol.typed_data import struct_hash
from folkmoot.testnet.simulation.node import PARAMETERS


def resaid(node: Driver) -> set[bytes]:
    """What a node repeats: its own signed words."""
    effects = fire(node, "announce") + node.hear(Hello(1, 0, 0), OTHER)
    signed = (one.proposal if isinstance(one, Propose) else one for one in frames(effects))
    return {encode(one) for one in signed if isinstance(one, Signed) and one.member == node.me}


@pytest.mark.parametrize("stage", [start, in_exchange, voted, locked])
def test_a_restarted_node_says_the_same_bytes(stage: object) -> None:
    node = stage()  # type: ignore[operator]
    before = {one for one in resaid(node) if b"receipt" not in one}
    again = node.restart()
    effects = again.boot()
    assert not of_kind(effects, Encode)
    after = {one for one in resaid(again) if b"receipt" not in one}
    assert after == before


def test_a_restarted_node_does_not_vote_or_lock_again() -> None:
    again = locked().restart()
    again.boot()
    commit(again, *others(again))
    effects = arrive(again, *town.members)
    effects += again.hear(town.propose(ALL)) + again.hear(town.certificate(ALL)) + aggregated(again)
    assert not bodies(effects, Vote) and not bodies(effects, Lock)
    assert not bodies(again.hear(town.propose(town.survivors(ROSTER, [0, 1, 2]))), Vote)


def test_a_node_that_stopped_between_deciding_and_beginning_goes_on_with_the_next_round() -> None:
    node = locked()
    decide(node)
    cut = next(at for at, entry in enumerate(node.journal) if isinstance(entry, Attested))
    again = Driver(town, ME)
    again.machine.restore(node.journal[: cut + 1], 100.0)
    effects = again.boot()
    assert of_kind(effects, Fit) == [Fit(2, NEW_MODEL)]
    assert [one.model for one in of_kind(effects, Promote)] == [NEW_MODEL]
    assert [entry.round for entry in again.journal if isinstance(entry, Began)] == [2]
    assert resaid(again) >= {encode(town.sign(ME, town.statement(ALL)))}


def test_a_node_that_stopped_between_adopting_and_beginning_goes_on_with_the_next_round() -> None:
    node = start()
    node.hear(FINAL)
    node.handle(SnapshotReady(FINAL.model))
    cut = next(at for at, entry in enumerate(node.journal) if isinstance(entry, Adopted))
    journal: list[Entry] = node.journal[: cut + 1]
    again = Driver(town, ME)
    again.machine.restore(journal, 100.0)
    effects = again.boot()
    assert of_kind(effects, Fit) == [Fit(2, FINAL.model)]
    assert [one.model for one in of_kind(effects, Promote)] == [FINAL.model]


def test_only_the_newest_model_is_promoted_after_a_restart() -> None:
    node = locked()
    decide(node)
    previous = struct_hash(town.statement(ALL))
    node.hear(town.final(replace(town.statement(ALL, mark(70)), round=2, previous=previous)))
    node.handle(SnapshotReady(BlobRef(mark(70), 4 * PARAMETERS)))
    again = node.restart()
    assert [one.round for one in of_kind(again.handle(Started()), Promote)] == [2]


def test_deadlines_begin_anew_after_a_restart() -> None:
    node = in_exchange()
    fire(node, "attempt", after=60.0)
    again = node.restart()
    effects = again.boot()
    for member in (OTHER, LAST):
        effects += again.hear(town.enter(member, 1))
    assert {one.timer.kind for one in of_kind(effects, StartTimer)} == {"announce", "grace", "attempt"}
    assert again.machine.current.attempt == 1


def test_a_deadline_that_passes_while_nothing_may_be_signed_is_not_lost() -> None:
    node = in_exchange().restart()
    node.handle(Started())
    fire(node, "attempt", after=60.0)
    assert node.machine.current.attempt == 0
    for member in others(node):
        node.handle(PeerUp(member))
    assert node.machine.current.attempt == 0
    assert isinstance(town.ready(ME).body, Ready)
