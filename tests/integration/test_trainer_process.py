"""A trainer in a process of its own: what it computes, and that nothing which happens in it reaches the daemon.

Most tests run their trainers in forks of one server, as a testnet does; that is what makes them quick.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
import pytest
import safetensors.numpy
import torch
import trio
from audited_federation import AuditedFederation

from folkmoot.node.charter_files import write_charter
from folkmoot.node.config import LedgerConfig, NodeConfig, render_config
from folkmoot.node.model_file import name_tensors
from folkmoot.node.status_file import rss_mb
from folkmoot.node.train import wire
from folkmoot.node.train.command import trainer_environment
from folkmoot.node.train.models import build, initial_vector, layout
from folkmoot.node.train.session import Session
from folkmoot.node.train.vectors import write_vector
from folkmoot.node.trainer import Task, TrainerError, TrainerProcess, read_vector
from folkmoot.protocol.charter_tables import Model, Training
from folkmoot.testnet import baselines, examples
from folkmoot.testnet.forkserver import launch_command, server_command
from folkmoot.testnet.home import Plan, Testnet, TestnetHome, write_testnet

pytestmark = pytest.mark.integration

LAYERS = (4, 8, 3)
PARAMETERS = 67
LONG = Training(epochs=1_000_000)
DEADLINE = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("forkserver") / "trainers.sock"
    process = subprocess.Popen(server_command(path), stdin=subprocess.DEVNULL)
    yield path
    process.terminate()
    assert process.wait(DEADLINE) == 0
    assert not path.exists()


@pytest.fixture
def command(server: Path) -> tuple[str, ...]:
    return launch_command(server, "trainer")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    draw = np.random.default_rng(0)
    for name, count in (("train", 40), ("test", 20)):
        x = draw.standard_normal((count, 4)).astype(np.float32)
        rows = {"x": x, "y": x[:, :3].argmax(axis=1).astype(np.int64)}
        safetensors.numpy.save_file(rows, tmp_path / f"{name}.safetensors")
    write_vector(tmp_path / "base", initial_vector("mlp", LAYERS, 0))
    model = Model(kind="mlp", layers=LAYERS, initial="0" * 64, tensors=layout(build("mlp", LAYERS)))
    files = (str(tmp_path / "train.safetensors"), str(tmp_path / "test.safetensors"))
    return Task("alice", model, Training(), *files)


def with_training(task: Task, training: Training) -> Task:
    return msgspec.structs.replace(task, training=training)


def script(body: str) -> tuple[str, ...]:
    """A stand-in for the trainer that does what `body` says."""
    return (
        sys.executable,
        "-c",
        f"import os, sys, time\nfrom folkmoot.node.train import wire, worker\n{body}",
    )


@pytest.mark.parametrize("how", ["alone", "forked"])
async def test_a_process_trains_what_a_central_loop_trains(
    task: Task, tmp_path: Path, command: tuple[str, ...], how: str
) -> None:
    base, update = tmp_path / "base", tmp_path / "update"
    chosen = command if how == "forked" else None
    with trio.fail_after(DEADLINE):
        async with TrainerProcess(task, tmp_path / "trainer.log", chosen) as trainer:
            assert trainer.pid is None  # started, and not waited for
            result = await trainer.fit(3, base, update)
            after = await trainer.evaluate(base)
            assert trainer.pid is not None
    done = Session(task).fit(wire.Fit(1, 3, str(base), str(tmp_path / "expected")), lambda done, total: None)
    assert update.read_bytes() == (tmp_path / "expected").read_bytes()
    assert np.any(read_vector(result.update, PARAMETERS))
    assert (result.num_examples, result.train_loss, result.metrics) == (40, done.train_loss, done.metrics)
    assert after.metrics == done.metrics
    assert done.metrics["examples"] == 20


async def test_a_trainer_stays_within_its_memory_and_says_at_once_if_it_cannot(
    task: Task, tmp_path: Path
) -> None:
    """Of the process itself: torch alone takes about 180 MB."""
    small, ample = (msgspec.structs.replace(task, max_memory=megabytes * 10**6) for megabytes in (100, 600))
    with trio.fail_after(DEADLINE):
        async with TrainerProcess(small, tmp_path / "small.log") as trainer:
            with pytest.raises(TrainerError, match=r"limits\.max_memory = 100 MB") as caught:
                await trainer.check_start()
            assert caught.value.kind == "memory"
        async with TrainerProcess(ample, tmp_path / "ample.log") as trainer:
            await trainer.check_start()
            await trainer.fit(1, tmp_path / "base", tmp_path / "update")
            assert 50 < rss_mb(trainer.pid or 0) < 600


async def test_without_held_out_data_nothing_is_measured(
    task: Task, tmp_path: Path, command: tuple[str, ...]
) -> None:
    Path(task.test).unlink()
    with trio.fail_after(DEADLINE):
        async with TrainerProcess(task, tmp_path / "trainer.log", command) as trainer:
            assert (await trainer.fit(1, tmp_path / "base", tmp_path / "update")).metrics == {}


def receive(pipe: IO[bytes]) -> wire.Reply:
    """The next reply from a trainer that no `TrainerProcess` holds."""
    return wire.decode_reply(pipe.read(wire.body_size(pipe.read(4))))


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what another process does, which no event tells."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def fails(trainer: TrainerProcess, folder: Path) -> TrainerError:
    """The error of a fit that must fail."""
    with trio.fail_after(DEADLINE), pytest.raises(TrainerError) as caught:
        await trainer.fit(1, folder / "base", folder / "update")
    return caught.value


async def test_a_crash_is_told_with_its_exit_code_and_last_words(task: Task, tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    log.write_text("words of an earlier process\n")
    async with TrainerProcess(
        task, log, script("print('out of luck', file=sys.stderr); sys.exit(3)")
    ) as trainer:
        error = await fails(trainer, tmp_path)
        assert error.kind == "crash"
        assert "ended with exit code 3" in str(error)
        assert "out of luck" in str(error)
        assert (await fails(trainer, tmp_path)).kind == "crash"  # started again, failed again
    assert log.read_text().count("out of luck") == 2


async def test_a_command_that_is_not_there_is_named(task: Task, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"cannot start '/nowhere/torchrun'.*trainer.command"):
        async with TrainerProcess(task, tmp_path / "trainer.log", ("/nowhere/torchrun",)):
            pass


async def test_a_trainer_killed_at_work_costs_one_fit(
    task: Task, tmp_path: Path, command: tuple[str, ...]
) -> None:
    def kill(done: int, total: int) -> None:
        assert trainer.pid is not None
        os.kill(trainer.pid, signal.SIGKILL)

    long = with_training(task, LONG)
    async with TrainerProcess(long, tmp_path / "trainer.log", command, on_progress=kill) as trainer:
        error = await fails(trainer, tmp_path)
        assert error.kind == "crash"
        assert "SIGKILL" in str(error)
        with trio.fail_after(DEADLINE):
            assert (await trainer.evaluate(tmp_path / "base")).metrics["examples"] == 20


async def test_a_trainer_that_died_idle_is_replaced_unseen(
    task: Task, tmp_path: Path, command: tuple[str, ...]
) -> None:
    with trio.fail_after(DEADLINE):
        async with TrainerProcess(task, tmp_path / "trainer.log", command) as trainer:
            await trainer.evaluate(tmp_path / "base")
            first = trainer.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            eventually(lambda: not trainer.is_running)
            await trainer.evaluate(tmp_path / "base")
            assert trainer.pid != first


async def test_a_cancelled_fit_leaves_the_process_ready_for_the_next(
    task: Task, tmp_path: Path, command: tuple[str, ...]
) -> None:
    with trio.fail_after(DEADLINE):
        scope = trio.CancelScope()
        long = with_training(task, LONG)
        async with TrainerProcess(
            long, tmp_path / "trainer.log", command, on_progress=lambda done, total: scope.cancel()
        ) as trainer:
            with scope:
                await trainer.fit(1, tmp_path / "base", tmp_path / "update")
            assert scope.cancelled_caught
            first = trainer.pid
            assert (await trainer.evaluate(tmp_path / "base")).metrics["examples"] == 20
            assert trainer.pid == first
    assert not (tmp_path / "update").exists()


async def test_training_that_runs_off_costs_its_round_and_says_at_which_step(
    task: Task, tmp_path: Path, command: tuple[str, ...]
) -> None:
    wild = with_training(task, Training(lr="1e38"))
    async with TrainerProcess(wild, tmp_path / "trainer.log", command) as trainer:
        error = await fails(trainer, tmp_path)
        assert error.kind == "non_finite"
        assert "the loss of round 1 is" in str(error)
        assert "at step 2 of 3" in str(error)
        assert not (tmp_path / "update").exists()
        with trio.fail_after(DEADLINE):
            assert (await trainer.evaluate(tmp_path / "base")).metrics["examples"] == 20


@pytest.mark.parametrize(
    ("change", "kind"),
    [({"train": "/nowhere"}, "data"), ({"source": "/nowhere"}, "model"), ({"device": "cuda"}, "device")],
)
async def test_a_trainer_that_can_never_work_is_refused_at_the_start(
    task: Task, tmp_path: Path, command: tuple[str, ...], change: dict[str, str], kind: str
) -> None:
    if "source" in change:
        custom = {"kind": "custom", "layers": (4, 3), "source": "acme:build", "source_digest": "0" * 64}
        change = {**change, "model": msgspec.structs.replace(task.model, **custom)}
    if kind == "device" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    broken = msgspec.structs.replace(task, **change)
    with trio.fail_after(DEADLINE):
        async with TrainerProcess(broken, tmp_path / "trainer.log", command) as trainer:
            with pytest.raises(TrainerError) as caught:
                await trainer.check_start()
    assert caught.value.kind == kind


async def test_a_trainer_that_dies_at_the_start_is_left_to_the_next_request(
    task: Task, tmp_path: Path
) -> None:
    with trio.fail_after(DEADLINE):
        async with TrainerProcess(task, tmp_path / "trainer.log", script("sys.exit(3)")) as trainer:
            await trainer.check_start()
            assert (await fails(trainer, tmp_path)).kind == "crash"


async def test_silence_ends_a_trainer_but_progress_does_not(task: Task, tmp_path: Path) -> None:
    hang = "wire.write_reply(1, wire.Ready(1, 40)); time.sleep(600)"
    async with TrainerProcess(task, tmp_path / "log", script(hang), stall_timeout=0.2) as trainer:
        error = await fails(trainer, tmp_path)
        assert error.kind == "stalled"
        assert "0.2 s" in str(error)
    slow = """
wire.write_reply(1, wire.Ready(1, 40))
for step in range(20):
    time.sleep(0.1)
    wire.write_reply(1, wire.Progress(1, step, 20))
wire.write_reply(1, wire.Fitted(1, 40, 0.5, {}))
"""
    async with TrainerProcess(task, tmp_path / "log", script(slow), stall_timeout=1.0) as trainer:
        with trio.fail_after(DEADLINE):
            await trainer.fit(1, tmp_path / "base", tmp_path / "update")


@pytest.mark.parametrize(
    "body",
    [
        "os.write(1, b'Epoch 1 of 10\\n' * 100)",
        "os.write(1, b'\\xff' * 4)",
        "wire.write_reply(1, wire.Evaluated(1, {}))",
        "wire.write_reply(1, wire.Ready(1, 40)); wire.write_reply(1, wire.Evaluated(7, {}))",
        "wire.write_reply(1, wire.Ready(1, 40)); wire.write_reply(1, wire.Evaluated(1, {}))",
    ],
)
async def test_nonsense_on_the_pipe_is_a_failed_fit(task: Task, tmp_path: Path, body: str) -> None:
    async with TrainerProcess(task, tmp_path / "log", script(f"{body}; time.sleep(600)")) as trainer:
        assert (await fails(trainer, tmp_path)).kind == "protocol"


async def test_data_model_and_training_that_cannot_work_are_told_apart(
    task: Task, tmp_path: Path, command: tuple[str, ...]
) -> None:
    log = tmp_path / "trainer.log"
    tensors = tuple(reversed(task.model.tensors))
    cases = [
        (msgspec.structs.replace(task, train=str(tmp_path / "nowhere")), "data", "nowhere"),
        (
            msgspec.structs.replace(task, model=msgspec.structs.replace(task.model, tensors=tensors)),
            "model",
            "tensor 0",
        ),
        (with_training(task, Training(lr="1e30")), "non_finite", "smaller training.lr"),
    ]
    for bad, kind, words in cases:
        async with TrainerProcess(bad, log, command) as trainer:
            error = await fails(trainer, tmp_path)
            assert (error.kind, words in str(error)) == (kind, True), error
    assert not (tmp_path / "update").exists()


async def test_an_error_in_a_request_leaves_the_process_alone(
    task: Task, tmp_path: Path, command: tuple[str, ...]
) -> None:
    write_vector(tmp_path / "short", np.zeros(3, np.float32))
    async with TrainerProcess(task, tmp_path / "trainer.log", command) as trainer:
        with trio.fail_after(DEADLINE):
            with pytest.raises(TrainerError, match="67 float32 values take 268"):
                await trainer.evaluate(tmp_path / "short")
            first = trainer.pid
            await trainer.evaluate(tmp_path / "base")
            assert trainer.pid == first


async def test_what_user_code_prints_goes_to_the_log(task: Task, tmp_path: Path) -> None:
    chatty = """
begin = worker.open_session
worker.main(lambda task: print("hello from training") or os.system("echo and its children") or begin(task))
"""
    log = tmp_path / "trainer.log"
    with trio.fail_after(DEADLINE):
        async with TrainerProcess(task, log, script(chatty)) as trainer:
            await trainer.fit(1, tmp_path / "base", tmp_path / "update")
    assert {"hello from training", "and its children"} <= set(log.read_text().splitlines())


async def test_the_process_inherits_pipes_and_nothing_else(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLKMOOT_PASSPHRASE", "secret")
    nosy = "print(sorted(os.listdir('/proc/self/fd')), os.getpgid(0) == os.getpid(), os.environ, file=sys.stderr)"
    log = tmp_path / "trainer.log"
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        async with TrainerProcess(task, log, script(nosy)) as trainer:
            await fails(trainer, tmp_path)
    # 3 is the listing's own descriptor.
    assert "['0', '1', '2', '3'] True" in log.read_text()
    assert "secret" not in log.read_text()


def test_a_busy_trainer_ends_with_its_daemon(task: Task, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "folkmoot.node.train.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=trainer_environment(),
    )
    assert process.stdin is not None and process.stdout is not None
    fit = wire.Fit(1, 1, str(tmp_path / "base"), str(tmp_path / "update"))
    process.stdin.write(wire.encode(with_training(task, LONG)) + wire.encode(fit))
    process.stdin.flush()
    assert isinstance(receive(process.stdout), wire.Ready)
    assert isinstance(receive(process.stdout), wire.Progress)
    process.stdin.close()
    assert process.wait(DEADLINE) == 0
    process.stdout.close()


def test_a_fork_leads_its_group_and_ends_with_its_launcher(task: Task, command: tuple[str, ...]) -> None:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdin is not None and launcher.stdout is not None
        launcher.stdin.write(wire.encode(task))
        launcher.stdin.flush()
        ready = receive(launcher.stdout)
        assert isinstance(ready, wire.Ready)
        assert ready.pid != launcher.pid
        assert os.getpgid(ready.pid) == ready.pid
        launcher.kill()
        eventually(lambda: not Path(f"/proc/{ready.pid}").exists())


def test_forks_found_a_model_and_compute_baselines(server: Path, tmp_path: Path) -> None:
    def forked(entry: str, *arguments: str) -> bytes:
        return subprocess.run(
            launch_command(server, entry, *arguments), stdout=subprocess.PIPE, check=True, timeout=DEADLINE
        ).stdout

    tensors = forked("founding", '{"kind": "mlp", "layers": [4, 8, 3]}', "0", str(tmp_path / "initial"))
    assert [entry["name"] for entry in msgspec.json.decode(tensors)] == [
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    ]
    assert np.array_equal(read_vector(tmp_path / "initial", PARAMETERS), initial_vector("mlp", LAYERS, 0))

    names = ("alice", "bob")
    home = write_founded(tmp_path, names)
    answer = forked("baselines", str(home.path), ",".join(names), "2")
    expected = baselines.compute(baselines.load_founded(home, names), names, 2, 0)
    assert msgspec.json.decode(answer, type=baselines.Baselines) == expected


def write_founded(path: Path, names: tuple[str, ...]) -> TestnetHome:
    """As much of a testnet's home as its baselines read."""
    home, example = TestnetHome(path / "testnet"), examples.breast_cancer()
    tensors = layout(build(example.kind, example.layers))
    model = Model(kind=example.kind, layers=example.layers, initial="0" * 64, tensors=tensors)
    charter = msgspec.structs.replace(AuditedFederation().charter, model=model, training=example.training)
    ledger = LedgerConfig(rpc=("http://127.0.0.1:1",), contract="0x" + "00" * 20)
    example.write_data([home.node(name).path / "data" for name in names])
    weights = name_tensors(initial_vector(example.kind, example.layers, 0), model)
    for name in names:
        home.node(name).models.mkdir()
        safetensors.numpy.save_file(weights, home.node(name).initial_model)
        write_charter(home.node(name), charter, {})
        home.node(name).config.write_text(render_config(NodeConfig(name=name, ledger=ledger)))
    write_testnet(home, Testnet(plan=Plan(nodes=len(names), rounds=2, example="breast-cancer")))
    return home


def test_a_fork_server_that_nobody_started_is_a_failed_launch(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    result = subprocess.run(
        launch_command(folder / "trainers.sock", "trainer"), capture_output=True, text=True, timeout=DEADLINE
    )
    assert result.returncode == 1
    assert "no fork server" in result.stderr


async def test_children_of_training_code_end_with_it(task: Task, tmp_path: Path) -> None:
    """Also where their parent has crashed: they are in its group."""
    body = """
child = os.fork()
if not child:
    os.close(0), os.close(1)
    time.sleep(600)
print(child, file=sys.stderr)
os._exit(3)
"""
    log = tmp_path / "trainer.log"
    async with TrainerProcess(task, log, script(body)) as trainer:
        assert (await fails(trainer, tmp_path)).kind == "crash"
        child = Path(f"/proc/{log.read_text().split()[0]}/stat")
        eventually(lambda: not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z")


async def test_a_trainer_that_closes_its_pipe_but_stays_is_ended(task: Task, tmp_path: Path) -> None:
    async with TrainerProcess(task, tmp_path / "log", script("os.close(1); time.sleep(600)")) as trainer:
        error = await fails(trainer, tmp_path)
        assert error.kind == "crash"
        assert "closed its pipe" in str(error)
        assert not trainer.is_running
