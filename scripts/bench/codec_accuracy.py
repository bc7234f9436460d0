"""What the codecs cost in accuracy: `.venv/bin/python scripts/bench/codec_accuracy.py [SEEDS]`.

Learns the digits with every codec from as many starts, without daemons but with the protocol's own functions.
"""

import statistics
import sys
from dataclasses import replace
from functools import partial

import msgspec

from folkmoot.node.train import local, models
from folkmoot.protocol.aggregate import Method, aggregate
from folkmoot.protocol.codec import codec_named, encode_vector
from folkmoot.protocol.payload_sums import Payload
from folkmoot.protocol.ring import Float32s, Layout, compute_exponents, weight_of
from folkmoot.testnet import baselines, examples
from folkmoot.testnet.examples import Example

CODECS = ("f32", "int8", "int4")
NODES = 4
ROUNDS = 10


def main(seeds: int) -> None:
    """Accuracy on the held-out digits after ten rounds of four members, for each codec and seed."""
    local.limit_threads(1)
    example = examples.load("digits")
    rows = [[measure(example, name, seed) for name in CODECS] for seed in range(seeds)]
    for name, column in zip(CODECS, zip(*rows, strict=True), strict=True):
        off = [100 * (value - row[0]) for value, row in zip(column, rows, strict=True)]
        error = statistics.stdev(off) / seeds**0.5
        print(
            f"{name}: {100 * statistics.mean(column):.2f} % (from {100 * min(column):.1f} to {100 * max(column):.1f}); "
            f"{statistics.mean(off):+.2f} points from f32, standard error {error:.2f}"
        )


def measure(example: Example, name: str, seed: int) -> float:
    """Accuracy of the model after all rounds, every update written and read by the codec."""
    base = models.initial_vector(example.kind, example.layers, seed)
    for round_ in range(ROUNDS):
        base = average_round(example, name, seed * ROUNDS + round_, base)
    return baselines.measure(example, base)["accuracy"]


def average_round(example: Example, name: str, seed: int, base: Float32s) -> Float32s:
    """One round of all members in this process."""
    training = msgspec.structs.replace(example.training, seed=seed)
    layout, payloads, exponents = Layout([len(base)]), [], []
    for member, rows in enumerate(example.deal(NODES)):
        # The central loop with one member and one round is that member's local training.
        alone = replace(example, train=rows)
        (trained,) = baselines.central_fedavg(alone, [f"node-{member}"], 1, training, base)
        update = trained - base
        data = b"".join(encode_vector(codec_named(name), update))
        payloads.append(Payload(member, weight_of(len(rows), 65_535), partial(list, [data])))
        exponents.append(int(compute_exponents(update, layout, 0, 16)[0]))
    return aggregate(Method.plain(name, layout.sizes), [max(exponents)], payloads, base).model


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
