"""Rule 7 and the end of rule 6: when an attempt is given up, and what is proposed again."""

import pytest
from one_node import (
    ALL,
    LAST,
    ME,
    OTHER,
    PROPOSER,
    arrive,
    commit,
    encoded,
    fire,
    hear_ready,
    in_exchange,
    others,
    position,
    start,
    town,
    voted,
)
from small_federation import Driver, bodies, frames, of_kind

from folkmoot.protocol.effects import (
    Effect,
    Encode,
    Persist,
    Send,
    StartTimer,
)
from folkmoot.protocol.events import (
    PeerDown,
    PeerHeard,
    PeerSilent,
    Timer,
    TransferProgress,
)
from folkmoot.protocol.messages import (
    Enter,
    Propose,
    Roster,
    encode,
)

# --- attempts (rule 7) ---------------------------------------------------------------------------------------------


def test_f_plus_one_members_ahead_take_the_others_along() -> None:
    node = in_exchange()
    assert node.hear(town.enter(LAST, 5)) == []
    effects = node.hear(town.enter(OTHER, 2))
    assert node.machine.current.attempt == 2
    assert set(map(encode, bodies(effects, Enter))) == {encode(Enter(1, 2))}
    persisted = next(at for at, one in enumerate(effects) if isinstance(one, Persist))
    assert persisted < position(effects, Send, town.enter(ME, 2))


def test_one_member_cannot_drag_the_others_along_however_far_it_goes() -> None:
    node = in_exchange()
    for attempt in (1, 7, 2**32 - 1):
        node.hear(town.enter(LAST, attempt))
    assert node.machine.current.attempt == 0


def test_a_time_out_ends_the_attempt_and_tells_the_highest_certificate() -> None:
    node = voted()
    for member in (PROPOSER, OTHER):
        node.hear(town.vote(member, ALL))
    effects = fire(node, "attempt", after=60.0)
    assert node.machine.current.attempt == 1
    assert town.certificate(ALL, members=sorted((ME, OTHER, PROPOSER))) in frames(effects)


def test_without_a_quorum_of_connections_an_attempt_is_not_given_up() -> None:
    node = in_exchange()
    node.handle(PeerDown(OTHER))
    node.handle(PeerDown(LAST))
    effects = fire(node, "attempt", after=60.0)
    assert node.machine.current.attempt == 0
    assert [one.timer for one in of_kind(effects, StartTimer)] == [Timer("attempt", 1, 0)]


def test_arriving_bytes_hold_the_time_out_back_but_a_drip_does_not_hold_it_for_ever() -> None:
    node = in_exchange()
    asked = 0
    while node.machine.current.attempt == 0:
        node.handle(TransferProgress(1), after=7.0)
        fire(node, "attempt", after=1.0)
        asked += 1
        assert asked < 100
    assert asked > 2


def test_a_proposer_that_dies_before_it_proposes_is_skipped_at_once() -> None:
    node = start()
    hear_ready(node, *others(node))
    node.handle(PeerDown(PROPOSER))
    assert node.machine.current.attempt == 1


def test_a_proposer_that_is_not_ready_after_the_grace_is_skipped() -> None:
    node = start()
    hear_ready(node, OTHER, LAST)
    assert node.machine.current.attempt == 0
    fire(node, "grace")
    assert node.machine.current.attempt == 1


def test_the_deadlines_of_an_attempt_run_only_once_a_quorum_is_in_it() -> None:
    """Members with other clocks and time-outs would chase each other through the attempts and never meet in one."""
    node = in_exchange()
    effects = fire(node, "attempt", after=60.0)
    assert node.machine.current.attempt == 1
    assert not of_kind(effects, StartTimer)
    assert not of_kind(node.hear(town.enter(OTHER, 1)), StartTimer)
    timers = [one.timer for one in of_kind(node.hear(town.enter(LAST, 1)), StartTimer)]
    assert timers == [Timer("grace", 1, 1), Timer("attempt", 1, 1)]


def test_a_later_attempts_roster_and_proposal_wait_one_of_each_and_only_from_its_proposer() -> None:
    node = in_exchange()
    later = town.roster(attempt=1)
    liar = next(member for member in others(node) if member != later.member)
    assert node.hear(town.sign(liar, later.body)) == []
    assert node.hear(later) == []
    assert node.hear(town.roster([0, 1, 2], attempt=1)) == []
    for member in (PROPOSER, OTHER):
        effects = node.hear(town.enter(member, 1))
    if later.member != ME:
        assert len(of_kind(effects, Encode)) == 1
        assert node.machine.phase == "exchange"


def test_rosters_absurdly_far_ahead_are_not_kept() -> None:
    node = in_exchange()
    attempts = node.machine.current._attempts
    for attempt in range(1, 200):
        node.hear(town.roster(attempt=attempt))
    assert max(attempts._later) == 64 and len(attempts._later) == 64


# --- the end of rule 6: proposing again ----------------------------------------------------------------------------


def proposer_with_certificates() -> Driver:
    """The next attempt's proposer holds ALL's payloads; the highest certificate is for a set that it cannot get."""
    node = in_exchange(town.proposer(1))
    other = town.survivors(town.roster([0, 1, 2]))
    node.hear(town.certificate(ALL, 0, others(node)))
    node.hear(town.certificate(other, 2, others(node)))
    return node


def test_the_highest_certificate_whose_payloads_are_here_is_proposed_again_with_itself() -> None:
    node = proposer_with_certificates()
    effects: list[Effect] = []
    for member in others(node)[:2]:
        effects += node.hear(town.enter(member, 1))
    sent = [one for one in frames(effects) if isinstance(one, Propose)]
    assert len(sent) == 1
    assert sent[0].survivors == ALL
    assert sent[0].certificate is not None and sent[0].certificate.survivors == ALL
    assert not bodies(effects, Roster)


# --- members that are connected and say nothing ---------------------------------------------------------------------


def leave_out(node: Driver, rounds: int) -> None:
    """So many rounds went on without LAST, though it could be heard."""
    context = node.machine._context
    for _ in range(rounds):
        context.long_waits.give({LAST})
        context.note_participants((ME, PROPOSER, OTHER))


@pytest.mark.parametrize(("missed", "is_long"), [(3, False), (4, True), (5, False), (7, False), (8, True)])
def test_a_silent_member_holds_up_ever_fewer_rounds_and_then_ends_no_attempt(
    missed: int, is_long: bool
) -> None:
    node = start()
    schedule = node.town.charter.schedule
    leave_out(node, missed)
    timers = {one.timer.kind: one.delay for one in of_kind(hear_ready(node, PROPOSER, OTHER), StartTimer)}
    assert timers["grace"] == (schedule.grace_max if is_long else schedule.grace_min)
    assert timers["attempt"] > timers["grace"]
    assert timers["attempt"] == schedule.attempt_min + (schedule.grace_max if is_long else 0)


def test_whose_heartbeats_are_missing_is_not_waited_for_until_it_is_heard_again() -> None:
    node = start(PROPOSER)
    node.handle(PeerSilent(LAST))
    node.handle(PeerHeard(LAST))
    assert not bodies(hear_ready(node, ME, OTHER), Roster)
    assert bodies(node.handle(PeerSilent(LAST)), Roster)


@pytest.mark.parametrize("is_ready", [True, False])
def test_a_silent_proposer_is_skipped_unless_it_has_been_ready(is_ready: bool) -> None:
    node = start()
    hear_ready(node, OTHER, *([PROPOSER] if is_ready else [LAST]))
    node.handle(PeerSilent(PROPOSER))
    assert node.machine.current.attempt == (0 if is_ready else 1)


def test_the_long_wait_of_a_slow_member_is_kept_for_a_round_in_which_it_can_be_heard() -> None:
    node = start()
    schedule = node.town.charter.schedule
    leave_out(node, 4)
    node.handle(PeerSilent(LAST))
    timers = {one.timer.kind: one.delay for one in of_kind(hear_ready(node, PROPOSER, OTHER), StartTimer)}
    assert timers["grace"] == schedule.grace_min
    waits = node.machine._context.long_waits
    waits.note(town.members, (ME, PROPOSER, OTHER))
    assert waits.give({LAST}) == {LAST}
    waits.note(town.members, (ME, PROPOSER, OTHER))
    assert waits.give({LAST}) == set()


def test_a_long_wait_that_has_begun_goes_on_through_missing_heartbeats() -> None:
    node = start(PROPOSER)
    leave_out(node, 4)
    hear_ready(node, ME, OTHER)
    assert not bodies(node.handle(PeerSilent(LAST)), Roster)
    assert bodies(node.handle(PeerDown(LAST)), Roster)


@pytest.mark.parametrize(("missed", "is_long"), [(0, False), (4, True), (5, False), (8, True)])
def test_a_payload_on_a_slow_line_is_waited_for_in_ever_fewer_rounds_too(missed: int, is_long: bool) -> None:
    node = start(PROPOSER)
    schedule = node.town.charter.schedule
    leave_out(node, missed)
    hear_ready(node, *others(node))
    encoded(node)
    commit(node, *others(node))
    timers = {one.timer.kind: one.delay for one in of_kind(arrive(node, ME, OTHER), StartTimer)}
    assert timers["exchange"] == (schedule.grace_max if is_long else schedule.grace_min)
