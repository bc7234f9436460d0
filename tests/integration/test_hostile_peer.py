"""A member, with its real keys, that does all it can against live daemons: they count, log once and finish."""

import itertools
import json
import random
import signal
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from daemons import LIMIT, Daemons, founded

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.signing import KeySigner
from folkmoot.node.charter_files import load_charter
from folkmoot.node.keys import load_keys
from folkmoot.node.network.libp2p_transport import Libp2pSettings, Libp2pTransport, open_libp2p
from folkmoot.node.network.peer_network import PeerNetwork
from folkmoot.node.network.port import MAX_ANNOUNCEMENT, MAX_MESSAGE
from folkmoot.node.network.streams import Purpose, StreamBroken
from folkmoot.node.status_file import NodeStatus
from folkmoot.protocol.messages import (
    Body,
    Enter,
    Evidence,
    Frame,
    Hello,
    KeyShared,
    KeyWanted,
    Lock,
    Proposal,
    Propose,
    Ready,
    Recalled,
    Roster,
    Signed,
    SurvivorSet,
    Vote,
    encode,
)
from folkmoot.protocol.typed_data import Domain
from folkmoot.protocol.validation import omitted_digest
from folkmoot.testnet.home import Plan

pytestmark = pytest.mark.integration

ZERO, ONE = bytes(32), b"\x01" * 32
ROUNDS = 2
TURN_SECONDS = 0.3
QUIET_TURNS = 5
OVERLONG = struct.pack(">I", 2**32 - 1) + bytes(1000)
BLUNT = 3
"""With this member she begins with what is never forgiven."""


class Mallory:
    """Alice gone bad: everything she says is signed with the keys that the charter names."""

    def __init__(self, daemons: Daemons) -> None:
        home = daemons.node("alice")
        self.keys = load_keys(home.keys, daemons.home.passphrase("alice").read_text().strip())
        self.charter = load_charter(home)
        self.federation = bytes.fromhex(daemons.testnet.federation)
        contract = bytes.fromhex(daemons.testnet.contract[2:])
        domain = Domain(self.charter.ledger.chain_id, contract)
        self._signer = KeySigner(self.federation, domain, self.keys.identity, AuditKey(self.keys.audit))

    def settings(self, daemons: Daemons) -> Libp2pSettings:
        return Libp2pSettings(
            me=0,
            identity=bytes(self.keys.identity),
            peer_ids={index: member.peer_id for index, member in enumerate(self.charter.members)},
            bootstrap=tuple(str(daemons.node(name).address) for name in daemons.plan.names[1:]),
        )

    def sign(self, body: Body, member: int = 0) -> Signed:
        return Signed(member, body, self._signer.sign(body))

    def frames(self, status: NodeStatus) -> Iterator[bytes]:
        """What to say to a node that stands where `status` shows it."""
        base = bytes.fromhex(status.model_digest) if status.model_digest else self.initial
        previous = bytes.fromhex(status.history[-1].statement) if status.history else self.federation
        yield b"garbage"
        for frame in self._frames(status.round, base, previous):
            yield encode(frame)
        yield from (b"\x00", b"\x93" * 1000, encode(Hello(1, 0, 0)) + b"\x00", bytes(MAX_MESSAGE))

    @property
    def initial(self) -> bytes:
        return bytes.fromhex(self.charter.model.initial)

    def _frames(self, round_: int, base: bytes, previous: bytes) -> Iterator[Frame]:
        federation = self.federation
        # Accusations that prove nothing, and contradictions that prove a lot.
        vote = self.sign(Vote(federation, round_, 0, ZERO))
        yield Evidence(vote, vote)
        yield vote
        yield self.sign(Vote(federation, round_, 0, ONE))
        yield self.sign(Lock(federation, round_, 0, ZERO, ZERO))
        yield self.sign(Lock(federation, round_, 0, ZERO, ONE))
        # Stale and far ahead: of no use, nobody's fault.
        yield self.sign(Ready(max(1, round_ - 2), base, bytes(2), ZERO, ZERO, ZERO, 1))
        yield self.sign(Enter(round_, 1_000_000))
        yield Hello(2**62, 2**31, 0)
        yield Recalled(2**62, ())
        yield KeyWanted(ZERO)
        yield KeyShared(ZERO, ONE)
        # Bad signatures: none, her own under another's name, one of a member that does not exist.
        ready = Ready(round_, base, bytes(2), ZERO, ZERO, ZERO, 1)
        yield Signed(0, ready, bytes(64))
        yield self.sign(ready, member=1)
        yield self.sign(ready, member=9_999)
        # Out of turn, and resting on nothing.
        yield self.sign(Roster(round_, 0, base, (), b""))
        chosen = SurvivorSet(round_, base, previous, self.charter.digest, ZERO, ())
        for attempt in range(4):
            proposal = Proposal(federation, round_, attempt, chosen.digest, omitted_digest(()))
            yield Propose(self.sign(proposal), chosen, (), None)


async def attack(mallory: Mallory, daemons: Daemons, network: PeerNetwork) -> None:
    """Say everything to everybody, over all channels, again and again; then in frames that end the stream."""
    transport = network._transport
    assert isinstance(transport, Libp2pTransport)
    victims = {index: name for index, name in enumerate(daemons.plan.names) if index}
    with trio.fail_after(LIMIT):
        while network.peers() != victims.keys():  # noqa: ASYNC110 - daemons take seconds to start
            await trio.sleep(TURN_SECONDS)
    # Longer than any frame may be. Nothing that is announced later reaches this member before it.
    await say_raw(transport, BLUNT, "bulk", b"\xff" * 100)
    await say_raw(transport, BLUNT, "control", OVERLONG)
    for turn in itertools.count():
        for member, name in victims.items():
            if (status := daemons.status(name)) is None:
                continue
            await say_raw(transport, member, "bulk", b"\xff" * 100)
            if turn >= QUIET_TURNS:
                await say_raw(transport, member, "control", OVERLONG)
            for data in mallory.frames(status):
                await network.send(member, data)
                if len(data) <= MAX_ANNOUNCEMENT:
                    await network.publish(data)
        await trio.sleep(TURN_SECONDS)


async def say_raw(transport: Libp2pTransport, member: int, purpose: Purpose, data: bytes) -> None:
    try:
        stream = await transport.open(member, purpose)
        await stream.write(data)
        await stream.close()
    except StreamBroken:
        pass  # it is refused for a while: what this is about


def test_a_hostile_member_is_counted_and_outlived(tmp_path: Path) -> None:
    plan = Plan(nodes=4, rounds=ROUNDS, example="breast-cancer")
    with founded(tmp_path / "testnet", plan) as daemons:
        names = plan.names[1:]
        children = [daemons.start(name) for name in names]
        trio.run(besiege, daemons)
        statuses = [daemons.status(name) for name in names]
        for child in children:
            assert child.poll() is None, child.why_it_ended()
            child.ref.signal(signal.SIGTERM)
        daemons.wait(lambda: all(child.poll() is not None for child in children))
        assert [child.exit_code for child in children] == [0, 0, 0]
    known = [status for status in statuses if status is not None]
    assert len({status.model_digest for status in known}) == 1
    expected = {"bad frame (control)", "bad frame (gossip)", "refused signed", "refused propose"}
    expected |= {"refused evidence", "bulk request", "control stream", "equivocation"}
    assert expected <= {kind for status in known for kind in status.refused}
    for status in known:
        assert status.rounds == ROUNDS
        assert {"bad frame (gossip)", "bulk request", "equivocation"} <= status.refused.keys(), status.refused
        assert "alice" not in {name for row in status.history for name in row.participants}
    for name in names:
        check_log(daemons, name)


async def besiege(daemons: Daemons) -> None:
    mallory = Mallory(daemons)
    rng = random.Random(0)
    async with (
        open_libp2p(mallory.settings(daemons), lambda _: None, lambda *_: None, rng) as network,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(attack, mallory, daemons, network)
        nursery.start_soon(drain, network)
        await trio.to_thread.run_sync(daemons.wait, daemons.are_done)
        nursery.cancel_scope.cancel()


async def drain(network: PeerNetwork) -> None:
    async for _ in network.events:
        pass


def check_log(daemons: Daemons, name: str) -> None:
    """Each kind of fault of a peer stands there once; nothing in there is a traceback."""
    lines = (daemons.node(name).logs / "node.log").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    faults = Counter(
        (one["event"], one["peer"]) for one in entries if one.get("level") == "warning" and "peer" in one
    )
    assert ("bad frame (gossip)", "alice") in faults
    assert [one for one in entries if one["event"].startswith("member 0 is shut out for")]
    assert set(faults.values()) == {1}, faults
    assert not [one for one in entries if "exception" in one or "Traceback" in one["event"]]
