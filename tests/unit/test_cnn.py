"""The built-in model for images: how rows become images, what it is called, and what the charter must say of it."""

import msgspec
import numpy as np
import pytest
import torch
from audited_federation import AuditedFederation

from folkmoot.node.train import local, models
from folkmoot.node.train.check import check_model
from folkmoot.node.train.convolutions import Image
from folkmoot.node.train.objectives import Classification
from folkmoot.node.train.wire import TrainerError
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_rules import check_charter
from folkmoot.protocol.charter_tables import Model, Training
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.toml import ConfigError
from folkmoot.testnet.examples import load
from folkmoot.testnet.home import Plan
from folkmoot.testnet.own_model import architecture

LAYERS, IMAGE = (8 * 8, 4, 6, 10), (8, 8, 1)


def charter_with(layers: tuple[int, ...], image: tuple[int, ...], kind: str = "cnn") -> Charter:
    charter = AuditedFederation().charter
    tensors = models.layout(models.build("cnn", LAYERS, image=IMAGE))
    model = Model(kind=kind, layers=layers, image=image, initial="0" * 64, tensors=tensors)  # type: ignore[arg-type]
    return msgspec.structs.replace(charter, model=model)


def test_a_row_goes_through_height_width_and_channels() -> None:
    row = torch.arange(2 * 3 * 2.0)[None]
    (image,) = Image(2, 3, 2)(row)
    assert image[0].tolist() == [[0, 2, 4], [6, 8, 10]]
    assert image[1].tolist() == [[1, 3, 5], [7, 9, 11]]


def test_its_tensors_have_names_that_say_what_they_are() -> None:
    found = {tensor.name: tensor.shape for tensor in models.layout(models.build("cnn", LAYERS, image=IMAGE))}
    assert found == {
        "conv1.weight": (4, 1, 3, 3),
        "conv1.bias": (4,),
        "conv2.weight": (6, 4, 3, 3),
        "conv2.bias": (6,),
        "head.weight": (10, 6 * 2 * 2),
        "head.bias": (10,),
    }


def test_it_learns_digits() -> None:
    digits = load("digits")
    module = models.build_seeded("cnn", LAYERS, 0, image=digits.image)
    rows, test = (local.Rows.of(part.x, part.y) for part in (digits.train, digits.test))
    objective = Classification(10, 10)
    local.train(module, objective, rows, Training(epochs=2, lr="0.05"), "alice", 1, lambda done, total: None)
    assert local.evaluate(module, objective, test, lambda done, total: None)["accuracy"] > 0.8


def test_the_charters_cnn_is_built_and_run() -> None:
    check_model(charter_with(LAYERS, IMAGE), "")


def test_it_takes_images_of_odd_sides_and_many_channels() -> None:
    module = models.build("cnn", (7 * 5 * 3, 4, 6, 2), image=(7, 5, 3))
    assert module(torch.zeros(2, 7 * 5 * 3)).shape == (2, 2)


@pytest.mark.parametrize(
    ("layers", "image", "text"),
    [
        (LAYERS, (), "needs their"),
        (LAYERS, (8, 8), "needs their"),
        (LAYERS, (8, 8, 3), "has 192 values, but model.layers begins with 64"),
        ((64, 10), IMAGE, "a convolution or more"),
        ((64, 4, 4, 4, 4, 10), IMAGE, "here at most 3"),
    ],
)
def test_a_charter_whose_images_do_not_fit_is_refused(
    layers: tuple[int, ...], image: tuple[int, ...], text: str
) -> None:
    with pytest.raises(CharterError, match=text):
        check_charter(charter_with(layers, image))


def test_no_other_kind_has_an_image() -> None:
    with pytest.raises(CharterError, match="no other kind does"):
        check_charter(charter_with((64, 8, 10), IMAGE, "mlp"))


def test_without_an_image_it_cannot_be_built() -> None:
    with pytest.raises(TrainerError, match="with an image 'cnn'"):
        models.build("cnn", LAYERS)


def test_a_testnet_takes_it_where_rows_are_images() -> None:
    table = architecture(Plan(nodes=4, rounds=1, example="digits", kind="cnn"), load("digits"))
    assert table == {"kind": "cnn", "layers": (64, 16, 32, 10), "image": (8, 8, 1)}
    with pytest.raises(ConfigError, match="'breast-cancer' are no images"):
        architecture(Plan(nodes=4, rounds=1, example="digits", kind="cnn"), load("breast-cancer"))


def test_its_weights_come_from_the_seed_alone() -> None:
    first, again = (models.initial_vector("cnn", LAYERS, 3, IMAGE) for _ in range(2))
    assert np.array_equal(first, again) and not np.array_equal(
        first, models.initial_vector("cnn", LAYERS, 4, IMAGE)
    )
