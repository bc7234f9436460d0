"""`folkmoot dispute`: let an auditor look at single updates of a round in secure mode, if a quorum agrees."""

from pathlib import Path

import click

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_OUT = click.Path(path_type=Path, dir_okay=False)
_HOME = click.Path(path_type=Path, exists=True, file_okay=False)


@click.group()
def dispute() -> None:
    """Let an auditor open single updates of a round in secure mode, if a quorum of the members agrees.

    One member drafts a permit, a quorum signs it, and every survivor of the round answers it. The auditor then runs
    'folkmoot audit dispute'. At least k_min updates of a round always stay hidden.
    """


def _key(ctx: click.Context, param: click.Parameter, text: str) -> str:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise click.BadParameter(f"{text!r} is not a public key: 64 hex digits", ctx, param)
    return key.hex()


@dispute.command()
@click.option("--home", type=_HOME, required=True, help="Your node's home.")
@click.option("--round", "number", type=click.IntRange(1), required=True, metavar="N", help="Which round.")
@click.option(
    "--auditor",
    callback=_key,
    required=True,
    metavar="HEX",
    help="The auditor's public sealing key (X25519).",
)
@click.option(
    "--member", "members", required=True, multiple=True, metavar="NAME", help="Whose update; may be repeated."
)
@click.option("--reason", required=True, help="Why; those who sign will read it.")
@click.option("--out", type=_OUT, default=Path("permit.toml"), show_default=True, help="Where to write it.")
def permit(home: Path, number: int, auditor: str, members: tuple[str, ...], reason: str, out: Path) -> None:
    """Draft a permit: which updates of which round an auditor may open, and why."""
    from folkmoot.ledger.permit_files import write_permit
    from folkmoot.node.config import Home
    from folkmoot.node.disputes import Party

    party = Party.at(Home(home), number)
    write_permit(out, party.draft(number, auditor, members, reason))
    quorum = party.federation.charter.quorum
    click.echo(f"wrote {out}: {quorum} members must sign it ('folkmoot dispute sign')")


@dispute.command()
@click.option("--home", type=_HOME, required=True, help="Your node's home.")
@click.option("--permit", "file", type=_FILE, required=True, help="The permit to sign.")
def sign(home: Path, file: Path) -> None:
    """Sign a permit for this member: writes NAME.sig into the folder permit.sig beside it."""
    from folkmoot.ledger.permit_files import load_permit, write_signature
    from folkmoot.node.config import Home
    from folkmoot.node.disputes import Party

    terms = load_permit(file).permit
    party = Party.at(Home(home), terms.round)
    path = write_signature(file, party.name, party.sign(terms))
    click.echo(
        f"{party.name} lets the holder of key {terms.auditor[:16]}… see the updates of "
        f"{', '.join(terms.members)} in round {terms.round}: {terms.reason}"
    )
    click.echo(f"give {path} to whoever collects the signatures")


@dispute.command()
@click.option("--home", type=_HOME, required=True, help="Your node's home; the node must be stopped.")
@click.option(
    "--permit",
    "file",
    type=_FILE,
    required=True,
    help="The permit, with its signatures in permit.sig beside it.",
)
@click.option("--out", type=_OUT, required=True, metavar="FILE", help="Where to write the answer.")
def answer(home: Path, file: Path, out: Path) -> None:
    """Give the auditor what a permit allows, sealed to its key: pair seeds of that one round, never a secret key.

    Refused without a quorum's signatures, where too few updates would stay hidden (all permits that were ever answered
    for the round count, whoever the auditor was), and once the round's mask secrets are erased.
    """
    from folkmoot.ledger.permit_files import load_permit
    from folkmoot.node.config import Home
    from folkmoot.node.disputes import Party, write_answer

    signed = load_permit(file)
    write_answer(out, Party.at(Home(home), signed.permit.round).answer(signed))
    click.echo(f"wrote {out}: give it to the auditor; only the holder of the permit's key can read it")
