"""A node that fell behind finishes with the others, or skips to their model."""

from msgspec.structs import replace
from one_node import (
    ALL,
    FINAL,
    LAST,
    ME,
    OTHER,
    PROPOSER,
    ROSTER,
    aggregated,
    arrive,
    commit,
    decide,
    encoded,
    fire,
    in_exchange,
    locked,
    others,
    start,
    town,
    voted,
)
from small_federation import Driver, bodies, frames, mark, of_kind

from folkmoot.protocol.effects import (
    Aggregate,
    Blame,
    CancelFit,
    Effect,
    Encode,
    Fetch,
    FetchSnapshot,
    Fit,
    Persist,
    Promote,
)
from folkmoot.protocol.events import (
    PayloadArrived,
    SnapshotFailed,
    SnapshotReady,
)
from folkmoot.protocol.journal import Adopted, Began
from folkmoot.protocol.messages import (
    Final,
    Frame,
    Hello,
    Receipt,
    Roster,
    Signed,
    Statement,
    Vote,
    body_digest,
    roster_digest,
)


def test_a_node_outside_the_roster_finishes_once_a_quorum_has_voted() -> None:
    """Its attestation may be the one that lacks; without this, one crash and one late READY stop a federation."""
    three = town.roster(sorted((PROPOSER, OTHER, LAST)))
    survivors = town.survivors(three)
    node = start()
    node.hear(three)
    frames_of_three = [town.commitment(member, three) for member in (PROPOSER, OTHER, LAST)]
    for frame in frames_of_three:
        assert not of_kind(node.hear(frame), Fetch)
    effects = node.hear(town.certificate(survivors, members=sorted((PROPOSER, OTHER, LAST))))
    assert {one.commitment.member for one in of_kind(effects, Fetch)} == {PROPOSER, OTHER, LAST}
    assert isinstance(three.body, Roster)
    digest = roster_digest(three.member, three.body)
    for frame in frames_of_three:
        effects = node.handle(PayloadArrived(1, digest, body_digest(frame.body)))
        assert not bodies(effects, Receipt)
    assert of_kind(effects, Aggregate)
    aggregated(node, survivors)
    effects = node.hear(town.opening(survivors, members=sorted((PROPOSER, OTHER, LAST))))
    assert bodies(effects, Statement) == [town.statement(survivors)]
    assert not of_kind(effects, Promote)[0].included


def test_a_roster_of_another_attempt_is_taken_once_a_quorum_vouches_for_it() -> None:
    node = start()
    attempt = next(one for one in (2, 3) if town.proposer(one) != node.me)
    for member in (PROPOSER, OTHER):
        node.hear(town.enter(member, attempt))
    assert node.hear(ROSTER) == []
    node.hear(town.opening(ALL, members=others(node)))
    effects = node.hear(ROSTER)
    assert of_kind(effects, Persist) and not of_kind(effects, Encode)
    assert len(of_kind(commit(node, *others(node)), Fetch)) == 3


def test_the_certified_one_of_two_commitments_is_fetched_even_if_the_other_came_first() -> None:
    node = in_exchange()
    second = town.commitment(LAST, ROSTER, root=mark(77))
    assert not of_kind(node.hear(second), Fetch)
    named = tuple(
        replace(one, commitment=body_digest(second.body)) if one.member == LAST else one
        for one in ALL.survivors
    )
    survivors = replace(ALL, survivors=named)
    node.hear(town.certificate(survivors, members=others(node)))
    (fetch,) = of_kind(node.hear(second), Fetch)
    assert fetch.commitment == second


def test_who_is_shown_a_finished_round_fetches_its_model_and_goes_on() -> None:
    node = start()
    assert of_kind(node.hear(FINAL), FetchSnapshot) == [FetchSnapshot(FINAL.model, tuple(others(node)))]
    assert node.machine.phase == "catching up"
    effects = node.handle(SnapshotReady(FINAL.model))
    assert [type(entry) for one in of_kind(effects, Persist) for entry in one.entries] == [Adopted, Began]
    assert of_kind(effects, CancelFit) == [CancelFit(1)]
    assert of_kind(effects, Fit) == [Fit(2, FINAL.model)]
    assert Hello(2, 0, 1) in frames(effects)
    assert not bodies(effects, Statement)  # nobody attests a model that it did not compute


def test_nothing_is_signed_while_a_model_is_fetched_and_a_failure_is_no_end() -> None:
    node = in_exchange()
    node.hear(FINAL)
    assert not bodies(node.hear(town.propose(ALL), PROPOSER), Vote)
    effects = node.handle(SnapshotFailed(FINAL.model, "nobody has it"))
    assert bodies(effects, Vote) == [town.vote(ME, ALL).body]
    assert of_kind(fire(node, "announce"), FetchSnapshot)


def test_a_round_about_to_be_decided_here_is_not_thrown_away() -> None:
    node = voted()
    assert not of_kind(node.hear(FINAL), FetchSnapshot)
    assert of_kind(fire(node, "announce"), FetchSnapshot)


def test_attestations_one_by_one_show_a_finished_round_too() -> None:
    node = start()
    for member in (PROPOSER, OTHER, LAST):
        assert node.hear(town.sign(member, town.statement(ALL))) == []
    assert of_kind(fire(node, "announce"), FetchSnapshot)


def test_a_final_of_a_huge_round_needs_its_quorum_like_any_other() -> None:
    node = start()
    far = replace(town.statement(ALL), round=2**62)
    assert of_kind(node.hear(town.final(far, [0, 1]), OTHER), Blame)
    assert of_kind(node.hear(town.final(far)), FetchSnapshot)


def test_a_late_peer_is_shown_all_that_it_needs_to_finish_the_round_itself() -> None:
    node = locked()
    decide(node)
    shown = frames(node.hear(Hello(1, 0, 0), LAST))
    kinds = [type(one.body).__name__ if isinstance(one, Signed) else type(one).__name__ for one in shown]
    assert kinds == ["Opening", "Certificate", "Roster", *["Commitment"] * 4, "Statement"]
    for member in (OTHER, PROPOSER):
        node.hear(town.sign(member, town.statement(ALL)))
    assert isinstance(frames(node.hear(Hello(1, 0, 0), LAST))[-1], Final)
    behind = frames(node.hear(Hello(2, 0, 0), LAST))
    assert {type(one.body).__name__ for one in behind if isinstance(one, Signed)} == {"Statement"}


def shown_to(node: Driver, shown: list[Frame]) -> list[Effect]:
    return [effect for frame in shown for effect in node.hear(frame, OTHER)]


def test_and_with_that_it_does() -> None:
    ahead = locked()
    decide(ahead)
    shown = frames(ahead.hear(Hello(1, 0, 0), LAST))
    late = start(LAST)
    late.hear(ROSTER)
    encoded(late)
    assert len(of_kind(shown_to(late, shown), Fetch)) == 3
    arrive(late, *others(late))
    assert bodies(aggregated(late), Statement) == [town.statement(ALL)]


def test_who_hears_that_others_are_further_asks_at_once_and_once() -> None:
    """Not only with its own next announcement, which may be 16 s away: rounds take a second or two."""
    node = start()
    asked = [one for one in frames(node.hear(Hello(2, 0, 1), OTHER)) if isinstance(one, Hello)]
    assert asked == [Hello(1, 0, 0)]
    assert not [one for one in frames(node.hear(Hello(2, 3, 1), OTHER)) if isinstance(one, Hello)]
    assert [one for one in frames(node.hear(Hello(3, 0, 2), OTHER)) if isinstance(one, Hello)]
    assert [one for one in frames(node.hear(Hello(3, 0, 2), LAST)) if isinstance(one, Hello)]


def test_who_is_no_further_is_asked_nothing() -> None:
    node = start()
    assert not [one for one in frames(node.hear(Hello(1, 4, 0), OTHER)) if isinstance(one, Hello)]
