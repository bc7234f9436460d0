"""One machine driven through a round by hand: each step, and that it is journalled before it is said."""

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
    encoded,
    fire,
    hear_ready,
    in_exchange,
    locked,
    others,
    position,
    start,
    town,
    voted,
)
from small_federation import BASE, SUMS, Driver, SmallFederation, bodies, frames, mark, of_kind

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.effects import (
    Aggregate,
    ArchiveRound,
    Attest,
    Encode,
    Fetch,
    Finished,
    Fit,
    Persist,
    Promote,
    Record,
    Send,
    StartTimer,
)
from folkmoot.protocol.events import (
    Aggregated,
    Encoded,
    FetchFailed,
    PayloadServed,
    PeerDown,
)
from folkmoot.protocol.journal import Began, Voted
from folkmoot.protocol.messages import (
    Commitment,
    Lock,
    Omission,
    Proposal,
    Propose,
    Roster,
    Statement,
    Vote,
    body_digest,
)
from folkmoot.testnet.simulation.node import PARAMETERS


def test_a_node_begins_by_training_on_its_base() -> None:
    node = Driver(town, ME)
    effects = node.boot()
    assert of_kind(effects, Fit) == [Fit(1, BlobRef(BASE, 4 * PARAMETERS))]
    assert node.journal == [Began(1, BlobRef(BASE, 4 * PARAMETERS), town.federation.id)]
    assert node.machine.phase == "training"


def test_ready_is_journalled_then_said() -> None:
    node = Driver(town, ME)
    node.boot()
    effects = node.train()
    assert position(effects, Persist, town.ready(ME)) < position(effects, Send, town.ready(ME))
    assert node.train() == []


def test_the_proposer_names_everybody_once_all_are_ready() -> None:
    node = start(PROPOSER)
    assert not bodies(hear_ready(node, ME, OTHER), Roster)
    effects = hear_ready(node, LAST)
    assert bodies(effects, Roster) == [ROSTER.body]
    assert position(effects, Persist, ROSTER) < position(effects, Send, ROSTER)
    assert of_kind(effects, Encode) == [Encode(1, DIGEST, tuple(town.members), ROSTER.body)]


def test_the_proposer_waits_for_the_rest_only_for_the_grace() -> None:
    node = start(PROPOSER)
    effects = hear_ready(node, ME, OTHER)
    grace = next(one for one in of_kind(effects, StartTimer) if one.timer.kind == "grace")
    assert grace.delay == 2.0
    (roster,) = bodies(fire(node, "grace"), Roster)
    assert isinstance(roster, Roster)
    assert [one.member for one in roster.readies] == sorted((PROPOSER, ME, OTHER))


def test_a_member_that_is_down_is_not_waited_for() -> None:
    node = start(PROPOSER)
    node.handle(PeerDown(LAST))
    assert bodies(hear_ready(node, ME, OTHER), Roster)


def test_a_commitment_is_journalled_then_said_once() -> None:
    node = start()
    assert of_kind(node.hear(ROSTER), Encode)
    effects = encoded(node)
    mine = town.commitment(ME, ROSTER)
    assert position(effects, Persist, mine) < position(effects, Send, mine)
    assert encoded(node) == []


def test_payloads_are_fetched_from_their_sender_first_and_then_from_anyone() -> None:
    node = start()
    node.hear(ROSTER)
    (fetch,) = of_kind(commit(node, OTHER), Fetch)
    assert fetch.commitment == town.commitment(OTHER, ROSTER)
    assert fetch.sources[0] == OTHER and sorted(fetch.sources) == list(town.members)
    assert commit(node, OTHER) == []


def test_what_a_quorum_or_more_sent_is_told_to_the_proposer_only() -> None:
    node = start()
    node.hear(ROSTER)
    commit(node, *others(node))
    assert not of_kind(arrive(node, PROPOSER, OTHER), Send)
    effects = arrive(node, LAST)
    assert of_kind(effects, Send) == [Send((PROPOSER,), town.receipt(ME, ROSTER, others(node)))]


def test_a_failed_fetch_is_tried_again_with_the_next_announcement() -> None:
    node = start()
    node.hear(ROSTER)
    commit(node, OTHER)
    name = body_digest(town.commitment(OTHER, ROSTER).body)
    assert not of_kind(node.handle(FetchFailed(1, DIGEST, name, "gone")), Fetch)
    assert len(of_kind(fire(node, "announce"), Fetch)) == 1


def test_the_proposer_proposes_what_a_quorum_holds() -> None:
    node = in_exchange(PROPOSER)
    assert not bodies(node.hear(town.receipt(ME, ROSTER, town.members)), Proposal)
    effects = node.hear(town.receipt(OTHER, ROSTER, town.members))
    expected = town.propose(ALL)
    assert expected in frames(effects)
    assert position(effects, Persist, expected.proposal) < position(effects, Send, expected.proposal)


def test_late_payloads_are_left_out_with_the_name_of_one_that_lacks_them() -> None:
    node = start(PROPOSER)
    hear_ready(node, *others(node))
    encoded(node)
    commit(node, ME, OTHER)
    held = sorted((PROPOSER, ME, OTHER))
    effects = arrive(node, ME, OTHER)
    assert any(one.timer.kind == "exchange" for one in of_kind(effects, StartTimer))
    for member in (ME, OTHER):
        node.hear(town.receipt(member, ROSTER, held))
    (sent,) = (one for one in frames(fire(node, "exchange")) if isinstance(one, Propose))
    assert [one.member for one in sent.survivors.survivors] == held
    assert sent.omitted == (Omission(LAST, PROPOSER),)


def test_a_vote_is_journalled_with_what_it_rests_on_then_said() -> None:
    node = in_exchange()
    effects = node.hear(town.propose(ALL), PROPOSER)
    vote = town.vote(ME, ALL)
    assert position(effects, Persist, vote) < position(effects, Send, vote)
    (entry,) = (one for one in node.journal if isinstance(one, Voted))
    assert entry.survivors == ALL
    assert entry.commitments == tuple(town.commitment(member, ROSTER) for member in town.members)
    assert [one.survivors for one in of_kind(effects, Aggregate)] == [ALL]


def test_no_vote_for_what_is_not_held() -> None:
    node = start()
    node.hear(ROSTER)
    encoded(node)
    commit(node, *others(node))
    arrive(node, PROPOSER, OTHER)
    assert not bodies(node.hear(town.propose(ALL), PROPOSER), Vote)
    assert bodies(arrive(node, LAST), Vote)


def test_a_certificate_stands_in_for_what_is_not_held() -> None:
    node = start()
    node.hear(ROSTER)
    certificate = town.certificate(ALL, members=[member for member in town.members if member != ME])
    for member in (PROPOSER, OTHER):
        node.hear(town.enter(member, 1))
    effects = node.hear(town.propose(ALL, attempt=1, certificate=certificate))
    assert bodies(effects, Vote) == [town.vote(ME, ALL, 1).body]


def test_who_delivered_an_omitted_payload_does_not_vote_for_leaving_it_out() -> None:
    node = in_exchange()
    body = town.commitment(LAST, ROSTER).body
    assert isinstance(body, Commitment)
    node.handle(PayloadServed(body.root, PROPOSER))
    survivors = town.survivors(ROSTER, sorted((PROPOSER, ME, OTHER)))
    assert not bodies(node.hear(town.propose(survivors, omitted=(Omission(LAST, PROPOSER),))), Vote)


def test_a_lock_needs_certificate_and_sums_and_is_journalled_then_said() -> None:
    node = voted()
    for member in (PROPOSER, OTHER):
        assert not bodies(node.hear(town.vote(member, ALL)), Lock)
    effects = aggregated(node)
    lock = town.lock(ME, ALL)
    assert position(effects, Persist, lock) < position(effects, Send, lock)
    assert node.machine.phase == "locked"


def test_a_decided_round_is_attested_promoted_and_followed_by_the_next() -> None:
    node = locked()
    effects = decide(node)
    statement = town.sign(ME, town.statement(ALL))
    assert position(effects, Persist, statement) < position(effects, Send, statement)
    (promote,) = of_kind(effects, Promote)
    assert (promote.round, promote.model, promote.included) == (1, NEW_MODEL, True)
    assert of_kind(effects, Fit) == [Fit(2, NEW_MODEL)]
    assert isinstance(node.journal[-1], Began) and node.journal[-1].round == 2
    assert not of_kind(effects, Record)
    # Should the others' never come, the ledger has to gather them one by one.
    assert of_kind(effects, Attest) == [Attest(statement)]


def test_a_statement_is_recorded_once_it_has_its_quorum() -> None:
    node = locked()
    decide(node)
    statement = town.statement(ALL)
    assert not of_kind(node.hear(town.sign(OTHER, statement)), Record)
    effects = node.hear(town.sign(PROPOSER, statement))
    (record,) = of_kind(effects, Record)
    assert record.statement == statement
    assert [one.member for one in record.attestations] == sorted((ME, OTHER, PROPOSER))
    assert len(of_kind(effects, ArchiveRound)) == 1
    assert not of_kind(node.hear(town.sign(LAST, statement)), Record)


def test_attestations_of_another_statement_do_not_count() -> None:
    node = locked()
    decide(node)
    wrong = town.statement(ALL, mark(77))
    for member in (PROPOSER, OTHER, LAST):
        assert not of_kind(node.hear(town.sign(member, wrong)), Record)


def test_sums_that_are_not_the_quorums_close_nothing() -> None:
    node = voted()
    for member in (PROPOSER, OTHER):
        node.hear(town.vote(member, ALL))
    node.handle(Aggregated(1, ALL.digest, mark(66), BlobRef(mark(67), 4 * PARAMETERS)))
    effects = [effect for member in others(node) for effect in node.hear(town.lock(member, ALL))]
    assert not bodies(effects, Statement) and node.machine.completed == 0


def test_the_last_round_ends_in_finished() -> None:
    short = SmallFederation(1, rounds=1)
    node = Driver(short, 0)
    node.boot()
    (encode_effect,) = of_kind(node.train(), Encode)
    size = short.commitment(0, short.roster()).body.size  # type: ignore[union-attr]
    (aggregate,) = of_kind(
        node.handle(Encoded(1, encode_effect.roster, BlobRef(mark(1), size), mark(2))), Aggregate
    )
    effects = node.handle(Aggregated(1, aggregate.survivors.digest, SUMS, NEW_MODEL))
    assert of_kind(effects, Finished) == [Finished(1)]
    assert len(of_kind(effects, Record)) == 1
    assert node.machine.finished and node.machine.phase == "done"
