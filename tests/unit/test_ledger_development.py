"""Development nodes' keys are refused where it matters."""

import msgspec
import pytest
from audited_federation import AuditedFederation
from eth_account import Account

from folkmoot.ledger.development import (
    DEVELOPMENT_CHAINS,
    WELL_KNOWN,
    DevelopmentChain,
    WellKnownKey,
    check_chain,
    check_secret_keys,
)
from folkmoot.node.cli.terms import describe
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import LedgerTerms
from folkmoot.testnet.chains import DEFAULT_CHAIN_ID

MNEMONICS = (
    "test test test test test test test test test test test junk",
    "myth like bonus scare over problem client lizard pioneer submit female collect",
)
KNOWN = sorted(WELL_KNOWN)[0]
OWN = "0x" + "5a" * 20


def charter_on(chain_id: int) -> Charter:
    charter = AuditedFederation().charter
    terms = LedgerTerms(chain_id=chain_id, code_hash=charter.ledger.code_hash)
    return msgspec.structs.replace(charter, ledger=terms)


def test_the_list_is_that_of_the_mnemonics() -> None:
    Account.enable_unaudited_hdwallet_features()
    found = {
        Account.from_mnemonic(words, account_path=f"m/44'/60'/0'/0/{index}").address.lower()
        for words in MNEMONICS
        for index in range(10)
    }
    assert found == WELL_KNOWN


@pytest.mark.parametrize(
    "rpc", ["http://127.0.0.1:8545", "http://localhost:1", "http://[::1]:8545", "http://127.9.9.9"]
)
def test_a_development_chain_is_fine_on_this_machine(rpc: str) -> None:
    check_chain(charter_on(31_337), [rpc])


@pytest.mark.parametrize(
    "rpc", ["https://rpc.example.org", "http://10.0.0.7:8545", "http://127.0.0.1.example.org"]
)
def test_a_development_chain_elsewhere_is_refused(rpc: str) -> None:
    with pytest.raises(DevelopmentChain, match="is not on this machine") as caught:
        check_chain(charter_on(31_337), ["http://127.0.0.1:8545", rpc])
    assert caught.value.exit_code == 2
    check_chain(charter_on(10), [rpc])


def test_own_keys_are_fine_everywhere() -> None:
    for chain_id in (1, 10, 31_337):
        check_secret_keys(charter_on(chain_id), OWN)


def test_a_known_gas_key_is_refused_on_a_chain_that_matters() -> None:
    with pytest.raises(
        WellKnownKey, match=r"this node's gas key, 0x.*everybody has it, and chain 1 "
    ) as caught:
        check_secret_keys(charter_on(1), KNOWN.upper().replace("X", "x"))
    assert caught.value.exit_code == 2
    for chain_id in DEVELOPMENT_CHAINS:
        check_secret_keys(charter_on(chain_id), KNOWN)


def test_a_member_with_a_known_audit_key_is_refused_by_all() -> None:
    charter = charter_on(10)
    spoilt = msgspec.structs.replace(charter.members[2], audit_key=KNOWN)
    members = (*charter.members[:2], spoilt, *charter.members[3:])
    with pytest.raises(WellKnownKey, match="the audit key of carol"):
        check_secret_keys(msgspec.structs.replace(charter, members=members), OWN)


def test_the_embedded_chain_is_one_for_development() -> None:
    assert DEFAULT_CHAIN_ID in DEVELOPMENT_CHAINS


@pytest.mark.parametrize("chain_id", [1, *sorted(DEVELOPMENT_CHAINS)])
def test_the_terms_say_what_a_record_on_a_chain_for_development_is_worth(chain_id: int) -> None:
    said = "\n".join(text for _, text in describe(charter_on(chain_id)))
    assert ("proves nothing" in said) is (chain_id in DEVELOPMENT_CHAINS)
