"""The user's own model in a testnet: what the charter says of it, and that every node finds its copy."""

from pathlib import Path

import pytest

from folkmoot.node.train.source import find_source, source_digest
from folkmoot.protocol.toml import ConfigError
from folkmoot.testnet.examples import load
from folkmoot.testnet.home import Plan
from folkmoot.testnet.own_model import architecture, find_model, place_source


@pytest.mark.parametrize("file", ["zoo.py", "zoo/__init__.py", "zoo/deep.py"])
def test_a_node_finds_its_copy_under_the_same_name(tmp_path: Path, file: str) -> None:
    original = tmp_path / "mine" / file
    original.parent.mkdir(parents=True)
    original.write_text("def build(): ...\n")
    name = "zoo.deep:build" if "deep" in file else "zoo:build"
    model = find_model(name, tmp_path / "mine")
    assert Path(model.file) == original
    place_source(model, tmp_path / "home" / "models_src")
    found = find_source(name, [tmp_path / "home" / "models_src"])
    assert found.read_bytes() == original.read_bytes()


def test_the_charter_keeps_the_ends_of_the_examples_layers(tmp_path: Path) -> None:
    example, plan = load("digits"), Plan(nodes=4, rounds=1, example="digits")
    assert architecture(plan, example) == {"kind": "mlp", "layers": (64, 256, 128, 10)}
    (tmp_path / "acme.py").write_text("")
    own = Plan(nodes=4, rounds=1, example="digits", model=find_model("acme:build", tmp_path))
    assert architecture(own, example) == {
        "kind": "custom",
        "layers": (64, 10),
        "source": "acme:build",
        "source_digest": source_digest(tmp_path / "acme.py"),
    }


def test_a_model_that_is_not_there_is_told_before_anything_is_founded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no nowhere\.py in"):
        find_model("nowhere:build", tmp_path)
