"""Outer rules where rounds are few and members alike: `.venv/bin/python scripts/bench/few_rounds.py [SEEDS]`.

The digits and the tumours of `folkmoot testnet run`, four members, ten rounds of one local epoch; two members with
five rounds; fifty rounds. Prints a Markdown table: accuracy on the held-out rows, mean and spread over the seeds.
"""

import statistics
import sys

import msgspec

from folkmoot.node.train import local
from folkmoot.protocol.charter_tables import Averaging
from folkmoot.testnet import examples
from folkmoot.testnet.rehearsal import Rehearsal, Terms

CASES = (("digits", 4, 10), ("digits", 2, 5), ("digits", 4, 50), ("breast-cancer", 4, 10))
RULES = {
    "fedavg": {},
    "nesterov 0.9/0.7": {"rule": "nesterov", "momentum": "0.9", "rate": "0.7"},
    "nesterov 0.5/0.7": {"rule": "nesterov", "momentum": "0.5", "rate": "0.7"},
    "fedavgm 0.9": {"rule": "fedavgm", "momentum": "0.9", "rate": "1"},
    "fedadam 0.01": {"rule": "fedadam", "rate": "0.01"},
}


def learn(case: tuple[str, int, int], rule: str, seed: int) -> float:
    """Accuracy in per cent after the last round."""
    name, nodes, rounds = case
    example = examples.load(name)
    averaging = msgspec.structs.replace(Averaging(codec="f32"), **RULES[rule])
    terms = Terms(example.kind, example.layers, example.training, averaging)
    federation = Rehearsal(terms, example.deal(nodes), seed)
    for _ in range(rounds):
        federation.play()
    return 100 * federation.accuracies(example.test)[0]


def main(seeds: int) -> None:
    """A row for each rule."""
    local.limit_threads(1)
    print(
        "| rule | "
        + " | ".join(f"{name}, {nodes} members, {rounds} rounds" for name, nodes, rounds in CASES)
        + " |"
    )
    print("|---|" + "---|" * len(CASES))
    for rule in RULES:
        cells = []
        for case in CASES:
            found = [learn(case, rule, seed) for seed in range(seeds)]
            cells.append(f"{statistics.mean(found):.2f} +- {statistics.stdev(found):.2f}")
        print(f"| {rule} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
