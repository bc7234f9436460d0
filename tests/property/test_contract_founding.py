"""How the contract begins: what the constructor takes, what everybody then sees, and who may enrol whom until when."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import boa
import pytest
from contract_calls import Caller
from contract_founding import check_founding
from contract_pair import CHARTER, KEYS, SOURCE, Pair, round_ledger
from eth.exceptions import Revert

from folkmoot.ledger.build import contract_build, expected_code_hash
from folkmoot.ledger.calldata import encode_deployment
from folkmoot.ledger.identity import Founding
from folkmoot.protocol.charter import federation_id, quorum
from folkmoot.protocol.typed_data import keccak256


@pytest.mark.parametrize("attesters", range(1, 32))
def test_quorum_and_identity_for_every_size(attesters: int) -> None:
    with boa.env.anchor():
        pair = Pair(KEYS[:attesters], lead=50)
        contract, identity = pair.contract, pair.identity
        pair.compare_views()
        assert contract.quorum() == quorum(attesters)
        assert contract.charter_digest() == contract.config() == CHARTER
        assert [bytes.fromhex(address[2:]) for address in contract.founders()] == list(identity.attesters)
        assert (contract.lead(), contract.founding_members()) == (identity.lead, identity.members)
        federation = federation_id(CHARTER, identity.chain_id, identity.contract)
        assert contract.federation() == contract.head() == contract.governance_head() == federation
        assert (contract.height(), contract.amendments(), contract.missing()) == (0, 0, 0)
        assert contract.founded_at() == boa.env.evm.patch.block_number
        # Nothing of a deployment is in its code: one hash for all.
        assert keccak256(boa.env.get_code(contract.address)) == expected_code_hash()


@pytest.mark.parametrize(
    ("attesters", "others", "lead", "reason"),
    [
        ([], 0, 1, "no attesters"),
        ([bytes(20)], 0, 1, "attesters not ascending"),
        ([KEYS[1].address, KEYS[0].address], 0, 1, "attesters not ascending"),
        ([KEYS[0].address, KEYS[0].address], 0, 1, "attesters not ascending"),
        ([KEYS[0].address], 2**16, 1, "others"),
        ([KEYS[0].address], 0, 0, "lead"),
    ],
)
def test_the_constructor_refuses(attesters: list[bytes], others: int, lead: int, reason: str) -> None:
    with boa.reverts(reason):
        round_ledger().deploy(CHARTER, ["0x" + address.hex() for address in attesters], others, lead)


def test_thirty_two_attesters_are_too_many() -> None:
    founding = Founding(CHARTER, tuple(key.address for key in KEYS[:32]), 5)
    with pytest.raises(Revert):
        boa.env.deploy_code(bytecode=encode_deployment(founding))


def test_members_are_enrolled_by_the_deployer_before_anything_is_recorded() -> None:
    with boa.env.anchor():
        check_founding(round_ledger())


def test_what_auditors_prove_stands_in_the_first_slots() -> None:
    """`eth_getProof` is asked for slots: they are part of what a release promises."""
    layout = json.loads(
        subprocess.run(
            [Path(sys.executable).with_name("vyper"), "-f", "layout", SOURCE],
            capture_output=True,
            check=True,
            text=True,
        ).stdout
    )["storage_layout"]
    assert [layout[name]["slot"] for name in ("head", "governance_head", "config")] == [0, 1, 2]
    with boa.env.anchor():
        pair = Pair(KEYS[:4])
        pair.judge(Caller(pair, Random(0)).finalize())
        head = boa.env.evm.get_storage(pair.contract.address, 0).to_bytes(32, "big")
        assert head == pair.state.head


def test_the_shipped_code_is_what_the_source_compiles_to() -> None:
    deployed = boa.env.deploy_code(bytecode=encode_deployment(Founding(CHARTER, (KEYS[0].address,), 5)))
    assert keccak256(bytes(deployed[1])) == expected_code_hash()
    assert round_ledger().compiler_data.bytecode.hex() == contract_build().creation_code[2:]
