"""Several endpoints side by side: one that shows another history than the rest must not be believed unseen.

Compared is the newest block that all of them call final: its hash, and what the contract says in it. Which endpoint is
wrong cannot be told from here, so nobody is believed until they agree. Not proof against endpoints that lie alike: the
audit's checks are.
"""

from collections.abc import Sequence

from folkmoot.ledger.answers import to_int
from folkmoot.ledger.errors import LedgerDisagrees, LedgerUnavailable, WrongLedger
from folkmoot.ledger.rpc import Ask, RpcError
from folkmoot.ledger.views import ContractView
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.types import Digest, Round

BEHIND = 64
"""Blocks that an endpoint may be behind before it is said; further back, others may have forgotten the state."""

_UNUSABLE = (LedgerUnavailable, WrongLedger, RpcError, RemoteProtocolError)


def compare_endpoints(endpoints: Sequence[tuple[str, Ask]], contract: bytes) -> tuple[str, ...]:
    """What the operator should know of the endpoints; raises `LedgerDisagrees` if they show different histories."""
    notes: list[str] = []
    final: dict[str, int] = {}
    views = {name: ContractView(ask, contract) for name, ask in endpoints}
    for name, view in views.items():
        try:
            final[name] = view.final(view.block("latest")).number
        except _UNUSABLE as error:
            notes.append(f"{name}: {error}")
    newest = max(final.values(), default=0)
    for name, number in list(final.items()):
        if newest - number > BEHIND:
            notes.append(f"{name}: {newest - number} blocks behind")
            del final[name]
    common = min(final.values(), default=0)
    seen: dict[str, tuple[Digest, Round, Digest]] = {}
    for name in final:
        try:
            seen[name] = _look(views[name], hex(common))
        except _UNUSABLE as error:
            notes.append(f"{name}: cannot show block {common}: {error}")
    if len(set(seen.values())) > 1:
        shown = "; ".join(
            f"{name} shows block {common} as 0x{block.hex()} with {height} rounds and head {head.hex()}"
            for name, (block, height, head) in seen.items()
        )
        raise LedgerDisagrees(
            f"the RPC endpoints disagree on the ledger: {shown}; remove the wrong one from ledger.rpc"
        )
    return tuple(notes)


def _look(view: ContractView, block: str) -> tuple[Digest, Round, Digest]:
    """The block's hash, and the record in it. Before the contract was there, the head is empty."""
    number = to_int(block)
    height = view.height(block)
    return view.hash_of(number), height, view.head(block) if height else b""
