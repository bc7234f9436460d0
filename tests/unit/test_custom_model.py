"""A model of the operator's own: found, held against the charter, built and checked, or refused with the reason."""

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from audited_federation import AuditedFederation

from folkmoot.node.train import check, founding, models
from folkmoot.node.train.custom import CustomSource
from folkmoot.node.train.devices import choose_device
from folkmoot.node.train.objectives import Classification
from folkmoot.node.train.source import find_source, locate_source, source_digest
from folkmoot.node.train.vectors import read_vector
from folkmoot.node.train.wire import TrainerError
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_rules import check_charter
from folkmoot.protocol.charter_tables import Model, Tensor
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.toml import ConfigError

SOURCE = """\
from torch import nn

class Net(nn.Module):
    def __init__(self, features, outputs):
        super().__init__()
        self.inner = nn.Linear(features, outputs)

    def forward(self, x):
        return self.inner(x)

def build(features, outputs):
    return Net(features, outputs)

def fixed():
    return nn.Linear(4, 3)

def anything(**sizes):
    return nn.Linear(sizes["features"], sizes["outputs"])

def dull():
    return "a model"

def narrow(outputs):
    return nn.Linear(7, outputs)

def wide(features):
    return nn.Linear(features, 9)

def breaking(features):
    raise RuntimeError("no such weights")

def frozen(features, outputs):
    return nn.Linear(features, outputs).requires_grad_(False)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "models_src" / "acme.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    return path


def build(file: Path, function: str) -> torch.nn.Module:
    return models.build("custom", (4, 3), CustomSource(f"acme:{function}", file))


def terms(file: Path, function: str = "build") -> Model:
    tensors = models.layout(build(file, function))
    return Model(
        kind="custom",
        layers=(4, 3),
        source=f"acme:{function}",
        source_digest=sha256(file.read_bytes()).hexdigest(),
        initial="0" * 64,
        tensors=tensors,
    )


@pytest.mark.parametrize("function", ["build", "fixed", "anything"])
def test_a_function_gets_the_sizes_that_it_takes(file: Path, function: str) -> None:
    module = build(file, function)
    assert module(torch.zeros(2, 4)).shape == (2, 3)
    models.check_forward(module, 4, Classification(3, 3))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("dull", "gave a str, not a torch.nn.Module"),
        ("absent", "has no function 'absent'"),
        ("breaking", "failed: RuntimeError: no such weights"),
    ],
)
def test_what_gives_no_module_is_explained(file: Path, function: str, message: str) -> None:
    with pytest.raises(TrainerError, match=message) as caught:
        build(file, function)
    assert caught.value.kind == "model"


@pytest.mark.parametrize(
    ("function", "message"),
    [("narrow", "forward fails on 4 features: RuntimeError: mat1 and mat2"), ("wide", r"shape \(2, 9\)")],
)
def test_a_forward_that_does_not_fit_is_explained(file: Path, function: str, message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        models.check_forward(build(file, function), 4, Classification(3, 3))


def test_a_file_that_cannot_be_run_is_explained(file: Path) -> None:
    file.write_text("import nowhere_to_be_found\n")
    with pytest.raises(TrainerError, match="ModuleNotFoundError: No module named 'nowhere_to_be_found'"):
        build(file, "build")
    file.write_text("def build(:\n")
    with pytest.raises(TrainerError, match="SyntaxError"):
        build(file, "build")


def test_a_node_with_other_source_refuses_and_shows_both_digests(file: Path) -> None:
    model = terms(file)
    assert locate_source(model, file.parent) == str(file)
    agreed = source_digest(file)
    file.write_text(SOURCE.replace("features, outputs)", "features,  outputs)"))
    with pytest.raises(ConfigError, match=f"{source_digest(file)}.*{agreed}"):
        locate_source(model, file.parent)
    with pytest.raises(TrainerError, match=f"{source_digest(file)}.*{agreed}"):
        models.build_charter_model(model, str(file))


def test_built_in_models_have_no_source(tmp_path: Path) -> None:
    tensor = Tensor(name="0.weight", shape=(3, 4))
    model = Model(kind="logistic", layers=(4, 3), initial="0" * 64, tensors=(tensor,))
    assert locate_source(model, tmp_path) == ""


def test_the_own_folder_comes_first_and_packages_work_too(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "zoo").mkdir(parents=True)
    (other / "acme.py").write_text("")
    (other / "zoo" / "__init__.py").write_text("")
    (other / "zoo" / "net.py").write_text("")
    folders = [file.parent, other]
    assert find_source("acme:build", folders) == file
    assert find_source("zoo:build", folders) == other / "zoo" / "__init__.py"
    assert find_source("zoo.net:build", folders) == other / "zoo" / "net.py"
    with pytest.raises(ConfigError, match=rf"no missing.py in {file.parent}, {other}: put the file into"):
        find_source("missing:build", folders)
    for bad in ("acme", "acme:", ":build", "../acme:build", "a..b:c"):
        with pytest.raises(ConfigError, match="write module:function"):
            find_source(bad, folders)


def test_founding_draws_a_custom_models_weights(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model0.f32"
    table = {"kind": "custom", "layers": (4, 3), "source": "acme:build", "path": str(file)}
    drafted = msgspec.json.encode(table).decode()
    assert founding.main([drafted, "7", str(out)]) == 0
    tensors = msgspec.json.decode(capsys.readouterr().out, type=tuple[Tensor, ...])
    assert tensors == terms(file).tensors
    module = models.build_seeded("custom", (4, 3), 7, CustomSource("acme:build", file))
    assert np.array_equal(read_vector(out, 15), models.to_vector(module))


def charter_of(model: Model) -> Charter:
    return msgspec.structs.replace(AuditedFederation().charter, model=model)


def test_the_check_runs_in_a_process_of_its_own(file: Path) -> None:
    def status(model: Model) -> tuple[int, str]:
        command = [sys.executable, "-m", "folkmoot.node.train.check", str(file)]
        given = msgspec.msgpack.encode(charter_of(model))
        done = subprocess.run(command, input=given, capture_output=True)
        return done.returncode, done.stderr.decode()

    assert status(terms(file)) == (0, "")
    code, said = status(terms(file, "narrow"))
    assert code == 1
    assert "forward fails on 4 features" in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("function", "message"), [("narrow", "forward fails"), ("wide", "shape"), ("frozen", "no parameter that")]
)
def test_the_check_finds_a_model_that_cannot_learn(file: Path, function: str, message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        check.check_model(charter_of(terms(file, function)), str(file))


def test_the_check_finds_another_layout(file: Path) -> None:
    model = msgspec.structs.replace(terms(file), tensors=terms(file).tensors[::-1])
    with pytest.raises(TrainerError, match=r"tensor 0 is inner\.weight"):
        check.check_model(charter_of(model), str(file))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": ""}, "needs model.source and model.source_digest"),
        ({"source_digest": ""}, "needs model.source and model.source_digest"),
        ({"kind": "logistic"}, "model.source is for model.kind = 'custom'"),
        ({"layers": (4, 8, 3)}, "a custom model has inputs and outputs only"),
    ],
)
def test_a_charter_that_contradicts_itself_is_refused(
    file: Path, change: dict[str, object], message: str
) -> None:
    model = msgspec.structs.replace(terms(file), **change)
    with pytest.raises(CharterError, match=message):
        check_charter(charter_of(model))


def test_looking_a_source_up_imports_neither_it_nor_torch(file: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from folkmoot.node.train.source import find_source;"
        f"find_source('acme:build', [Path({str(file.parent)!r})]); print({{'torch', 'acme'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_with_the_reason() -> None:
    assert choose_device("cpu").type == choose_device("auto").type == "cpu"
    with pytest.raises(TrainerError, match=r"trainer.device = 'cuda', but .*; set 'cpu' or 'auto'") as caught:
        choose_device("cuda")
    assert caught.value.kind == "device"
