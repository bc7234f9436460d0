"""Frames, vector files and the fake trainer: the daemon's half of training, without torch or a process."""

from pathlib import Path

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.node.train import wire
from folkmoot.node.train.command import trainer_environment
from folkmoot.node.train.vectors import write_vector
from folkmoot.node.trainer import FakeTrainer, TrainerError, read_vector
from folkmoot.protocol.charter_tables import Model, Tensor, Training

MODEL = Model(
    kind="logistic",
    layers=(2, 2),
    initial="0" * 64,
    tensors=(Tensor(name="0.weight", shape=(2, 2)), Tensor(name="0.bias", shape=(2,))),
)
REQUESTS = (
    wire.Task("alice", MODEL, Training(), "train.safetensors", "test.safetensors"),
    wire.Fit(1, 7, "base", "update"),
    wire.Evaluate(2, "model"),
    wire.Cancel(2),
)
REPLIES = (
    wire.Ready(123, 456),
    wire.Progress(1, 2, 3),
    wire.Fitted(1, 10, 0.5, {"accuracy": 0.9}),
    wire.Evaluated(2, {}),
    wire.Failed(2, "memory", "no room"),
)


@pytest.mark.parametrize("message", REQUESTS)
def test_a_request_survives_its_frame(message: wire.Request) -> None:
    frame = wire.encode(message)
    assert wire.body_size(frame[:4]) == len(frame) - 4
    assert wire.decode_request(frame[4:]) == message


@pytest.mark.parametrize("message", REPLIES)
def test_a_reply_survives_its_frame(message: wire.Reply) -> None:
    assert wire.decode_reply(wire.encode(message)[4:]) == message


@given(st.binary(max_size=200))
def test_bytes_that_are_no_reply_raise_only_trainer_errors(body: bytes) -> None:
    try:
        wire.decode_reply(body)
    except TrainerError as error:
        assert error.kind == "protocol"


@given(st.sampled_from(REPLIES), st.integers(0, 10**6), st.integers(0, 255))
def test_a_damaged_reply_raises_only_trainer_errors(message: wire.Reply, at: int, value: int) -> None:
    body = bytearray(wire.encode(message)[4:])
    body[at % len(body)] = value
    try:
        wire.decode_reply(bytes(body))
    except TrainerError as error:
        assert error.kind == "protocol"


def test_an_oversized_frame_is_refused_before_it_is_read() -> None:
    with pytest.raises(TrainerError, match="at most"):
        wire.body_size(wire.HEADER.pack(wire.MAX_FRAME + 1))


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_a_vector_survives_its_file(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    path = tmp_path_factory.mktemp("vector") / "v.f32"
    vector = np.array(values, dtype=np.float32)
    write_vector(path, vector)
    assert path.stat().st_size == 4 * len(values)
    assert read_vector(path, len(values)).tobytes() == vector.astype("<f4").tobytes()


def test_a_vector_longer_than_one_piece_is_read_whole(tmp_path: Path) -> None:
    vector = np.arange((1 << 20) + 3, dtype=np.float32)
    write_vector(tmp_path / "v", vector)
    assert np.array_equal(read_vector(tmp_path / "v", len(vector)), vector)


def test_a_vector_of_another_length_is_refused(tmp_path: Path) -> None:
    write_vector(tmp_path / "v", np.zeros(3, np.float32))
    with pytest.raises(TrainerError, match="has 12 bytes; 4 float32 values take 16") as caught:
        read_vector(tmp_path / "v", 4)
    assert caught.value.kind == "model"


def test_a_missing_vector_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"cannot read the vector .*nowhere"):
        read_vector(tmp_path / "nowhere", 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_value_that_is_not_finite_is_named(tmp_path: Path, bad: float) -> None:
    write_vector(tmp_path / "v", np.array([0, 1, bad, bad], np.float32))
    with pytest.raises(TrainerError, match="value 2 of 4") as caught:
        read_vector(tmp_path / "v", 4)
    assert caught.value.kind == "non_finite"


def test_the_trainer_gets_no_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLKMOOT_PASSPHRASE", "secret")
    monkeypatch.setenv("LANG", "C.UTF-8")
    environment = trainer_environment(3)
    assert "FOLKMOOT_PASSPHRASE" not in environment
    assert environment["LANG"] == "C.UTF-8"
    assert environment["OMP_NUM_THREADS"] == "3"


async def test_fakes_that_average_their_updates_converge(tmp_path: Path) -> None:
    model = np.zeros(50, np.float32)
    fakes = [FakeTrainer(50, name, seed=3) for name in ("alice", "bob")]
    losses = []
    for round in range(1, 9):
        write_vector(tmp_path / "base", model)
        results = [
            await fake.fit(round, tmp_path / "base", tmp_path / f"update-{at}")
            for at, fake in enumerate(fakes)
        ]
        losses.append(results[0].metrics["log_loss"])
        model += np.mean([read_vector(result.update, 50) for result in results], axis=0)
    assert losses[-1] < losses[0] / 100
    write_vector(tmp_path / "model", model)
    assert (await fakes[0].evaluate(tmp_path / "model")).metrics["accuracy"] > 0.99


async def test_a_fake_is_a_function_of_seed_member_round_and_base(tmp_path: Path) -> None:
    write_vector(tmp_path / "base", np.ones(8, np.float32))

    async def update(member: str, seed: int, round: int) -> bytes:
        result = await FakeTrainer(8, member, seed=seed).fit(round, tmp_path / "base", tmp_path / "update")
        return result.update.read_bytes()

    first = await update("alice", 0, 1)
    assert first == await update("alice", 0, 1)
    assert (
        len({first, await update("bob", 0, 1), await update("alice", 1, 1), await update("alice", 0, 2)}) == 4
    )


async def test_a_fake_fails_and_takes_time_as_told(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    write_vector(tmp_path / "base", np.zeros(8, np.float32))
    fake = FakeTrainer(8, "alice", delay=30.0, faults={2: TrainerError("crash", "planned")})
    start = trio.current_time()
    await fake.fit(1, tmp_path / "base", tmp_path / "update")
    assert trio.current_time() - start == pytest.approx(30.0)
    with pytest.raises(TrainerError, match="planned"):
        await fake.fit(2, tmp_path / "base", tmp_path / "update")
