"""Where members can be reached: multiaddrs given, read from files, or announced by the members themselves."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import trio

from folkmoot.node.network.port import NetworkError
from folkmoot.protocol.addresses import check_address, is_loopback
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.types import MemberId

log = logging.getLogger(__name__)

_PEER = "[1-9A-HJ-NP-Za-km-z]+"
_WAY = rf"/(?:ip4|ip6|dns|dns4|dns6)/[^/\s]+/tcp/\d{{1,5}}|/p2p/{_PEER}/p2p-circuit"
_MULTIADDR = re.compile(rf"(?:{_WAY})/p2p/({_PEER})")
_LOOKS_LIKE_ONE = re.compile(r"/(?:ip4|ip6|dns|dns4|dns6|p2p)/")
_FAMILIES = {"dns": socket.AF_UNSPEC, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}
_MAX_FILE = 64 * 1024


def peer_id_of(address: str) -> str | None:
    """The peer id that a multiaddr ends in, or None if it is no address of a peer, nor a way through one."""
    match = _MULTIADDR.fullmatch(address)
    return match.group(1) if match else None


async def resolve(address: str) -> list[str]:
    """The multiaddr `address` with the IP addresses that its name has; itself, if it holds no name.

    Asks the system, as other programs do: libp2p asks name servers only and knows nothing of /etc/hosts. Raises OSError
    or UnicodeError for a name that has no address.
    """
    _, kind, host, rest = address.split("/", 3)
    if kind not in _FAMILIES:
        return [address]
    found = await trio.socket.getaddrinfo(host, None, family=_FAMILIES[kind], type=socket.SOCK_STREAM)
    kinds = {socket.AF_INET: "ip4", socket.AF_INET6: "ip6"}
    return [f"/{kinds[family]}/{place[0]}/{rest}" for family, _, _, _, place in found if family in kinds]


def is_usable(place: str, same_host: bool) -> bool:
    """Whether a name that a member announced may lead to the multiaddr `place`: only where an IP address might."""
    bare = place.rpartition("/p2p/")[0]
    try:
        check_address(bare)
    except RemoteProtocolError:
        return False
    return same_host or not is_loopback(bare)


class AddressBook:
    """Addresses by member.

    A bootstrap entry is a multiaddr, or the path of a file that holds some (one per line): daemons listen on port 0
    and write what they got into `HOME/address`, so such a file is read again for each dial.
    """

    def __init__(
        self,
        peer_ids: Mapping[MemberId, str],
        bootstrap: Iterable[str],
        announced: Callable[[str], Sequence[str]] = lambda _: (),
        same_host: bool = True,
    ) -> None:
        """`announced`: the own word of a peer, without `/p2p/...`. `same_host`: whether to believe a loopback address.

        Raises NetworkError for an entry that is meant as a multiaddr and is none.
        """
        self._peer_ids = dict(peer_ids)
        self._given: list[str] = []
        self._files: list[Path] = []
        self._announced = announced
        self._same_host = same_host
        self._complained: set[Path] = set()
        for entry in bootstrap:
            self._add_bootstrap(entry)

    def addresses(self, member: MemberId) -> list[str]:
        """All known multiaddrs of a member, best first. Reads files: call it from a worker thread."""
        peer_id = self._peer_ids[member]
        lines = [line for path in self._files for line in self._read(path)]
        found = [*self._own_words(peer_id), *lines, *self._given]
        return list(dict.fromkeys(address for address in found if peer_id_of(address) == peer_id))

    def believes(self, address: str, place: str) -> bool:
        """Whether to dial `place`, which the name in `address` stands for."""
        return place == address or address in self._given or is_usable(place, self._same_host)

    def _own_words(self, peer_id: str) -> list[str]:
        """What the member announced, but for addresses that would lead to this host itself."""
        announced = self._announced(peer_id)
        believed = (one for one in announced if self._same_host or not is_loopback(one))
        return [f"{address}/p2p/{peer_id}" for address in believed]

    def _add_bootstrap(self, entry: str) -> None:
        if peer_id_of(entry) is not None:
            self._given.append(entry)
        elif _LOOKS_LIKE_ONE.match(entry):
            raise NetworkError(
                f"bootstrap address {entry!r}: write it as /ip4/HOST/tcp/PORT/p2p/PEER_ID, or give the path of a file"
            )
        else:
            self._files.append(Path(entry))

    def _read(self, path: Path) -> list[str]:
        try:
            with path.open("rb") as file:
                return file.read(_MAX_FILE).decode("utf-8", "replace").split()
        except FileNotFoundError:
            return []  # its daemon has not started yet
        except OSError as error:
            if path not in self._complained:
                self._complained.add(path)
                log.warning("address file %s cannot be read: %s", path, error)
            return []
