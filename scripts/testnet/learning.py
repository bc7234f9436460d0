"""All of a testnet that needs torch, run in forks of one server: trainers, starting weights, baselines."""

import subprocess
import time
from typing import TypeVar

import msgspec

from folkmoot.node.report.story import Step
from folkmoot.protocol.charter_tables import Tensor
from folkmoot.testnet.examples import Learnable
from folkmoot.testnet.forkserver import launch_command, server_command
from folkmoot.testnet.home import Plan, TestnetHome
from folkmoot.testnet.own_model import architecture
from folkmoot.testnet.processes import Child, TestnetError, last_lines

FOUNDING_SECONDS = 90.0
BASELINE_SECONDS = 600.0

_POLL_SECONDS = 0.02

T = TypeVar("T")


class Baselines(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Metrics on the held-out rows of each node's model trained alone, in order, and of one on all data.

    `calibration` is the shared model's on these rows. With attackers, `honest` are the metrics of FedAvg among the
    other nodes alone, and `backdoor` how often the shared model takes a row with a planted patch for the target.
    """

    alone: tuple[dict[str, float], ...]
    pooled: dict[str, float]
    calibration: tuple[Step, ...] = ()
    honest: dict[str, float] = {}
    backdoor: float | None = None


def start_server(home: TestnetHome) -> Child:
    """Start the server; it listens at once and answers when it has imported torch."""
    return Child.start("trainers", server_command(home.fork_socket), home.logs / "trainers.log")


def trainer_command(home: TestnetHome, plan: Plan, name: str) -> tuple[str, ...]:
    """What stands in a node's `trainer.command`."""
    if name in plan.attackers:
        return launch_command(home.fork_socket, "attacker", str(home.path))
    return launch_command(home.fork_socket, "trainer")


class Job:
    """One call into the server, running beside us until `result` waits for its answer."""

    def __init__(self, server: Child, home: TestnetHome, entry: str, *arguments: str) -> None:
        self._server = server
        self._log = home.logs / f"{entry}.log"
        self._entry = entry
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                launch_command(home.fork_socket, entry, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def result(self, kind: type[T], seconds: float) -> T:
        """The one JSON line that it prints; raises `TestnetError` if it fails or takes longer."""
        deadline = time.monotonic() + seconds
        try:
            # Its answer is far smaller than a pipe's buffer: it can end before anybody reads.
            while self._popen.poll() is None:
                if self._server.poll() is not None:
                    raise TestnetError(self._server.why_it_ended())
                if time.monotonic() > deadline:
                    raise TestnetError(f"{self._entry}: no answer after {seconds:.0f} s: see {self._log}")
                time.sleep(_POLL_SECONDS)
            return self._answer(kind)
        finally:
            self.cancel()

    def cancel(self) -> None:
        """End it, whatever it does; its fork ends with it."""
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()
        if self._popen.stdout is not None:
            self._popen.stdout.close()

    def _answer(self, kind: type[T]) -> T:
        assert self._popen.stdout is not None
        answer = self._popen.stdout.read()
        if self._popen.returncode != 0:
            tail = "".join(f"\n    {line}" for line in last_lines(self._log, 5))
            raise TestnetError(f"{self._entry} failed (exit code {self._popen.returncode}){tail}")
        try:
            return msgspec.json.decode(answer, type=kind)
        except msgspec.DecodeError as error:
            raise TestnetError(f"{self._entry} said {answer[:200]!r}: see {self._log}") from error


def begin_founding(server: Child, home: TestnetHome, example: Learnable, plan: Plan) -> Job:
    """Draw the starting weights into `home.initial_vector`; `founding_tensors` waits for their layout."""
    path = plan.model.file if plan.model is not None else ""
    table = msgspec.json.encode({**architecture(plan, example), "path": path}).decode()
    return Job(server, home, "founding", table, str(plan.seed), str(home.initial_vector))


def founding_tensors(job: Job) -> tuple[Tensor, ...]:
    """The layout of the vector that `begin_founding` wrote."""
    return job.result(tuple[Tensor, ...], FOUNDING_SECONDS)


def begin_baselines(server: Child, home: TestnetHome, plan: Plan) -> Job:
    """Train alone and pooled; `baselines` waits for the scores."""
    return Job(server, home, "baselines", str(home.path), ",".join(plan.names), str(plan.rounds))


def baselines(job: Job) -> Baselines:
    """What `begin_baselines` found."""
    return job.result(Baselines, BASELINE_SECONDS)
