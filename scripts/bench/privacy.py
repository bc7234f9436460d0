"""What hiding rows costs in accuracy: `privacy.py --data FOLDER [--rows N] [--seeds N] [HOW ...]`.

MNIST (`mnist.py`) dealt evenly to 10 members, 500 steps in all for each, MLP 784-32-10, clip 1, delta 1e-5. "silo":
every member trains by DP-SGD, 100 rounds of 5 steps of 98 rows, and adds noise of its own. "alone": one member does so
for itself. "secure": 500 rounds of one step of 40 rows, the noise inside the masks on the 16-bit ring (32 bits for
epsilon 1), for the fewest honest survivors (4 of 10); "secure, all 10" with k_min = 10 (7 of 10). Each runs through
the node's own functions (`folkmoot.testnet.rehearsal`). Prints a Markdown table.
"""

import argparse
import time
from dataclasses import replace

import mnist
import numpy as np
from mnist import Changes

from folkmoot.protocol.privacy import Cost
from folkmoot.protocol.renyi import epsilon_of
from folkmoot.testnet.examples import Rows
from folkmoot.testnet.rehearsal import Rehearsal

MEMBERS, STEPS = 10, 500
EPSILONS = ("none", "8", "3", "1")
SILO: Changes = {"training": {"steps": 5, "batch": 98}}
SECURE: Changes = {"training": {"steps": 1, "batch": 40}, "averaging": {"mode": "secure"}}
HOW: dict[str, tuple[int, Changes]] = {
    "silo": (MEMBERS, SILO),
    "alone": (1, SILO),
    "secure": (MEMBERS, SECURE),
    "secure, all 10": (MEMBERS, {**SECURE, "secrecy": {"k_min": MEMBERS}}),
}
"""Members and terms."""


def learn(how: str, epsilon: str, options: argparse.Namespace, train: Rows, test: Rows, seed: int) -> float:
    """Accuracy after all steps, in percent."""
    members, changes = HOW[how]
    rounds = STEPS // int(str(changes["training"]["steps"]))
    noise = private(how, epsilon, len(train) // MEMBERS) if epsilon != "none" else {}
    order = np.array_split(np.random.default_rng(seed).permutation(len(train)), MEMBERS)
    shares = [Rows(train.x[part], train.y[part]) for part in order[:members]]
    ring: Changes = (
        {"secrecy": {"ring": 32}} if epsilon == "1" else {}
    )  # 16 bits have no room for so much noise
    terms = replace(mnist.terms(options.lr, changes, noise, ring, rounds=rounds), layers=(784, 32, 10))
    federation = Rehearsal(terms, shares, seed)
    for _ in range(rounds):
        federation.play()
    return 100 * federation.accuracies(test)[0]


def private(how: str, epsilon: str, rows: int) -> Changes:
    """The charter's table; noise in the masks has to be named, the least with which all rounds fit."""
    if not how.startswith("secure"):
        return {"privacy": {"mechanism": "records", "epsilon": epsilon}}
    rate = int(str(SECURE["training"]["batch"])) / rows

    def fits(noise: float) -> bool:
        return epsilon_of([Cost(sample_rate=rate, noise=noise, steps=STEPS)], 1e-5) <= float(epsilon) * 0.999

    noise = next(one / 100 for one in range(30, 10_000) if fits(one / 100))
    return {"privacy": {"mechanism": "secure", "epsilon": epsilon, "noise": str(noise)}}


def main() -> None:
    """Run what is named (all) and print a row for each."""
    parser = mnist.arguments(__doc__)
    parser.add_argument("how", nargs="*", metavar="HOW", help=f"some of: {', '.join(HOW)}")
    parser.add_argument("--epsilon", dest="epsilons", action="append", help=f"some of: {', '.join(EPSILONS)}")
    options = parser.parse_args()
    epsilons = options.epsilons or EPSILONS
    train, test = mnist.load(options)
    print(f"| {len(train):,} images | {' | '.join(f'epsilon {one}' for one in epsilons)} | s a run |")
    print("|---|" + "---|" * (len(epsilons) + 1))
    for how in options.how or HOW:
        began, cells = time.monotonic(), []
        for epsilon in epsilons:
            runs = [learn(how, epsilon, options, train, test, seed) for seed in range(options.seeds)]
            cells.append(mnist.spread(runs))
        seconds = (time.monotonic() - began) / options.seeds / len(epsilons)
        print(f"| {how} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
