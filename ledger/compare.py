"""Several endpoints side by side: one that shows another history than the rest must not be believed unseen.

Compared is the newest block that all of them call final: its hash and, from those that still keep its state, what the
contract says in it. Which endpoint is wrong cannot be told from here, so nobody is believed until they agree. Not proof
against endpoints that lie alike: the audit's checks are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from folkmoot.ledger.answers import to_int
from folkmoot.ledger.errors import LedgerDisagrees, LedgerUnavailable, WrongLedger
from folkmoot.ledger.rpc import Ask, RpcError
from folkmoot.ledger.views import ContractView, Position
from folkmoot.protocol.errors import RemoteProtocolError

T = TypeVar("T")

BEHIND = 64
"""Blocks that an endpoint's last one may be behind the others' before it is said."""


def compare_endpoints(endpoints: Sequence[tuple[str, Ask]], contract: bytes, depth: int) -> tuple[str, ...]:
    """What the operator should know of the endpoints; raises `LedgerDisagrees` if they show different histories.

    `depth`: see `ContractView`.
    """
    notes: dict[str, str] = {}
    views = {name: ContractView(ask, contract, depth) for name, ask in endpoints}
    tips = _ask_all(views, _tips, notes)
    last = max((latest for latest, _ in tips.values()), default=0)
    for name, (latest, _) in tips.items():
        if last - latest > BEHIND:
            notes[name] = f"{last - latest} blocks behind"
    common = min((final for _, final in tips.values()), default=0)
    reached = {name: views[name] for name in tips}
    hashes = _ask_all(reached, lambda view: view.hash_of(common), notes)
    _must_agree({name: f"0x{block.hex()}" for name, block in hashes.items()}, common)
    # Many nodes have forgotten the state of a block that is old; the hash stands for it.
    records = _ask_all(reached, lambda view: view.position(hex(common)), {})
    _must_agree({name: _say(position) for name, position in records.items()}, common)
    return tuple(f"{name}: {note}" for name, note in notes.items())


def _ask_all(
    views: Mapping[str, ContractView], question: Callable[[ContractView], T], notes: dict[str, str]
) -> dict[str, T]:
    """The answers by endpoint; why there is none goes to `notes`."""
    answers = {}
    for name, view in views.items():
        try:
            answers[name] = question(view)
        except (LedgerUnavailable, WrongLedger, RpcError, RemoteProtocolError) as error:
            notes[name] = str(error)
    return answers


def _tips(view: ContractView) -> tuple[int, int]:
    """The numbers of the last block and of the last final one."""
    latest = view.block("latest")
    return to_int(latest.number), view.final(latest).number


def _say(position: Position) -> str:
    return (
        f"{position.height} rounds, head {position.head.hex()}, {position.amendments} amendments, "
        f"the last {position.governance.hex()}"
    )


def _must_agree(shown: Mapping[str, str], block: int) -> None:
    if len(set(shown.values())) > 1:
        sides = "; ".join(f"{name} shows block {block} as {what}" for name, what in shown.items())
        raise LedgerDisagrees(
            f"the RPC endpoints disagree on the ledger: {sides}; remove the wrong one from ledger.rpc"
        )
