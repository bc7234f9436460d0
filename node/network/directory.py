"""Every member's newest word on where it can be reached, kept on disk, and which of it each peer has been told.

A node hands on what it knows to whoever is connected, so a bootstrap list needs one member that can be reached, and a
member that moves is found again without a file being edited.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import trio
from nacl.signing import SigningKey

from folkmoot.protocol.addresses import (
    Addresses,
    SignedAddresses,
    check_address,
    decode_addresses,
    sign_addresses,
    verify_addresses,
)
from folkmoot.protocol.charter_tables import Member
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import encode
from folkmoot.protocol.types import Digest

log = logging.getLogger(__name__)

_MAX_FILE = 4 << 20
_file = msgspec.msgpack.Decoder(tuple[bytes, ...])


class Directory:
    """The signed addresses of members, by identity key. For one task at a time; files are small and written at once."""

    def __init__(
        self, federation: Digest, identity: SigningKey, members: Mapping[bytes, str], path: Path | None = None
    ) -> None:
        """`members`: peer id by identity key, of those now and soon. `path`: where to keep it; None: in memory only."""
        self._federation = federation
        self._identity = identity
        self._me = bytes(identity.verify_key)
        self._members = dict(members)
        self._path = path
        self._can_write = True
        self._known: dict[bytes, SignedAddresses] = {}
        self._told: dict[str, dict[bytes, int]] = {}
        self.changed = trio.Event()
        """Set, and replaced, whenever there is news."""
        kept = _read(path, federation) if path is not None else []
        self._known.update({one.body.identity: one for one in kept if one.body.identity in self._members})

    def admit(self, members: Mapping[bytes, str]) -> None:
        """Members of a charter that is to come: they are told, and what they say is kept."""
        new = {key: peer for key, peer in members.items() if key not in self._members}
        if new:
            self._members.update(new)
            self._notify()

    def knows(self, peer: str) -> bool:
        """Whether a peer is a member, now or soon."""
        return peer in self._members.values()

    def addresses(self, peer: str) -> tuple[str, ...]:
        """What the member with that peer id announced last, without `/p2p/PEER` at the end."""
        return next(
            (signed.body.addresses for key, signed in self._known.items() if self._members.get(key) == peer),
            (),
        )

    def relays(self, peer: str) -> bool:
        """Whether a member said that others may be reached through it."""
        return any(one.body.relay for key, one in self._known.items() if self._members.get(key) == peer)

    def announce(self, addresses: Sequence[str], relay: bool = False) -> None:
        """Say where this node is, and whether it relays. Nothing new is signed if that is what was said last.

        Raises `RemoteProtocolError` for what is no address.
        """
        for address in addresses:
            check_address(address)
        last = self._known.get(self._me)
        sequence = last.body.sequence if last is not None else 0
        body = Addresses(self._me, sequence, tuple(addresses), relay)
        if last is None or last.body != body:
            self._say(msgspec.structs.replace(body, sequence=sequence + 1))

    def take(self, peer: str, heard: Iterable[bytes]) -> int:
        """Take in what a peer says of itself and others; how much of it was news.

        Raises `RemoteProtocolError` where the peer broke a rule; what came before that is kept.
        """
        news = 0
        try:
            for data in heard:
                signed = decode_addresses(data)
                news += self._take(signed)
                if signed.body.identity in self._members:  # anybody else could be made up, without end
                    self._note(peer, signed)
        finally:
            if news:
                self._write()
                self._notify()
        return news

    def untold(self, peer: str) -> list[SignedAddresses]:
        """What a peer may not have yet; its own word is of no use to it, unless it is one that it has forgotten."""
        told = self._told.get(peer, {})
        return [signed for key, signed in self._known.items() if told.get(key, 0) < signed.body.sequence]

    def told(self, peer: str, words: Iterable[SignedAddresses]) -> None:
        """A peer has taken these."""
        for signed in words:
            self._note(peer, signed)

    def forget_telling(self, peer: str) -> None:
        """The peer is gone; when it comes back it may have lost what it knew."""
        self._told.pop(peer, None)

    def _note(self, peer: str, signed: SignedAddresses) -> None:
        told = self._told.setdefault(peer, {})
        told[signed.body.identity] = max(signed.body.sequence, told.get(signed.body.identity, 0))

    def _take(self, signed: SignedAddresses) -> bool:
        body = signed.body
        known = self._known.get(body.identity)
        # [IGNORE] It is of a member, and newer than what is known
        if body.identity not in self._members or (known is not None and body.sequence <= known.body.sequence):
            return False
        verify_addresses(signed, self._federation)
        if body.identity == self._me:
            self._outbid(known, signed)
        else:
            self._known[body.identity] = signed
        return True

    def _outbid(self, known: SignedAddresses | None, heard: SignedAddresses) -> None:
        """I said that once, and have forgotten: my home is a copy, or was lost. What holds now has to be newer."""
        if known is not None:
            self._say(msgspec.structs.replace(known.body, sequence=heard.body.sequence + 1))
        else:
            self._known[self._me] = heard

    def _say(self, body: Addresses) -> None:
        self._known[self._me] = sign_addresses(self._identity, self._federation, body)
        self._write()  # before anybody hears of it: no number is used twice
        self._notify()

    def _notify(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def _write(self) -> None:
        """A node goes on without: others tell it again."""
        if self._path is None:
            return
        partial = self._path.with_name(self._path.name + ".part")
        try:
            partial.write_bytes(msgspec.msgpack.encode([encode(signed) for signed in self._known.values()]))
            partial.replace(self._path)
        except OSError as error:
            if self._can_write:
                log.error("members' addresses not kept in %s: %s", self._path, error.strerror)
            self._can_write = False
        else:
            self._can_write = True


def read_directory(path: Path, federation: Digest) -> dict[bytes, SignedAddresses]:
    """What a node has kept, by identity key: for commands beside it. Damaged parts are left out."""
    return {signed.body.identity: signed for signed in _read(path, federation)}


def known_places(path: Path, federation: Digest, members: Iterable[Member]) -> list[str]:
    """Where these members say they are, each address with `/p2p/PEER`, as a node has kept it."""
    known = read_directory(path, federation)
    said = ((one, known.get(bytes.fromhex(one.identity_key))) for one in members)
    return [
        f"{address}/p2p/{one.peer_id}" for one, signed in said if signed for address in signed.body.addresses
    ]


def _read(path: Path, federation: Digest) -> list[SignedAddresses]:
    try:
        with path.open("rb") as file:
            words = _file.decode(file.read(_MAX_FILE))
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        log.warning("%s cannot be read, others will tell: %s", path, error)
        return []
    return [signed for data in words if (signed := _read_one(data, federation)) is not None]


def _read_one(data: bytes, federation: Digest) -> SignedAddresses | None:
    try:
        signed = decode_addresses(data)
        verify_addresses(signed, federation)
    except RemoteProtocolError as error:
        log.warning("kept addresses are damaged, others will tell: %s", error)
        return None
    return signed
