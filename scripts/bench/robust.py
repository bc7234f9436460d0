"""What robust rules hold: `robust.py --data FOLDER [--rows N] [--seeds N] [--attacks A,...] [--secure] [RULE ...]`.

MNIST (`mnist.py`), 20 members with Dirichlet(0.5) shares of the classes, 40 rounds of 5 steps of 64 rows, momentum
0.9; five are attackers who know every honest update of the round and act as one (`folkmoot.testnet.attacks`).
With `--secure` 24 members in groups of three, two attackers, and the rules are applied to what is seen there: the means
of groups. The attackers' members are drawn anew with each seed, as the groups are. Prints a Markdown table of accuracy
after the last round, mean and deviation over the seeds, and for each rule its worst attack.
"""

import argparse
import statistics

import mnist
import numpy as np
from mnist import Changes

from folkmoot.testnet.attacks import FORGED, POISONED
from folkmoot.testnet.examples import Rows
from folkmoot.testnet.rehearsal import Rehearsal, Terms

ROUNDS, UNEVEN = 40, 0.5
RULES = ("none", "trimmed-mean", "nnm", "multi-krum", "geometric-median", "centered-clipping")
ATTACKS = ("nobody", "alie-optimised", "sign-flip", "label-flip", "ipm")
OPEN, SECURE = (20, 5), (24, 2)
"""(members, attackers)"""


def learn(rule: str, attack: str, options: argparse.Namespace, train: Rows, test: Rows, seed: int) -> float:
    """Accuracy in per cent after the last round."""
    members, faults = SECURE if options.secure else OPEN
    attackers = np.random.default_rng(seed).choice(members, faults, replace=False).tolist()
    dealt = mnist.shares(train, members, UNEVEN, seed)
    for member in attackers if attack in POISONED else ():
        dealt[member] = Rows(*POISONED[attack](dealt[member].x, dealt[member].y, 10))
    forge = FORGED.get(attack)
    terms = _terms(rule, faults, options)
    federation = Rehearsal(terms, dealt, seed, forge, attackers if forge is not None else ())
    for _ in range(ROUNDS):
        federation.play()
    return 100 * federation.accuracies(test)[0]


def _terms(rule: str, faults: int, options: argparse.Namespace) -> Terms:
    training: Changes = {"training": {"steps": 5, "momentum": "0.9"}}
    robust: Changes = {"averaging": {"robust": rule, "faults": 0 if rule == "none" else faults}}
    if not options.secure:
        return mnist.terms(options.lr, training, robust)
    secure: Changes = {"averaging": {"mode": "secure", "weight_cap": 1024}, "secrecy": {"group_size": 3}}
    return mnist.terms(options.lr, training, robust, secure)


def main() -> None:
    """Run the rules that are named (all) and print a row for each."""
    parser = mnist.arguments(__doc__)
    parser.add_argument("rules", nargs="*", metavar="RULE", help=f"some of: {', '.join(RULES)}")
    parser.add_argument("--attacks", default=",".join(ATTACKS), help="of those of folkmoot.testnet.attacks")
    parser.add_argument("--secure", action="store_true", help="24 members in groups of three, two attackers")
    options = parser.parse_args()
    train, test = mnist.load(options)
    attacks = options.attacks.split(",")
    print(f"| {len(train):,} images | {' | '.join(attacks)} | worst |")
    print("|---|" + "---|" * (len(attacks) + 1))
    for rule in options.rules or RULES:
        cells = [
            [learn(rule, attack, options, train, test, seed) for seed in range(options.seeds)]
            for attack in attacks
        ]
        worst = min(statistics.mean(cell) for cell in cells)
        print(f"| {rule} | {' | '.join(map(mnist.spread, cells))} | {worst:.2f} |", flush=True)


if __name__ == "__main__":
    main()
