"""Shared, personal and frozen tensors: who chooses them, what travels of a model, and what a member keeps."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.torch
import torch
from audited_federation import AuditedFederation
from torch import nn

from folkmoot.node.config import DITTO
from folkmoot.node.model_file import ModelCard, ModelFileError, as_own_model, read_model, write_model
from folkmoot.node.parts_draft import assign_parts
from folkmoot.node.train import local, models
from folkmoot.node.train.beside import train_beside
from folkmoot.node.train.objectives import Classification
from folkmoot.node.train.session import Session
from folkmoot.node.train.starting import take_start
from folkmoot.node.train.vectors import Vector, read_vector, write_vector
from folkmoot.node.train.wire import PERSONAL, Evaluate, Fit, Fitted, Kept, Task, TrainerError
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_rules import check_charter
from folkmoot.protocol.charter_tables import Model, Tensor, Training
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.outer import Outer, Start, with_start
from folkmoot.protocol.parts import Parts, unshared_refs

LAYERS = (4, 6, 5, 3)
TENSORS = models.layout(models.build("mlp", LAYERS))
"""0.weight, 0.bias, 2.weight, 2.bias, 4.weight, 4.bias"""


def unwatched(done: int, total: int) -> None:
    pass


# --- patterns -------------------------------------------------------------------------------------------------------


def parts_of(tensors: tuple[Tensor, ...]) -> list[str]:
    return [tensor.part for tensor in tensors]


def test_patterns_match_whole_names() -> None:
    assert parts_of(assign_parts(TENSORS)) == ["shared"] * 6
    found = assign_parts(TENSORS, shared=r"2\..*", frozen=r"0\.(weight|bias)")
    assert parts_of(found) == ["frozen"] * 2 + ["shared"] * 2 + ["personal"] * 2
    assert parts_of(assign_parts(TENSORS, frozen="0.*")) == ["frozen"] * 2 + ["shared"] * 4


@pytest.mark.parametrize(
    ("patterns", "text"),
    [
        ({"shared": "head"}, "model.shared = 'head' matches no tensor"),
        ({"shared": "weight"}, "matches no tensor"),  # which is a part of names only
        ({"shared": ".*"}, "matches every tensor"),
        ({"frozen": ".*"}, "model.frozen = '.*' matches every tensor"),
        ({"frozen": "(0"}, "not a regular expression"),
        ({"frozen": "a" * 600}, "at most 500"),
        ({"shared": "[02].*", "frozen": "0.*"}, "both match '0.weight'"),
    ],
)
def test_patterns_that_choose_nothing_or_everything_are_refused(patterns: dict[str, str], text: str) -> None:
    with pytest.raises(CharterError, match=text.replace("(", r"\(").replace(".*", r"\.\*")):
        assign_parts(TENSORS, **patterns)


# --- vectors and charters -------------------------------------------------------------------------------------------

MIXED = assign_parts(TENSORS, shared="2.*", frozen="0.*")


def charter_of(tensors: tuple[Tensor, ...], weights: Vector) -> Charter:
    charter = AuditedFederation().charter
    model = Model(kind="mlp", layers=LAYERS, tensors=tensors, **Start.unknown(tensors))
    return with_start(msgspec.structs.replace(charter, model=model), weights)


def test_a_vector_comes_apart_and_together() -> None:
    parts, whole = Parts(MIXED), np.arange(83, dtype=np.float32)
    assert [parts.count(part) for part in ("shared", "personal", "frozen")] == [35, 18, 30]
    taken = {part: parts.take(whole, part) for part in ("shared", "personal", "frozen")}
    assert taken["shared"].tolist() == list(range(30, 65))
    assert np.array_equal(parts.join(taken), whole)  # type: ignore[arg-type]
    spread = parts.spread("shared", taken["shared"])
    assert np.array_equal(np.flatnonzero(spread), np.arange(30, 65))


def test_only_shared_tensors_are_in_rounds_and_digests() -> None:
    weights = np.linspace(-1, 1, 83, dtype=np.float32)
    charter = charter_of(MIXED, weights)
    check_charter(charter)
    assert charter.update_sizes == (30, 5) and charter.snapshot_values == 35
    assert Outer.of(charter).parameters == 35
    assert [ref.size for ref in unshared_refs(charter.model)] == [4 * 18, 4 * 30]
    other = weights.copy()
    other[0] += 1  # of a frozen tensor
    changed = charter_of(MIXED, other)
    assert changed.model.initial == charter.model.initial
    assert changed.model.personal_start == charter.model.personal_start
    assert changed.model.frozen_values != charter.model.frozen_values


def test_a_charter_whose_parts_and_digests_do_not_fit_is_refused() -> None:
    charter = charter_of(MIXED, np.zeros(83, np.float32))
    for name in ("personal_start", "frozen_values"):
        model = msgspec.structs.replace(charter.model, **{name: ""})
        with pytest.raises(CharterError, match=name):
            check_charter(msgspec.structs.replace(charter, model=model))
    own = tuple(msgspec.structs.replace(tensor, part="personal") for tensor in TENSORS)
    with pytest.raises(CharterError, match="nothing to average"):
        check_charter(charter_of(own, np.zeros(83, np.float32)))


# --- training -------------------------------------------------------------------------------------------------------


class Member:
    """A trainer's session on a few rows, and the files of what its member keeps."""

    def __init__(
        self, folder: Path, tensors: tuple[Tensor, ...], training: Training, ditto: float = 0
    ) -> None:
        rng = np.random.default_rng(3)
        rows = {"x": rng.normal(size=(30, 4)).astype(np.float32), "y": rng.integers(0, 3, 30)}
        for name in ("train", "test"):
            safetensors.numpy.save_file(rows, folder / name)
        self.rows = local.Rows.of(rows["x"], rows["y"])
        self.start = models.initial_vector("mlp", LAYERS, 1)
        self.parts = Parts(tensors)
        for part in ("personal", "frozen"):
            write_vector(folder / part, self.parts.take(self.start, part))  # type: ignore[arg-type]
        write_vector(folder / "base", self.parts.take(self.start, "shared"))
        self.folder = folder
        task = Task(
            member="alice",
            model=charter_of(tensors, self.start).model,
            training=training,
            train=str(folder / "train"),
            test=str(folder / "test"),
            personal=str(folder / "personal"),
            frozen=str(folder / "frozen"),
            ditto=ditto,
        )
        self.session = Session(task)

    def fit(self, round_: int, *names: str) -> Fitted:
        before = {name: self.folder / f"{name}-{round_ - 1}" for name in names}
        kept = {
            name: Kept(str(path) if path.exists() else "", str(self.folder / f"{name}-{round_}"))
            for name, path in before.items()
        }
        request = Fit(round_, round_, str(self.folder / "base"), str(self.folder / "update"), kept)
        return self.session.fit(request, unwatched)

    def kept(self, name: str, round_: int, values: int) -> Vector:
        return read_vector(self.folder / f"{name}-{round_}", values)


def test_a_member_sends_what_is_shared_and_keeps_what_is_personal(tmp_path: Path) -> None:
    member, training = Member(tmp_path, MIXED, Training(steps=7)), Training(steps=7)
    member.fit(1, PERSONAL)
    module = models.build_seeded("mlp", LAYERS, 1)
    models.freeze(module, {"0.weight", "0.bias"})
    local.train(module, Classification(3, 3), member.rows, training, "alice", 1, unwatched)
    moved = models.to_vector(module) - member.start
    sent = read_vector(tmp_path / "update", 35)
    assert np.array_equal(sent, member.parts.take(moved, "shared")) and sent.any()
    assert np.array_equal(
        member.kept(PERSONAL, 1, 18), member.parts.take(models.to_vector(module), "personal")
    )
    assert not member.parts.take(moved, "frozen").any()


def test_personal_tensors_go_on_from_where_they_were_and_count_in_the_measures(tmp_path: Path) -> None:
    member = Member(tmp_path, MIXED, Training(steps=7))
    first, second = member.fit(1, PERSONAL), member.fit(2, PERSONAL)
    assert not np.array_equal(member.kept(PERSONAL, 1, 18), member.kept(PERSONAL, 2, 18))
    assert first.metrics != second.metrics  # the base is the same
    again = Evaluate(9, str(tmp_path / "base"), {PERSONAL: str(tmp_path / f"{PERSONAL}-1")})
    assert member.session.evaluate(again, unwatched).metrics == second.metrics


def test_a_frozen_layer_works_with_its_own_statistics() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    names = {tensor.name for tensor in models.layout(module)}
    models.freeze(module, {name for name in names if name.startswith("1.")})
    before = models.to_vector(module)
    rows = local.Rows.of(np.ones((6, 4), np.float32), np.array([0, 1] * 3))
    local.train(module, Classification(2, 2), rows, Training(), "alice", 1, unwatched)
    parts = Parts(assign_parts(models.layout(module), frozen=r"1\..*"))
    after = models.to_vector(module)
    assert np.array_equal(parts.take(after, "frozen"), parts.take(before, "frozen"))
    assert not np.array_equal(after, before)


def test_names_of_one_tensor_are_of_one_part(tmp_path: Path) -> None:
    (tmp_path / "tied.py").write_text(
        "from torch import nn\n\ndef build():\n    one, other = nn.Linear(3, 3), nn.Linear(3, 3)\n"
        "    other.weight = one.weight\n    return nn.Sequential(one, other)\n"
    )
    source = models.CustomSource("tied:build", tmp_path / "tied.py")
    layout = models.layout(models.build("custom", (3, 3), source))
    digest = "5" * 64
    model = Model(
        kind="custom",
        layers=(3, 3),
        source="tied:build",
        initial=digest,
        frozen_values=digest,
        tensors=assign_parts(layout, frozen="0.weight"),
    )
    with pytest.raises(TrainerError, match=r"0\.weight and 1\.weight are one tensor"):
        models.build_charter_model(model, str(tmp_path / "tied.py"))


# --- Ditto ----------------------------------------------------------------------------------------------------------


def test_ditto_pulls_its_own_model_to_the_federations(tmp_path: Path) -> None:
    training = Training(steps=1, batch=30, lr="0.1", momentum="0")
    module, rng = models.build("mlp", LAYERS), np.random.default_rng(0)
    own, common = (rng.normal(size=83).astype(np.float32) for _ in range(2))
    rows = local.Rows.of(rng.normal(size=(30, 4)).astype(np.float32), rng.integers(0, 3, 30))
    objective = Classification(3, 3)
    found = train_beside(module, objective, rows, training, ("alice", 1), own, common, 0.5, unwatched)
    models.load_vector(module, own)
    gradients = torch.autograd.grad(objective.loss(module(rows.x), rows.y), list(module.parameters()))
    gradient = torch.cat([one.reshape(-1) for one in gradients]).numpy()
    np.testing.assert_allclose(found, own - 0.1 * (gradient + 0.5 * (own - common)), atol=1e-6)


def test_own_models_are_carried_on_and_measured_and_change_nothing_that_is_sent(tmp_path: Path) -> None:
    plain, rich = tmp_path / "plain", tmp_path / "rich"
    plain.mkdir(), rich.mkdir()
    alone, member = Member(plain, TENSORS, Training()), Member(rich, TENSORS, Training(), ditto=0.1)
    alone.fit(1)
    first, second = member.fit(1, DITTO, "alone"), member.fit(2, DITTO, "alone")
    assert (plain / "update").read_bytes() != b"" and first.beside == {}
    assert set(second.beside) == {DITTO, "alone"} and second.beside["alone"]["examples"] == 30
    alone.fit(2)
    assert (plain / "update").read_bytes() == (rich / "update").read_bytes()
    module = models.build("mlp", LAYERS)
    models.load_vector(module, member.start)
    for round_ in (1, 2):
        local.train(module, Classification(3, 3), member.rows, Training(), "alice", round_, unwatched)
    assert np.array_equal(member.kept("alone", 2, 83), models.to_vector(module))
    assert not np.array_equal(member.kept(DITTO, 2, 83), member.kept("alone", 2, 83))


def test_an_own_model_that_diverges_stays_as_it_was(tmp_path: Path) -> None:
    training = Training(steps=30, lr="1e30")
    module, own = models.build("mlp", LAYERS), models.initial_vector("mlp", LAYERS, 1)
    rows = local.Rows.of(np.ones((30, 4), np.float32), np.arange(30) % 3)
    common = np.zeros(83, np.float32)
    after = train_beside(module, Classification(3, 3), rows, training, ("a", 1), own, common, 0, unwatched)
    assert np.array_equal(after, own)


# --- starting weights -----------------------------------------------------------------------------------------------


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_weights_come_from_a_file_of_any_float_type(tmp_path: Path) -> None:
    module, given = models.build("mlp", LAYERS), state(models.build_seeded("mlp", LAYERS, 9))
    half = {name: tensor.to(torch.bfloat16) for name, tensor in given.items()}
    half["count"] = torch.tensor(3)  # integers stay local
    safetensors.torch.save_file(half, tmp_path / "start")
    take_start(module, tmp_path / "start")
    assert all(torch.equal(tensor, half[name].float()) for name, tensor in module.state_dict().items())


def test_what_a_file_lacks_may_be_drawn(tmp_path: Path) -> None:
    module, given = models.build_seeded("mlp", LAYERS, 1), state(models.build_seeded("mlp", LAYERS, 9))
    drawn = state(module)
    safetensors.torch.save_file({name: given[name] for name in ("0.weight", "0.bias")}, tmp_path / "start")
    with pytest.raises(TrainerError, match=r"lacks 2\.weight, 2\.bias, 4\.weight, 4\.bias: .*--start-fill"):
        take_start(module, tmp_path / "start")
    take_start(module, tmp_path / "start", fill=True)
    assert torch.equal(module.state_dict()["0.weight"], given["0.weight"])
    assert torch.equal(module.state_dict()["4.weight"], drawn["4.weight"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"0.bias": torch.zeros(7)}, r"0\.bias is \[7\], the model's is \[6\]"),
        ({"0.bias": torch.full((6,), float("nan"))}, "not finite"),
        ({"0.bias": torch.full((6,), 1e300, dtype=torch.float64)}, "not finite in float32"),
        ({"head.bias": torch.zeros(6)}, r"has no tensor head\.bias; it has 0\.weight"),
        ({"0.bias": torch.zeros(6, dtype=torch.int64)}, r"lacks 0\.bias"),
    ],
)
def test_a_file_that_does_not_fit_says_what_does_not(
    tmp_path: Path, change: dict[str, torch.Tensor], text: str
) -> None:
    module = models.build("mlp", LAYERS)
    safetensors.torch.save_file({**state(module), **change}, tmp_path / "start")
    with pytest.raises(TrainerError, match=text):
        take_start(module, tmp_path / "start")


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "start").write_bytes(b"garbled")
    with pytest.raises(TrainerError, match="not a safetensors file"):
        take_start(models.build("mlp", LAYERS), tmp_path / "start")


# --- exported models ------------------------------------------------------------------------------------------------


def card_of(charter: Charter, weights: Vector) -> ModelCard:
    return ModelCard(
        name="acme",
        federation="ab" * 32,
        charter=charter.digest.hex(),
        round=4,
        model=charter.model.initial,
        statement="ef" * 32,
        architecture=charter.model,
        member="alice",
        member_round=3,
    )


def test_an_exported_model_holds_all_tensors_and_what_members_agreed_on_is_checked(tmp_path: Path) -> None:
    weights = np.linspace(-1, 1, 83, dtype=np.float32)
    charter, start = charter_of(MIXED, weights), Start.of(charter_of(MIXED, weights), weights)
    card, file = card_of(charter, weights), tmp_path / "model.safetensors"
    write_model(file, card, start.snapshot, {"personal": start.personal, "frozen": start.frozen})
    assert read_model(file)[0].member_round == 3 and np.array_equal(read_model(file)[1], weights)
    own = start.personal + 1  # nobody else knows what these are to be
    write_model(file, card, start.snapshot, {"personal": own, "frozen": start.frozen})
    assert np.array_equal(Parts(MIXED).take(read_model(file)[1], "personal"), own)
    write_model(file, card, start.snapshot, {"personal": own, "frozen": start.frozen + 1})
    with pytest.raises(ModelFileError, match="the file was changed"):
        read_model(file)


def test_an_own_model_goes_out_with_its_own_digest(tmp_path: Path) -> None:
    weights = np.linspace(-1, 1, 83, dtype=np.float32)
    charter = charter_of(TENSORS, np.zeros(83, np.float32))
    card = as_own_model(card_of(charter, weights), weights, "bob")
    write_model(tmp_path / "own", card, weights)
    found, vector = read_model(tmp_path / "own")
    assert (found.member, found.member_round, found.statement) == ("bob", 4, "")
    assert np.array_equal(vector, weights)
