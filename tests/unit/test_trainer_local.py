"""Local training in torch: the optimizer's rule, flat vectors, repeatable seeds, checked data."""

from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy
import torch
from torch import nn

from folkmoot.node.train import local, models
from folkmoot.node.train.objectives import Classification
from folkmoot.node.train.wire import TrainerError
from folkmoot.protocol.charter_tables import Model, Tensor, Training

CLASSES = Classification(3, 3)


def unwatched(done: int, total: int) -> None:
    pass


def some_rows(count: int = 40, seed: int = 0) -> local.Rows:
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((count, 4)).astype(np.float32)
    return local.Rows(torch.from_numpy(x), torch.from_numpy(x[:, :3].argmax(axis=1).astype(np.int64)))


def torchs_optimizer(training: Training, module: nn.Module) -> torch.optim.Optimizer:
    lr, decay = float(training.lr), float(training.weight_decay)
    if training.optimizer == "adamw":
        return torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=decay)
    return torch.optim.SGD(module.parameters(), lr=lr, momentum=float(training.momentum), weight_decay=decay)


@pytest.mark.parametrize(
    "training",
    [
        Training(epochs=3, seed=5),
        Training(epochs=3, seed=5, momentum="0"),
        Training(epochs=3, seed=5, weight_decay="0.01"),
        Training(epochs=9, seed=5, optimizer="adamw", lr="0.01"),
        Training(epochs=9, seed=5, optimizer="adamw", lr="0.01", weight_decay="0.1"),
    ],
)
def test_the_optimizers_are_torchs_bit_for_bit(training: Training) -> None:
    rows, steps = some_rows(), training.epochs * 3
    ours, theirs = models.build("mlp", (4, 8, 3)), models.build("mlp", (4, 8, 3))
    theirs.load_state_dict(ours.state_dict())
    local.train(ours, CLASSES, rows, training, "alice", 1, unwatched)

    optimizer = torchs_optimizer(training, theirs)
    order = torch.Generator().manual_seed(local.derive_seed(5, "alice", 1))
    for index in islice(local.batches(len(rows), 16, order), steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(rows.x[index]), rows.y[index]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    assert models.to_vector(ours).tobytes() == models.to_vector(theirs).tobytes()


def test_steps_take_the_place_of_epochs() -> None:
    done = []
    training = Training(epochs=5, steps=4, batch=16)
    module = models.build("mlp", (4, 3))
    local.train(module, CLASSES, some_rows(), training, "alice", 1, lambda at, of: done.append((at, of)))
    assert done == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_a_loss_that_is_not_finite_ends_training_with_its_step() -> None:
    rows = some_rows()
    rows.x[:] = 3e38
    with pytest.raises(TrainerError, match=r"the loss of round 7 is (nan|inf) at step 1 of 3") as caught:
        local.train(models.build("mlp", (4, 3)), CLASSES, rows, Training(), "alice", 7, unwatched)
    assert caught.value.kind == "non_finite"


def test_training_depends_on_seed_member_and_round_only() -> None:
    def trained(seed: int, member: str, round: int) -> bytes:
        module = models.build("mlp", (4, 8, 3))
        models.load_vector(module, models.initial_vector("mlp", (4, 8, 3), 1))
        torch.rand(round)  # what was drawn before must not matter
        local.train(module, CLASSES, some_rows(), Training(seed=seed), member, round, unwatched)
        return models.to_vector(module).tobytes()

    first = trained(0, "alice", 1)
    assert first == trained(0, "alice", 1)
    assert len({first, trained(1, "alice", 1), trained(0, "bob", 1), trained(0, "alice", 2)}) == 4


def test_seeds_cannot_run_into_each_other() -> None:
    assert local.derive_seed(1, "a", 23) != local.derive_seed(12, "a", 3)
    assert 0 <= local.derive_seed(0, "a", 1) < 2**63


def test_each_epoch_sees_every_row_once() -> None:
    seen = list(islice(local.batches(10, 4, torch.Generator().manual_seed(0)), 6))
    assert [len(batch) for batch in seen] == [4, 4, 2, 4, 4, 2]
    assert sorted(torch.cat(seen[:3]).tolist()) == sorted(torch.cat(seen[3:]).tolist()) == list(range(10))


def test_a_last_batch_may_be_joined_to_the_one_before() -> None:
    seen = list(islice(local.batches(9, 4, torch.Generator().manual_seed(0), 2), 4))
    assert [len(batch) for batch in seen] == [4, 5, 4, 5]
    assert sorted(torch.cat(seen[:2]).tolist()) == list(range(9))
    assert [len(batch) for batch in islice(local.batches(1, 4, torch.Generator(), 2), 2)] == [1, 1]


def test_batch_normalisation_is_never_given_a_single_row() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    done = []
    training = Training(epochs=2, batch=16)
    local.train(module, CLASSES, some_rows(33), training, "alice", 1, lambda at, of: done.append((at, of)))
    assert done == [(0, 4), (1, 4), (2, 4), (3, 4)]
    local.train(
        models.build("mlp", (4, 3)),
        CLASSES,
        some_rows(33),
        training,
        "alice",
        1,
        lambda at, of: done.append((at, of)),
    )
    assert done[-1] == (5, 6)


def test_training_learns_and_metrics_say_so() -> None:
    module, rows = models.build("mlp", (4, 16, 3)), some_rows(200)
    before = local.evaluate(module, CLASSES, rows, unwatched)
    loss, _ = local.train(module, CLASSES, rows, Training(epochs=20), "alice", 1, unwatched)
    after = local.evaluate(module, CLASSES, rows, unwatched)
    assert after["accuracy"] > 0.9 > before["accuracy"]
    assert after["log_loss"] < loss < before["log_loss"]
    assert after["examples"] == 200


def test_progress_counts_steps_and_may_break_off() -> None:
    steps: list[tuple[int, int]] = []

    def on_step(done: int, total: int) -> None:
        steps.append((done, total))
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        local.train(models.build("mlp", (4, 3)), CLASSES, some_rows(), Training(), "alice", 1, on_step)
    assert steps == [(0, 3), (1, 3), (2, 3)]


def test_vectors_follow_state_dict_and_leave_integers_out() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    names = [tensor.name for tensor in models.layout(module)]
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
    vector = np.arange(21, dtype=np.float32)
    models.load_vector(module, vector)
    assert np.array_equal(models.to_vector(module), vector)
    assert module.state_dict()["0.weight"].tolist() == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(TrainerError, match="a vector of 22 values for a model of 21"):
        models.load_vector(module, np.zeros(22, np.float32))


def test_starting_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(99)
    first = models.initial_vector("mlp", (64, 256, 128, 10), 0)
    after = torch.rand(1)
    torch.manual_seed(99)
    assert torch.rand(1) == after  # and they take nothing from torch's own generator
    assert len(first) == 50_826
    assert np.array_equal(first, models.initial_vector("mlp", (64, 256, 128, 10), 0))
    assert not np.array_equal(first, models.initial_vector("mlp", (64, 256, 128, 10), 1))


@pytest.mark.parametrize(
    ("kind", "layers", "message"),
    [("mlp", (4,), "at least"), ("logistic", (4, 8, 3), "only"), ("tree", (4, 3), "not known here")],
)
def test_a_model_that_cannot_be_built_is_explained(kind: str, layers: tuple[int, ...], message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        models.build(kind, layers)


def charter_model(*tensors: Tensor) -> Model:
    return Model(kind="logistic", layers=(4, 3), initial="0" * 64, tensors=tensors)


def test_the_charters_layout_must_be_the_models() -> None:
    weight, bias = Tensor(name="0.weight", shape=(3, 4)), Tensor(name="0.bias", shape=(3,))
    models.build_charter_model(charter_model(weight, bias))
    with pytest.raises(
        TrainerError, match=r"tensor 0 is 0.weight \[3, 4\] here, but the charter says 0.bias"
    ):
        models.build_charter_model(charter_model(bias, weight))
    with pytest.raises(TrainerError, match="2 float tensors, but the charter lays out 1"):
        models.build_charter_model(charter_model(weight))


GOOD = {"x": np.zeros((5, 4), np.float32), "y": np.zeros(5, np.int64)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((5, 3), np.float32)}, "must be float32"),
        ({"x": np.zeros((5, 4), np.float64)}, "must be float32"),
        ({"x": np.full((5, 4), np.nan, np.float32)}, "NaN or infinity"),
        ({"x": np.zeros((0, 4), np.float32), "y": np.zeros(0, np.int64)}, "has no rows"),
        ({"y": np.zeros(4, np.int64)}, "must be int64"),
        ({"y": np.zeros(5, np.int32)}, "must be int64"),
        ({"y": np.full(5, 3, np.int64)}, "classes 0 to 2"),
        ({"y": np.full(5, -1, np.int64)}, "classes 0 to 2"),
        ({"z": np.zeros(1, np.float32)}, "must hold 'x' and 'y'"),
    ],
)
def test_data_that_cannot_be_used_is_explained(
    tmp_path: Path, change: dict[str, npt.NDArray[np.float32]], message: str
) -> None:
    path = tmp_path / "train.safetensors"
    safetensors.numpy.save_file(GOOD | change, path)
    with pytest.raises(TrainerError, match=message) as caught:
        local.load_rows(path, 4, 3)
    assert caught.value.kind == "data"
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_safetensors_is_explained(tmp_path: Path) -> None:
    (tmp_path / "train.safetensors").write_text("hello")
    with pytest.raises(TrainerError, match="cannot read"):
        local.load_rows(tmp_path / "train.safetensors", 4, 3)
    with pytest.raises(TrainerError, match="cannot read"):
        local.load_rows(tmp_path / "missing", 4, 3)


def test_a_regressions_targets_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "train.safetensors"
    safetensors.numpy.save_file(GOOD, path)
    with pytest.raises(TrainerError, match=r"y is int64 .*; it must be float32"):
        local.load_rows(path, 4, 0)
    safetensors.numpy.save_file(GOOD | {"y": np.full(5, np.inf, np.float32)}, path)
    with pytest.raises(TrainerError, match="y holds NaN or infinity"):
        local.load_rows(path, 4, 0)
    safetensors.numpy.save_file(GOOD | {"y": np.full(5, -7.5, np.float32)}, path)
    assert local.load_rows(path, 4, 0).y.tolist() == [-7.5] * 5
