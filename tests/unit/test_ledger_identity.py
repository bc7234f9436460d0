"""Is it the charter's ledger: each thing that may differ is named, with what was expected and found."""

import msgspec
import pytest

from folkmoot.ledger.build import expected_code_hash
from folkmoot.ledger.errors import WrongLedger
from folkmoot.ledger.identity import check_identity, founding_of
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import LedgerTerms, Member, Model, Schedule, Tensor


def member(index: int, attester: bool = True) -> Member:
    return Member(
        name=f"member-{index}",
        peer_id=f"peer{index}",
        identity_key=f"{index:064x}",
        sealing_key=f"{index + 100:064x}",
        audit_key=f"0x{99 - index:040x}",
        attester=attester,
    )


CHARTER = Charter(
    name="federation",
    model=Model(
        kind="logistic", layers=(2, 2), initial="0" * 64, tensors=(Tensor(name="weight", shape=(2, 2)),)
    ),
    schedule=Schedule(rounds=1),
    ledger=LedgerTerms(chain_id=5, code_hash=expected_code_hash().hex()),
    members=(member(0), member(1), member(2), member(3), member(4, attester=False)),
)
IDENTITY = founding_of(CHARTER).identity(5, b"\x11" * 20, expected_code_hash())


def test_the_charters_ledger_is_accepted() -> None:
    check_identity(IDENTITY, CHARTER)
    assert [address[-1] for address in IDENTITY.attesters] == [
        96,
        97,
        98,
        99,
    ]  # ascending, whatever the members' order


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("chain_id", 6, "chain id should be 5 but is 6; set ledger.rpc"),
        ("code_hash", bytes(32), "code hash of the contract 0x1111"),
        ("charter_digest", bytes(32), "charter digest .* another federation"),
        ("attesters", IDENTITY.attesters[:3], "attesters .* deploy the contract again"),
        ("quorum", 2, "quorum .* should be 3 but is 2"),
        ("lead", 10, "max_ahead .* should be 50 but is 10"),
        ("members", bytes(32), "digest of all members .* enrolled others"),
    ],
)
def test_each_difference_is_named(field: str, value: object, words: str) -> None:
    with pytest.raises(WrongLedger, match=words) as caught:
        check_identity(msgspec.structs.replace(IDENTITY, **{field: value}), CHARTER)
    assert caught.value.exit_code == 2
    assert caught.value.found is not None
