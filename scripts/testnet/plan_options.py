"""The options that describe a testnet to be founded, in the order in which `--help` shows them."""

from pathlib import Path

import click

from folkmoot.testnet.home import CODECS, MAX_NODES

PLAN_OPTIONS = (
    click.option("--nodes", type=click.IntRange(1, MAX_NODES), default=4, show_default=True),
    click.option("--rounds", type=click.IntRange(1, 100_000), default=10, show_default=True),
    click.option(
        "--example",
        type=click.Choice(["digits", "breast-cancer"]),
        default="digits",
        show_default=True,
        help="What is learnt: scikit-learn's bundled data, dealt to the nodes.",
    ),
    click.option(
        "--data",
        "file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True),
        help="Your own rows instead of an example: CSV, Parquet, JSON or SQLite.",
    ),
    click.option("--target", metavar="COL", help="The column of --data to predict."),
    click.option(
        "--split-by",
        metavar="COL|iid|dirichlet:A",
        help="Deal this column's values, rows evenly (iid), or uneven shares of the classes (A = 0.1: very uneven).",
    ),
    click.option(
        "--task",
        type=click.Choice(["binary", "multiclass", "regression"]),
        help="Instead of what the target looks like.",
    ),
    click.option("--leave-out", metavar="COL", multiple=True, help="A column not to learn from."),
    click.option(
        "--model",
        metavar="cnn|MODULE:FUNCTION",
        help="Another model: a small cnn, where rows are images, or your own, a function that gives a torch.nn.Module, "
        "in this folder or on PYTHONPATH.",
    ),
    click.option(
        "--chain",
        default="embedded",
        show_default=True,
        metavar="embedded|anvil|URL",
        help="The embedded chain or anvil (development, not evidence), or a development node's JSON-RPC.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**31 - 1),
        default=0,
        show_default=True,
        help="Draws the starting weights and the order of training.",
    ),
    click.option(
        "--codec",
        type=click.Choice(CODECS),
        default="f32",
        show_default=True,
        help="In open mode, how updates are written for the wire: exact, or with 8 or 4 bits a value.",
    ),
    click.option(
        "--mode",
        type=click.Choice(["secure", "open"]),
        help="Whether updates are masked, so that only their sum is ever seen; secure from 3 nodes on, else open.",
    ),
    click.option(
        "--ring",
        type=click.Choice([8, 16, 32]),
        default=16,
        show_default=True,
        help="Bits of a value in secure mode.",
    ),
    click.option(
        "--links",
        type=click.Choice(["direct", "shaped"]),
        default="direct",
        show_default=True,
        help="How nodes reach each other; shaped links can be slowed down and cut.",
    ),
    click.option(
        "--max-ahead",
        type=click.IntRange(1, 1000),
        default=50,
        show_default=True,
        help="How many rounds may wait for the ledger; a change of members takes more than that.",
    ),
    click.option(
        "--set",
        "terms",
        metavar="KEY=VALUE",
        multiple=True,
        help="Any other term of the charter: averaging.rule=nesterov, training.correction=feddyn.",
    ),
    click.option(
        "--ditto",
        type=click.FloatRange(0, 1e6),
        default=0.0,
        metavar="LAMBDA",
        help="Let each node train a model of its own beside, held near the common one.",
    ),
    click.option(
        "--attack",
        default="",
        metavar="NAME:COUNT",
        help="The last COUNT nodes attack the average: alie-optimised:2, sign-flip, ipm, label-flip, backdoor, zero...",
    ),
    click.option("--fresh", is_flag=True, help="Delete an earlier testnet in --home first."),
)
