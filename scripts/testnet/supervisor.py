"""Start, watch and stop all processes of a testnet.

Each has a session of its own, so that Ctrl-C reaches only this process, which then stops the others in order: nodes
first, which still want to record on the chain, then trainers, chain and relay. `testnet.json` always names what runs.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType, TracebackType
from typing import Self

import msgspec

from folkmoot.node.status_file import NodeStatus, StatusError, read_status
from folkmoot.protocol.schema import DataError
from folkmoot.testnet import chains, learning, relay_link
from folkmoot.testnet.examples import Learnable
from folkmoot.testnet.home import Plan, TestnetHome, open_home, write_testnet
from folkmoot.testnet.learning import Job
from folkmoot.testnet.nodes import start_node
from folkmoot.testnet.processes import Child, ProcessRef, TestnetError, start_mark, stop_children
from folkmoot.testnet.table import Display, make_view

POLL_SECONDS = 0.25
STALL_SECONDS = 120.0
"""Without any node's progress for so long, something is broken that waiting will not mend."""

STARTING, DONE = "starting", "done"
"""The phase of a node that has completed all rounds of its charter."""


class Supervisor:
    """A testnet of this process: everything started is stopped at the end of the block, unless `release` was called."""

    def __init__(self, home: TestnetHome, plan: Plan, *, fresh: bool, say: Callable[[str], None]) -> None:
        """Claims `home` for `plan` (see `open_home`); raises `TestnetError`."""
        self.home = home
        self.testnet = open_home(home, plan, fresh=fresh)
        self.plan = plan
        self.nodes: dict[str, Child] = {}
        self.trainers: Child | None = None
        self.chain: Child | None = None
        self.relay: Child | None = None
        self._say = say
        self._jobs: list[Job] = []
        self._fallen: set[str] = set()
        self._greeted: set[str] = set()
        self._cpu_seconds: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._save()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _undisturbed():
            self.stop()

    def start(self) -> None:
        """Bring everything up, founding the federation if that was not done; raises `TestnetError`."""
        if self.testnet.is_founded:
            self._say(f"continuing the federation in {self.home.path}, in {self.plan.mode} mode")
            self.trainers = learning.start_server(self.home)
            self._save()
            self._reconnect()
        else:
            self._found()
        self._start_relay()
        self._start_nodes()

    def release(self) -> None:
        """Leave everything running when this process ends; `testnet down` stops it."""
        children = self._children()
        self._save(supervised=False)
        for child in children:
            child.release()
        self.nodes, self.trainers, self.chain, self.relay = {}, None, None, None

    def begin_baselines(self) -> Job:
        """Train the models to compare with; `learning.baselines` waits for the scores."""
        assert self.trainers is not None
        return self._keep(learning.begin_baselines(self.trainers, self.home, self.plan))

    def statuses(self) -> list[NodeStatus | None]:
        """Each node's last word, in the plan's order; None from those that have not spoken since they were started."""
        return [self._status(name) for name in self.plan.names]

    def wait(self, display: Display) -> list[NodeStatus | None]:
        """Watch until every living node has completed and recorded all rounds; their last words.

        Nodes that end meanwhile are reported, and the others go on. Raises `TestnetError` when nothing can come of
        it any more: the chain or all nodes ended, or nothing moved for `STALL_SECONDS`.
        """
        moved, last = time.monotonic(), None
        while True:
            self._check_processes()
            statuses = self.statuses()
            known = [status for status in statuses if status is not None]
            self._greet(known, display)
            living = [status for status in known if status.name not in self._fallen]
            done = len(living) == len(self.nodes) - len(self._fallen) and all(map(self._is_done, living))
            display.update(make_view(known, self.plan.nodes, self.plan.rounds), final=done)
            if done:
                return statuses
            progress = [(status.name, status.rounds, status.ledger.height) for status in living]
            if progress != last:
                moved, last = time.monotonic(), progress
            elif time.monotonic() - moved > STALL_SECONDS:
                raise TestnetError(_describe_stall(living, self.home))
            time.sleep(POLL_SECONDS)

    def _greet(self, known: Sequence[NodeStatus], display: Display) -> None:
        """Say of every node once that it has begun, for that takes long where many start at a time."""
        for status in known:
            if status.phase != STARTING and status.name not in self._greeted:
                self._greeted.add(status.name)
                display.say(f"{status.name} is up ({len(self._greeted)} of {self.plan.nodes})")

    def stop_nodes(self) -> None:
        """End the nodes and wait for them; the chain goes on."""
        self._stop(list(self.nodes.values()))

    def stop(self) -> None:
        """End everything and wait for it."""
        for job in self._jobs:
            job.cancel()
        self.stop_nodes()
        self._stop(self._shared())
        if not self._children():
            return
        write_testnet(self.home, msgspec.structs.replace(self.testnet, processes=()))

    @property
    def cpu_seconds(self) -> dict[str, float]:
        """User and system time of each process that has ended, with all that it started, and of this one."""
        own = time.process_time()
        return {"supervisor": own} | {child.ref.name: child.cpu_seconds for child in self._children()}

    def _found(self) -> None:
        from folkmoot.testnet import found

        self._say(
            f"founding a federation of {self.plan.nodes} nodes in {self.home.path}, in {self.plan.mode} mode"
        )
        example = self._read_rows()
        self.trainers = learning.start_server(self.home)
        self._save()
        drawing = self._keep(learning.begin_founding(self.trainers, self.home, example, self.plan))
        publics = found.make_homes(self.home, self.plan, example)
        rpc = self._start_chain([keys.gas_key for keys in publics])
        tensors = learning.founding_tensors(drawing)
        self.testnet = found.found(self.home, self.plan, example, publics, tensors, rpc)
        self._save()

    def _read_rows(self) -> Learnable:
        from folkmoot.testnet import examples, own_data
        from folkmoot.testnet.dirichlet import concentration_of

        if self.plan.data is None:
            return replace(examples.load(self.plan.example), concentration=concentration_of(self.plan.split))
        try:
            task = own_data.deal(self.plan.data, self.plan.nodes, self.home.own_data)
        except DataError:
            shutil.rmtree(self.home.path)  # nothing is in it yet: the next try needs no --fresh
            raise
        for note in task.notes:
            self._say(f"note: {note}")
        return task

    def _reconnect(self) -> None:
        """A founded testnet's chain, and its nodes' configuration where the chain has another URL now."""
        from folkmoot.testnet import found

        rpc = self._start_chain(found.gas_accounts(self.home, self.plan), funded=True)
        contract = bytes.fromhex(self.testnet.contract[2:])
        for name in self.testnet.members:
            found.write_config(self.home, self.plan, name, rpc, contract)
        self.testnet = msgspec.structs.replace(self.testnet, rpc=rpc)

    def _start_chain(self, accounts: list[str], *, funded: bool = False) -> str:
        """The URL of the chain to use, with ether in `accounts`."""
        if self.plan.chain not in chains.STARTED_HERE:
            if not funded:
                chains.fund(self.plan.chain, accounts)
            return self.plan.chain
        self.chain = chains.start_chain(self.plan.chain, self.home, accounts)
        self._save()
        return chains.await_chain(self.plan.chain, self.home, self.chain, accounts)

    def _start_relay(self) -> None:
        if self.plan.links == "shaped":
            self.relay = relay_link.start_relay(self.home, self.plan.names)
            self._save()
            relay_link.await_relay(self.home, self.relay)

    def _start_nodes(self) -> None:
        for name in self.testnet.members:
            self.nodes[name] = start_node(self.home, name)
        self._save()
        self._say(f"started {', '.join(self.testnet.members)}")

    def _check_processes(self) -> None:
        for name, child in self.nodes.items():
            if name not in self._fallen and child.poll() is not None:
                self._fallen.add(name)
                self._say(child.why_it_ended())
        if len(self._fallen) == len(self.nodes):
            raise TestnetError("all nodes ended: see above and their logs")
        for other in self._shared():
            if other.poll() is not None:
                raise TestnetError(other.why_it_ended())

    def _is_done(self, status: NodeStatus) -> bool:
        return status.phase == DONE and status.ledger.height >= self.plan.rounds

    def _status(self, name: str) -> NodeStatus | None:
        try:
            status = read_status(self.home.node(name).status)
        except StatusError as error:
            raise TestnetError(f"{name}: {error}") from error
        # An earlier run may have left its file.
        return status if status is not None and status.pid == self.nodes[name].ref.pid else None

    def _keep(self, job: Job) -> Job:
        self._jobs.append(job)
        return job

    def _children(self) -> list[Child]:
        return [*self.nodes.values(), *self._shared()]

    def _shared(self) -> list[Child]:
        """What no single node owns."""
        return [child for child in (self.trainers, self.chain, self.relay) if child is not None]

    def _stop(self, children: list[Child]) -> None:
        for name in stop_children(children):
            self._say(f"{name} did not stop in time and was killed")

    def _save(self, *, supervised: bool = True) -> None:
        """Write down what runs, ourselves included: for `down`, and so that nobody starts a second testnet here."""
        own = ProcessRef(name="supervisor", pid=os.getpid(), started=start_mark(os.getpid()) or "", log="")
        running = tuple(child.ref for child in self._children() if child.exit_code is None)
        processes = (own, *running) if supervised else running
        self.testnet = msgspec.structs.replace(self.testnet, processes=processes)
        write_testnet(self.home, self.testnet)


def _describe_stall(living: list[NodeStatus], home: TestnetHome) -> str:
    states = "; ".join(
        f"{status.name}: round {status.round} attempt {status.attempt} {status.phase}, "
        f"ledger {status.ledger.height} ({status.ledger.state})"
        for status in living
    )
    logs = home.path / "nodes"
    return f"no progress for {STALL_SECONDS:.0f} s ({states or 'no node has spoken'}): see the logs in {logs}"


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP end us as Ctrl-C does: with everything taken down."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave half of the processes behind; stopping them has deadlines of its own."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
