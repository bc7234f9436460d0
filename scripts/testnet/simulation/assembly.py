"""Members who agree on amendments: who joins, leaves, is suspended, has new keys, and which other terms change.

It stands for people with `folkmoot member`: they draft on the charter as the ledger has it, a quorum signs, somebody
submits, and what a reorganisation or a full pool loses is submitted again.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from msgspec.structs import replace

from folkmoot.ledger.calls import Amend
from folkmoot.ledger.errors import LedgerRejected, LedgerUnavailable
from folkmoot.protocol.amending import check_amended, compute_changes, make_amendment
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.charter import Charter, max_faults
from folkmoot.protocol.charter_rules import check_charter
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.membership import add_member, remove_members, replace_member, set_role
from folkmoot.protocol.types import Round
from folkmoot.testnet.simulation.chain import POLL, SimulatedLedger
from folkmoot.testnet.simulation.charters import Charters, me
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.keys import ROTATED, Keys, entry, number_of
from folkmoot.testnet.simulation.lives import Lives
from folkmoot.testnet.simulation.node import Node

TRIES = 20
"""How often something is drafted: one amendment after the other, and some changes are not possible now."""

PATIENCE = 2.0
"""Seconds between two tries."""

LATEST_ARRIVAL = 8.0
"""Seconds after which a new member starts its node."""


class Surroundings(Protocol):
    """What people need of the simulation around them."""

    charters: Charters
    faults: Faults
    nodes: list[Node]
    honest: list[Node]
    ledger: SimulatedLedger

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Do that later."""
        ...

    def note(self, node: Node, what: str | None) -> None:
        """A line in the trace."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """An amendment on its way to the ledger."""

    kind: str
    call: Amend
    submitter: Node
    tries: int

    @property
    def amendment(self) -> Amendment:
        """What is to be recorded."""
        return self.call.amendment


class Assembly:
    """Agrees on one amendment after the other."""

    def __init__(self, around: Surroundings, keys: Keys, lives: Lives, rng: random.Random) -> None:
        self._around, self._keys, self._lives, self._random = around, keys, lives, rng
        self._order: Order | None = None
        around.ledger.on_block = self._on_block

    def agree(self, kind: str, tries: int = TRIES) -> None:
        """Agree on something of that kind, now or as soon as may be."""
        order = self._draft(kind, tries) if self._order is None else None
        if order is not None:
            self._order = order
            self._submit(order)
        elif tries:
            self._around.at(PATIENCE, partial(self.agree, kind, tries - 1))

    # --- drafting -------------------------------------------------------------------------------------------

    def _draft(self, kind: str, tries: int) -> Order | None:
        before, state = self._around.charters.timeline.newest, self._around.ledger.chain.state
        try:
            after, suspended = self._changed(kind, before)
            check_charter(after)
            check_amended(before, after)
        except CharterError:
            return None
        lead = before.schedule.max_ahead + 1 + self._random.randrange(2)
        effective = max(state.height + lead, state.effective)
        if effective > before.schedule.rounds or not self._is_bearable(after, effective):
            return None
        changes = compute_changes(before, after, suspended)
        amendment = make_amendment(
            self._around.charters.id, state.amendments + 1, state.governance, effective, after, changes
        )
        self._around.charters.drafted[after.digest] = after
        return self._sign(kind, amendment, tries)

    def _changed(self, kind: str, before: Charter) -> tuple[Charter, tuple[str, ...]]:
        """The charter after a change of that kind, and who is only suspended. Raises `CharterError`."""
        somebody = self._random.choice(before.members)
        if kind == "joins":
            return add_member(before, entry(self._newcomer(before), attester=True, keys=self._keys)), ()
        if kind == "rotations":
            new = entry(number_of(somebody) + ROTATED, attester=somebody.attester, keys=self._keys)
            return replace_member(before, new), ()
        if kind == "new_terms":
            return self._other_terms(before, somebody.name, attester=not somebody.attester), ()
        return remove_members(before, [somebody.name]), (somebody.name,) if kind == "suspensions" else ()

    def _newcomer(self, before: Charter) -> int:
        """The number of the keys of somebody who is no member: of who was one, the last ones."""
        outside = [node.person for node in self._around.nodes if me(before, node) is None]
        if not outside:
            raise CharterError("nobody is left outside")
        person = self._random.choice(outside)
        spans = self._around.charters.timeline.spans
        known = (number_of(member) for span in spans if span.charter for member in span.charter.members)
        return max((number for number in known if number % ROTATED == person), default=person)

    def _other_terms(self, before: Charter, name: str, *, attester: bool) -> Charter:
        schedule, averaging, secrecy = before.schedule, before.averaging, before.secrecy
        possible = (
            replace(before, schedule=replace(schedule, rounds=schedule.rounds + 1)),
            replace(before, schedule=replace(schedule, attempt_min=schedule.attempt_min + 1.0)),
            replace(before, averaging=replace(averaging, weight_cap=averaging.weight_cap + 5)),
            replace(
                before, averaging=replace(averaging, codec="int8" if averaging.codec == "int4" else "int4")
            ),
            replace(before, secrecy=replace(secrecy, group_size=_other_size(before))),
            replace(before, secrecy=replace(secrecy, ring=32 if secrecy.ring == 16 else 16)),
        )
        chosen = self._random.randrange(len(possible) + 1)
        return possible[chosen] if chosen < len(possible) else set_role(before, name, attester=attester)

    def _is_bearable(self, after: Charter, effective: Round) -> bool:
        """Whether there are enough members, attesters and in each group to count on."""
        lost = {
            member
            for member, one in enumerate(after.members)
            if number_of(one) % ROTATED in self._around.faults.lost
        }
        groups = Federation(self._around.charters.id, after).groups(effective)
        crowds = [range(len(after.members)), after.attesters, *(group.members for group in groups)]
        return all(len(lost.intersection(crowd)) <= max_faults(len(crowd)) for crowd in crowds)

    # --- signing and submitting -----------------------------------------------------------------------------

    def _sign(self, kind: str, amendment: Amendment, tries: int) -> Order:
        """By as many as it takes, none of whom lies; they have the new charter in their homes."""
        around = self._around
        era = around.charters.at(around.ledger.chain.state.height + 1)
        attesters = [
            node
            for node in around.honest
            if era.has(node) and era.ids[node.person] in era.federation.charter.attesters
        ]
        signers = self._random.sample(attesters, era.federation.charter.attester_quorum)
        after = around.charters.drafted[amendment.charter]
        for node in around.nodes:
            if node in signers or _has_new_keys(node, era.federation.charter, after):
                node.charters[after.digest] = after
        numbers = sorted((era.key(node) for node in signers), key=self._address)
        signatures = tuple(self._keys.endorse(number, amendment) for number in numbers)
        return Order(kind, Amend(amendment, signatures), signers[0], tries)

    def _address(self, number: int) -> bytes:
        return bytes.fromhex(self._keys.public(number)[1][2:])

    def _submit(self, order: Order) -> None:
        """Until it is final; what the ledger refuses by now is drafted anew."""
        ledger = order.submitter.ledger
        if order is not self._order or self._around.ledger.chain.pending or self._is_recorded(order):
            return
        assert ledger is not None
        try:
            ledger.send(ledger.prepare(order.call))
            self._around.ledger.keep_mining()
            self._around.note(order.submitter, f"AMENDMENT {order.amendment.number}: {order.kind}")
        except LedgerUnavailable:
            self._around.at(POLL, partial(self._submit, order))
        except LedgerRejected:
            self._order = None
            if order.tries:  # somebody's role may still be about to change
                self._around.at(PATIENCE, partial(self.agree, order.kind, order.tries - 1))

    def _is_recorded(self, order: Order) -> bool:
        return any(order.amendment == one.amendment for one in self._around.ledger.chain.amendments())

    def _on_block(self) -> None:
        order, chain = self._order, self._around.ledger.chain
        if order is None:
            return
        final = chain.head().final.number
        amendments = [one.amendment for one in chain.amendments() if one.block <= final]
        if order.amendment in amendments:
            self._order = None
            self._around.charters.learn(amendments)
            self._welcome(order, tuple(amendments))
        else:
            self._around.ledger.keep_mining()
            self._submit(order)

    def _welcome(self, order: Order, final: tuple[Amendment, ...]) -> None:
        """Who is a member now, and has no node that runs: it starts one, with all charters so far."""
        era = self._around.charters.newest
        for node in self._around.nodes:
            if era.has(node) and node.machine is None and (node.era is None or node.left):
                node.charters.update(self._around.charters.drafted)
                if node.era is None:
                    node.amendments = final
                    node.work_under(self._around.charters.era_from(node, order.amendment.effective))
                node.gone = node.left = False
                delay = self._random.uniform(0.0, LATEST_ARRIVAL)
                self._around.at(delay, partial(self._lives.boot, node))


def _has_new_keys(node: Node, before: Charter, after: Charter) -> bool:
    """Then its people made them, and proposed the charter that names them."""
    old, new = (me(charter, node) for charter in (before, after))
    return old is not None and new is not None and before.members[old] != after.members[new]


def _other_size(charter: Charter) -> int:
    """Of groups. A robust rule across groups needs several."""
    if charter.sums_by_group:
        return 3 if charter.secrecy.group_size == 4 else 4
    return 0 if charter.secrecy.group_size else 4
