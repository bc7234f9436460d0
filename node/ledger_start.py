"""Before a node meets anybody: is the ledger the charter's, and how far is it?

A node that has seen it once, with this very journal, goes on without an RPC. If what answers later is another ledger,
the outbox ends the node.
"""

from collections.abc import Iterable

import msgspec
import trio
from structlog.stdlib import BoundLogger

from folkmoot.ledger.port import FinalBlock, LedgerHead, Record
from folkmoot.node.engine import RECORDED
from folkmoot.node.outbox import FINAL_BLOCK, VERIFIED, Outbox
from folkmoot.node.store import Journal
from folkmoot.node.watch import Watch
from folkmoot.protocol.journal import Began, decode_entry, entry_tag, last_shared
from folkmoot.protocol.types import Round


async def await_known_ledger(
    outbox: Outbox, journal: Journal, watch: Watch, stop: trio.Event, log: BoundLogger
) -> bool:
    """Wait until the contract has shown, now or to an earlier life, that it is the charter's; False at `stop`.

    The outbox runs beside, and ends everything with `WrongLedger` if it is not.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.wait_for_ledger, outbox)
        nursery.start_soon(_cancel_at, stop, nursery.cancel_scope)
        await outbox.asked.wait()
        if await trio.to_thread.run_sync(journal.meta, VERIFIED) is None:
            log.warning("waiting for the ledger, which has to show first that it is the charter's")
            await outbox.verified.wait()
        nursery.cancel_scope.cancel()
    return not stop.is_set()


def read_recorded(journal: Journal) -> Round:
    """How far the finalised record was when this node last saw it: together with the amendments that it knows."""
    return int(journal.meta(RECORDED) or 0)


def read_final_block(journal: Journal) -> FinalBlock | None:
    """The block that was final when this node last saw a round become so."""
    kept = journal.meta(FINAL_BLOCK)
    return msgspec.msgpack.decode(kept, type=FinalBlock) if kept is not None else None


def accept_chain(journal: Journal, head: LedgerHead, records: Iterable[Record]) -> Round:
    """After a deep reorganisation: take `head` and its `records` for true; the number of rounds recorded before.

    At the next start the node reads its journal and archive from the last round on that it shares with the chain, and
    hands in again what the chain lost, or gives up what the chain has otherwise.
    """
    recorded = read_recorded(journal)
    begun = (decode_entry(body) for _, _, kind, body in journal.entries() if kind == entry_tag(Began))
    shared = last_shared(begun, {one.statement.round: one.digest for one in records})
    journal.set_meta(RECORDED, str(min(recorded, head.finalized_height, shared)).encode())
    journal.set_meta(FINAL_BLOCK, msgspec.msgpack.encode(head.final))
    return recorded


async def _cancel_at(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
