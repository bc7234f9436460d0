"""Charters that amendments put in force and that this home lacks: found in its archive, or at other members.

Nothing is taken on trust: the ledger names each charter by its digest. Others may know this member by other keys than
the charter that is here says: whoever changed its identity key is a stranger to them under the old one. So where no
linked peer has a charter, members are called with each identity key of the home.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio
from structlog.stdlib import BoundLogger

from folkmoot.node.archive import Archive, ArchiveError
from folkmoot.node.charters import (
    keep_charter,
    kept_charters,
    known_amendments,
    load_timeline,
    working_term,
)
from folkmoot.node.config import Home, NodeConfig, bootstrap_entries, load_config
from folkmoot.node.keys import KeysError, chartered, key_folders, load_identity
from folkmoot.node.logs import logger
from folkmoot.node.network.directory import known_places
from folkmoot.node.network.libp2p_transport import Libp2pSettings, open_to_fetch
from folkmoot.node.network.port import FetchError, Network
from folkmoot.node.store import Journal
from folkmoot.protocol.amending import MAX_CHARTER
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_rules import decode_charter
from folkmoot.protocol.charter_tables import Member
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.types import MemberId

SEARCH_SECONDS = 60.0
"""How long a node that cannot begin without a charter calls the others for it."""
RETRY_SECONDS = 2.0


def ref_of(amendment: Amendment) -> BlobRef:
    """The amended charter's canonical bytes, as a blob."""
    return BlobRef(amendment.blob, amendment.size)


class LostCharters:
    """Finds charters for one home and puts them into it."""

    def __init__(
        self, home: Home, config: NodeConfig, archive: Archive, log: BoundLogger, in_use: str = ""
    ) -> None:
        """`in_use`: the peer id under which a running node of this home is linked with others already."""
        self._home = home
        self._config = config
        self._archive = archive
        self._log = log
        self._in_use = in_use

    async def find(self, amendment: Amendment, network: Network | None, charter: Charter) -> bool:
        """Whether the amendment's charter is in the home now.

        `network` is the one of linked peers; `charter` tells who may be called besides, the newest that is here.
        """
        if ref_of(amendment).size > MAX_CHARTER:
            return False
        if await trio.to_thread.run_sync(self._is_here, amendment):
            return True
        if network is not None and await self._fetch(amendment, network, sorted(network.peers())):
            return True
        for member in await trio.to_thread.run_sync(self._strangers, charter):
            async with self._calling_as(member, charter) as (calling, others):
                if await self._fetch(amendment, calling, others):
                    self._log.info("charter found under another identity", peer_id=member.peer_id)
                    return True
        return False

    # --- in the home ------------------------------------------------------------------------------------------------

    def _is_here(self, amendment: Amendment) -> bool:
        """Somebody may have put it there, or it is in the archive, where it is offered to others."""
        is_kept = amendment.charter in kept_charters(self._home, [amendment.charter])
        return is_kept or (self._archive.has(ref_of(amendment)) and self._keep(amendment))

    def _keep(self, amendment: Amendment) -> bool:
        source = f"the charter of amendment {amendment.number}"
        try:
            charter = decode_charter(self._archive.read(ref_of(amendment)), source)
            if charter.digest != amendment.charter:
                raise CharterError(f"{source}: its bytes are those of another charter")
        except (ArchiveError, CharterError) as error:
            self._log.error("charter not usable", number=amendment.number, error=str(error))
            return False
        keep_charter(self._home, charter)
        return True

    # --- at others --------------------------------------------------------------------------------------------------

    async def _fetch(self, amendment: Amendment, network: Network, members: list[MemberId]) -> bool:
        ref = ref_of(amendment)
        for member in members:
            try:
                await network.fetch(ref, member, self._archive.prepare(ref.root))
            except (FetchError, ArchiveError) as error:
                self._log.debug("charter not fetched", number=amendment.number, error=str(error))
            else:
                return await trio.to_thread.run_sync(self._keep, amendment)
        return False

    def _strangers(self, charter: Charter) -> list[Member]:
        """This member as it may stand in charters that are not here: with each of its keys, the newest first."""
        index = charter.find_member(self._config.name)
        known = charter.members[index] if index is not None else charter.members[0]
        entries: list[Member] = []
        for folder in reversed(key_folders(self._home.keys)):
            try:
                entries.append(msgspec.structs.replace(chartered(folder, known), name=self._config.name))
            except KeysError as error:
                self._log.error("keys not usable", error=str(error))
        return list({one.peer_id: one for one in entries if one.peer_id != self._in_use}.values())

    @asynccontextmanager
    async def _calling_as(
        self, member: Member, charter: Charter
    ) -> AsyncIterator[tuple[Network, list[MemberId]]]:
        """A network in which this node has that identity, beside the one that it works with, and whom to call."""
        me = charter.find_member(member.name)
        me = len(charter.members) if me is None else me
        peer_ids = {index: one.peer_id for index, one in enumerate(charter.members)} | {me: member.peer_id}
        settings = Libp2pSettings(
            me=me,
            identity=bytes(load_identity(self._home.keys, member)),
            peer_ids=peer_ids,
            bootstrap=(*bootstrap_entries(self._config.network, self._home), *self._announced(charter)),
        )
        async with open_to_fetch(settings, random.Random()) as network:
            yield network, sorted(peer_ids.keys() - {me})

    def _announced(self, charter: Charter) -> list[str]:
        """Where the charter's members said they were when this node last heard of them."""
        federation = load_timeline(self._home, ()).federation
        return known_places(self._home.known_addresses, federation, charter.members)


def lacks_charter(home: Home) -> bool:
    """Whether the home's node cannot begin, because a charter that it works under or has to pass is not there."""
    return bool(_lost(home))


def _lost(home: Home) -> list[Amendment]:
    if not home.store.is_file():
        return []
    with Journal.open(home.store, read_only=True) as journal:
        known, first = known_amendments(journal), working_term(journal)
    return [one for one in load_timeline(home, known).missing if one.effective <= first]


async def search_lost(home: Home) -> None:
    """Before the home's node begins: get the charters that it cannot begin without, in their order.

    Gives up after `SEARCH_SECONDS`; opening the home then says what is missing. Raises `FolkmootError`.
    """
    config = load_config(home)
    charters = LostCharters(home, config, Archive(home.archive), logger())
    with trio.move_on_after(SEARCH_SECONDS):
        while lost := await trio.to_thread.run_sync(_lost, home):
            logger().warning("a charter is missing: looking for it", charter=lost[0].charter.hex())
            newest = (await trio.to_thread.run_sync(load_timeline, home)).newest_here
            if not await charters.find(lost[0], None, newest):
                await trio.sleep(RETRY_SECONDS)
