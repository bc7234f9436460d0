"""What `folkmoot member`, `charter amend` and `keys rotate` share: a proposal drafted, signed and submitted."""

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from folkmoot.node.proposals import Proposal
    from folkmoot.node.standing import Standing
    from folkmoot.protocol.charter import Charter

F = TypeVar("F", bound=Callable[..., object])

HOME = click.option(
    "--home",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Your node's home.",
)
FOLDER = click.argument(
    "folder", metavar="PROPOSAL", type=click.Path(path_type=Path, exists=True, file_okay=False)
)


class Effective(click.ParamType[tuple[bool, int]]):
    """A round, or `+N`: so many after the last recorded one. As (is relative, number)."""

    name = "ROUND"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[bool, int]:
        """Fails for what is neither."""
        if not re.fullmatch(r"\+?[1-9][0-9]{0,9}", str(value)):
            self.fail(f"{value!r} is no round such as 120, or +60 for 60 rounds from now", param, ctx)
        return str(value).startswith("+"), int(str(value))


def takes_terms(function: F) -> F:
    """The options of every command that drafts a proposal."""
    effective = click.option(
        "--effective",
        type=Effective(),
        required=True,
        help="From which round on: a number, or +N for N rounds after the last recorded one. It must be more than the "
        "charter's max_ahead rounds away when the proposal is submitted.",
    )
    out = click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder for the proposal.  [default: proposal-NUMBER]",
    )
    return HOME(effective(out(function)))


def round_of(standing: "Standing", effective: tuple[bool, int]) -> int:
    """The round that `--effective` means."""
    is_relative, number = effective
    return standing.head.height + number if is_relative else number


def draft(
    standing: "Standing",
    after: "Charter",
    effective: tuple[bool, int],
    out: Path | None,
    suspended: Collection[str] = (),
) -> None:
    """Write a proposal that puts `after` in force, and say how it goes on."""
    from folkmoot.node.charters import keep_charter
    from folkmoot.node.proposals import enclose_federation, write_proposal

    proposal = standing.draft(after, round_of(standing, effective), suspended)
    folder = out or Path(f"proposal-{proposal.amendment.number}")
    if folder.exists() and not folder.is_dir():
        raise click.BadParameter(f"{folder} is there already and is no folder", param_hint="--out")
    write_proposal(folder, proposal, standing.timeline.newest)
    keep_charter(standing.home, after)
    enclose_federation(folder, standing.home, known_addresses(standing))
    say(standing, proposal)
    click.echo(
        f"wrote {folder}: {standing.quorum} of {len(standing.attesters)} attesters have to sign it "
        f"('folkmoot member sign {folder} --home HOME')"
    )


def known_addresses(standing: "Standing") -> list[str]:
    """Where nodes of members listen, as far as this home knows, with `/p2p/PEER`."""
    from folkmoot.node.config import bootstrap_addresses
    from folkmoot.node.network.directory import known_places

    home, timeline = standing.home, standing.timeline
    listening = home.address.read_text(encoding="ascii").split() if home.address.is_file() else []
    announced = known_places(home.known_addresses, timeline.federation, timeline.newest.members)
    return list(dict.fromkeys([*listening, *announced, *bootstrap_addresses(standing.config.network, home)]))


def say(standing: "Standing", proposal: "Proposal") -> None:
    """What a proposal changes, in words, whose keys it admits, and what exactly is signed."""
    from folkmoot.protocol.membership import admitted_keys

    click.echo(f"amendment {proposal.amendment.number}, from round {proposal.amendment.effective} on:")
    for line in proposal.words(standing.timeline.newest):
        click.echo(f"  {line}")
    for name, fingerprint in admitted_keys(standing.timeline.newest, proposal.charter).items():
        click.echo(f"  keys of {name}: {fingerprint}  (compare them with {name} by voice)")
    click.echo(f"charter   {proposal.amendment.charter.hex()}")
    click.echo(f"amendment {proposal.digest.hex()}")


@click.command()
@FOLDER
@HOME
@click.option("-y", "--yes", is_flag=True, help="Sign without asking.")
def sign(folder: Path, home: Path, yes: bool) -> None:
    """Sign a proposal with this member's audit key, if you agree: writes PROPOSAL/signatures/NAME.sig.

    Shows first what would change, and from which round on. Signing again gives the same file.
    """
    import os

    from folkmoot.ledger.audit_key import AuditKey
    from folkmoot.node.charters import keep_charter
    from folkmoot.node.config import Home
    from folkmoot.node.keys import AUDIT, folder_of, unlock
    from folkmoot.node.passphrase import read_passphrase
    from folkmoot.node.proposals import ProposalError, read_proposal, write_signature
    from folkmoot.node.standing import Standing

    standing, proposal = Standing.read(Home(home.resolve())), read_proposal(folder)
    standing.check(proposal)
    name = standing.config.name
    if name not in standing.attesters.values():
        raise ProposalError(f"{name} is no attester: only attesters sign amendments")
    say(standing, proposal)
    if not yes:
        click.confirm(f"sign this as {name}?", abort=True)
    charter = standing.timeline.charter_at(standing.head.height + 1)
    keys = folder_of(standing.home.keys, charter.members[charter.member_named(name)])
    (secret,) = unlock([keys / AUDIT], read_passphrase(os.environ))
    keep_charter(standing.home, proposal.charter)
    path = write_signature(folder, name, proposal.sign(AuditKey(secret)))
    click.echo(f"give {path} to whoever collects the signatures")


@click.command()
@FOLDER
@HOME
@click.option(
    "--timeout",
    type=click.FloatRange(1, 86_400),
    default=600.0,
    show_default=True,
    help="Seconds to wait until the ledger has it.",
)
def submit(folder: Path, home: Path, timeout: float) -> None:
    """Put a signed proposal on the ledger, and wait until it is there.

    The running node of HOME sends the transaction, for it owns the gas key; if it does not run, this command does so
    in its place. Anybody may submit; doing it again does no harm.
    """
    import os

    from folkmoot.node.config import Home
    from folkmoot.node.passphrase import read_passphrase
    from folkmoot.node.proposals import ProposalError, read_proposal, read_signatures
    from folkmoot.node.standing import Standing
    from folkmoot.node.submitting import submit_amendment

    standing, proposal = Standing.read(Home(home.resolve())), read_proposal(folder)
    number = proposal.amendment.number
    if standing.is_recorded(proposal):
        click.echo(f"amendment {number} is recorded already")
        return
    standing.check(proposal)
    signatures = read_signatures(folder, proposal, standing.attesters)
    if len(signatures) < standing.quorum:
        waiting = sorted(name for address, name in standing.attesters.items() if address not in signatures)
        raise ProposalError(
            f"{folder}: {len(signatures)} of {standing.quorum} signatures: ask {', '.join(waiting)} to sign it"
        )
    submit_amendment(standing, proposal, signatures, timeout, click.echo, lambda: read_passphrase(os.environ))
    click.echo(f"amendment {number} is recorded: in force from round {proposal.amendment.effective} on")
