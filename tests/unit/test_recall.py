"""Rule 10: who lost its journal, or an end of it, learns that from others before it signs anything."""

import pytest
from small_federation import BASE, Driver, SmallFederation, frames, mark, of_kind

from folkmoot.protocol.ballot import Ballot
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.context import Context
from folkmoot.protocol.effects import Blame, Persist
from folkmoot.protocol.errors import Reject
from folkmoot.protocol.events import HeadAdvanced, PeerUp, Started
from folkmoot.protocol.journal import Began, Said, SatOut, Voted
from folkmoot.protocol.messages import MAX_FRAME, Final, Frame, Hello, Ready, Recall, Recalled, Signed, encode
from folkmoot.protocol.recall import SHOWN, SIT_OUT, RecallGate, answer
from folkmoot.protocol.signing import FakeSigner

town = SmallFederation(4)
ROSTER = town.roster()
ALL = town.survivors(ROSTER)
ME = 0
MY_VOTE = town.vote(ME, ALL)


@pytest.fixture
def context() -> Context:
    return Context(town.federation, ME, FakeSigner(ME), town.verifier)


@pytest.fixture
def gate(context: Context) -> RecallGate:
    return RecallGate(context)


def test_q_minus_one_answers_open_the_gate(gate: RecallGate) -> None:
    gate.on_recalled(1, Recalled(0, ()))
    gate.on_recalled(1, Recalled(0, ()))
    assert not gate.done
    gate.on_recalled(2, Recalled(0, ()))
    assert gate.unknown is None
    assert gate.done


def test_what_the_journal_holds_is_no_news(gate: RecallGate) -> None:
    gate.remember(Voted(MY_VOTE, ALL, ()))
    gate.on_recalled(1, Recalled(0, (MY_VOTE,)))
    assert gate.unknown is None


def test_what_the_journal_lacks_is_unknown(gate: RecallGate) -> None:
    gate.remember(Began(1, BlobRef(BASE, 32), town.federation.id))
    gate.remember(Voted(town.vote(1, ALL), ALL, ()))  # somebody else's
    gate.on_recalled(1, Recalled(7, (MY_VOTE,)))
    assert gate.unknown == MY_VOTE and gate.highest == 7


def test_another_vote_in_the_same_place_is_unknown(gate: RecallGate) -> None:
    gate.remember(Voted(MY_VOTE, ALL, ()))
    gate.on_recalled(1, Recalled(0, (town.vote(ME, town.survivors(ROSTER, [0, 1, 2])),)))
    assert gate.unknown is not None


@pytest.mark.parametrize("signed", [town.ready(ME), town.receipt(ME, ROSTER, [0]), town.enter(ME, 3)])
def test_what_is_not_journalled_by_rule_cannot_make_a_member_sit_out(
    gate: RecallGate, signed: Signed
) -> None:
    gate.on_recalled(1, Recalled(0, (signed,)))
    assert gate.unknown is None


def test_rounds_that_the_journal_has_forgotten_do_not_matter(gate: RecallGate) -> None:
    gate.remember(Began(5, BlobRef(BASE, 32), mark(1)))
    gate.remember(Began(6, BlobRef(BASE, 32), mark(2)))
    gate.on_recalled(1, Recalled(5, (town.vote(ME, ALL, round=4),)))
    assert gate.unknown is None
    gate.on_recalled(1, Recalled(5, (town.vote(ME, ALL, round=5),)))
    assert gate.unknown is not None


def test_others_signatures_and_forgeries_are_rejected_and_do_not_count(gate: RecallGate) -> None:
    with pytest.raises(Reject, match="somebody else's"):
        gate.on_recalled(1, Recalled(0, (town.vote(1, ALL),)))
    with pytest.raises(Exception, match="bad signature"):
        gate.on_recalled(1, Recalled(0, (Signed(ME, MY_VOTE.body, bytes(64)),)))
    gate.on_recalled(2, Recalled(0, ()))
    assert not gate.done


def test_an_answer_shows_what_the_asker_signed_the_latest_first_if_it_is_too_much(context: Context) -> None:
    for attempt in range(2 * SHOWN):
        context.note(town.vote(1, ALL, attempt))
        context.note(town.vote(2, ALL, attempt))
    shown = answer(context, 1, 3)
    assert shown.round == 3
    assert shown.signed == tuple(town.vote(1, ALL, attempt) for attempt in range(SHOWN, 2 * SHOWN))


def test_an_answer_fits_into_a_frame_even_with_large_rosters(context: Context) -> None:
    large = town.roster(exponents=bytes(60_000))
    for attempt in range(8):
        context.register.note(town.sign(1, town.roster(exponents=bytes(60_000), attempt=attempt).body))
    shown = answer(context, 1, 0)
    assert len(encode(large)) > MAX_FRAME / 5
    assert 0 < len(shown.signed) < 8 and len(encode(shown)) <= MAX_FRAME
    assert shown.signed[-1].body.attempt == 7  # type: ignore[union-attr]


# --- in the machine -----------------------------------------------------------------------------------------------


def test_a_started_node_asks_everybody_and_signs_nothing_until_they_answer() -> None:
    node = Driver(town, ME)
    effects = node.handle(Started()) + node.handle(PeerUp(1)) + node.train()
    assert [one for one in frames(effects) if isinstance(one, Recall)]
    assert not [one for one in frames(effects) if isinstance(one, Signed)]
    assert node.machine.phase == "recalling"
    effects = node.hear(Recalled(0, ()), 1) + node.handle(PeerUp(2)) + node.hear(Recalled(0, ()), 2)
    said = [one for one in frames(effects) if isinstance(one, Signed)]
    assert said and set(said) == {town.ready(ME)}
    assert node.machine.phase == "ready"


def test_frames_that_come_during_the_recall_are_heard_afterwards() -> None:
    node = Driver(town, ME)
    node.handle(Started())
    for member in (1, 2, 3):
        node.hear(town.ready(member), member)
    node.boot()
    assert sum(isinstance(entry, Said) for entry in node.journal) == 0
    node.train()
    node.hear(ROSTER, town.proposer())
    assert node.machine.phase == "exchange"


def test_who_lost_its_journal_sits_out_the_rounds_in_which_it_may_have_signed() -> None:
    node = Driver(town, ME)
    node.handle(Started())
    for member in (1, 2):
        node.handle(PeerUp(member))
    node.hear(Recalled(4, (MY_VOTE,)), 1)
    effects = node.hear(Recalled(3, ()), 2)
    through = 4 + SIT_OUT
    assert [one.entries for one in of_kind(effects, Persist)] == [(SatOut(through),)]
    assert node.machine.phase == "sitting out"
    assert not [one for one in frames(node.train()) if isinstance(one, Signed)]
    assert node.restart().machine.phase == "recalling"
    again = node.restart()
    again.boot()
    assert again.machine.phase == "sitting out"


def test_a_lie_about_what_i_signed_is_blamed_and_is_no_answer() -> None:
    node = Driver(town, ME)
    node.handle(Started())
    effects = node.hear(Recalled(0, (town.vote(2, ALL),)), 1)
    assert [one.member for one in of_kind(effects, Blame)] == [1]
    node.hear(Recalled(0, ()), 2)
    assert node.machine.phase == "recalling"


def test_a_node_answers_a_recall_with_what_it_holds() -> None:
    node = Driver(town, ME)
    node.boot()
    node.hear(town.vote(2, ALL), 2)
    effects = node.hear(Recall(), 2)
    assert frames(effects) == [Recalled(0, (town.vote(2, ALL),))]
    assert frames(node.hear(Recall(), 3)) == [Recalled(0, ())]


def test_hello_tells_where_a_node_stands() -> None:
    node = Driver(town, ME)
    node.handle(Started())
    assert frames(node.handle(PeerUp(1)))[0] == Hello(1, 0, 0)
    assert isinstance(town.ready(ME).body, Ready)


# --- after the recall ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shown",
    [
        MY_VOTE,  # on a set that was never shown here: it used to end the process
        town.certificate(ALL),
        town.opening(ALL),
        town.commitment(ME, ROSTER),
    ],
    ids=["vote", "certificate", "opening", "commitment"],
)
def test_who_hears_later_what_it_has_forgotten_sits_out_from_then_on(shown: Frame) -> None:
    node = Driver(town, ME)
    node.boot()
    node.train()
    effects = node.hear(shown, 2)
    assert [one.entries for one in of_kind(effects, Persist)] == [(SatOut(1 + SIT_OUT),)]
    assert node.machine.phase == "sitting out"
    assert not frames(node.hear(ROSTER, town.proposer()))
    assert not frames(node.hear(town.propose(ALL, attempt=1), town.proposer(1)))


def test_what_turns_up_later_does_not_shorten_sitting_out() -> None:
    node = Driver(town, ME)
    node.boot()
    node.machine._rounds.sit_out(9)
    node.hear(MY_VOTE, 2)
    assert [entry for entry in node.journal if isinstance(entry, SatOut)] == [SatOut(9)]


def test_a_forgery_in_ones_own_name_makes_nobody_sit_out() -> None:
    node = Driver(town, ME)
    node.boot()
    node.hear(Signed(ME, MY_VOTE.body, bytes(64)), 2)
    assert node.machine.phase == "training"


def test_ones_own_words_are_no_news_after_a_restart() -> None:
    node = Driver(town, ME)
    node.boot()
    node.train()
    others = [member for member in town.members if member != ME]
    node.hear(town.certificate(ALL, members=others), others[0])
    node.hear(ROSTER, town.proposer())
    node.hear(town.propose(ALL), town.proposer())
    assert any(isinstance(entry, Voted) for entry in node.journal)
    again = node.restart()
    again.boot()
    again.hear(MY_VOTE, 2)
    assert again.machine.phase != "sitting out"


def test_a_vote_on_a_set_that_is_unknown_bars_every_other_set() -> None:
    ballot = Ballot(ME, town.groups)
    ballot.add_vote(MY_VOTE)
    assert not ballot.may_vote(1, town.survivors(ROSTER, [0, 1, 2]))


# --- how far the others are -----------------------------------------------------------------------------------------


def test_who_claims_more_than_is_shown_is_taken_for_silent(gate: RecallGate, context: Context) -> None:
    ahead = context.charter.schedule.max_ahead
    gate.on_recalled(3, Recalled(2**60, (MY_VOTE,)))
    gate.on_recalled(1, Recalled(ahead + 1, ()))
    assert not gate.done and gate.unknown == MY_VOTE
    gate.on_recalled(1, Recalled(ahead, ()))
    gate.on_recalled(2, Recalled(0, ()))
    assert gate.done and gate.highest == ahead


def test_an_attested_round_supports_a_claim_and_a_forged_one_does_not(
    gate: RecallGate, context: Context
) -> None:
    final = town.final(town.statement(ALL))
    claim = 1 + context.charter.schedule.max_ahead
    for member, claimed in ((1, claim), (2, 0)):
        gate.on_recalled(member, Recalled(claimed, ()))
    forged = tuple(Signed(one.member, one.body, bytes(64)) for one in final.attestations)
    with pytest.raises(Exception, match="bad signature"):
        gate.on_final(Final(forged, final.model))
    assert not gate.done
    gate.on_final(final)
    assert gate.done and gate.highest == claim


def test_the_word_of_one_rpc_supports_no_claim() -> None:
    """It may be a liar's: a member that lost its journal would sit out for ever."""
    node = Driver(town, ME)
    node.machine.replace_journal()
    node.handle(Started())
    node.handle(HeadAdvanced(2**40, mark(9)))
    for member, claim in ((3, 2**40), (1, 4)):
        node.handle(PeerUp(member))
        node.hear(Recalled(claim, ()), member)
    assert node.machine.phase == "recalling"
    node.handle(PeerUp(2))
    effects = node.hear(Recalled(5, ()), 2)
    assert [one.entries for one in of_kind(effects, Persist)] == [(SatOut(5 + SIT_OUT),)]


def test_what_more_claim_than_may_lie_is_certain(gate: RecallGate, context: Context) -> None:
    """One of them is honest, and so somebody is as far as the lower one says."""
    claim = 10 * context.charter.schedule.max_ahead
    gate.on_recalled(1, Recalled(claim, ()))
    assert not gate.done
    gate.on_recalled(2, Recalled(claim + 3, ()))
    assert gate.done and gate.highest == claim + 3


@pytest.mark.parametrize(("members", "answers"), [(2, 1), (3, 2), (4, 2), (5, 3), (7, 4), (10, 6)])
def test_a_lost_journal_takes_answers_that_know_what_it_signed(members: int, answers: int) -> None:
    """Of those with whom it decided its last round but one, somebody honest answers: it is itself one of the f."""
    place = SmallFederation(members)
    gate = RecallGate(Context(place.federation, ME, FakeSigner(ME), place.verifier))
    gate.is_journal_new = True
    for member in range(1, answers + 1):
        assert not gate.done
        gate.on_recalled(member, Recalled(0, ()))
    assert gate.done
    lying = max(place.charter.faults - 1, 0)
    decided, honest = place.charter.quorum - 1 - lying, members - 1 - lying
    assert (answers - lying) + decided > honest


def test_a_liar_can_make_a_member_that_lost_its_journal_sit_out_for_max_ahead_rounds_at_most() -> None:
    node = Driver(town, ME)
    node.machine.replace_journal()
    node.handle(Started())
    for member, claim in ((3, 2**60), (3, 50), (1, 4)):
        node.handle(PeerUp(member))
        effects = node.hear(Recalled(claim, ()), member)
    assert [one.entries for one in of_kind(effects, Persist)] == [(SatOut(50 + SIT_OUT),)]


def test_who_has_a_new_journal_sits_out_even_if_nobody_shows_anything() -> None:
    node = Driver(town, ME)
    node.machine.replace_journal()
    node.boot()
    assert [entry for entry in node.journal if isinstance(entry, SatOut)] == [SatOut(1 + SIT_OUT)]
    assert node.machine.phase == "sitting out"
