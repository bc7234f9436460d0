"""Time the kernels of secure mode: `.venv/bin/python scripts/bench/masks.py [PARAMETERS [MEMBERS [BITS]]]`.

CPU time of one node for each part of a round (best of several), then how fast masks expand beside the bare cipher.
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from folkmoot.protocol.outer import Outer, Piece, Snapshots
from folkmoot.protocol.pieces import Buffer, Open
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s
from folkmoot.protocol.secure import masks, sharing
from folkmoot.protocol.secure.encoding import RingDecoder, RingEncoder
from folkmoot.protocol.secure.fingerprint import Challenge
from folkmoot.protocol.secure.keystream import STREAM_BLOCK
from folkmoot.protocol.secure.layout import BLOCK, RingValues, ShardLayout
from folkmoot.protocol.secure.masks import Crowd, Expander, Mask, MaskContext
from folkmoot.protocol.secure.stream import Opening, masked_shards, open_sum, sum_shard

USUAL = (1_000_000, 8, 16)
TRIES = 15
LIMIT_MS = 30.0
LEAST_OF_CIPHER = 0.6


def main(parameters: int, members: int, bits: int) -> None:
    """Print the tables."""
    layout = ShardLayout(parameters, bits, members, members)
    print(
        f"{parameters} parameters, group of {members}, {bits}-bit ring, {members} shards; CPU ms of one node"
    )
    kernels(layout)
    print("in the same units, whole stages and what is done once per round:")
    stages(layout)
    keys(members)
    expansion(layout)


def report(what: str, work: Callable[[], None], repeat: int = 1) -> float:
    """Print the least CPU milliseconds of some tries."""
    spent = []
    for _ in range(TRIES):
        began = time.process_time()
        for _ in range(repeat):
            work()
        spent.append((time.process_time() - began) * 1e3 / repeat)
    print(f"  {what:52} {min(spent):8.2f}")
    return min(spent)


# --- parts of a round ---------------------------------------------------------------------------------------


def kernels(layout: ShardLayout) -> None:
    """The four parts that grow with the model."""
    update, values = draw(layout), np.zeros(layout.size, dtype=layout.dtype)
    encoder = RingEncoder(layout, [layout.parameters], [0], 200)
    own, self_masks = own_masks(layout), [Mask(bytes([i]) * 16, 1) for i in range(layout.members)]
    shards = split(layout, values)
    sums = [join(sum_shard(layout, s, [shards[s]] * layout.members)) for s in range(layout.shards)]
    total = sum((
        report("encode", partial(encoder.encode, update, 0, values[BLOCK : BLOCK + len(update)])),
        report(f"mask ({len(own) - 1} pairs and self)", partial(expand, layout, own, values, False)),
        report("fingerprint (own shards and all sums)", partial(check, layout, shards, sums)),
        report(f"strip ({len(self_masks)} self masks)", partial(expand, layout, self_masks, values, True)),
    ))  # fmt: skip
    verdict = ""
    if (layout.parameters, layout.members, layout.bits) == USUAL:
        verdict = f"{'within' if total <= LIMIT_MS else 'ABOVE'} the limit of {LIMIT_MS:.0f}"
    print(f"  {'sum':52} {total:8.2f}   {verdict}")


def stages(layout: ShardLayout) -> None:
    """The same through the streams that a node uses, and an owner's part."""
    update, values = draw(layout), np.zeros(layout.size, dtype=layout.dtype)
    encoder = RingEncoder(layout, [layout.parameters], [0], 200)
    self_masks = [Mask(bytes([i]) * 16, 1) for i in range(layout.members)]
    # A sum to open, of one update of zeros beneath all self masks.
    encoder.encode_weight(values[:BLOCK])
    expand(layout, self_masks, values, False)
    shards = split(layout, values)
    sums = [join(sum_shard(layout, s, [shards[s]])) for s in range(layout.shards)]
    opens = [partial(list[Buffer], [data]) for data in sums]

    def mask() -> None:
        for _ in masked_shards(layout, encoder, [update], own_masks(layout)):
            pass

    def add() -> None:
        for _ in sum_shard(layout, 0, [shards[0]] * layout.members):
            pass

    def open_() -> None:
        decoder = RingDecoder(layout, [layout.parameters], [0])
        flat = update.data.cast("B")
        opening = Opening(layout, decoder, opens, [Crowd(layout.members, tuple(self_masks))])
        snapshots = Snapshots(lambda start: [flat[start:]], exhaust, None)
        opened = open_sum(opening, Outer(layout.parameters), snapshots)
        assert opened.changed

    report("masked_shards: encode and mask", mask)
    report("sum_shard: one shard of every member", add)
    report("open_sum: unpack, strip, average, add to the base", open_)


def keys(members: int) -> None:
    """What does not grow with the model: seeds, shares and their checks."""
    context = MaskContext(b"f" * 32, 1, 1, b"r" * 32, 0)
    bound = (members - 1) // 3
    threshold = (members + bound) // 2 + 1 - bound
    polynomial = masks.self_polynomial(context, b"s" * 32, 0, threshold)
    commitments = sharing.commit(polynomial)
    shares = {x: sharing.share(polynomial, x) for x in range(1, members + 1)}
    public = masks.public_key(b"p" * 32)

    def seeds() -> None:
        for peer in range(1, members):
            masks.pair_seed(context, b"s" * 32, 0, peer, public)

    def verify() -> None:
        for x, value in shares.items():
            assert sharing.verify_commitments(commitments, threshold)
            assert sharing.verify_share(commitments, x, value)

    def reconstruct() -> None:
        for _ in range(members):
            secret = sharing.reconstruct({x: shares[x] for x in range(1, threshold + 1)})
            assert sharing.verify_secret(commitments, secret)

    report(f"{members - 1} pair seeds", seeds)
    report(f"check commitments and share of {members} members, t={threshold}", verify)
    report(f"reconstruct {members} self-mask secrets", reconstruct)


# --- expansion ----------------------------------------------------------------------------------------------


def expansion(layout: ShardLayout) -> None:
    """GB/s of keystream made and added as masks, beside what the cipher alone makes in the same blocks."""
    some, values = own_masks(layout), np.zeros(layout.size, dtype=layout.dtype)
    zeros, out = bytes(STREAM_BLOCK), bytearray(STREAM_BLOCK)
    encryptor = Cipher(algorithms.AES(bytes(16)), modes.CTR(bytes(16))).encryptor()
    blocks = max(1, len(some) * values.nbytes // STREAM_BLOCK)

    def bare() -> None:
        for _ in range(blocks):
            encryptor.update_into(zeros, out)

    print("GB/s of keystream:")
    cipher = rate(blocks * STREAM_BLOCK, bare)
    added = rate(len(some) * values.nbytes, partial(expand, layout, some, values, False))
    print(f"  {'AES-128-CTR alone':52} {cipher:8.2f}")
    verdict = "enough" if added >= LEAST_OF_CIPHER * cipher else "TOO LITTLE"
    print(f"  {'made and added to values':52} {added:8.2f}   {added / cipher:.2f} of it: {verdict}")


def rate(size: int, work: Callable[[], None]) -> float:
    """GB per second of CPU time, at best."""
    seconds = []
    for _ in range(TRIES):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return size / min(seconds) / 1e9


# --- pieces -------------------------------------------------------------------------------------------------


def draw(layout: ShardLayout) -> Float32s:
    """An update."""
    return np.random.default_rng(0).uniform(-1, 1, layout.parameters).astype("<f4")


def own_masks(layout: ShardLayout) -> list[Mask]:
    """As many masks as a member has: its own and one for each peer."""
    return [Mask(bytes([100 + i]) * 16, 1 if i % 2 else -1) for i in range(layout.members)]


def split(layout: ShardLayout, values: RingValues) -> list[Open]:
    """The shards of a ring vector."""
    spans = [layout.span(shard) for shard in range(layout.shards)]
    return [partial(list, [values[start:stop].tobytes()]) for start, stop in spans]


def join(chunks: Iterator[memoryview]) -> bytes:
    """A stream as a whole; its chunks share one buffer, so each is copied first."""
    return b"".join(map(bytes, chunks))


def expand(layout: ShardLayout, some: list[Mask], values: RingValues, subtract: bool) -> None:
    """Mask a vector chunk by chunk, with fresh keys."""
    expander = Expander(layout, some)
    for start in range(0, len(values), CHUNK_VALUES):
        expander.add(values[start : start + CHUNK_VALUES], start, subtract)


def check(layout: ShardLayout, shards: list[Open], sums: list[bytes]) -> None:
    """The fingerprints of one member's shards and of all sums."""
    challenge = Challenge(layout, b"c" * 16)
    for shard, data in enumerate(sums):
        challenge.of_shards_and_sum(shard, [shards[shard]], partial(list, [data]))


def exhaust(pieces: Iterator[Piece]) -> None:
    """Take every piece of a snapshot and keep none."""
    for _ in pieces:
        pass


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(*given, *USUAL[len(given) :])
