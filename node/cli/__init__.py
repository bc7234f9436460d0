"""The command line: `folkmoot COMMAND`.

This package's root is a table of names, so that `folkmoot --help` answers without importing torch, libp2p, web3 or
rich; a command's module is imported when that command is asked for.

Exit codes: 0 done; 1 failed, one line on stderr says why; 2 wrong usage or configuration; 130 interrupted. A
`FolkmootError` exits with its own `exit_code`, and a command may leave with another code by `ctx.exit(code)` (the
auditor's are listed in its help). An error that nobody meant to raise keeps its traceback.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn

import click
from click.exceptions import Abort, ClickException, Exit, NoSuchCommand

from folkmoot.protocol.errors import FolkmootError

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class Entry(NamedTuple):
    """One command of the root: where it is defined, what `--help` says of it, which extra it needs ("" for none)."""

    target: str  # "module:object", a click command
    help: str
    extra: str = ""


COMMANDS = {
    "audit": Entry("folkmoot.ledger.cli:audit", "Check a federation's rounds from the ledger and archives."),
    "bench": Entry("folkmoot.testnet.bench:bench", "Measure how fast rounds are on this machine.", "testnet"),
    "charter": Entry(
        "folkmoot.node.cli.charter:charter", "Draft, sign, check and show the members' agreement."
    ),
    "init": Entry("folkmoot.node.cli.init:init", "Make a new node's home, with its keys.", "node"),
    "join": Entry("folkmoot.node.cli.join:join", "Make a new member's home ready to join.", "node"),
    "keys": Entry("folkmoot.node.cli.keys:keys", "Replace this member's keys.", "node"),
    "ledger": Entry("folkmoot.node.cli.ledger:ledger", "Deploy the federation's contract, or look at it."),
    "data": Entry("folkmoot.node.cli.data:data", "Look at this member's own rows.", "node"),
    "dispute": Entry(
        "folkmoot.node.cli.dispute:dispute", "Let an auditor open single masked updates.", "node"
    ),
    "doctor": Entry(
        "folkmoot.node.cli.doctor:doctor", "Check a node and what it needs, and say what to do.", "node"
    ),
    "export": Entry("folkmoot.node.cli.model:export", "Write a round's model to a file.", "node"),
    "member": Entry(
        "folkmoot.node.cli.member:member", "Add, remove or suspend members of the federation.", "node"
    ),
    "model": Entry("folkmoot.node.cli.model:model", "Look at a model.", "node"),
    "predict": Entry("folkmoot.node.cli.model:predict", "Predict the rows of a file.", "node"),
    "repair": Entry("folkmoot.node.cli.repair:repair", "Check and mend what this node wrote.", "node"),
    "report": Entry(
        "folkmoot.node.cli.report:report", "Write what this node measured, as a page and as CSV.", "report"
    ),
    "run": Entry("folkmoot.node.cli.run:run", "Run this node until it is stopped.", "node"),
    "simulate": Entry(
        "folkmoot.testnet.simulation.cli:simulate", "Try the rules on federations in virtual time.", "testnet"
    ),
    "status": Entry("folkmoot.node.cli.status:status", "Show what this node is doing."),
    "testnet": Entry("folkmoot.testnet.cli:testnet", "Run a whole federation on this machine.", "testnet"),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used, from a table."""

    def __init__(self, *, table: dict[str, Entry], **attrs: object) -> None:
        super().__init__(**attrs)  # type: ignore[arg-type]
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the table, sorted."""
        return sorted(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports and returns the command; None if there is none of that name."""
        entry = self.table.get(cmd_name)
        return None if entry is None else _load(cmd_name, entry)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but an unknown name is compared with the table's for "Did you mean"."""
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:
            raise NoSuchCommand(error.command_name, possibilities=self.table, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands from the table alone (click would import each for its help)."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.table[name].help) for name in self.list_commands(ctx)])


def _load(name: str, entry: Entry) -> click.Command:
    module, _, attribute = entry.target.partition(":")
    try:
        command = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not entry.extra or missing in ("", "folkmoot"):
            raise
        raise ClickException(
            f"`folkmoot {name}` needs {missing}, which is not installed: pip install 'folkmoot[{entry.extra}]'"
        ) from error
    assert isinstance(command, click.Command), entry.target
    return command


@click.command(
    cls=LazyGroup, table=COMMANDS, name="folkmoot", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="folkmoot", prog_name="folkmoot")
def cli() -> None:
    """Federated learning without a server: nodes agree on every model, and a ledger lets anyone check it."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line on `args` (the process's own by default) and exits; the entry point of `folkmoot`."""
    try:
        # Not click's standalone mode: it knows neither our errors nor exception groups, and exits 1 when interrupted.
        code = cli.main(args, prog_name="folkmoot", standalone_mode=False)
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        code = _report(error)
    sys.exit(code if isinstance(code, int) else 0)


def _report(error: BaseException) -> int:
    """Prints each expected error inside `error` on its own line and returns the exit code.

    Raises `error` itself if anything unexpected is in it: a bug's traceback must not be lost. trio's groups are
    taken apart here and nowhere else.
    """
    leaves = list(_leaves(error))
    if any(_is_interrupt(leaf) for leaf in leaves):
        return INTERRUPTED
    if not all(isinstance(leaf, Abort | ClickException | Exit | FolkmootError) for leaf in leaves):
        raise error
    for leaf in _distinct(leaves):
        _show(leaf)
    return next((code for code in map(_exit_code, leaves) if code), 0)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _is_interrupt(error: BaseException) -> bool:
    # click turns Ctrl-C, and the end of input at a prompt, into Abort; only its context tells which it was.
    if isinstance(error, Abort):
        return isinstance(error.__cause__ or error.__context__, KeyboardInterrupt)
    return isinstance(error, KeyboardInterrupt)


def _distinct(errors: Iterable[BaseException]) -> list[BaseException]:
    """One of each message: tasks that fail together often fail for one reason."""
    return list({(type(error), str(error)): error for error in errors}.values())


def _show(error: BaseException) -> None:
    if isinstance(error, ClickException):
        error.show()
    elif isinstance(error, Abort):
        click.echo("Aborted.", err=True)
    elif isinstance(error, FolkmootError):
        click.echo(f"Error: {error}", err=True)


def _exit_code(error: BaseException) -> int:
    return error.exit_code if isinstance(error, ClickException | Exit | FolkmootError) else 1
