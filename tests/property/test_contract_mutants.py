"""Contracts with one rule broken: the comparison with the rules in memory has to notice every one of them."""

from random import Random
from typing import Any

import boa
import pytest
from contract_calls import Caller
from contract_founding import check_founding, check_return
from contract_pair import KEYS, SOURCE, Disagreement, Pair

SEEDS, CALLS = 20, 50
FAR = 8 * SEEDS
"""Until here a broken contract may go unnoticed: most are found within a few seeds, and the search ends there."""

MUTANTS = {
    # Signatures
    "one signature short of the quorum": (
        'assert len(signatures) >= (position >> QUORUM) & 255, "quorum"',
        'assert len(signatures) + 1 >= (position >> QUORUM) & 255, "quorum"',
    ),
    "one signature counts twice": ('assert current > last, "order"', 'assert current >= last, "order"'),
    "signers in any order": ('assert current > last, "order"', 'assert current != last, "order"'),
    "members sign like attesters": (
        'assert self._role_at(self._members[signer], round) == ATTESTER, "attester"',
        'assert self._role_at(self._members[signer], round) >= MEMBER, "attester"',
    ),
    "whoever once was an attester signs": (
        'assert self._role_at(self._members[signer], round) == ATTESTER, "attester"',
        'assert self._members[signer] & LISTED != 0, "attester"',
    ),
    "high s": ('assert s <= MAX_S, "high s"', "pass"),
    "s one above the limit": ('assert s <= MAX_S, "high s"', 'assert s <= MAX_S + 1, "high s"'),
    "any chain's signatures": ("VERSION_HASH, chain.id, self", "VERSION_HASH, chain.id + 1, self"),
    "a smaller quorum": ("(n + (n - 1) // 3) // 2 + 1", "(n + (n - 1) // 3 + 1) // 2"),
    # Statements
    "rounds in any order": ('assert convert(statement.round, uint256) == round, "round"', "pass"),
    "another history": ('assert statement.previous == previous, "previous"', "pass"),
    "another charter": ('assert statement.config == self.config, "config"', "pass"),
    "another federation": ('assert statement.federation == self.federation, "federation"', "pass"),
    "a checkpoint across an amendment": (
        'assert position & U64 < (position >> NEXT) & U64, "config"',
        "pass",
    ),
    "an empty checkpoint": ('assert len(statements) > 0, "no statements"', "pass"),
    "a checkpoint that records its first round only": (
        "    self._advance(position, digest)",
        "    self._advance(self._position + 1, digest)",
    ),
    # Attestations
    "one attests twice": ('assert not self._attested[digest][signer], "attested"', "pass"),
    "one attestation too many": (
        "if tally >= (position >> QUORUM) & 255:",
        "if tally > (position >> QUORUM) & 255:",
    ),
    "anybody attests": (
        'assert self._role_at(self._members[signer], (position & U64) + 1) == ATTESTER, "attester"',
        "pass",
    ),
    # Amendments
    "an amendment for rounds under way": (
        'assert effective > (position & U64) + convert(self.lead, uint256), "effective"',
        'assert effective >= (position & U64) + convert(self.lead, uint256), "effective"',
    ),
    "amendments out of order": (
        "assert effective >= (governance >> EFFECTIVE) & U64 and effective < NEVER",
        "assert effective < NEVER",
    ),
    "an amendment twice": ('assert convert(amendment.number, uint256) == number, "number"', "pass"),
    "another chain of amendments": ('assert amendment.previous == self.governance_head, "previous"', "pass"),
    "another federation's amendment": (
        'assert amendment.federation == self.federation, "federation"',
        "pass",
    ),
    "one waiting amendment fewer": ("<= MAX_PENDING", "< MAX_PENDING"),
    "a change of a change that waits": ('assert word & U64 <= round, "pending"', "pass"),
    "changes in any order": ('assert current > last, "changes not ascending"', "pass"),
    "a change that changes nothing": (
        'assert role <= ATTESTER and role != before, "change"',
        'assert role <= ATTESTER, "change"',
    ),
    "a role that there is not": (
        'assert role <= ATTESTER and role != before, "change"',
        'assert role & 255 <= 7 and role != before, "change"',
    ),
    "no attester left": ("assert attesters > 0 and attesters", "assert attesters + 1 > 0 and attesters"),
    "32 attesters": ("attesters <= MAX_ATTESTERS", "attesters <= MAX_ATTESTERS + 1"),
    "a removed attester is counted": ("    elif before == ATTESTER:\n        after -= 1\n", ""),
    "roles a round late": ("if round >= word & U64:", "if round > word & U64:"),
    "roles at once": ("if round >= word & U64:", "if round + 1 >= word & U64:"),
    "amendments a round late": (
        "if (position & U64) + 1 < (position >> NEXT) & U64:\n        self._position",
        "if (position & U64) + 1 <= (position >> NEXT) & U64:\n        self._position",
    ),
    "one of two amendments of a round": (
        "        if (position & U64) + 1 < next:\n            break\n",
        "        break\n",
    ),
    "a change that takes a flag away": ("word & (FLAGGED | LISTED)", "word & LISTED"),
    "an attester listed twice": ("        if word & LISTED == 0:\n", "        if True:\n"),
    # Reports
    "different rounds": (
        'assert first[place] == second[place], "different things"',
        'assert first[0] == second[0], "different things"',
    ),
    "a shorter prefix": (
        "PREFIXES: constant(uint256[7]) = [2, 4, 3, 3, 3, 4, 3]",
        "PREFIXES: constant(uint256[7]) = [2, 4, 3, 2, 3, 4, 3]",
    ),
    "the same twice": ('assert digests[0] != digests[1], "the same"', "pass"),
    "two members": (
        'assert member == self._signer(self._signed(digests[1]), second_signature), "signers"',
        "pass",
    ),
    "a stranger flagged": ('assert word != 0, "member"', "pass"),
    "flagged again": ('assert word & FLAGGED == 0, "flagged"', "pass"),
    "a report of another federation": ('assert first[0] == self.federation, "federation"', "pass"),
    "a report that removes": ("= word | FLAGGED", "= (word | FLAGGED) & ~(3 << AFTER)"),
    # Founding
    "anybody enrols": ('assert msg.sender == self._deployer, "deployer"', "pass"),
    "attesters enrolled": ('assert self._members[member] == 0, "known"', "pass"),
    "more than are missing": (
        'assert len(members) <= position >> MISSING, "enrolled"',
        'assert len(members) <= (position >> MISSING) + 1, "enrolled"',
    ),
    "rounds before the founding is over": ('assert position >> MISSING == 0, "founding"', "pass"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_rule_is_noticed(name: str) -> None:
    good, bad = MUTANTS[name]
    source = SOURCE.read_text()
    assert source.count(good) == 1, "the contract has changed: change the mutant too"
    deployer = boa.loads_partial(source.replace(good, bad))
    with pytest.raises((Disagreement, boa.BoaError)):
        _try_everything(deployer, FAR)


def _try_everything(deployer: Any, seeds: int) -> None:
    for check in (check_founding, check_return):
        with boa.env.anchor():
            check(deployer)
    for seed in range(seeds):
        random = Random(seed)
        with boa.env.anchor():
            size = random.choice((1, 2, 3, 4, 4, 5, 7))
            caller = Caller(Pair(random.sample(KEYS, size), random.choice((1, 2)), deployer=deployer), random)
            for _ in range(CALLS):
                caller.pair.judge(caller.next())


def test_the_real_contract_passes_all_that() -> None:
    _try_everything(boa.loads_partial(SOURCE.read_text()), SEEDS)
