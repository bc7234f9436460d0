"""`testnet status` and `testnet down`: what runs in a testnet's directory, from its files, and stopping it."""

from collections.abc import Callable

import msgspec

from folkmoot.node.charter_files import load_member
from folkmoot.node.status_file import NodeStatus, read_status
from folkmoot.testnet.chains import STARTED_HERE
from folkmoot.testnet.home import Testnet, TestnetHome, read_testnet, write_testnet
from folkmoot.testnet.processes import ProcessRef, stop_processes

STOPPED, PAUSED = "stopped", "paused"


class NodeOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One node; `pid` is None and `phase` "stopped" while it does not run, the rest is its last word.

    `phase` is "paused" while the process is frozen.
    """

    name: str
    pid: int | None
    peer_id: str
    rounds: int
    phase: str
    peers: list[str]


class ChainOverview(msgspec.Struct, frozen=True, kw_only=True):
    """The chain; `kind` is "embedded", "anvil" or "external", `pid` that of one started here while it runs.

    `height`: rounds recorded, as far as the nodes know.
    """

    kind: str
    url: str
    contract: str
    pid: int | None
    height: int


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What `testnet status --json` prints."""

    federation: str
    nodes: list[NodeOverview]
    chain: ChainOverview


def read_overview(home: TestnetHome) -> Overview:
    """How the testnet in `home` stands; raises `TestnetError` if there is none."""
    testnet = read_testnet(home)
    statuses = {name: read_status(home.node(name).status) for name in testnet.names}
    peer_ids = {name: _peer_id(home, testnet, name) for name in testnet.names}
    chain = testnet.process("chain")
    return Overview(
        federation=testnet.federation,
        nodes=[
            _node(name, peer_ids[name], testnet.process(name), status) for name, status in statuses.items()
        ],
        chain=ChainOverview(
            kind=testnet.plan.chain if testnet.plan.chain in STARTED_HERE else "external",
            url=testnet.rpc,
            contract=testnet.contract,
            pid=chain.pid if chain else None,
            height=max((status.ledger.height for status in statuses.values() if status), default=0),
        ),
    )


def _peer_id(home: TestnetHome, testnet: Testnet, name: str) -> str:
    return load_member(home.node(name)).peer_id if testnet.is_founded else ""


def _node(name: str, peer_id: str, process: ProcessRef | None, status: NodeStatus | None) -> NodeOverview:
    seen = status or NodeStatus(name=name, pid=0, peer_id=peer_id, member=0)
    return NodeOverview(
        name=name,
        pid=process.pid if process else None,
        peer_id=peer_id,
        rounds=seen.rounds,
        phase=_phase(process, seen),
        peers=seen.peers if process else [],
    )


def _phase(process: ProcessRef | None, seen: NodeStatus) -> str:
    if process is None:
        return STOPPED
    return PAUSED if process.is_paused else seen.phase


def show_overview(overview: Overview) -> None:
    """Print it as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("node", "process", "rounds", "phase", "peers", "peer id"):
        table.add_column(heading, overflow="fold")
    for node in overview.nodes:
        peers = ", ".join(node.peers) or "-"
        table.add_row(node.name, str(node.pid or "-"), str(node.rounds), node.phase, peers, node.peer_id)
    chain = overview.chain
    running = f"process {chain.pid}" if chain.pid else STOPPED
    console = Console()
    console.print(table)
    console.print(
        f"chain: {chain.kind} at {chain.url or '-'}"
        + (f" ({running})" if chain.kind in STARTED_HERE else "")
        + f", contract {chain.contract or 'not deployed'}, {chain.height} rounds recorded",
        soft_wrap=True,
        highlight=False,
    )


def stop_testnet(home: TestnetHome, say: Callable[[str], None]) -> None:
    """Stop all processes of the testnet in `home`, in order; raises `TestnetError` if there is no testnet."""
    testnet = read_testnet(home)
    running = testnet.running
    for group in _stopping_order(testnet, running):
        for name in stop_processes(group):
            say(f"{name} did not stop in time and was killed")
    write_testnet(home, msgspec.structs.replace(read_testnet(home), processes=()))
    say(f"stopped {', '.join(process.name for process in running)}" if running else "nothing was running")


def _stopping_order(testnet: Testnet, running: list[ProcessRef]) -> list[list[ProcessRef]]:
    """A supervisor stops all the others itself; nodes come before the chain, on which they may still record."""
    supervisors = [process for process in running if process.name == "supervisor"]
    nodes = [process for process in running if process.name in testnet.names]
    return [supervisors, nodes, [process for process in running if process not in (*supervisors, *nodes)]]
