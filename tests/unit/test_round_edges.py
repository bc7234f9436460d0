"""What comes too late, too early or not at all: stale answers, early frames, a slow ledger, failed training."""

from msgspec.structs import replace
from one_node import (
    ALL,
    DIGEST,
    LAST,
    ME,
    NEW_MODEL,
    OTHER,
    PROPOSER,
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
)
from small_federation import BASE, MODEL, SUMS, Driver, SmallFederation, mark, of_kind

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.effects import (
    Blame,
    CancelFit,
    Fetch,
    Fit,
    StartTimer,
)
from folkmoot.protocol.events import (
    Aggregated,
    Encoded,
    FetchFailed,
    FitFailed,
    HeadAdvanced,
    PayloadArrived,
    PayloadServed,
    SnapshotFailed,
    SnapshotReady,
    Timer,
    TimerFired,
    Trained,
    TransferProgress,
)
from folkmoot.protocol.messages import (
    body_digest,
)
from folkmoot.testnet.simulation.node import PARAMETERS

# --- stale and early -----------------------------------------------------------------------------------------------


def test_answers_for_other_rounds_rosters_and_bases_change_nothing() -> None:
    node = in_exchange()
    name = body_digest(town.commitment(OTHER, ROSTER).body)
    ref = BlobRef(mark(1), 8)
    for event in (
        Trained(2, BASE, b"\x00", mark(1), mark(1), mark(1), 5, ()),
        Trained(1, mark(1), b"\x00", mark(1), mark(1), mark(1), 5, ()),
        FitFailed(2, BASE, "late"),
        FitFailed(1, mark(1), "another base"),
        Encoded(2, DIGEST, ref, mark(1)),
        Encoded(1, mark(1), ref, mark(1)),
        PayloadArrived(2, DIGEST, name),
        PayloadArrived(1, mark(1), name),
        PayloadArrived(1, DIGEST, mark(1)),
        FetchFailed(1, mark(1), name, "gone"),
        FetchFailed(1, DIGEST, mark(1), "gone"),
        PayloadServed(mark(1), OTHER),
        TransferProgress(2),
        Aggregated(2, ALL.digest, SUMS, NEW_MODEL),
        SnapshotReady(ref),
        SnapshotFailed(ref, "gone"),
        TimerFired(Timer("attempt", 2, 0)),
        TimerFired(Timer("attempt", 1, 7)),
        HeadAdvanced(0),
    ):
        assert node.handle(event) == [], event
    assert node.machine.current.attempt == 0 and node.machine.phase == "exchange"


def test_frames_of_other_rounds_change_nothing() -> None:
    node = in_exchange()
    for frame in (town.ready(OTHER, round=0), town.vote(OTHER, ALL, round=9), town.roster(round=7)):
        assert node.hear(frame) == []


def test_frames_of_the_next_round_wait_for_it() -> None:
    node = locked()
    early = town.ready(OTHER, round=2, base=MODEL)
    assert node.hear(early, OTHER) == []
    node.hear(replace(town.ready(LAST, round=2, base=MODEL), signature=bytes(64)), LAST)
    assert [one.member for one in of_kind(decide(node), Blame)] == [LAST]
    assert node.machine.current._state.readies == {OTHER: early}


def test_commitments_before_the_roster_are_kept_a_few_per_member_and_only_if_signed() -> None:
    node = start()
    for number in range(10):
        bogus = town.commitment(LAST, ROSTER, roster=mark(number))
        assert node.hear(bogus) == []
    forged = replace(town.commitment(OTHER, ROSTER), signature=bytes(64))
    assert [one.member for one in of_kind(node.hear(forged, LAST), Blame)] == [LAST]
    node.hear(town.commitment(OTHER, ROSTER))
    effects = node.hear(ROSTER)
    assert [one.commitment.member for one in of_kind(effects, Fetch)] == [OTHER]


def test_an_unfit_early_commitment_is_its_signers_fault() -> None:
    node = start()
    node.hear(town.commitment(OTHER, ROSTER, size=1), LAST)
    assert [one.member for one in of_kind(node.hear(ROSTER, PROPOSER), Blame)] == [OTHER]


def test_a_fault_that_comes_by_gossip_is_nobodys() -> None:
    node = start()
    forged = replace(town.ready(OTHER), signature=bytes(64))
    assert [one.member for one in of_kind(node.hear(forged), Blame)] == [None]
    assert [one.member for one in of_kind(node.hear(forged, LAST), Blame)] == [LAST]


# --- the ledger ----------------------------------------------------------------------------------------------------


def test_no_node_runs_further_ahead_of_the_record_than_the_charter_allows() -> None:
    careful = SmallFederation(4, max_ahead=1)
    node = Driver(careful, ME)
    node.boot()
    effects = node.hear(careful.final(careful.statement(careful.survivors(careful.roster()))))
    effects += node.handle(SnapshotReady(BlobRef(MODEL, 4 * PARAMETERS)))
    assert node.machine.phase == "waiting for the ledger"
    assert not of_kind(effects, Fit)
    early = careful.ready(OTHER, round=2, base=MODEL)
    assert node.hear(early) == []
    effects = node.handle(HeadAdvanced(1))
    assert of_kind(effects, Fit) == [Fit(2, BlobRef(MODEL, 4 * PARAMETERS))]
    assert node.machine.current._state.readies == {OTHER: early}


# --- training ------------------------------------------------------------------------------------------------------


def test_a_failed_training_is_tried_again_after_a_while() -> None:
    node = Driver(town, ME)
    node.boot()
    effects = node.handle(FitFailed(1, BASE, "out of memory"))
    assert [one.timer for one in of_kind(effects, StartTimer)] == [Timer("refit", 1, 0)]
    assert node.machine.phase == "training failed"
    assert len(of_kind(fire(node, "refit"), Fit)) == 1
    node.train()
    assert node.machine.phase == "ready"
    assert fire(node, "refit") == []


def test_training_that_comes_to_nothing_is_cancelled() -> None:
    node = Driver(town, ME)
    node.boot()
    node.hear(ROSTER)
    three = town.survivors(ROSTER, others(node))
    for frame in (town.certificate(three, members=others(node)), town.opening(three, members=others(node))):
        node.hear(frame)
    commit(node, *others(node))
    arrive(node, *others(node))
    assert of_kind(aggregated(node, three), CancelFit) == [CancelFit(1)]
