"""The trainer of a testnet's attackers: the real one, but for what it sends (`attacks.py`).

An attacker may know everything. Training is the same wherever it runs, so it trains what the honest nodes train, on
their rows, and has their updates before they send them; all attackers find the same, and so act as one. What the
federation would make of a lie it computes with the functions by which it will be made (`rehearsed_sums.py`).
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np

from folkmoot.node.charter_files import read_charter
from folkmoot.node.config import load_config
from folkmoot.node.train import local, worker
from folkmoot.node.train.fitting import Turn, fit
from folkmoot.node.train.objectives import Classification
from folkmoot.node.train.session import Session
from folkmoot.node.train.steering import Carried
from folkmoot.node.train.vectors import Vector, write_vector
from folkmoot.node.train.wire import Fit, Fitted, Task
from folkmoot.protocol.ring import Float32s
from folkmoot.testnet.attacks import FORGED, POISONED, Floats, View
from folkmoot.testnet.home import TestnetHome, read_testnet
from folkmoot.testnet.rehearsed_sums import OpenSums, SecureSums, Sent, sums_of


class Liar(Session):
    """An attacker's session in the testnet of `home`: trains on poisoned rows, or sends what it made up."""

    def __init__(self, task: Task, home: TestnetHome) -> None:
        self._home, self._plan = home, read_testnet(home).plan
        self._attack = self._plan.attack_name
        super().__init__(task)
        self._before: Floats | None = None

    def _load(self, path: Path) -> local.Rows:
        rows, objective = super()._load(path), self._objective
        if self._attack not in POISONED or path != Path(self._task.train):
            return rows
        assert isinstance(objective, Classification)
        x, y = POISONED[self._attack](rows.x.numpy(), rows.y.numpy(), objective.classes)
        return local.Rows.of(x, y)

    def fit(self, request: Fit, on_step: local.OnStep) -> Fitted:
        """As an honest node, and then another update in place of the trained one."""
        fitted = super().fit(request, on_step)
        if self._attack in FORGED:
            write_vector(Path(request.update), self._forge(request, on_step))
        return fitted

    def _forge(self, request: Fit, on_step: local.OnStep) -> Vector:
        names, attackers = self._plan.names, self._plan.attackers
        rows = {name: self._rows_of(name) for name in names}
        honest = np.stack(
            [self._honest(name, rows[name], request, on_step) for name in names if name not in attackers]
        )
        before = np.zeros_like(honest) if self._before is None else self._before
        view = View(
            honest,
            before,
            len(attackers),
            self._foresight(request.round, [len(rows[name]) for name in names]),
            np.random.default_rng([self._plan.seed, request.round]),
        )
        self._before = honest
        forged = FORGED[self._attack](view)
        return np.ascontiguousarray(forged[attackers.index(self._task.member)], dtype=np.float32)

    def _honest(self, name: str, rows: local.Rows, request: Fit, on_step: local.OnStep) -> Float32s:
        kept = {what: one.before for what, one in request.kept.items() if one.before}
        zeros = np.zeros(self._parts.count("shared"), dtype=np.float32)
        start = self._whole(Path(request.base), kept)
        fragment = self._fragment(request.fragment)
        turn = Turn(name, request.round, start, Carried(zeros, zeros), self._parts, fragment)
        return fit(self._module, self._objective, rows, self._task.training, turn, on_step).sent

    def _rows_of(self, name: str) -> local.Rows:
        node = self._home.node(name)
        return super()._load(node.resolve(load_config(node).data.train))

    @cached_property
    def _sums(self) -> OpenSums | SecureSums:
        charter = read_charter(self._home.node(self._plan.names[0]))
        return sums_of(charter, bytes.fromhex(read_testnet(self._home).federation))

    def _foresight(self, round_: int, examples: list[int]) -> Callable[[Floats], Floats]:
        """What the federation makes of everybody's updates, the attackers' last."""

        def aggregate(updates: Floats) -> Floats:
            sent = [
                Sent(member, examples[member], update)
                for member, update in enumerate(updates.astype(np.float32))
            ]
            return self._sums.mean(round_, sent)

        return aggregate


def main(arguments: list[str]) -> int:
    """Serve one daemon of the testnet in the directory named by the one argument."""
    home = TestnetHome(Path(arguments[0]))
    return worker.main(lambda task: Liar(task, home))
