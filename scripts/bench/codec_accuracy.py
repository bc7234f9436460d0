"""What fewer bytes cost in accuracy: `codec_accuracy.py [--data FOLDER] [--rows N] [--seeds N] [--rule R] [NAME ...]`.

The task of `outer_rules.py`, or without --data ten rounds of the digits among four members; every update is written
down and read by a codec of open mode, or encoded for a ring of secure mode, with the error feedback that a charter
gives it. Prints a Markdown table: bytes of an update, how many times fewer than of float32, accuracy after the last
round and how far it is from that with float32 at the same seeds.
"""

import argparse
from dataclasses import replace

import mnist
from mnist import MEMBERS, ROUNDS, RULES, Changes

from folkmoot.node.train import local
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.codec import codec_named
from folkmoot.protocol.secure.dealing import shard_layout
from folkmoot.testnet import examples
from folkmoot.testnet.examples import Rows
from folkmoot.testnet.rehearsal import Rehearsal, Terms

RING: Changes = {"averaging": {"mode": "secure", "weight_cap": 1024}}

WAYS: dict[str, Changes] = {
    "f32": {},
    "bf16": {"averaging": {"codec": "bf16"}},
    "int8": {"averaging": {"codec": "int8"}},
    "int4": {"averaging": {"codec": "int4"}},
    "int4, error feedback": {"averaging": {"codec": "int4", "error_feedback": True}},
    "int2": {"averaging": {"codec": "int2"}},
    "top3": {"averaging": {"codec": "top3"}},
    "top1": {"averaging": {"codec": "top1"}},
    "32-bit ring": {**RING, "secrecy": {"ring": 32}},
    "16-bit ring": {**RING, "secrecy": {"ring": 16}},
    "8-bit ring": {**RING, "secrecy": {"ring": 8}},
    "16-bit ring, exponent_min -24": {
        "averaging": {**RING["averaging"], "exponent_min": -24},
        "secrecy": {"ring": 16},
    },
    "8-bit ring, exponent_min -24": {
        "averaging": {**RING["averaging"], "exponent_min": -24},
        "secrecy": {"ring": 8},
    },
}


def learn(way: str, options: argparse.Namespace, train: Rows, test: Rows, seed: int) -> tuple[float, int]:
    """Accuracy in per cent after the last round, and the bytes of an update."""
    federation, rounds = found(mnist.terms(options.lr, RULES[options.rule], WAYS[way]), options, train, seed)
    for _ in range(rounds):
        federation.play()
    return 100 * federation.accuracies(test)[0], update_bytes(federation.charter)


def found(terms: Terms, options: argparse.Namespace, train: Rows, seed: int) -> tuple[Rehearsal, int]:
    """A federation, and how many rounds it is to play."""
    if options.data is not None:
        return Rehearsal(terms, mnist.shares(train, MEMBERS, mnist.UNEVEN, seed), seed), ROUNDS
    digits = examples.load("digits")
    terms = replace(terms, kind=digits.kind, layers=digits.layers, training=digits.training)
    return Rehearsal(terms, digits.deal(4), seed), 10


def update_bytes(charter: Charter) -> int:
    """What a member writes down."""
    if charter.is_secure:
        layout = shard_layout(charter)
        return layout.size * layout.value_bytes
    return codec_named(charter.averaging.codec).encoded_size(charter.update_values)


def main() -> None:
    """Run what is named (all) and print a row for each."""
    parser = mnist.arguments(__doc__, is_needed=False)
    parser.add_argument("ways", nargs="*", metavar="NAME", help=f"some of: {', '.join(WAYS)}")
    parser.add_argument("--rule", default="fedavg", help=f"one of: {', '.join(RULES)}")
    options = parser.parse_args()
    digits = examples.load("digits")
    local.limit_threads(1)
    train, test = mnist.load(options) if options.data is not None else (digits.train, digits.test)
    print(f"| {len(train):,} images, {options.rule} | bytes | fewer | accuracy | from f32 |")
    print("|---|---|---|---|---|")
    exact = [learn("f32", options, train, test, seed) for seed in range(options.seeds)]
    for way in options.ways or WAYS:
        runs = exact
        if way != "f32":
            runs = [learn(way, options, train, test, seed) for seed in range(options.seeds)]
        size = runs[0][1]
        off = [run[0] - one[0] for run, one in zip(runs, exact, strict=True)]
        cells = (f"{size:,}", f"{exact[0][1] / size:.1f}", mnist.spread([run[0] for run in runs]))
        print(f"| {way} | {' | '.join(cells)} | {mnist.spread(off, '+')} |", flush=True)


if __name__ == "__main__":
    main()
