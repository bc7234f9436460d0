"""The testnet's data sets, and what a federation on them is measured against."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from folkmoot.node.train import models
from folkmoot.protocol.errors import FolkmootError
from folkmoot.testnet import baselines, examples

MEMBERS = ("node-1", "node-2", "node-3", "node-4")


def test_digits_are_those_of_scikit_learn() -> None:
    example = examples.digits()
    assert (example.train.x.shape, example.test.x.shape) == ((1437, 64), (360, 64))
    assert example.train.x.dtype == np.float32
    assert example.train.y.dtype == np.int64
    assert (example.train.x.min(), example.train.x.max()) == (0, 1)
    everything = np.concatenate([example.train.x, example.test.x])
    labels = np.concatenate([example.train.y, example.test.y])
    order = np.random.RandomState(0).permutation(1797)
    # The first image of the set is a zero; its first row of pixels is 0 0 5 13 9 1 0 0.
    at = int(np.flatnonzero(order == 0)[0])
    assert (everything[at, :8] * 16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert labels[at] == 0
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_breast_cancer_is_standardised_by_constants_of_the_training_rows() -> None:
    example = examples.breast_cancer()
    assert (example.train.x.shape, example.test.x.shape) == ((455, 30), (114, 30))
    assert example.offset.shape == example.scale.shape == (30,)
    np.testing.assert_allclose(example.train.x.mean(axis=0, dtype=np.float64), 0, atol=1e-4)
    np.testing.assert_allclose(example.train.x.std(axis=0, dtype=np.float64), 1, atol=1e-4)
    assert np.bincount(np.concatenate([example.train.y, example.test.y])).tolist() == [212, 357]


@pytest.mark.parametrize("nodes", [1, 3, 4, 8])
def test_dealing_loses_and_repeats_no_row(nodes: int) -> None:
    example = examples.digits()
    shares = example.deal(nodes)
    assert np.array_equal(np.concatenate([share.x for share in shares]), example.train.x)
    assert np.array_equal(np.concatenate([share.y for share in shares]), example.train.y)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_every_node_gets_its_share_and_the_common_test_rows(tmp_path: Path) -> None:
    example = examples.breast_cancer()
    folders = [tmp_path / name / "data" for name in MEMBERS]
    example.write_data(folders)
    for folder, share in zip(folders, example.deal(4), strict=True):
        train = safetensors.numpy.load_file(folder / "train.safetensors")
        test = safetensors.numpy.load_file(folder / "test.safetensors")
        assert np.array_equal(train["x"], share.x)
        assert np.array_equal(train["y"], share.y)
        assert np.array_equal(test["x"], example.test.x)


def test_an_unknown_example_is_refused_with_the_known_names() -> None:
    with pytest.raises(FolkmootError, match="no example 'digit'; there are digits, breast-cancer"):
        examples.load("digit")


def test_baselines_are_repeatable_and_pooled_data_beat_a_share_of_them() -> None:
    example = examples.digits()
    first = baselines.compute(example, MEMBERS, rounds=4, seed=0)
    assert first == baselines.compute(example, MEMBERS, rounds=4, seed=0)
    assert len(first.alone) == 4
    assert first.pooled["accuracy"] > max(alone["accuracy"] for alone in first.alone)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_central_averaging_reaches_the_accuracy_asked_of_the_federation(seed: int) -> None:
    example = examples.digits()
    training = msgspec.structs.replace(example.training, seed=seed)
    start = models.initial_vector(example.kind, example.layers, seed)
    rounds = list(baselines.central_fedavg(example, MEMBERS, 10, training, start))
    assert [len(model) for model in rounds] == [50_826] * 10
    assert rounds[0].dtype == np.float32
    assert baselines.measure(example, rounds[-1])["accuracy"] >= 0.96
