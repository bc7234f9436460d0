"""`folkmoot ledger accept`: only where the chain really lost something, and then for good."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from audited_federation import AuditedFederation
from click.testing import CliRunner
from faulty_rpc import CHAIN_ID, Chain, Front, serving

from folkmoot.ledger.identity import founding_of
from folkmoot.ledger.reader import LedgerReader
from folkmoot.node.cli.ledger_accept import NothingToAccept, accept
from folkmoot.node.config import Home, LedgerConfig, NodeConfig, render_config
from folkmoot.node.ledger_start import accept_chain, read_final_block
from folkmoot.node.store import Journal


@pytest.fixture
def front() -> Iterator[Front]:
    with serving(Front()) as front:
        yield front


@pytest.fixture
def home(front: Front, tmp_path: Path) -> Home:
    """Of a node that last saw block 3 final."""
    federation = AuditedFederation(chain_id=CHAIN_ID)
    front.chain = new_chain(federation, 2, b"\x01")
    federation.settle(front.chain.contract, CHAIN_ID)
    home = federation.write_home(tmp_path / "alice", with_keys=False)
    ledger = LedgerConfig(rpc=(front.url,), contract=f"0x{front.chain.contract.hex()}")
    home.config.write_text(render_config(NodeConfig(name="alice", ledger=ledger)))
    Journal.create(home.store)
    with Journal.open(home.store) as journal:
        accept_chain(journal, LedgerReader([front.url], front.chain.contract).head(), ())
    return home


def new_chain(federation: AuditedFederation, blocks: int, salt: bytes) -> Chain:
    """Forks of one chain: other salts, other blocks behind the deployment."""
    chain = Chain(founding_of(federation.charter))
    for _ in range(blocks):
        chain.fund(20 * salt)
    return chain


def test_a_chain_that_lost_nothing_has_nothing_to_accept(home: Home, front: Front) -> None:
    front.chain.fund(bytes(20))
    done = CliRunner().invoke(accept, ["--home", str(home.path)])
    assert isinstance(done.exception, NothingToAccept) and "nothing was changed" in str(done.exception)


def test_what_the_chain_lost_is_accepted_once(home: Home, front: Front) -> None:
    front.chain = new_chain(AuditedFederation(chain_id=CHAIN_ID), 4, b"\x02")
    done = CliRunner().invoke(accept, ["--home", str(home.path)])
    assert done.exit_code == 0, done.output
    assert "accepted: block 3 is 0x" in done.output and "0 rounds were final here, 0 are now" in done.output
    with Journal.open(home.store, read_only=True) as journal:
        final = read_final_block(journal)
    assert final is not None and final.number == 5
    again = CliRunner().invoke(accept, ["--home", str(home.path)])
    assert isinstance(again.exception, NothingToAccept)
