"""`folkmoot ledger accept`: go on with a chain that undid what it had called final."""

from pathlib import Path

import click

from folkmoot.node.config import Home
from folkmoot.protocol.errors import FolkmootError


class NothingToAccept(FolkmootError):
    """The chain still has what was final when this node last looked."""


@click.command()
@click.option(
    "--home",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="The stopped node's directory.",
)
def accept(home: Path) -> None:
    """Go on with a chain that undid blocks which it had called final.

    A node that notices this stops with exit code 4, because the record has changed under everybody's eyes. Find out
    with the other members what happened; then run this. At its next start the node hands in again, from its journal
    and archive, the rounds that the chain has lost.
    """
    from folkmoot.ledger.errors import LedgerReorganised
    from folkmoot.ledger.identity import check_identity
    from folkmoot.ledger.reader import LedgerReader
    from folkmoot.node.charter_files import load_charter
    from folkmoot.node.charters import load_charter_in_work
    from folkmoot.node.config import load_config
    from folkmoot.node.ledger_start import accept_chain, read_final_block
    from folkmoot.node.store import Journal

    place = Home(home)
    config, charter = load_config(place).ledger, load_charter(place)
    contract = bytes.fromhex(config.contract[2:])
    depth = load_charter_in_work(place).ledger.finality_depth
    with Journal.open(place.store) as journal:
        known = read_final_block(journal)
        ledger, doubting = (
            LedgerReader(config.rpc, contract, chain_id=charter.ledger.chain_id, finality_depth=depth)
            for _ in range(2)
        )
        check_identity(ledger.identity(), charter)
        ledger.compare()
        head = ledger.head()
        try:
            if known is not None:
                doubting.expect(known)
            doubting.head()
        except LedgerReorganised as error:
            recorded = accept_chain(journal, head, ledger.records(1))
            click.echo(
                f"accepted: block {error.number} is 0x{error.found.hex()}, and was 0x{error.expected.hex()}"
            )
            click.echo(f"{recorded} rounds were final here, {head.finalized_height} are now")
            return
    raise NothingToAccept(
        f"{place.store}: the chain still has everything that was final: nothing was changed"
    )
