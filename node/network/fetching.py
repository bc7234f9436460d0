"""Pulling a blob from one member: leaves first, then the chunks that are missing, each checked before it is kept.

What will be needed is asked for before it can be checked whether it is: over a long line every question costs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from folkmoot.node.disk import raise_if_full
from folkmoot.node.network import bulk
from folkmoot.node.network.blocking import RunBlocking, in_thread
from folkmoot.node.network.partial import PartialBlob, partial_path
from folkmoot.node.network.port import FetchError, Progress
from folkmoot.node.network.streams import ByteStream, StreamBroken, read_exactly
from folkmoot.protocol import blob
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.types import Digest, MemberId

IDLE_SECONDS = 10.0
"""A fetch gives up after this long without a byte, and never because of its whole duration."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """What is wanted, from whom, and where it goes."""

    ref: BlobRef
    member: MemberId
    destination: Path
    on_progress: Progress | None = None
    run_blocking: RunBlocking = in_thread

    async def run(self, open_stream: Callable[[], Awaitable[ByteStream]]) -> None:
        """Fetch over a stream of its own. Raises FetchError, DiskFull; LocalProtocolError for what cannot be."""
        leaves = bulk.known_leaves(self.ref)
        try:
            if leaves == []:
                return await self._pull(None, [])
            stream = await open_stream()
            try:
                if leaves is not None:
                    await self._pull(stream, leaves)
                else:
                    first = await self._first_run()
                    await self._pull(stream, await self._ask_leaves(stream, first), first)
            except BaseException:
                with trio.move_on_after(1, shield=True):
                    await stream.reset()
                raise
            await stream.close()
        except RemoteProtocolError as error:
            raise FetchError(self.ref, self.member, "faulty", str(error)) from error
        except trio.TooSlowError as error:
            raise FetchError(self.ref, self.member, "stalled", f"no byte for {IDLE_SECONDS:g} s") from error
        except StreamBroken as error:
            raise FetchError(self.ref, self.member, "unreachable", str(error)) from error
        except OSError as error:
            raise_if_full(error, self.destination)
            raise FetchError(self.ref, self.member, "disk", str(error)) from error

    async def _ask_leaves(self, stream: ByteStream, first: tuple[int, int] | None) -> list[Digest]:
        await stream.write(bulk.encode_request(bulk.LeavesRequest(self.ref.root)))
        if first is not None:
            await self._ask_run(stream, first)
        length = blob.chunk_count(self.ref.size) * len(self.ref.root)
        await self._expect(stream, length)
        return bulk.decode_leaves(self.ref, await read_exactly(stream, length, IDLE_SECONDS))

    async def _first_run(self) -> tuple[int, int] | None:
        """The run that is asked for first, whatever the leaves say; None if parts of the blob may be here."""
        if await self.run_blocking(partial_path(self.destination).exists):
            return None
        return next(bulk.runs_of(range(blob.chunk_count(self.ref.size))))

    async def _pull(
        self, stream: ByteStream | None, leaves: Sequence[Digest], asked: tuple[int, int] | None = None
    ) -> None:
        # Disk and hashing stay in worker threads: a reader that pauses for 5 s loses its stream.
        partial = await self.run_blocking(PartialBlob, self.ref, leaves, self.destination)
        with partial:
            missing = await self.run_blocking(partial.missing)
            if missing and stream is not None:
                await self._pull_runs(stream, partial, list(bulk.runs_of(missing)), asked)
            await self.run_blocking(partial.finish)

    async def _pull_runs(
        self,
        stream: ByteStream,
        partial: PartialBlob,
        runs: list[tuple[int, int]],
        asked: tuple[int, int] | None,
    ) -> None:
        size = self.ref.size
        done = size - sum(bulk.run_bytes(size, first, count) for first, count in runs)
        if asked is None:
            await self._ask_run(stream, runs[0])
        for position, (first, count) in enumerate(runs):
            await self._expect(stream, bulk.run_bytes(size, first, count))
            if position + 1 < len(runs):
                # Asked for now, the next answer is on its way when this one ends: no round trip between them.
                await self._ask_run(stream, runs[position + 1])
            for index in range(first, first + count):
                data = await read_exactly(stream, blob.chunk_size(size, index), IDLE_SECONDS)
                await self.run_blocking(partial.write, index, data)
                done += len(data)
                if self.on_progress is not None:
                    self.on_progress(done, size)

    async def _ask_run(self, stream: ByteStream, run: tuple[int, int]) -> None:
        await stream.write(bulk.encode_request(bulk.ChunksRequest(self.ref.root, *run)))

    async def _expect(self, stream: ByteStream, length: int) -> None:
        """Read the head of an answer that must announce `length` bytes."""
        announced = bulk.decode_answer(await read_exactly(stream, bulk.ANSWER_SIZE, IDLE_SECONDS))
        if announced == bulk.NOT_HELD:
            raise FetchError(self.ref, self.member, "not held", "the member says that it does not have it")
        if announced == bulk.BUSY:
            raise FetchError(self.ref, self.member, "busy", "the member serves as much as it can; try again")
        if announced != length:
            raise RemoteProtocolError(
                f"announced {announced} bytes of blob {self.ref}, {length} were asked for"
            )
