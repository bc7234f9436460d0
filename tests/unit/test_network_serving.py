"""What a node answers to requests for blobs, and whom it blames."""

from pathlib import Path

from folkmoot.node.network import bulk
from folkmoot.node.network.blocking import in_place
from folkmoot.node.network.conduct import FAULTS, Allowance
from folkmoot.node.network.port import Stats
from folkmoot.node.network.refusals import Refusals
from folkmoot.node.network.serving import BlobServer
from folkmoot.protocol import blob
from folkmoot.protocol.types import Digest

PEER = 1
NOT_HELD = bulk.encode_answer(bulk.NOT_HELD)


class Asked:
    """A stream on which a peer asks, and then says no more."""

    def __init__(self, *requests: bulk.Request) -> None:
        self._requests = [bulk.encode_request(one) for one in requests]
        self.answers: list[bytes] = []

    async def read(self, most: int) -> bytes:
        return self._requests.pop(0) if self._requests else b""

    async def write(self, data: bytes) -> None:
        self.answers.append(bytes(data))

    async def close(self) -> None:
        """Nothing to close."""

    async def reset(self) -> None:
        """Nothing to end."""


class Served:
    """A server of one file."""

    def __init__(self, path: Path, root: Digest) -> None:
        self.refusals = Refusals(Stats())
        allowances = {PEER: Allowance()}
        self._server = BlobServer(
            lambda asked: path if asked == root and path.exists() else None,
            lambda root, member: None,
            self.refusals,
            allowances,
            in_place,
        )

    async def ask(self, *requests: bulk.Request) -> list[bytes]:
        stream = Asked(*requests)
        await self._server.serve(PEER, stream)
        return stream.answers


async def test_who_was_told_a_wrong_size_is_not_blamed_for_asking_past_the_end(
    tmp_path: Path, autojump_clock: object
) -> None:
    """A liar commits to a blob that everybody holds, as if it were longer: the honest ask each other for the rest."""
    data = bytes(100)
    root = blob.ref_of(data).root
    path = tmp_path / "blob"
    path.write_bytes(data)
    served = Served(path, root)
    for _ in range(2 * FAULTS + 2):
        assert await served.ask(bulk.ChunksRequest(root, 0, 2)) == [NOT_HELD]
    assert not served.refusals.is_shut_out(PEER) and path.exists()
    assert (await served.ask(bulk.ChunksRequest(root, 0, 1)))[1:] == [data]


async def test_a_file_that_was_cut_off_is_dropped_and_nobody_blamed(
    tmp_path: Path, autojump_clock: object
) -> None:
    data = bytes(blob.CHUNK + 100)
    root = blob.ref_of(data).root
    path = tmp_path / "blob"
    path.write_bytes(data)
    served = Served(path, root)
    assert len(await served.ask(bulk.LeavesRequest(root))) == 1
    path.write_bytes(data[:100])
    for _ in range(2 * FAULTS + 2):
        assert await served.ask(bulk.ChunksRequest(root, 0, 2)) == [NOT_HELD]
    assert not served.refusals.is_shut_out(PEER) and not path.exists()
