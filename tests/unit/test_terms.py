"""A machine ends with its charter's last round, and the next charter's machine begins where it ended."""

from dataclasses import dataclass

import pytest
from msgspec.structs import replace
from one_node import (
    ALL,
    FINAL,
    ME,
    NEW_MODEL,
    OTHER,
    PROPOSER,
    ROSTER,
    aggregated,
    decide,
    locked,
    start,
    town,
    voted,
)
from small_federation import MODEL0, Driver, SmallFederation, bodies, of_kind

from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.effects import Blame, Effect, FetchSnapshot, Fit, TermEnded, Timer
from folkmoot.protocol.events import HeadAdvanced, PeerUp, SnapshotReady, Started, TermsKnown, TimerFired
from folkmoot.protocol.journal import Adopted, Began
from folkmoot.protocol.messages import Evidence, Final, Hello, Ready, Recalled, Signed, Statement, Vote
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.signing import FakeSigner
from folkmoot.protocol.terms import Rule, Term, Terms
from folkmoot.protocol.typed_data import struct_hash

LARGER = SmallFederation(5)
LARGER.federation = Federation(town.federation.id, replace(LARGER.charter, name="larger"))
LARGER.charter = LARGER.federation.charter
NEWCOMER = 4


def rule(place: SmallFederation, me: int | None) -> Rule:
    return Rule(place.federation, place.verifier, me)


def two_terms(me: int | None, first: int = 2, me_later: int | None = None) -> Terms:
    """Round 1 as in `town`, then five members."""
    later = me if me_later is None else me_later
    return Terms([Term(1, rule(town, me)), Term(first, rule(LARGER, later))])


@dataclass
class Later(Driver):
    """A node under the second charter."""

    def __post_init__(self) -> None:
        before = self.me if self.me != NEWCOMER else None
        self.machine = RoundMachine(
            LARGER.federation,
            self.me,
            FakeSigner(self.me),
            LARGER.verifier,
            MODEL0,
            first=2,
            terms=two_terms(before, me_later=self.me),
        )


def statement_of_two(place: SmallFederation = LARGER) -> Statement:
    """Round 2, under the second charter."""
    first = FINAL.attestations[0].body
    assert isinstance(first, Statement)
    config = place.federation.config
    return replace(first, round=2, previous=struct_hash(first), base=first.model, config=config)


FINAL_OF_TWO = LARGER.final(statement_of_two())


def attest_one(node: Driver) -> list[object]:
    effects: list[object] = []
    for member in (PROPOSER, OTHER):
        effects += node.hear(town.sign(member, town.statement(ALL)))
    return effects


def ended(node: Driver) -> Driver:
    """Has finished round 1, the last one under its charter."""
    node.handle(TermsKnown(two_terms(node.me)))
    decide(node)
    attest_one(node)
    return node


def test_terms_tell_which_charter_rules_a_round() -> None:
    terms = two_terms(0, first=7)
    assert [terms.at(round_).first for round_ in (0, 1, 6, 7, 100)] == [1, 1, 1, 7, 7]
    assert (terms.last_of(1), terms.last_of(6), terms.last_of(7)) == (6, 6, None)
    with pytest.raises(ValueError, match="ascend"):
        Terms([Term(2, None)])


def test_the_term_ends_once_its_last_round_is_attested_by_a_quorum() -> None:
    node = locked()
    node.handle(TermsKnown(two_terms(ME)))
    effects = decide(node)
    assert bodies(effects, Statement) == [town.statement(ALL)]
    assert not of_kind(effects, Fit)
    assert not of_kind(effects, TermEnded)
    assert node.machine.phase == "changing the charter"
    effects = attest_one(node)  # type: ignore[assignment]
    assert of_kind(effects, TermEnded) == [TermEnded(1)]
    final = next(entry for entry in reversed(node.journal) if isinstance(entry, Adopted)).final
    assert {signed.body for signed in final.attestations} == {town.statement(ALL)}
    assert not of_kind(node.handle(HeadAdvanced(1)), TermEnded), "told once"


def test_after_a_crash_at_its_end_the_term_ends_again() -> None:
    node = ended(locked()).restart()
    assert of_kind(node.handle(TermsKnown(two_terms(ME))), TermEnded)


def test_the_next_charters_machine_begins_where_the_last_one_ended() -> None:
    journal = [entry for entry in ended(locked()).journal if isinstance(entry, Adopted | Began)][-2:]
    node = Later(town, ME, journal=list(journal))
    node.machine.restore(journal, 0.0)
    node.machine.skip_recall()
    effects = node.handle(Started())
    assert of_kind(effects, Fit) == [Fit(2, NEW_MODEL)]
    assert node.machine.current.previous == struct_hash(town.statement(ALL))


def test_it_shows_the_last_rounds_end_to_who_lacks_it() -> None:
    journal = [entry for entry in ended(locked()).journal if isinstance(entry, Adopted | Began)][-2:]
    node = Later(town, ME, journal=list(journal))
    node.machine.restore(journal, 0.0)
    node.machine.skip_recall()
    node.handle(Started())
    node.handle(PeerUp(OTHER))
    effects = node.hear(Hello(1, 0, 0), OTHER)
    finals = [one.frame for one in effects if isinstance(getattr(one, "frame", None), Final)]
    assert [final.model for final in finals] == [NEW_MODEL]


def test_a_newcomer_begins_with_the_model_of_the_round_before_its_first() -> None:
    node = Later(town, NEWCOMER)
    node.handle(Started())
    assert node.machine.phase == "joining"
    for member in range(4):
        node.handle(PeerUp(member))
    for member in range(4):
        node.hear(Recalled(1, ()), member)
    assert node.machine.phase == "joining"
    effects = node.hear(FINAL)
    assert [one.model for one in of_kind(effects, FetchSnapshot)] == [NEW_MODEL]
    assert node.machine.phase == "joining"
    effects = node.handle(SnapshotReady(NEW_MODEL))
    assert of_kind(effects, Fit) == [Fit(2, NEW_MODEL)]


def test_a_late_node_skips_into_the_next_term() -> None:
    node = start()
    node.handle(TermsKnown(two_terms(ME)))
    effects = node.hear(FINAL_OF_TWO)
    assert of_kind(effects, FetchSnapshot)
    effects = node.handle(SnapshotReady(FINAL_OF_TWO.model))
    assert of_kind(effects, TermEnded) == [TermEnded(2)]


def announce(node: Driver) -> list[Effect]:
    return node.handle(TimerFired(Timer("announce", 1, 0)))


def test_who_is_left_behind_at_the_end_of_a_term_goes_on_as_one_that_joins() -> None:
    """Others may have other keys from then on, so that nobody whom it knows under its charter is there."""
    node = start()
    node.handle(TermsKnown(two_terms(ME)))
    node.handle(HeadAdvanced(1))
    assert not any(of_kind(announce(node), TermEnded) for _ in range(2)), "somebody may yet help"
    assert of_kind(announce(node), TermEnded) == [TermEnded(1)]
    assert node.machine.phase == "changing the charter"
    assert not bodies(node.train(), Ready), "nothing is signed any more"
    assert not of_kind(announce(node), TermEnded), "told once"


def test_nobody_is_left_behind_by_what_is_not_recorded_yet() -> None:
    node = start()
    node.handle(TermsKnown(two_terms(ME, first=3)))
    node.handle(HeadAdvanced(1))
    assert not any(of_kind(announce(node), TermEnded) for _ in range(9))


def test_a_round_under_an_unknown_charter_is_not_believed() -> None:
    node = start()
    node.handle(TermsKnown(Terms([Term(1, rule(town, ME)), Term(2, None)])))
    effects = node.hear(FINAL_OF_TWO)
    assert not of_kind(effects, FetchSnapshot)
    assert not of_kind(effects, Blame)


def test_nor_is_one_under_the_wrong_charter() -> None:
    node = start()
    node.handle(TermsKnown(two_terms(ME)))
    effects = node.hear(town.final(statement_of_two(town)))
    assert of_kind(effects, Blame)
    assert not of_kind(effects, FetchSnapshot)


def test_what_members_sign_in_another_term_is_nobodys_fault_here() -> None:
    node = voted()
    aggregated(node)
    node.handle(TermsKnown(two_terms(ME, first=3)))
    node.handle(TermsKnown(two_terms(ME, first=2)))
    later = [replace(town.vote(OTHER, ALL).body, round=2, survivors=bytes([at]) * 32) for at in (1, 2)]
    first, second = (LARGER.sign(NEWCOMER, body) for body in later)
    assert isinstance(first.body, Vote)
    evidence = Evidence(first, second)
    for frame in (LARGER.sign(NEWCOMER, statement_of_two()), evidence):
        assert isinstance(frame, Signed | Evidence)
        assert node.hear(frame) == []


def test_recalled_signatures_are_checked_with_the_keys_of_their_round() -> None:
    mine = LARGER.sign(NEWCOMER, LARGER.ready(NEWCOMER).body)
    node = Driver(town, ME)
    node.machine.handle(TermsKnown(two_terms(ME, me_later=NEWCOMER)), 0.0)
    node.handle(Started())
    node.handle(PeerUp(OTHER))
    later = replace(mine, body=replace(ROSTER.body, round=2))  # type: ignore[type-var]
    later = LARGER.sign(NEWCOMER, later.body)
    assert not of_kind(node.hear(Recalled(2, (later,)), OTHER), Blame)
    wrong = LARGER.sign(ME, later.body)
    assert of_kind(node.hear(Recalled(2, (wrong,)), OTHER), Blame)


def test_a_charter_that_another_one_takes_the_place_of_is_not_worked_under() -> None:
    """Two amendments may name one first round, and a node may have come to it between the two."""
    journal = [entry for entry in ended(locked()).journal if isinstance(entry, Adopted | Began)][-2:]
    for latest in (rule(town, ME), None):  # None: its charter is not here yet
        node = Later(town, ME, journal=list(journal))
        node.machine.restore(journal, 0.0)
        node.machine.skip_recall()
        effects = node.handle(TermsKnown(Terms([Term(1, rule(town, ME)), Term(2, latest)])))
        assert of_kind(effects, TermEnded) == [TermEnded(1)]
        effects = node.handle(Started()) + node.handle(HeadAdvanced(1))
        assert not of_kind(effects, Fit)
        assert node.machine.phase == "changing the charter"


def test_who_recalls_alone_catches_up_all_the_same() -> None:
    """The others may all have gone on to another charter, and some for ever: nothing is signed for that."""
    node = Driver(town, ME)
    node.handle(TermsKnown(two_terms(ME)))
    node.handle(Started())
    assert node.machine.phase == "recalling"
    effects = node.hear(FINAL)
    assert [one.model for one in of_kind(effects, FetchSnapshot)] == [NEW_MODEL]
    effects = node.handle(SnapshotReady(NEW_MODEL))
    assert of_kind(effects, TermEnded) == [TermEnded(1)]
