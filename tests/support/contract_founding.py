"""A founding with members that are no attesters, and an attester that comes back, step by step.

`test_contract_mutants` runs them on changed contracts.
"""

from random import Random
from typing import Any

import boa
from contract_calls import Caller
from contract_pair import KEYS, Disagreement, Pair, agree

from folkmoot.ledger.calldata import encode_call, encode_enrolment
from folkmoot.protocol.governance import Change, Role

ATTESTERS, OTHERS = KEYS[:4], KEYS[20:25]


def check_founding(deployer: Any) -> None:
    """Raise `Disagreement` unless every rule of the founding holds."""
    pair = Pair(ATTESTERS, 2, OTHERS, deployer, enrolled=False)
    addresses = [key.address for key in OTHERS]
    stranger = boa.env.generate_address()

    def enrol(*members: bytes, sender: Any = None) -> str | None:
        return pair.send(encode_enrolment(members), sender)

    calls = Caller(pair, Random(0))
    for call in (calls.finalize(), calls.attest(), calls.checkpoint(), calls.amend()):
        agree("before the founding", pair.send(encode_call(call)), "founding")
    agree("a stranger's", enrol(addresses[0], sender=stranger), "deployer")
    agree("order", enrol(addresses[1], addresses[0]), "members not ascending")
    agree("twice", enrol(addresses[0], addresses[0]), "members not ascending")
    agree("an attester", enrol(ATTESTERS[0].address), "known")
    agree("two", enrol(*addresses[:2]), None)
    agree("missing", pair.contract.missing(), 3)
    agree("still", pair.send(encode_call(calls.finalize())), "founding")
    agree("again", enrol(addresses[1]), "known")
    agree("too many", enrol(*addresses[2:], b"\xff" * 20), "enrolled")
    agree("the rest", enrol(*addresses[2:]), None)
    agree("one more", enrol(b"\xff" * 20), "enrolled")
    agree("all members", pair.contract.founding_members(), pair.identity.members)
    pair.compare_views()
    if pair.judge(calls.finalize()) is not None:
        raise Disagreement("after the founding nothing can be recorded")


def check_return(deployer: Any) -> None:
    """Raise `Disagreement` unless an attester that went and came back counts once, as before."""
    pair = Pair(ATTESTERS, 1, deployer=deployer)
    calls = Caller(pair, Random(0))
    for role in (Role.REMOVED, Role.ATTESTER):
        change = (Change(ATTESTERS[0].address, role),)
        calls.changes = lambda change=change: change  # type: ignore[method-assign,misc]
        agree(f"{role.name} by amendment", pair.judge(calls.amend()), None)
        while pair.state.height < pair.state.effective:
            agree("a round on the way", pair.judge(calls.finalize()), None)
