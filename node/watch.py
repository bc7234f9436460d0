"""What the node says about itself: status.json, sampled and written twice a second."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import trio

from folkmoot.node.config import ALONE, DITTO, Home
from folkmoot.node.logs import Once, logger
from folkmoot.node.network.port import Network, Stats, Trouble
from folkmoot.node.outbox import Outbox
from folkmoot.node.status_file import (
    LedgerStatus,
    Misbehaviour,
    MissingPeer,
    NodeStatus,
    PeakRss,
    PeerView,
    PrivacyStatus,
    RoundStatus,
    ShutOutMember,
    StatusError,
    read_status,
    write_status,
)
from folkmoot.node.trainer import TrainerProcess
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.effects import Promote
from folkmoot.protocol.metrics import Metrics
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.typed_data import struct_hash
from folkmoot.protocol.types import Digest, MemberId, Round

HISTORY = 500
"""Rounds that the status tells of; the archive has them all."""

WRITE_SECONDS = 0.5

REASON = 200
"""Characters of a reason that the status shows: a peer may have a part in its text."""

LEFT = "no longer a member"
"""The phase in which a removed or suspended member's node ends."""


class Watch:
    """Collects what the engine tells and writes it down; keeps the history of earlier runs of this home."""

    def __init__(self, home: Home, charter: Charter, me: MemberId) -> None:
        member = charter.members[me]
        self._path = home.status
        self._charter = charter
        self._status = NodeStatus(
            name=member.name,
            pid=os.getpid(),
            peer_id=member.peer_id,
            member=me,
            mode=charter.averaging.mode,
            privacy=_privacy_status(charter),
        )
        self._metrics: dict[str, dict[str, float]] = {}
        self._own_rss, self._trainer_rss = PeakRss(), PeakRss()
        self._measured_last = False
        self._can_write = True
        self._log = logger()
        self._bytes = 0
        self._moved_before = (0, 0)
        self._network: Network | None = None
        self.coming: list[str] = []
        """What amendments will change, in words."""
        self._round_began = trio.current_time()
        self._take_history()

    def _take_history(self) -> None:
        try:
            earlier = read_status(self._path)
        except StatusError:
            earlier = None  # it is only a view; the journal is what counts
        if earlier is not None and earlier.name == self._status.name:
            self._status.history = earlier.history
            self._status.misbehaviour = earlier.misbehaviour

    # --- told by the daemon -----------------------------------------------------------------------------------------

    def change(self, charter: Charter, me: MemberId) -> None:
        """Another charter is in force; a new network will count from zero."""
        self._leave_network()
        self._charter = charter
        self._status.member, self._status.mode = me, charter.averaging.mode
        self._status.privacy = _privacy_status(charter)
        self._status.peer_id = charter.members[me].peer_id

    def disk_full(self) -> None:
        """This node waits until there is room again."""
        self._leave_network()
        self._status.phase, self._status.peers = "disk full", []
        self._write()

    def left(self) -> None:
        """This node is no member any more."""
        self._status.phase = LEFT

    # --- told by the engine -------------------------------------------------------------------------------------

    def promoted(self, effect: Promote) -> None:
        """A round is done: one more row of history."""
        now, total = trio.current_time(), self._bytes_moved()
        row = RoundStatus(
            round=effect.round,
            participants=[self._charter.members[member].name for member in effect.participants],
            seconds=now - self._round_began,
            model_digest=effect.model.root.hex(),
            statement=struct_hash(effect.statement).hex(),
            metrics=self._metrics.get(effect.model.root.hex(), {}),
            bytes=total - self._bytes,
        )
        self._round_began, self._bytes = now, total
        known = [one for one in self._status.history if one.round < effect.round][-HISTORY:]
        repeated = [one for one in self._status.history if one.round == effect.round]
        self._status.history = [*known, *(repeated or [row])]
        for one in known:
            if one.model_digest == effect.statement.base.hex():
                one.members_metrics = dict(effect.base_metrics)
        self._status.model_digest = row.model_digest
        shown = {one.model_digest for one in self._status.history}
        self._metrics = {model: found for model, found in self._metrics.items() if model in shown}

    def rolled_back(self, round_: Round) -> None:
        """Rows from that round on are of a history that was given up."""
        self._status.history = [one for one in self._status.history if one.round < round_]

    def measured(self, model: Digest, metrics: Metrics, beside: Mapping[str, Mapping[str, float]]) -> None:
        """A model was measured on this node's held-out data, and the member's own ones."""
        self._status.ditto_metrics = dict(beside.get(DITTO, {}))
        self._status.alone_metrics = dict(beside.get(ALONE, {}))
        found = self._metrics[model.hex()] = dict(metrics)
        for row in self._status.history:
            if row.model_digest == model.hex():
                row.metrics = found
        if self._status.model_digest in ("", model.hex()):
            self._status.metrics = found

    def spent(self, epsilon: float, refused: str = "") -> None:
        """So much of the privacy budget is gone; `refused`: why this member takes no part in the round."""
        if self._status.privacy is not None:
            self._status.privacy.spent, self._status.privacy.refused = epsilon, refused

    def withheld(self, reason: str) -> None:
        """Why the round is without this member's update; empty: it is not."""
        self._status.withheld = reason

    def accused(self, name: str, kind: str, reason: str) -> None:
        """A member was caught; once for each kind, or one liar could fill the file."""
        known = self._status.misbehaviour
        if not any((one.member, one.kind) == (name, kind) for one in known):
            known.append(Misbehaviour(member=name, kind=kind, reason=reason, round=self._status.round))

    def finished(self) -> None:
        """The last model is measured."""
        self._measured_last = True

    # --- writing ------------------------------------------------------------------------------------------------

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Say from the first moment that this node starts, and in the end, whatever ended it, that it stopped."""
        self._write()
        try:
            yield
        finally:
            if self._status.phase not in ("done", LEFT):
                self._status.phase = "stopped"
            self._write()

    async def wait_for_ledger(self, outbox: Outbox) -> None:
        """Until cancelled: before anything else starts, tell how the ledger is."""
        while True:
            self._status.ledger = _ledger_status(outbox)
            if self._status.ledger.state not in ("starting", "ok"):
                self._status.phase = "waiting for the ledger"
            self._write()
            await trio.sleep(WRITE_SECONDS)

    async def run(
        self, machine: RoundMachine, network: Network, outbox: Outbox, trainer: TrainerProcess, once: Once
    ) -> None:
        """Sample and write until cancelled, and sample once more then."""
        self._network = network
        try:
            while True:
                self._sample(machine, network, outbox, trainer, once)
                self._write()
                await trio.sleep(WRITE_SECONDS)
        finally:
            self._sample(machine, network, outbox, trainer, once)

    def _write(self) -> None:
        """A node goes on without telling: what it signs is in the journal, which has its own complaints."""
        self._status.updated = time.time()
        try:
            write_status(self._path, self._status)
        except StatusError as error:
            if self._can_write:
                self._log.error("status not written", error=str(error))
            self._can_write = False
        else:
            self._can_write = True

    def _sample(
        self, machine: RoundMachine, network: Network, outbox: Outbox, trainer: TrainerProcess, once: Once
    ) -> None:
        status = self._status
        self._own_rss.sample(os.getpid())
        self._trainer_rss.sample(trainer.pid)
        status.round, status.rounds = machine.current.round, machine.completed
        status.quorum = self._charter.quorum
        status.attempt = machine.current.attempt
        status.phase = "done" if machine.finished and self._measured_last else machine.phase
        if machine.finished and not self._measured_last:
            status.phase = "measuring"
        status.declined = {
            self._charter.members[one].name: why for one, why in machine.current.declined.items()
        }
        self._sample_peers(network)
        sent, received = self._moved_before
        status.bytes_sent = sent + network.stats.bytes_sent
        status.bytes_received = received + network.stats.bytes_received
        status.rss_mb, status.peak_rss_mb = self._own_rss.now, self._own_rss.peak
        status.trainer_peak_rss_mb = self._trainer_rss.peak
        status.coming = self.coming
        status.ledger = _ledger_status(outbox)
        status.shut_out = self._shut_out(network)
        status.refused = dict(network.stats.refused + Counter(once.counts()))

    def _leave_network(self) -> None:
        """The next one counts from zero."""
        (sent, received), (before_sent, before_received) = self._network_bytes(), self._moved_before
        self._moved_before, self._network = (before_sent + sent, before_received + received), None

    def _sample_peers(self, network: Network) -> None:
        status, up, troubles, now = self._status, network.peers(), network.troubles(), time.time()
        since = {one.member: one.since for one in status.missing}
        status.peers, status.missing = [], []
        status.announced = list(network.announced())
        status.views = [
            PeerView(
                member=self._charter.members[index].name,
                at=view.at,
                seen_as=view.seen_as,
                reached=list(view.reached),
                clock_offset=view.clock_offset,
            )
            for index, view in sorted(network.views().items())
            if view.answered
        ]
        for index, member in enumerate(self._charter.members):
            if index in up:
                status.peers.append(member.name)
            elif index != status.member:
                trouble = troubles.get(index, Trouble(0.0, ""))
                began = since.get(member.name, now)
                status.missing.append(
                    MissingPeer(member=member.name, since=began, tried=trouble.tried, error=trouble.error)
                )

    def _shut_out(self, network: Network) -> list[ShutOutMember]:
        from_now = time.time() - trio.current_time()
        return [
            ShutOutMember(
                member=self._charter.members[one.member].name,
                until=one.until + from_now,
                reason=one.reason[:REASON],
                times=one.times,
            )
            for one in network.shut_out()
        ]

    def _bytes_moved(self) -> int:
        return sum(self._moved_before) + sum(self._network_bytes())

    def _network_bytes(self) -> tuple[int, int]:
        """Sent and received."""
        stats = self._network.stats if self._network is not None else Stats()
        return stats.bytes_sent, stats.bytes_received


def _privacy_status(charter: Charter) -> PrivacyStatus | None:
    privacy = charter.privacy
    if not charter.is_private:
        return None
    return PrivacyStatus(epsilon=float(privacy.epsilon), delta=float(privacy.delta), window=privacy.window)


def _ledger_status(outbox: Outbox) -> LedgerStatus:
    head, counts = outbox.head, outbox.counts()
    return LedgerStatus(
        height=head.height if head else 0,
        finalized=head.finalized_height if head else 0,
        backlog=sum(counts),
        pending=counts.pending,
        sent=counts.sent,
        deferred=counts.deferred,
        state=outbox.state,
        reason=outbox.reason,
    )
