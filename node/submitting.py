"""Amendments on their way to the ledger: handed to whoever owns the gas key at the moment.

A running node does, through its outbox; it looks into HOME/outgoing. While none runs, the command that submits takes
the journal, and with it the key, and keeps the outbox's rules: one nonce in use, written down before it is sent.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import trio

from folkmoot.ledger.calls import Amend
from folkmoot.ledger.errors import LedgerRejected, LedgerUnavailable
from folkmoot.ledger.evm import EvmLedger
from folkmoot.node.charters import keep_charter
from folkmoot.node.config import Home
from folkmoot.node.keys import GAS, unlock
from folkmoot.node.logs import logger
from folkmoot.node.proposals import Proposal, ProposalError
from folkmoot.node.standing import Standing
from folkmoot.node.store import Journal, StoreInUse
from folkmoot.node.transactions import LedgerCalls, Order, Transactions
from folkmoot.protocol.typed_data import struct_hash

POLL_SECONDS = 0.5


def read_orders(home: Home) -> list[Amend]:
    """The amendments that are to be submitted, by number; what cannot be read is none."""
    orders: list[Amend] = []
    for path in home.outgoing.glob("*.amend"):
        try:
            orders.append(msgspec.msgpack.decode(path.read_bytes(), type=Amend))
        except (OSError, msgspec.DecodeError) as error:
            logger().error("not an amendment to submit", file=str(path), error=str(error))
    return sorted(orders, key=lambda order: order.amendment.number)


def drop_order(home: Home, order: Amend) -> None:
    """It is recorded, or of no more use."""
    _path(home, order).unlink(missing_ok=True)


def submit_amendment(
    standing: Standing,
    proposal: Proposal,
    signatures: Mapping[bytes, bytes],
    timeout: float,
    say: Callable[[str], None],
    passphrase: Callable[[], str],
) -> None:
    """Bring a proposal under a quorum of signatures (by address) on the ledger.

    `passphrase` is asked for that of the gas key only if no node runs on the home.

    Raises `ProposalError` where it is not there after `timeout` seconds, `LedgerRejected`, `FolkmootError`.
    """
    chosen = sorted(signatures)[: standing.quorum]
    order = Amend(proposal.amendment, tuple(signatures[address] for address in chosen))
    home, deadline = standing.home, time.monotonic() + timeout
    keep_charter(home, proposal.charter)  # somebody must have it: the ledger knows its digest only
    try:
        with Journal.open(home.store) as journal:
            say("the node does not run: submitting in its place")
            (gas_key,) = unlock([home.keys / GAS], passphrase())
            trio.run(_submit, standing, journal, order, gas_key, timeout)
    except StoreInUse:
        say("the running node submits it")
        _leave(home, order)
        while True:
            was_dropped = not _path(home, order).exists()
            if Standing.read(home).is_recorded(proposal):
                break
            if was_dropped:
                raise _why_not(home, proposal) from None
            if time.monotonic() >= deadline:
                raise ProposalError(
                    f"not recorded after {timeout:g} s; the node goes on trying: {home.logs / 'node.log'}"
                ) from None
            time.sleep(POLL_SECONDS)
        drop_order(home, order)
    if not (standing := Standing.read(home)).is_recorded(proposal):
        raise _why_not(home, proposal)


def _why_not(home: Home, proposal: Proposal) -> ProposalError:
    """What became of a proposal that was given up."""
    number, standing = proposal.amendment.number, Standing.read(home)
    others = [one for one in standing.timeline.amendments if one.number == number]
    if others:
        first = standing.timeline.span_at(others[0].effective).first
        return ProposalError(
            f"another amendment {number} was recorded first, in force from round {first} on: look at it with 'folkmoot "
            "member list', and draft this one again"
        )
    try:
        standing.check(proposal)
    except ProposalError as error:
        return ProposalError(f"not recorded: {error}")
    return ProposalError(f"not recorded: the ledger refused it; {home.logs / 'node.log'} has its word")


def _leave(home: Home, order: Amend) -> None:
    """For the node that runs on this home."""
    home.outgoing.mkdir(mode=0o700, exist_ok=True)
    path = _path(home, order)
    partial = path.with_suffix(".part")
    partial.write_bytes(msgspec.msgpack.encode(order))
    partial.replace(path)


def _path(home: Home, order: Amend) -> Path:
    return home.outgoing / f"{struct_hash(order.amendment).hex()}.amend"


async def _submit(standing: Standing, journal: Journal, order: Amend, gas_key: bytes, timeout: float) -> None:
    config, number = standing.config.ledger, order.amendment.number
    ledger = EvmLedger(
        config.rpc,
        standing.domain.contract,
        gas_key,
        chain_id=standing.domain.chain_id,
        fee_cap=config.fee_cap,
        finality_depth=standing.finality_depth,
    )
    call = LedgerCalls()
    transactions = Transactions(ledger, journal, call, logger(), config.bump_seconds)
    asked = Order(order, struct_hash(order.amendment), standing.head.height + 1)
    with trio.move_on_after(timeout):
        while True:
            try:
                if (await call(ledger.head)).amendments >= number:
                    return
                await transactions.push(asked)
            except LedgerRejected as error:
                if not error.stale:
                    raise
            except LedgerUnavailable as error:
                logger().warning("ledger unreachable", error=str(error))
            await trio.sleep(POLL_SECONDS)
    raise ProposalError(f"not recorded after {timeout:g} s: run this again, it goes on where it stopped")
