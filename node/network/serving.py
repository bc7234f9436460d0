"""Serving blobs to members, with limits on how much at once."""

from __future__ import annotations

import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import trio

from folkmoot.node.network import bulk
from folkmoot.node.network.blocking import RunBlocking
from folkmoot.node.network.conduct import Allowance
from folkmoot.node.network.port import Locate, OnServed
from folkmoot.node.network.refusals import Refusals
from folkmoot.node.network.streams import ByteStream, StreamBroken, read_exactly
from folkmoot.protocol import blob, merkle
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.types import DIGEST_SIZE, Digest, MemberId

log = logging.getLogger(__name__)

MAX_STREAMS_PER_PEER = 4
MAX_ANSWERS = 16
"""Answers being read from disk and sent at once, to all peers together."""

ASK_WITHIN_SECONDS = 30.0
"""A stream on which nothing is asked for this long is given up."""
WAIT_FOR_TURN_SECONDS = 5.0
WRITE_WITHIN_SECONDS = 10.0
"""Each chunk must leave within this time: a peer that drips would hold a turn for ever."""

_REMEMBERED_LEAVES = 64


class BlobServer:
    """Answers bulk requests from the files that `locate` names."""

    def __init__(
        self,
        locate: Locate,
        on_served: OnServed,
        refusals: Refusals,
        allowances: Mapping[MemberId, Allowance],
        run_blocking: RunBlocking,
    ) -> None:
        self._locate = locate
        self._on_served = on_served
        self._refusals = refusals
        self._allowances = allowances
        self._run_blocking = run_blocking
        self._streams: Counter[MemberId] = Counter()
        self._turns = trio.Semaphore(MAX_ANSWERS)
        self._leaves: OrderedDict[Digest, list[Digest]] = OrderedDict()

    async def serve(self, member: MemberId, stream: ByteStream) -> None:
        """Answer a member's requests on one stream until it ends."""
        if self._streams[member] >= MAX_STREAMS_PER_PEER:
            self._refusals.count("more bulk streams than allowed", member)
            return await stream.reset()
        self._streams[member] += 1
        try:
            await self._serve(member, stream)
            await stream.close()
        except RemoteProtocolError as error:
            self._refusals.blame("bulk request", member, error)
            await stream.reset()
        except (StreamBroken, trio.TooSlowError):
            await stream.reset()
        finally:
            self._streams[member] -= 1

    async def _serve(self, member: MemberId, stream: ByteStream) -> None:
        while True:
            data = await _next_request(stream)
            if data is None:
                return
            request = bulk.decode_request(data)
            await trio.sleep(self._allowances[member].requests.owe(1, trio.current_time()))
            with trio.move_on_after(WAIT_FOR_TURN_SECONDS) as waiting:
                await self._turns.acquire()
            if waiting.cancelled_caught:
                await stream.write(bulk.encode_answer(bulk.BUSY))
                continue
            try:
                await self._answer(member, stream, request)
            finally:
                self._turns.release()

    async def _answer(self, member: MemberId, stream: ByteStream, request: bulk.Request) -> None:
        path = self._locate(request.root)
        try:
            size = None if path is None else (await self._run_blocking(os.stat, path)).st_size
        except OSError as error:
            log.error("blob %s cannot be served from %s: %s", request.root.hex(), path, error)
            size = None
        if path is None or size is None:
            return await stream.write(bulk.encode_answer(bulk.NOT_HELD))
        match request:
            case bulk.LeavesRequest(root):
                await self._answer_leaves(stream, root, path, size)
            case bulk.ChunksRequest(root, first, count):
                if first + count > blob.chunk_count(size):
                    # No fault of who asks: a liar told it a wrong size, or the file here is cut off.
                    self._refusals.count("bulk request past a blob's end", member)
                    await self._leaves_of(root, path, size)
                    return await stream.write(bulk.encode_answer(bulk.NOT_HELD))
                await self._send_chunks(stream, root, path, size, first, count)
                if first + count == blob.chunk_count(size):
                    self._on_served(root, member)

    async def _answer_leaves(self, stream: ByteStream, root: Digest, path: Path, size: int) -> None:
        leaves = await self._leaves_of(root, path, size)
        if leaves is None:
            return await stream.write(bulk.encode_answer(bulk.NOT_HELD))
        await stream.write(bulk.encode_answer(len(leaves) * DIGEST_SIZE) + b"".join(leaves))

    async def _leaves_of(self, root: Digest, path: Path, size: int) -> list[Digest] | None:
        """The hashes of a blob's chunks; None if it is damaged, and dropped now."""
        leaves = self._leaves.get(root)
        if leaves is not None and len(leaves) == blob.chunk_count(size):
            return leaves
        leaves = await self._run_blocking(_hash_chunks, path)
        if merkle.root(leaves) != root:
            await self._drop(root, path)
            return None
        self._leaves[root] = leaves
        if len(self._leaves) > _REMEMBERED_LEAVES:
            self._leaves.popitem(last=False)
        return leaves

    async def _send_chunks(
        self, stream: ByteStream, root: Digest, path: Path, size: int, first: int, count: int
    ) -> None:
        leaves = [root] if blob.chunk_count(size) == 1 else self._leaves.get(root)
        with _opened(path) as file:
            await stream.write(bulk.encode_answer(bulk.run_bytes(size, first, count)))
            for index in range(first, first + count):
                length = blob.chunk_size(size, index)
                leaf = leaves[index] if leaves and index < len(leaves) else None
                data = await self._run_blocking(_read_chunk, file, length, index, leaf)
                if data is None:
                    await self._drop(root, path)
                    raise StreamBroken(f"{path} is damaged")
                with trio.fail_after(WRITE_WITHIN_SECONDS):
                    await stream.write(data)

    async def _drop(self, root: Digest, path: Path) -> None:
        """Remove a damaged blob, so that it is fetched or made again; say that it is asked for."""
        log.error("blob %s is damaged on disk: %s does not have this root; removed", root.hex(), path)
        self._leaves.pop(root, None)
        await self._run_blocking(path.unlink, True)
        self._locate(root)


async def _next_request(stream: ByteStream) -> bytes | None:
    """The bytes of the next request; None if the peer has ended the stream instead."""
    with trio.fail_after(ASK_WITHIN_SECONDS):
        head = await stream.read(bulk.REQUEST_SIZE)
    if not head:
        return None
    rest = bulk.REQUEST_SIZE - len(head)
    return head + await read_exactly(stream, rest, ASK_WITHIN_SECONDS) if rest else head


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StreamBroken(f"{path} cannot be read: {error}") from error
    try:
        yield file
    finally:
        os.close(file)


def _read_chunk(file: int, length: int, index: int, leaf: Digest | None) -> bytes | None:
    """The chunk; None if it is shorter than it was, or not the one whose leaf hash is known."""
    data = os.pread(file, length, index * blob.CHUNK)
    return data if len(data) == length and leaf in (None, merkle.leaf_hash(data)) else None


def _hash_chunks(path: Path) -> list[Digest]:
    leaves = []
    with path.open("rb", buffering=0) as file:
        while data := file.read(blob.CHUNK):
            leaves.append(merkle.leaf_hash(data))
    return leaves
