"""The contract against its rules: whatever is called, in whatever order, both say and hold the same.

The rules (`ledger/rules.py`) are what the ledger in memory keeps, so nodes in tests and simulation live by them too.
"""

from random import Random

import boa
import pytest
from contract_calls import Caller
from contract_pair import KEYS, Pair
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.calls import Amend, Finalize
from folkmoot.protocol.governance import Amendment, Change, Role, encode_changes

randoms = st.randoms(use_true_random=False)
kinds = st.sampled_from(["finalize", "attest", "checkpoint", "amend", "report"])


class Federation(RuleBasedStateMachine):
    """Any sequence of good and spoilt calls; `Pair.judge` compares after each."""

    @initialize(
        attesters=st.sets(st.integers(0, len(KEYS) - 1), min_size=1, max_size=7), lead=st.integers(1, 3)
    )
    def found(self, attesters: set[int], lead: int) -> None:
        self.anchor = boa.env.anchor()
        self.anchor.__enter__()
        self.pair = Pair([KEYS[one] for one in sorted(attesters)], lead)

    @rule(kind=kinds, random=randoms)
    def good_call(self, kind: str, random: Random) -> None:
        assert self.pair.judge(getattr(Caller(self.pair, random), kind)()) in (
            None,
            "attested",
            "flagged",
            "pending",
        )

    @rule(kind=kinds, random=randoms)
    def spoilt_call(self, kind: str, random: Random) -> None:
        caller = Caller(self.pair, random)
        self.pair.judge(caller.spoil(getattr(caller, kind)()))

    def teardown(self) -> None:
        if hasattr(self, "anchor"):
            self.anchor.__exit__(None, None, None)


def test_any_sequence_of_calls() -> None:
    run_state_machine_as_test(
        Federation,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.parametrize("seed", range(6))
def test_long_histories(seed: int) -> None:
    """More calls than hypothesis would make, so that amendments overlap and come into force."""
    random = Random(seed)
    with boa.env.anchor():
        pair = Pair(random.sample(KEYS, random.randint(1, 10)), random.randint(1, 2))
        caller = Caller(pair, random)
        for _ in range(100):
            pair.judge(caller.next())
        assert pair.state.amendments and pair.state.height


@pytest.mark.parametrize("attesters", [13, 14, 31])
def test_large_federations(attesters: int) -> None:
    random = Random(attesters)
    with boa.env.anchor():
        pair = Pair(KEYS[:attesters], others=KEYS[40:])
        caller = Caller(pair, random)
        for _ in range(30):
            pair.judge(caller.next())


def test_a_rotated_key_signs_from_its_round_on_and_the_old_one_no_more() -> None:
    """The rules in words: old key to the round before, new key from the round itself, quorum and config with it."""
    with boa.env.anchor():
        old, new, *others = KEYS[:5]
        pair = Pair([old, *others], lead=2)
        changes = encode_changes((Change(old.address, Role.REMOVED), Change(new.address, Role.ATTESTER)))
        state = pair.state
        amendment = Amendment(
            state.federation, 1, state.federation, b"\x07" * 32, b"\x08" * 32, 5000, 3, changes
        )
        pair.judge(Caller(pair, Random(0)).finalize())
        refused = pair.judge(_amend(pair, amendment, others))
        assert refused == "effective"  # at height 1 round 3 may be under way already
        amendment = Amendment(
            state.federation, 1, state.federation, b"\x07" * 32, b"\x08" * 32, 5000, 4, changes
        )
        assert pair.judge(_amend(pair, amendment, others)) is None
        for round_ in (2, 3):
            assert pair.judge(_finalize(pair, sorted([new, *others[:2]], key=_address))) == "attester", round_
            assert pair.judge(_finalize(pair, sorted([old, *others[:2]], key=_address))) is None
        assert pair.state.config == b"\x07" * 32
        assert pair.judge(_finalize(pair, sorted([old, *others[:2]], key=_address))) == "attester"
        assert pair.judge(_finalize(pair, sorted([new, *others[:2]], key=_address))) is None


def _finalize(pair: Pair, keys: list[AuditKey]) -> Finalize:
    (body,) = Caller(pair, Random(1)).statements(1)
    return Finalize(body, pair.sign(body, keys))


def _amend(pair: Pair, amendment: Amendment, keys: list[AuditKey]) -> Amend:
    return Amend(amendment, pair.sign(amendment, keys))


def _address(key: AuditKey) -> bytes:
    return key.address
