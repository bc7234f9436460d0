"""`folkmoot charter`: draft the agreement, sign it, check it, read it."""

import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from folkmoot.node.cli import proposing
from folkmoot.node.cli.amend import amend
from folkmoot.node.cli.terms import describe
from folkmoot.protocol.errors import CharterError, FolkmootError
from folkmoot.protocol.toml import ConfigError

if TYPE_CHECKING:
    from folkmoot.node.charter_draft import Table
    from folkmoot.node.config import Home
    from folkmoot.protocol.charter import Charter
    from folkmoot.protocol.schema import Schema

_HEADER = """\
# A draft: read it, change what is wrong, then let every member sign exactly this ('folkmoot charter sign').

"""

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_HOME = click.Path(path_type=Path, exists=True, file_okay=False)


@click.group()
def charter() -> None:
    """The agreement of a federation: who, what model, on what data, by which rules."""


# --- new ----------------------------------------------------------------------------------------------------------


def _layers(ctx: click.Context, param: click.Parameter, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",") if word.strip()]
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: write widths like 64,32", ctx, param) from error


def _image(ctx: click.Context, param: click.Parameter, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split("x")] if text else []
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: write it like 28x28x1", ctx, param) from error


@charter.command()
@click.option(
    "--member", "members", type=_FILE, multiple=True, required=True, help="A member.toml; one for each."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("charter.toml"),
    show_default=True,
    help="Where to write it; model0.safetensors goes beside it.",
)
@click.option("--name", default="federation", show_default=True, help="What the federation is called.")
@click.option(
    "--schema-from", type=_FILE, help="Propose the data's schema from this CSV, Parquet, JSON or SQLite file."
)
@click.option("--target", metavar="COL", help="The column to predict.")
@click.option(
    "--task", type=click.Choice(["binary", "multiclass", "regression"]), help="Instead of the proposed one."
)
@click.option(
    "--category",
    "categories",
    metavar="COL",
    multiple=True,
    help="A column whose numbers are codes, not amounts; may be repeated.",
)
@click.option("--allow-missing", is_flag=True, help="Let every column have missing values at some members.")
@click.option(
    "--model",
    default="mlp",
    show_default=True,
    help="mlp, logistic, cnn, or module:function of a file in this folder, which gives a torch.nn.Module.",
)
@click.option(
    "--image",
    callback=_image,
    default="",
    metavar="HxWxC",
    help="Of a cnn: height, width and channels of the images whose values are the inputs, channels fastest.",
)
@click.option(
    "--layers",
    callback=_layers,
    default="",
    metavar="N,N,...",
    help="Widths of hidden layers (of a cnn, channels of its convolutions); without --schema-from all widths, from "
    "inputs to classes.",
)
@click.option(
    "--shared",
    metavar="REGEX",
    help="Only tensors whose whole names match travel and are averaged; the others stay with each member.",
)
@click.option("--frozen", metavar="REGEX", help="Tensors whose whole names match stay as they begin.")
@click.option("--start", type=_FILE, help="Begin with the weights of this safetensors file.")
@click.option("--start-fill", is_flag=True, help="Let weights that --start lacks be drawn.")
@click.option(
    "--mode",
    type=click.Choice(["secure", "open"]),
    help="Whether updates are masked, so that only their sum is ever seen; secure from 3 members on, else open.",
)
@click.option(
    "--rounds", type=click.IntRange(1), default=20, show_default=True, help="How many rounds to run."
)
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of weights and order."
)
@click.option("--chain-id", type=click.IntRange(1), help="The chain of the ledger; or ask the one at --rpc.")
@click.option("--rpc", metavar="URL", help="JSON-RPC of the ledger's chain, to ask for its id.")
@click.option(
    "--set", "assignments", metavar="KEY=VALUE", multiple=True, help="Any other term: training.lr=0.05."
)
def new(
    members: tuple[Path, ...],
    out: Path,
    name: str,
    schema_from: Path | None,
    target: str | None,
    task: str | None,
    categories: tuple[str, ...],
    allow_missing: bool,
    model: str,
    image: list[int],
    layers: list[int],
    shared: str | None,
    frozen: str | None,
    start: Path | None,
    start_fill: bool,
    mode: str | None,
    rounds: int,
    seed: int,
    chain_id: int | None,
    rpc: str | None,
    assignments: tuple[str, ...],
) -> None:
    """Draft a charter and its starting weights.

    Read what it writes: every term stands in the file and may be changed until somebody has signed.
    """
    from folkmoot.node import charter_draft
    from folkmoot.node.charter_files import render_charter
    from folkmoot.node.toml import load
    from folkmoot.protocol.charter_tables import Member
    from folkmoot.protocol.outer import with_start

    if out.exists():
        raise CharterError(f"{out}: exists already: charters are never overwritten; give another --out")
    if (beside := out.with_name(charter_draft.MODEL_FILE)).exists():
        raise CharterError(
            f"{beside}: exists already, another charter's starting weights: give an --out in another folder"
        )
    known = [load(path, Member) for path in members]
    patterns, chosen = charter_draft.take_patterns(charter_draft.parse_assignments(assignments))
    patterns |= {key: text for key, text in (("shared", shared), ("frozen", frozen)) if text is not None}
    chain = _chain_id(chain_id, rpc)
    schema = _schema(schema_from, target, task, categories, allow_missing)
    widths = charter_draft.layers_of(layers or _default_layers(model, schema), schema)
    table = charter_draft.model_table(model, widths, Path.cwd(), image)
    if start_fill and start is None:
        raise click.UsageError("--start-fill belongs to --start")
    weights, tensors = charter_draft.draw_model(table, seed, Path.cwd(), start, fill=start_fill)
    tables: Table = {
        "name": name,
        "model": charter_draft.model_terms(table, tensors, patterns),
        "schedule": {"rounds": rounds},
        "training": {**charter_draft.USUAL_TRAINING.get(table["kind"], {}), "seed": seed},
        "averaging": charter_draft.averaging_table(mode, len(known), chosen),
    }
    if schema is not None:
        tables["data"] = msgspec.to_builtins(schema)
    drafted = with_start(
        charter_draft.build_charter(known, chain, charter_draft.merge(tables, chosen)), weights
    )
    charter_draft.write_draft(out, _HEADER + render_charter(drafted), weights, drafted.model)
    click.echo(f"wrote {out} and {out.with_name(charter_draft.MODEL_FILE)}: send both to all members to sign")
    _print(describe(drafted))


def _chain_id(chain_id: int | None, rpc: str | None) -> int:
    if chain_id is not None:
        return chain_id
    if rpc is None:
        raise click.UsageError("give --chain-id, or --rpc to ask the chain itself")
    from folkmoot.ledger.answers import to_int
    from folkmoot.ledger.rpc import RpcClient

    client = RpcClient([rpc], timeout=10.0)
    with client.usable_answers():
        return to_int(client.call("eth_chainId"))


def _schema(
    file: Path | None, target: str | None, task: str | None, categories: tuple[str, ...], allow_missing: bool
) -> "Schema | None":
    """The proposed schema, its notes said aloud; None where no file is given."""
    if file is None:
        if target is not None or task is not None or categories or allow_missing:
            raise click.UsageError("--target, --task, --category and --allow-missing need --schema-from")
        return None
    if target is None:
        raise click.UsageError("--schema-from needs --target, the column to predict")
    from folkmoot.node.data.propose import propose_schema

    schema, notes = propose_schema(
        file,
        target,
        task,  # type: ignore[arg-type]
        allow_missing=allow_missing,
        categories=categories,
    )
    for note in notes:
        click.echo(f"note: {note}", err=True)
    return schema


def _default_layers(model: str, schema: "Schema | None") -> list[int]:
    """One hidden layer for an mlp on a table, two convolutions; nothing where the widths have to be given."""
    return {"mlp": [32], "cnn": [16, 32]}.get(model, []) if schema is not None else []


# --- sign ---------------------------------------------------------------------------------------------------------


@charter.command()
@click.option("--home", type=_HOME, required=True, help="Your node's home.")
@click.option(
    "--charter",
    "file",
    type=_FILE,
    help="Take this charter (and model0.safetensors beside it) into HOME first.",
)
def sign(home: Path, file: Path | None) -> None:
    """Sign the founding charter for this member: writes HOME/charter.sig/NAME.sig, for all other members.

    Changes of it are signed with 'folkmoot member sign'.
    """
    from nacl.signing import SigningKey

    from folkmoot.node import charter_files
    from folkmoot.node.config import Home
    from folkmoot.node.keys import IDENTITY
    from folkmoot.protocol.charter import sign_charter

    place = Home(home)
    if file is not None:
        _install(place, file)
    terms = charter_files.read_charter(place)
    name = _my_name(place, terms)
    key = SigningKey(bytes.fromhex((place.keys / IDENTITY).read_text(encoding="ascii")))
    path = charter_files.signature_path(place, name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(sign_charter(terms, key).hex() + "\n", encoding="ascii")
    click.echo(f"{name} signs charter {terms.digest.hex()}")
    click.echo(f"give {path} to every other member, for their charter.sig/")


def _install(home: "Home", file: Path) -> None:
    """Copy a drafted charter and its weights into a home; refuses to replace another one that is there."""
    if home.charter.exists() and home.charter.read_bytes() != file.read_bytes():
        raise CharterError(
            f"{home.charter}: another charter is there already: remove it and charter.sig/ first"
        )
    weights = file.with_name(home.initial_model.name)
    if not weights.is_file():
        raise CharterError(
            f"{weights}: the starting weights belong beside the charter: get them from the drafter"
        )
    home.models.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, home.initial_model)
    shutil.copyfile(file, home.charter)


def _my_name(home: "Home", terms: "Charter") -> str:
    """The member whose keys are in the home; raises where the charter names none of them, or others for it."""
    from folkmoot.node.keys import public_keys

    publics = public_keys(home.keys)
    for member in terms.members:
        if member.identity_key == publics.identity_key:
            wrong = [
                key
                for key in ("peer_id", "sealing_key", "audit_key")
                if getattr(publics, key) != getattr(member, key)
            ]
            if wrong:
                raise CharterError(
                    f"the charter names another {wrong[0]} for {member.name} than {home.keys} holds"
                )
            return member.name
    raise CharterError(
        f"the charter names no member with the keys in {home.keys}: was it made with your member.toml?"
    )


# --- check and show -----------------------------------------------------------------------------------------------


@charter.command()
@click.option("--home", type=_HOME, required=True, help="Your node's home.")
@click.option("--model", "check_model", is_flag=True, help="Also build the model and run it once.")
def check(home: Path, check_model: bool) -> None:
    """Check the charter of HOME before you rely on it: terms, your keys, starting weights, signatures.

    Says in words what the members can rely on. Ends with 2 where something is wrong or missing. Of a charter that was
    amended it is the one under which the node works that counts.
    """
    from folkmoot.node import charter_files
    from folkmoot.node.charters import load_charter_in_work, read_amendments
    from folkmoot.node.config import Home

    place = Home(home)
    is_amended = bool(read_amendments(place))
    terms = load_charter_in_work(place) if is_amended else charter_files.read_charter(place)
    _print(describe(terms))
    problems = list((_amended_problems if is_amended else _problems)(place, terms, check_model))
    for line in problems:
        click.echo(f"WRONG  {line}")
    if problems:
        raise CharterError(f"{place.charter}: {len(problems)} of the checks above failed")
    click.echo(
        "ok     terms, keys, starting weights and all signatures" + (" and the model" if check_model else "")
    )


def _problems(home: "Home", terms: "Charter", check_model: bool) -> Iterator[str]:
    """What is wrong, one line each; all is looked at, so that all can be mended at once."""
    from folkmoot.node import charter_draft, charter_files
    from folkmoot.node.model_file import read_start

    checks: list[Callable[[], object]] = [
        lambda: _my_name(home, terms),
        lambda: read_start(home.initial_model, terms),
        lambda: _check_all_signed(home, terms),
        lambda: charter_files.load_charter(home),
    ]
    if check_model:
        checks.append(lambda: charter_draft.run_model(terms, _source_folder(home)))
    yield from _failing(checks)


def _amended_problems(home: "Home", terms: "Charter", check_model: bool) -> Iterator[str]:
    """The same under an amended charter, which the ledger vouches for, and only the founding one's signatures."""
    from folkmoot.node import charter_draft
    from folkmoot.node.charters import load_timeline
    from folkmoot.node.config import load_config
    from folkmoot.node.keys import folder_of

    checks: list[Callable[[], object]] = [
        lambda: folder_of(home.keys, terms.members[terms.member_named(load_config(home).name)]),
        lambda: load_timeline(home).newest,
    ]
    if check_model:
        checks.append(lambda: charter_draft.run_model(terms, _source_folder(home)))
    yield from _failing(checks)


def _failing(checks: list[Callable[[], object]]) -> Iterator[str]:
    for one in checks:
        try:
            one()
        except FolkmootError as error:
            yield str(error)


def _source_folder(home: "Home") -> Path:
    """Where the node will look for a custom model's source; its node.toml may still lack a ledger."""
    from folkmoot.node.config import TrainerConfig

    try:
        tables = tomllib.loads(home.config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{home.config}: cannot be read: {error}") from error
    return home.resolve(str(tables.get("trainer", {}).get("path", TrainerConfig().path)))


def _check_all_signed(home: "Home", terms: "Charter") -> None:
    """Name all who have not signed yet, where the check of the signatures stops at the first."""
    from folkmoot.node.charter_files import signature_path

    waiting = [member.name for member in terms.members if not signature_path(home, member.name).is_file()]
    if waiting:
        raise CharterError(
            f"not signed yet: {', '.join(waiting)}: their .sig files belong into {home.charter_signatures}"
        )


@charter.command()
@click.option("--home", type=_HOME, help="A home; its charter is shown, amended as its node knows.")
@click.option("--now", is_flag=True, help="The charter that the node works under, not the newest one.")
@click.option("--toml", "as_toml", is_flag=True, help="Print the charter itself, to be edited.")
@click.argument("file", type=_FILE, required=False)
def show(home: Path | None, now: bool, as_toml: bool, file: Path | None) -> None:
    """Show the terms of a charter (of HOME, or FILE) and what they mean.

    Of a home that is the newest charter, which the next amendment changes, even if it is not in force yet; with --now
    the one that the node works under.
    """
    from folkmoot.node.charter_files import render_charter
    from folkmoot.protocol.charter_rules import parse_charter

    if (home is None) == (file is None) or (file is not None and now):
        raise click.UsageError("give --home or a charter's FILE")
    terms = _of_home(home, now) if home else parse_charter(_read(file), str(file))
    if as_toml:
        click.echo(render_charter(terms), nl=False)
    else:
        _print(describe(terms))


def _of_home(home: Path, now: bool) -> "Charter":
    """The charter that its node works under, or the newest that it knows of; says so where these are two."""
    from folkmoot.node.charter_files import read_charter
    from folkmoot.node.charters import load_charter_in_work, load_timeline, read_amendments
    from folkmoot.node.config import Home

    place = Home(home)
    if not read_amendments(place):
        return read_charter(place)
    in_work, timeline = load_charter_in_work(place), load_timeline(place)
    if in_work == timeline.newest:
        return in_work
    first = timeline.spans[-1].first
    if now:
        click.echo(f"in force now; another charter is known, in force from round {first} on", err=True)
        return in_work
    click.echo(f"the newest charter: in force from round {first} on; --now shows the one before it", err=True)
    return timeline.newest


def _read(file: Path | None) -> str:
    assert file is not None
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CharterError(f"{file}: cannot be read: {error}") from error


def _print(rows: Iterator[tuple[str, str]]) -> None:
    for heading, text in rows:
        click.echo(f"{heading:<11}{text}")


charter.add_command(amend)
charter.add_command(proposing.submit)
