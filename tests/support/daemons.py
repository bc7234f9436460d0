"""A founded testnet whose daemons the test starts, kills and starts again: real processes, real libp2p, a chain."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from living_federation import signed_within

from folkmoot.node.config import Home
from folkmoot.node.learning import DISCLOSURE
from folkmoot.node.passphrase import FILE_VARIABLE
from folkmoot.node.status_file import NodeStatus, RoundStatus, read_status
from folkmoot.node.store import KILL_AFTER_ENTRY, Journal
from folkmoot.protocol.journal import decode_entry
from folkmoot.protocol.messages import Signed
from folkmoot.protocol.record import decode_record
from folkmoot.testnet import learning
from folkmoot.testnet.chains import await_url, start_embedded
from folkmoot.testnet.examples import load
from folkmoot.testnet.found import found, make_homes
from folkmoot.testnet.home import Plan, Testnet, TestnetHome, open_home
from folkmoot.testnet.processes import Child, last_lines, stop_children

LIMIT = 90.0
"""Seconds that anything here may take on a busy machine."""


class Daemons:
    """The homes of a founded federation, its chain and its trainers; `start` runs nodes on them."""

    def __init__(
        self, home: TestnetHome, plan: Plan, testnet: Testnet, chain: Child, children: list[Child]
    ) -> None:
        self.home = home
        self.plan = plan
        self.testnet = testnet
        self.chain = chain
        self._children = children
        self._nodes: dict[str, Child] = {}

    def node(self, name: str) -> Home:
        """A member's home."""
        return self.home.node(name)

    def adopt(self, child: Child) -> None:
        """Have a process that the test started stopped with the others."""
        self._children.append(child)

    def start(
        self, name: str, environment: Mapping[str, str] | None = None, home: Home | None = None
    ) -> Child:
        """Run the member's daemon, on its own home or on a copy of it."""
        home = home or self.node(name)
        child = Child.start(
            name,
            [sys.executable, "-m", "folkmoot.node.cli", "run", "--home", str(home.path)],
            home.logs / "output.log",
            environment={**self.environment(name), **(environment or {})},
        )
        self._children.append(child)
        self._nodes[name] = child
        return child

    def run(
        self, name: str, home: Home | None = None, environment: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a daemon that is to end by itself; its exit code and what it printed."""
        home = home or self.node(name)
        return subprocess.run(
            [sys.executable, "-m", "folkmoot.node.cli", "run", "--home", str(home.path)],
            env={**os.environ, **self.environment(name), **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )

    def environment(self, name: str) -> dict[str, str]:
        """What the member's daemon needs in its environment."""
        return {FILE_VARIABLE: str(self.home.passphrase(name))}

    def status(self, name: str) -> NodeStatus | None:
        """What the member's running daemon says of itself; None as long as it has not spoken."""
        status = read_status(self.node(name).status)
        child = self._nodes.get(name)
        return status if status is not None and child is not None and status.pid == child.ref.pid else None

    def rounds(self, name: str) -> int:
        """How many rounds the member's running daemon has finished."""
        status = self.status(name)
        return status.rounds if status is not None else 0

    def await_rounds(self, names: Collection[str], more: int) -> None:
        """Wait until all of these have finished that many rounds beyond the last that any of them had."""
        goal = max(self.rounds(name) for name in names) + more
        self.wait(lambda: all(self.rounds(name) >= goal for name in names))

    def start_and_die(self, words: Mapping[str, str]) -> None:
        """Run these members' daemons until each has killed itself after it journalled that (`KILL_AFTER_ENTRY`)."""
        children = [self.start(name, {KILL_AFTER_ENTRY: word}) for name, word in words.items()]
        self.wait(lambda: all(child.poll() is not None for child in children))
        assert [child.exit_code for child in children] == [-signal.SIGKILL] * len(children)

    def histories(self) -> dict[str, list[RoundStatus]]:
        """The running daemons' last rounds. Whoever holds them holds the same models, and nobody was called a liar."""
        statuses = {name: status for name in self.plan.names if (status := self.status(name)) is not None}
        models: dict[int, set[str]] = {}
        for status in statuses.values():
            assert status.misbehaviour == []
            for row in status.history:
                models.setdefault(row.round, set()).add(row.model_digest)
        assert {len(digests) for digests in models.values()} == {1}
        return {name: status.history for name, status in statuses.items()}

    def signed_by(self, name: str) -> list[Signed]:
        """Every signed body, its own or others', in a stopped node's journal and archive."""
        house = self.node(name)
        with Journal.open(house.store, read_only=True) as journal:
            entries = [decode_entry(body) for _, _, kind, body in journal.entries() if kind != DISCLOSURE]
        records = [decode_record(path.read_bytes()) for path in (house.archive / "rounds").glob("*.record")]
        return [signed for thing in (*entries, *records) for signed in signed_within(thing)]

    def are_done(self) -> bool:
        """Whether all daemons have finished and recorded all rounds."""
        statuses = [self.status(name) for name in self._nodes]
        return all(
            one is not None and one.phase == "done" and one.ledger.height == self.plan.rounds
            for one in statuses
        )

    def wait(self, condition: Callable[[], object], seconds: float = LIMIT) -> None:
        """Poll until `condition` holds; on time-out fail with what the daemons said last."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self._last_words()
            time.sleep(0.02)

    def _last_words(self) -> str:
        words = (f"{name}: {last_lines(Path(child.ref.log), 4)}" for name, child in self._nodes.items())
        return "\n".join(words)


@contextmanager
def founded(path: Path, plan: Plan) -> Iterator[Daemons]:
    """Found a federation in `path`; at the end everything that was started is stopped."""
    home = TestnetHome(path)
    open_home(home, plan, fresh=False)
    children = [server := learning.start_server(home)]
    try:
        example = load(plan.example)
        drawing = learning.begin_founding(server, home, example, plan)
        publics = make_homes(home, plan, example)
        children.append(chain := start_embedded(home, [keys.gas_key for keys in publics]))
        tensors = learning.founding_tensors(drawing)
        testnet = found(home, plan, example, publics, tensors, await_url(home, chain))
        yield Daemons(home, plan, testnet, chain, children)
    finally:
        stop_children(list(reversed(children)))
