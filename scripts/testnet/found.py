"""Found a federation on one machine: what its members do one by one, done at once for all of them."""

from collections.abc import Sequence

import msgspec
import numpy as np
import safetensors.numpy
from nacl.signing import SigningKey

from folkmoot.ledger.build import expected_code_hash
from folkmoot.ledger.evm import deploy
from folkmoot.ledger.identity import founding_of
from folkmoot.node.archive import Models
from folkmoot.node.charter_draft import (
    USUAL_RATES,
    USUAL_TRAINING,
    Table,
    merge,
    model_terms,
    parse_assignments,
    take_patterns,
)
from folkmoot.node.charter_files import write_charter, write_member
from folkmoot.node.config import (
    DataConfig,
    Home,
    LedgerConfig,
    NetworkConfig,
    NodeConfig,
    TrainerConfig,
    render_config,
)
from folkmoot.node.keys import GAS, IDENTITY, PublicKeys, create_keys, public_keys, unlock
from folkmoot.node.model_file import name_tensors
from folkmoot.node.passphrase import create_passphrase_file
from folkmoot.node.store import Journal
from folkmoot.protocol.charter import Charter, federation_id, sign_charter
from folkmoot.protocol.charter_rules import check_charter
from folkmoot.protocol.charter_tables import Averaging, LedgerTerms, Member, Model, Schedule, Secrecy, Tensor
from folkmoot.protocol.outer import Start, with_start
from folkmoot.protocol.toml import ConfigError
from folkmoot.testnet.chains import read_chain_id
from folkmoot.testnet.examples import Floats, Learnable
from folkmoot.testnet.home import HELD_OUT_ROWS, MAX_ATTESTERS, OWN_ROWS, Plan, Testnet, TestnetHome
from folkmoot.testnet.learning import trainer_command
from folkmoot.testnet.own_model import architecture, place_source

_OWN_DATA = DataConfig(
    query=f"SELECT * FROM 'data/{OWN_ROWS}'", test_query=f"SELECT * FROM 'data/{HELD_OUT_ROWS}'"
)
"""What anybody's node.toml would say of such files."""


def make_homes(home: TestnetHome, plan: Plan, example: Learnable) -> list[PublicKeys]:
    """Every node's home with its keys and its share of the data; the public halves, in the plan's order."""
    homes = [home.node(name) for name in plan.names]
    publics = []
    for name, node in zip(plan.names, homes, strict=True):
        node.path.mkdir(parents=True)
        passphrase = create_passphrase_file(home.passphrase(name))
        publics.append(create_keys(node.keys, passphrase, cheap=True))
        if plan.model is not None:
            place_source(plan.model, node.resolve(TrainerConfig().path))
    example.write_data([node.path / "data" for node in homes])
    return publics


def gas_accounts(home: TestnetHome, plan: Plan) -> list[str]:
    """The addresses that pay for transactions, in the plan's order."""
    return [public_keys(home.node(name).keys).gas_key for name in plan.names]


def found(
    home: TestnetHome,
    plan: Plan,
    example: Learnable,
    publics: Sequence[PublicKeys],
    tensors: Sequence[Tensor],
    rpc: str,
) -> Testnet:
    """Agree on the charter, put its contract on the chain at `rpc`, and make every home ready to run.

    `publics` are the nodes' keys, whose gas accounts have ether; `tensors` lay out `home.initial_vector`.
    """
    weights = np.frombuffer(home.initial_vector.read_bytes(), dtype="<f4")
    charter = with_start(make_charter(plan, example, publics, tensors, read_chain_id(rpc)), weights)
    _deal_model(home, plan, charter, weights)
    signatures = {name: sign_charter(charter, _identity(home.node(name))) for name in plan.names}
    contract = _deploy(home, plan, charter, rpc)
    for name, member in zip(plan.names, charter.members, strict=True):
        node = home.node(name)
        write_member(node, member)
        write_charter(node, charter, signatures)
        write_config(home, plan, name, rpc, contract)
        Journal.create(node.store)
    return Testnet(
        plan=plan,
        federation=federation_id(charter.digest, charter.ledger.chain_id, contract).hex(),
        mode=charter.averaging.mode,
        contract=f"0x{contract.hex()}",
        rpc=rpc,
    )


def make_charter(
    plan: Plan,
    example: Learnable,
    publics: Sequence[PublicKeys],
    tensors: Sequence[Tensor],
    chain_id: int,
) -> Charter:
    """What the members of `plan` agree on, but for the starting weights."""
    members = [
        Member(
            name=name,
            peer_id=keys.peer_id,
            identity_key=keys.identity_key,
            sealing_key=keys.sealing_key,
            audit_key=keys.audit_key,
            attester=index < MAX_ATTESTERS,
        )
        for index, (name, keys) in enumerate(zip(plan.names, publics, strict=True))
    ]
    table = architecture(plan, example)
    patterns, chosen = take_patterns(parse_assignments(plan.terms))
    charter = Charter(
        name=example.name,
        model=msgspec.convert(model_terms(table, tensors, patterns), Model),
        data=example.data,
        schedule=Schedule(rounds=plan.rounds, max_ahead=plan.max_ahead),
        ledger=LedgerTerms(chain_id=chain_id, code_hash=expected_code_hash().hex()),
        training=msgspec.structs.replace(
            example.training, **USUAL_TRAINING.get(table["kind"], {}), seed=plan.seed
        ),
        averaging=_averaging(plan, example),
        secrecy=Secrecy(ring=plan.ring),
        members=tuple(members),
    )
    charter = _with_terms(charter, chosen)
    check_charter(charter)
    return charter


def _with_terms(charter: Charter, chosen: Table) -> Charter:
    """The charter with other terms laid over it; a rule comes with its usual rates."""
    usual = USUAL_RATES.get(chosen.get("averaging", {}).get("rule", ""), {})
    tables = merge(merge(msgspec.to_builtins(charter), {"averaging": usual}), chosen)
    try:
        return msgspec.convert(tables, Charter)
    except msgspec.ValidationError as error:
        raise ConfigError(f"--set: the charter would not be valid: {error}") from error


def _averaging(plan: Plan, example: Learnable) -> Averaging:
    """In secure mode the node with the most rows has full weight, so that the ring's whole range is used."""
    if plan.mode == "open":
        return Averaging(codec=plan.codec)
    return Averaging(mode="secure", codec=plan.codec, weight_cap=example.most_rows(plan.nodes))


def write_config(home: TestnetHome, plan: Plan, name: str, rpc: str, contract: bytes) -> None:
    """`node.toml` of one node: any free port, and the others found by files.

    These are the ones to which nodes write their addresses or, where links are shaped, the relay's.
    """
    direct = tuple(f"../{other}/address" for other in plan.names if other != name)
    config = NodeConfig(
        name=name,
        network=NetworkConfig(
            bootstrap=direct if plan.links == "direct" else (str(home.relay_addresses(name)),),
            tell_addresses=plan.links == "direct",  # else they would go around the relay
        ),
        ledger=LedgerConfig(rpc=(rpc,), contract=f"0x{contract.hex()}"),
        trainer=TrainerConfig(command=trainer_command(home, plan, name), ditto=plan.ditto),
        data=DataConfig() if plan.data is None else _OWN_DATA,
    )
    home.node(name).config.write_text(render_config(config), encoding="utf-8")


def _deal_model(home: TestnetHome, plan: Plan, charter: Charter, weights: Floats) -> None:
    """Put the starting weights into every home, as the rule begins with them and named (safetensors)."""
    named = safetensors.numpy.save(name_tensors(weights, charter.model))
    start = Start.of(charter, weights)
    for name in plan.names:
        node = home.node(name)
        Models(node.models).add_start(start)
        node.initial_model.write_bytes(named)


def _identity(node: Home) -> SigningKey:
    return SigningKey(bytes.fromhex((node.keys / IDENTITY).read_text(encoding="ascii")))


def _deploy(home: TestnetHome, plan: Plan, charter: Charter, rpc: str) -> bytes:
    """The contract's address; the first node pays."""
    name = plan.names[0]
    passphrase = home.passphrase(name).read_text(encoding="utf-8").strip()
    (gas_key,) = unlock([home.node(name).keys / GAS], passphrase)
    return deploy([rpc], gas_key, founding_of(charter)).contract
