"""`testnet chaos`: disturb a testnet that runs, mend it, and say whether it held.

Held means: no process died that was not killed, all nodes went on together after healing with the same models, and
the audit of what is recorded passes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from folkmoot.ledger.audit import AuditReport, Source, run_audit
from folkmoot.ledger.reader import LedgerReader
from folkmoot.node.status_file import NodeStatus, StatusError, read_status, rss_mb
from folkmoot.testnet import control, relay_link
from folkmoot.testnet.chains import STARTED_HERE
from folkmoot.testnet.chaos_report import ChaosReport, NodeMemory, compare_models
from folkmoot.testnet.disturbances import Disturbance, draw
from folkmoot.testnet.home import Testnet, TestnetHome, read_testnet
from folkmoot.testnet.processes import ProcessRef, TestnetError, last_lines
from folkmoot.testnet.shaping import Heal, Partition, Slow

HEAL_SECONDS = 90.0
"""How long the nodes may take, after the last disturbance, until all have gone on together."""
ROUNDS_AFTER = 2
"""So many rounds beyond the furthest node's must all nodes complete then."""

_POLL_SECONDS = 0.1


class Chaos:
    """Disturbs the testnet of `home`; `say` is told what happens. Raises `TestnetError` if it does not run whole."""

    def __init__(self, home: TestnetHome, say: Callable[[str], None]) -> None:
        self._home = home
        self._say = say
        self._testnet = read_testnet(home)
        control.check_up(home, self._testnet)
        self._expected = {process.name: process for process in self._testnet.running}
        self._deaths: list[str] = []
        self._check_whole()

    def run(self, seconds: float, seed: int) -> ChaosReport:
        """Disturb for so long, wait until all go on together, audit."""
        shaped = self._testnet.plan.links == "shaped"
        plan = draw(seed, self._names, seconds, shaped=shaped)
        self._say(f"disturbing {len(self._names)} nodes {len(plan)} times in {seconds:.0f} s, seed {seed}")
        memory, first = self._memory(), self._rounds()
        began = time.monotonic()
        with self._mended():
            for disturbance in plan:
                self._watch(began + disturbance.at)
                self._say(f"{time.monotonic() - began:6.1f} s  {disturbance}")
                self._begin(disturbance)
                self._watch(began + disturbance.at + disturbance.seconds)
                self._end(disturbance)
            self._watch(began + seconds)
        rounds = self._rounds() - first
        healed = self._heal()
        return ChaosReport(
            seed=seed,
            seconds=seconds,
            disturbances=plan,
            rounds=rounds,
            deaths=tuple(self._deaths),
            seconds_to_heal=healed,
            disagreement=compare_models(self._statuses()),
            audit=self._audit(),
            memory=[
                NodeMemory(name=name, start_mb=memory[name], end_mb=after)
                for name, after in self._memory().items()
            ],
        )

    def _check_whole(self) -> None:
        if "supervisor" in self._expected:
            raise TestnetError(
                f"{self._home.path}: 'testnet run' watches its nodes: disturb one that 'testnet up' started"
            )
        for name in self._names:
            if name not in self._expected:
                raise TestnetError(f"{name} is not running: 'folkmoot testnet restart {name}' first")
            if self._expected[name].is_paused:
                raise TestnetError(f"{name} is paused: 'folkmoot testnet resume {name}' first")

    @property
    def _names(self) -> list[str]:
        return self._testnet.members

    # --- disturbing -----------------------------------------------------------------------------------------------

    def _begin(self, disturbance: Disturbance) -> None:
        match disturbance.kind:
            case "kill":
                for name in self._living(disturbance.nodes):
                    del self._expected[name]
                    control.kill(self._home, name)
            case "pause":
                for name in self._living(disturbance.nodes):
                    control.pause(self._home, name)
            case "cut" | "silence":
                others = tuple(name for name in self._names if name not in disturbance.nodes)
                sides = (disturbance.nodes, others)
                relay_link.give(self._home, Partition(sides, disturbance.kind == "silence"))
            case "slow":
                (node,) = disturbance.nodes
                relay_link.give(self._home, Slow(node, disturbance.delay, disturbance.rate))

    def _end(self, disturbance: Disturbance) -> None:
        match disturbance.kind:
            case "kill":
                self._restart()
            case "pause":
                self._resume()
            case "cut" | "silence" | "slow":
                relay_link.give(self._home, Heal())

    @contextmanager
    def _mended(self) -> Iterator[None]:
        """However the block ends, nothing stays broken."""
        try:
            yield
        finally:
            self._resume()
            self._restart()
            if "relay" in self._expected:
                relay_link.give(self._home, Heal())

    def _restart(self) -> None:
        """Start whom we killed; who died otherwise is left lying, to be looked at."""
        for name in self._names:
            if name not in self._expected and not any(death.startswith(f"{name} ") for death in self._deaths):
                self._expected[name] = control.restart(self._home, name)

    def _resume(self) -> None:
        for name in self._living(self._names):
            if self._expected[name].is_paused:
                control.resume(self._home, name)

    # --- watching -------------------------------------------------------------------------------------------------

    def _watch(self, until: float) -> None:
        """Wait, and write down who dies meanwhile."""
        while time.monotonic() < until:
            self._bury()
            time.sleep(_POLL_SECONDS)
        self._bury()

    def _bury(self) -> None:
        for name, process in list(self._expected.items()):
            if not process.is_running:
                del self._expected[name]
                self._deaths.append(_obituary(process))
                self._say(self._deaths[-1])

    def _living(self, names: Sequence[str]) -> list[str]:
        self._bury()
        return [name for name in names if name in self._expected]

    def _heal(self) -> float | None:
        """Seconds until all living nodes have gone on together; None if they did not in time."""
        goal = min(self._rounds() + ROUNDS_AFTER, self._testnet.plan.rounds)
        self._say(f"all mended: waiting until every node has completed round {goal}")
        began = time.monotonic()
        while any(self._status(name).rounds < goal for name in self._living(self._names)):
            if time.monotonic() - began > HEAL_SECONDS:
                return None
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - began

    def _rounds(self) -> int:
        return max(status.rounds for status in self._statuses())

    def _statuses(self) -> list[NodeStatus]:
        return [self._status(name) for name in self._names]

    def _status(self, name: str) -> NodeStatus:
        try:
            status = read_status(self._home.node(name).status)
        except StatusError as error:
            raise TestnetError(f"{name}: {error}") from error
        return status or NodeStatus(name=name, pid=0, peer_id="", member=0)

    def _memory(self) -> dict[str, float]:
        """Each node's own memory now, in MB; 0 for one that is dead."""
        processes = {name: self._expected.get(name) for name in self._names}
        return {name: rss_mb(process.pid) if process else 0.0 for name, process in processes.items()}

    # --- auditing -------------------------------------------------------------------------------------------------

    def _audit(self) -> AuditReport:
        """The audit of what is recorded now. Nodes are frozen for it: else there would always be newer rounds."""
        frozen = [name for name in self._living(self._names) if not self._expected[name].is_paused]
        self._say("auditing; the nodes are frozen meanwhile")
        for name in frozen:
            control.pause(self._home, name)
        try:
            return audit_recorded(self._home, self._testnet)
        finally:
            for name in frozen:
                control.resume(self._home, name)


class _Recorded(Source):
    """A home, without the rounds that it has ahead of the ledger: nobody can say yet whether those are right."""

    def __init__(self, home: TestnetHome, name: str, height: int) -> None:
        node = home.node(name)
        super().__init__(node.archive, node.path)
        self._height = height

    def rounds(self) -> list[int]:
        """The recorded rounds of which there is a record here."""
        return [number for number in super().rounds() if number <= self._height]


def audit_recorded(home: TestnetHome, testnet: Testnet) -> AuditReport:
    """What an auditor with all homes says of the rounds that are on the ledger."""
    contract = bytes.fromhex(testnet.contract[2:])
    ledger = LedgerReader([testnet.rpc], contract)
    height = len(ledger.records(1))
    sources = [_Recorded(home, name, height) for name in testnet.members]
    return run_audit(ledger, sources, contract=contract, development=testnet.plan.chain in STARTED_HERE)


def _obituary(process: ProcessRef) -> str:
    lines = "".join(f"\n    {line}" for line in last_lines(Path(process.log), 3))
    return f"{process.name} died and nobody killed it{lines}"
