"""An attacker's trainer in a testnet: it knows what the honest nodes send, and sends what its attack makes of that."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from folkmoot.node.config import load_config
from folkmoot.node.train import local, models
from folkmoot.node.train.session import Session
from folkmoot.node.train.vectors import read_vector, write_vector
from folkmoot.node.train.wire import Fit, Task
from folkmoot.protocol.charter_tables import Model, Training
from folkmoot.protocol.ring import Float32s
from folkmoot.testnet.attacker import Liar
from folkmoot.testnet.attacks import inner_product
from folkmoot.testnet.examples import load
from folkmoot.testnet.found import write_config
from folkmoot.testnet.home import Plan, Testnet, TestnetHome, write_testnet

TRAINING = Training(epochs=1, batch=64)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    local.limit_threads(1)
    yield
    local.limit_threads(before)


class Town:
    """The files of a testnet whose nodes have started: nothing runs."""

    def __init__(self, path: Path, attack: str) -> None:
        self.home, self.example = TestnetHome(path), load("digits")
        self.plan = Plan(nodes=3, rounds=2, example="digits", attack=attack)
        for name in self.plan.names:
            self.home.node(name).path.mkdir(parents=True)
            write_config(self.home, self.plan, name, "http://127.0.0.1:1", bytes(20))
        self.example.write_data([self.home.node(name).path / "data" for name in self.plan.names])
        write_testnet(self.home, Testnet(plan=self.plan))
        self.start = models.initial_vector(self.example.kind, self.example.layers, 0)
        write_vector(path / "base.f32", self.start)

    def task(self, name: str) -> Task:
        node, example = self.home.node(name), self.example
        files = load_config(node).data
        tensors = models.layout(models.build(example.kind, example.layers))
        model = Model(kind="mlp", layers=example.layers, initial="0" * 64, tensors=tensors)
        return Task(name, model, TRAINING, str(node.resolve(files.train)), str(node.resolve(files.test)))

    def update(self, session: Session, round_: int = 1) -> Float32s:
        update = self.home.path / "update.f32"
        session.fit(Fit(1, round_, str(self.home.path / "base.f32"), str(update)), lambda done, total: None)
        return read_vector(update, len(self.start))

    def honest(self, round_: int = 1) -> Float32s:
        names = [name for name in self.plan.names if name not in self.plan.attackers]
        return np.stack([self.update(Session(self.task(name)), round_) for name in names])


def test_an_attacker_sends_what_its_attack_makes_of_the_honest_updates(tmp_path: Path) -> None:
    town = Town(tmp_path, "ipm:1")
    assert town.plan.attackers == ["carol"] and town.plan.attack_name == "ipm"
    sent = town.update(Liar(town.task("carol"), town.home))
    assert np.array_equal(sent, inner_product(town.honest(), 1)[0].astype(np.float32))


def test_a_stale_free_rider_sends_what_another_sent_a_round_ago(tmp_path: Path) -> None:
    town = Town(tmp_path, "stale:1")
    liar = Liar(town.task("carol"), town.home)
    assert not town.update(liar, 1).any()
    assert np.array_equal(town.update(liar, 2), town.honest(1)[0])


def test_who_flips_labels_trains_honestly_on_other_rows(tmp_path: Path) -> None:
    town = Town(tmp_path, "label-flip:1")
    flipped = town.update(Liar(town.task("carol"), town.home))
    assert np.dot(flipped, town.update(Session(town.task("carol")))) < 0.5 * np.dot(flipped, flipped)
