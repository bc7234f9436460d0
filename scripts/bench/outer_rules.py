"""What outer rules gain on uneven data: `outer_rules.py --data FOLDER [--rows N] [--seeds N] [--lr R] [RULE ...]`.

MNIST (`mnist.py`), 16 members with Dirichlet(0.1) shares of the classes, 60 rounds of 20 steps of 64 rows. Each rule
runs through the node's own functions (`folkmoot.testnet.rehearsal`). "Pooled" is one member with all rows that takes
the same steps. The worst member is the one on whose own mix of classes the common model is least accurate. With
`--slow` every second member takes only 5 of the 20 steps, with and without FedNova. Prints a Markdown table.
"""

import argparse
import time

import mnist
from mnist import MEMBERS, ROUNDS, RULES, Changes

from folkmoot.testnet.examples import Rows
from folkmoot.testnet.rehearsal import Rehearsal

SHOWN = (15, 30, 60)
SLOW_STEPS = 5
SLOW_RULES: dict[str, Changes] = {
    "fedavg": {},
    "fedavg, fednova": {"training": {"normalize_to": 20}},
    "nesterov": RULES["nesterov 0.9/0.7"],
    "nesterov, fednova": {**RULES["nesterov 0.9/0.7"], "training": {"normalize_to": 20}},
}


def learn(
    rule: str, options: argparse.Namespace, train: Rows, test: Rows, seed: int
) -> list[tuple[float, float]]:
    """Accuracy, and that of the worst member, after each of the rounds that are shown."""
    terms = mnist.terms(options.lr, rules_of(options)[rule])
    dealt = [train] if rule == "pooled" else mnist.shares(train, MEMBERS, mnist.UNEVEN, seed)
    slow = [SLOW_STEPS if options.slow and member % 2 else 0 for member in range(len(dealt))]
    federation = Rehearsal(terms, dealt, seed, max_steps=slow)
    found = []
    for round_ in range(1, ROUNDS + 1):
        federation.play()
        if round_ in SHOWN:
            accuracy, by_member = federation.accuracies(test)
            found.append((100 * accuracy, 100 * min(by_member)))
    return found


def rules_of(options: argparse.Namespace) -> dict[str, Changes]:
    """What there is to run."""
    return SLOW_RULES if options.slow else RULES


def main() -> None:
    """Run the rules that are named (all) and print a row for each."""
    parser = mnist.arguments(__doc__)
    parser.add_argument("rules", nargs="*", metavar="RULE", help=f"some of: {', '.join(RULES)}")
    parser.add_argument("--slow", action="store_true", help="half of the members take fewer steps")
    options = parser.parse_args()
    train, test = mnist.load(options)
    print(f"| {len(train):,} images | {' | '.join(f'round {n}' for n in SHOWN)} | worst member | s a run |")
    print("|---|" + "---|" * (len(SHOWN) + 2))
    for rule in options.rules or rules_of(options):
        began = time.monotonic()
        runs = [learn(rule, options, train, test, seed) for seed in range(options.seeds)]
        seconds = (time.monotonic() - began) / len(runs)
        cells = [mnist.spread([run[at][0] for run in runs]) for at in range(len(SHOWN))]
        worst = mnist.spread([run[-1][1] for run in runs])
        print(f"| {rule} | {' | '.join(cells)} | {worst} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
