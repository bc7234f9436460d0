"""Time the codecs and the data path of a round.

`.venv/bin/python scripts/bench/codecs.py speed [PARAMETERS]` encodes, decodes and sums one update, beside a copy of the
same bytes. `... path CODEC [PARAMETERS]` seals four updates into an archive and averages them from there onto a model,
as a node does.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from folkmoot.node.archive import Archive, BlobStore, Models
from folkmoot.protocol.aggregate import Aggregate, Method, aggregate_stream
from folkmoot.protocol.blob import CHUNK, BlobRef
from folkmoot.protocol.codec import Codec, VectorDecoder, codec_named, encode_vector
from folkmoot.protocol.payload_sums import Payload
from folkmoot.protocol.ring import (
    CHUNK_VALUES,
    FixedPoint,
    Float32s,
    Float64s,
    Layout,
    accumulate_weighted,
)
from folkmoot.protocol.sealing import PayloadContext, open_frames, seal_frames

CODECS = ("f32", "bf16", "int8", "int4", "int2", "top3", "top1")
NODES = 4
KEY = bytes(32)
CONTEXT = PayloadContext(bytes(32), 1, bytes(32), 0)


# --- speed --------------------------------------------------------------------------------------------------


def speed(parameters: int) -> None:
    """Best of nine, in GB of float32 a CPU second of one core: what other processes take does not count."""
    update = draw(parameters, 1e-3)
    copy = np.empty_like(update)
    report("copy of the vector", parameters, lambda: np.copyto(copy, update))
    for name in CODECS:
        codec = codec_named(name)
        data = b"".join(encode_vector(codec, update))
        report(f"{name} encode", parameters, partial(exhaust, codec, update))
        report(f"{name} decode", parameters, partial(decode, codec, data, parameters, ignore))
        report(
            f"{name} decode and sum", parameters, partial(decode, codec, data, parameters, Sum(parameters))
        )


def report(what: str, parameters: int, work: Callable[[], None]) -> None:
    """Time `work` nine times and print the best."""
    seconds = []
    for _ in range(9):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    print(f"{what:22} {4 * parameters / min(seconds) / 1e9:6.2f} GB/s {min(seconds) * 1e3:7.1f} ms")


def exhaust(codec: Codec, update: Float32s) -> None:
    """Encode and throw away."""
    for _ in encode_vector(codec, update):
        pass


def decode(codec: Codec, data: bytes, parameters: int, use: Callable[[int, Float64s], None]) -> None:
    """Decode chunk by chunk into one buffer."""
    decoder, values = VectorDecoder(codec, [data]), np.empty(CHUNK_VALUES)
    for start, stop in Layout([parameters]).chunks():
        decoder.read(values[: stop - start])
        use(start, values[: stop - start])
    decoder.finish()


def ignore(start: int, values: Float64s) -> None:
    """Do nothing with a chunk."""


class Sum:
    """Adds chunks up as the aggregation does."""

    def __init__(self, parameters: int) -> None:
        self._fixed = FixedPoint(Layout([parameters]), [0])
        self._sums = np.zeros(CHUNK_VALUES)

    def __call__(self, start: int, values: Float64s) -> None:
        self._fixed.to_integers(values, start, values)
        self._sums.fill(0.0)
        accumulate_weighted(self._sums[: len(values)], values, 7)


# --- data path ----------------------------------------------------------------------------------------------


def path(name: str, parameters: int) -> None:
    """Seal and hash four updates, then open and average them; wall and CPU seconds, and peak memory of all."""
    with tempfile.TemporaryDirectory() as folder:
        archive, kept = Archive(Path(folder) / "archive"), Models(Path(folder) / "models")
        base = store(kept, pieces(parameters, 1.0))
        codec = codec_named(name)
        size = codec.encoded_size(parameters)
        began, cpu = time.perf_counter(), time.process_time()
        sealed = []
        for _ in range(NODES):
            encoded = map(codec.encode, pieces(parameters, 1e-3))
            sealed.append(store(archive, seal_frames(CONTEXT, KEY, encoded, size)))
        show(f"{name}: {NODES} x draw, encode, seal, hash, write", began, cpu)
        began, cpu = time.perf_counter(), time.process_time()
        average(name, parameters, archive, kept, base, sealed)
        show(f"{name}: average {NODES} payloads", began, cpu)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def average(
    name: str, parameters: int, archive: Archive, kept: Models, base: BlobRef, sealed: list[BlobRef]
) -> Aggregate[BlobRef]:
    """The aggregation as `folkmoot.node.payloads` runs it."""
    codec = codec_named(name)
    size = codec.encoded_size(parameters)

    def opened(ref: BlobRef) -> Iterator[bytearray]:
        return open_frames(CONTEXT, KEY, read(archive, ref), size)

    payloads = [Payload(member, 100 + member, partial(opened, ref)) for member, ref in enumerate(sealed)]
    return aggregate_stream(Method.plain(name, [parameters]), [0], payloads, kept.snapshots(base))


def store(blobs: BlobStore, chunks: Iterable[Float32s] | Iterable[bytearray]) -> BlobRef:
    """Write a blob."""
    with blobs.writer() as blob:
        for chunk in chunks:
            blob.write(chunk if isinstance(chunk, bytearray) else chunk.data)
    assert blob.ref is not None
    return blob.ref


def read(blobs: BlobStore, ref: BlobRef) -> Iterator[bytes]:
    """Read a blob."""
    with blobs.open(ref) as file:
        yield from iter(partial(file.read, CHUNK), b"")


def pieces(parameters: int, scale: float) -> Iterator[Float32s]:
    """Normal values in chunks."""
    for start, stop in Layout([parameters]).chunks():
        yield draw(stop - start, scale)


def draw(count: int, scale: float) -> Float32s:
    """`count` normal values, always the same."""
    return np.random.default_rng(0).standard_normal(count, dtype=np.float32) * np.float32(scale)


def show(what: str, began: float, cpu: float) -> None:
    """Print what passed since."""
    print(f"{what}: {time.perf_counter() - began:.2f} s, {time.process_time() - cpu:.2f} CPU s", flush=True)


def main(what: str = "speed", *arguments: str) -> None:
    """Do what the first word says."""
    match what, arguments:
        case "speed", _:
            speed(int(float(arguments[0])) if arguments else 25_000_000)
        case "path", (name, *rest):
            path(name, int(float(rest[0])) if rest else 25_000_000)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
