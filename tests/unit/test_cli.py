"""The command line's root: lazy commands, exit codes, errors in one line."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from folkmoot.node import cli
from folkmoot.protocol.errors import CharterError, FolkmootError

HEAVY = {"torch", "libp2p", "web3", "rich", "trio", "numpy", "msgspec", "structlog"}


def exit_code(*args: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(args)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Puts a function into the root's table as the command `act`."""

    def install(function: Callable[[], object]) -> None:
        monkeypatch.setattr(sys.modules[__name__], "act", click.command("act")(function), raising=False)
        monkeypatch.setitem(sys.modules, "act_module", sys.modules[__name__])
        monkeypatch.setitem(cli.COMMANDS, "act", cli.Entry("act_module:act", "Act."))

    return install


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_help_lists_every_command_with_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--help") == 0
    out = capsys.readouterr().out
    for name, entry in cli.COMMANDS.items():
        assert f"  {name} " in out
        assert entry.help in out


def test_help_imports_nothing_heavy() -> None:
    script = """
import sys
from folkmoot.node.cli import main
try:
    main(["--help"])
finally:
    print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert not HEAVY & set(done.stderr.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    assert capsys.readouterr().out.startswith("folkmoot, version 0.")


def test_unknown_command_is_a_usage_error_that_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("statsu") == 2
    assert "Did you mean 'status'?" in capsys.readouterr().err


def test_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--no-such-option") == 2
    assert "--no-such-option" in capsys.readouterr().err


def test_command_that_needs_an_extra_says_which(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "run", cli.Entry("no_such_library.cli:run", "Run.", "node"))
    assert exit_code("run") == 1
    assert "pip install 'folkmoot[node]'" in capsys.readouterr().err


def test_module_missing_from_our_own_package_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "run", cli.Entry("folkmoot.node.no_such_module:run", "Run.", "node"))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["run"])


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (FolkmootError("the port is in use"), 1, "Error: the port is in use\n"),
        (CharterError("not signed by all"), 2, "Error: not signed by all\n"),
        (ExceptionGroup("tasks", [ExceptionGroup("inner", [CharterError("deep")])]), 2, "Error: deep\n"),
        (ExceptionGroup("tasks", [FolkmootError("same"), FolkmootError("same")]), 1, "Error: same\n"),
        (ExceptionGroup("tasks", [FolkmootError("one"), CharterError("two")]), 1, "Error: one\nError: two\n"),
        (click.UsageError("no home"), 2, "Error: no home\n"),
        (click.exceptions.Exit(4), 4, ""),
        (ExceptionGroup("tasks", [click.exceptions.Exit(5)]), 5, ""),
        (click.Abort(), 1, "Aborted.\n"),
        (BaseExceptionGroup("tasks", [KeyboardInterrupt(), FolkmootError("closing")]), 130, ""),
    ],
)
def test_expected_errors_end_in_a_line_and_a_code(
    command: Callable[[Callable[[], object]], None],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    message: str,
) -> None:
    command(raising(error))
    assert exit_code("act") == code
    assert capsys.readouterr().err.endswith(message)


def test_interrupt_exits_130(command: Callable[[Callable[[], object]], None]) -> None:
    command(raising(KeyboardInterrupt()))
    assert exit_code("act") == 130


def test_unexpected_error_keeps_its_traceback(command: Callable[[Callable[[], object]], None]) -> None:
    group = ExceptionGroup("tasks", [FolkmootError("expected"), ZeroDivisionError("a bug")])
    command(raising(group))
    with pytest.raises(ExceptionGroup) as caught:
        cli.main(["act"])
    assert caught.value is group


@pytest.mark.parametrize(("returned", "code"), [(3, 3), (None, 0), ("text", 0)])
def test_number_that_a_command_returns_is_its_exit_code(
    command: Callable[[Callable[[], object]], None], returned: object, code: int
) -> None:
    command(lambda: returned)
    assert exit_code("act") == code


def test_runs_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "folkmoot.node.cli", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("folkmoot, version")
