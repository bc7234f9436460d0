"""What a member may say only once in its place, and what proves that it said two things."""

import pytest
from small_federation import SmallFederation, mark

from folkmoot.protocol.context import ACCUSATIONS, Context
from folkmoot.protocol.effects import RecordEvidence
from folkmoot.protocol.equivocation import Register, compute_slot, verify_evidence
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Evidence, Signed
from folkmoot.protocol.signing import FakeSigner

town = SmallFederation(4)
ROSTER = town.roster()
ALL, THREE = town.survivors(ROSTER), town.survivors(ROSTER, [0, 1, 2])

PAIRS = [
    (town.vote(1, ALL), town.vote(1, THREE)),
    (town.lock(1, ALL), town.lock(1, THREE)),
    (town.lock(1, ALL), town.lock(1, ALL, sums=mark(1))),
    (town.propose(ALL, member=1).proposal, town.propose(THREE, member=1).proposal),
    (town.sign(1, ROSTER.body), town.sign(1, town.roster([0, 1, 2]).body)),
    (town.commitment(1, ROSTER), town.commitment(1, ROSTER, root=mark(1))),
    (town.sign(1, town.statement(ALL)), town.sign(1, town.statement(ALL, mark(1)))),
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_bodies_in_one_slot_convict(first: Signed, second: Signed) -> None:
    register = Register()
    assert register.note(first) is None
    assert register.note(first) is None
    evidence = register.note(second)
    assert evidence == Evidence(first, second)
    assert verify_evidence(evidence, town.verifier) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (town.vote(1, ALL, 0), town.vote(1, THREE, 1)),
        (town.vote(1, ALL), town.lock(1, ALL)),
        (town.vote(1, ALL), town.vote(2, THREE)),
        (town.commitment(1, ROSTER), town.commitment(1, town.roster([0, 1, 2]))),
        (town.ready(1), town.ready(1, num_examples=99)),
        (town.receipt(1, ROSTER, [0]), town.receipt(1, ROSTER, [0, 1])),
    ],
)
def test_what_does_not_contradict_itself_convicts_nobody(first: Signed, second: Signed) -> None:
    register = Register()
    register.note(first)
    assert register.note(second) is None
    with pytest.raises(RemoteProtocolError, match="not of one member and one slot"):
        verify_evidence(Evidence(first, second), town.verifier)


def test_evidence_needs_two_different_bodies_and_good_signatures() -> None:
    first, second = PAIRS[0]
    with pytest.raises(RemoteProtocolError, match="are the same"):
        verify_evidence(Evidence(first, first), town.verifier)
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        verify_evidence(Evidence(first, Signed(1, second.body, bytes(64))), town.verifier)


def test_ready_receipt_and_enter_have_no_slot() -> None:
    for signed in (town.ready(1), town.receipt(1, ROSTER, []), town.enter(1, 2)):
        assert compute_slot(signed.body) is None


def test_the_register_forgets_old_rounds_and_answers_for_one_member() -> None:
    register = Register()
    register.note(town.vote(1, ALL))
    register.note(town.vote(2, ALL))
    register.note(town.vote(1, ALL, round=2))
    assert register.said_by(1) == (town.vote(1, ALL), town.vote(1, ALL, round=2))
    register.forget_before(2)
    assert register.said_by(1) == (town.vote(1, ALL, round=2),)
    assert register.said_by(2) == ()


def test_a_member_is_convicted_a_few_times_and_then_no_more() -> None:
    """Each conviction is kept on disk and spread by everybody: one liar must not make endless work."""
    context = Context(town.federation, 0, FakeSigner(0), town.verifier)
    for attempt in range(3 * ACCUSATIONS):
        context.note(town.vote(1, ALL, attempt))
        for _ in range(2):
            assert not context.note(town.vote(1, THREE, attempt))
    context.note(town.vote(2, ALL))
    context.note(town.vote(2, THREE))
    recorded = [one.member for one in context.take_effects() if isinstance(one, RecordEvidence)]
    assert recorded == [1] * ACCUSATIONS + [2]
