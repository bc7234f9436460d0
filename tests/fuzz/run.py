"""Fuzz one target with atheris (libFuzzer guided by the coverage of folkmoot's own code).

    .venv/bin/pip install -e '.[fuzz]'
    .venv/bin/python tests/fuzz/run.py message --minutes 10

It begins with the target's seeds and earlier findings, and keeps what reached new code in .folkmoot/fuzz/<target>, so
that the next run goes on from there. A finding ends the run and prints where its bytes lie: copy them to
tests/fuzz/findings/<target>/ under a name that says what it was, mend the code, and tests/property/test_fuzzed.py holds
it from then on. What stands after `--` goes to libFuzzer.
"""

import argparse
import hashlib
import random
import sys
from pathlib import Path

import atheris
from fuzzing import TARGETS, load
from mutating import mutated

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Read the arguments, prepare the corpus, and hand over to libFuzzer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--corpus", type=Path, default=ROOT / ".folkmoot" / "fuzz")
    options, further = parser.parse_known_args()
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    with atheris.instrument_imports(include=["folkmoot"]):
        target = load(options.target)
    corpus: Path = options.corpus / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    for data in target.known():
        (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
    arguments = [
        f"-max_total_time={60 * options.minutes:.0f}",
        f"-max_len={target.max_bytes}",
        f"-artifact_prefix={options.corpus}/{target.name}-",
        *(one for one in further if one != "--"),
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *arguments], target.try_input, custom_mutator=_mutate)
    atheris.Fuzz()


def _mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Half by value where there are values, half as libFuzzer does it."""
    rng = random.Random(seed)
    other = mutated(data, rng) if rng.random() < 0.5 else None
    return other if other is not None and len(other) <= max_size else atheris.Mutate(data, max_size)


if __name__ == "__main__":
    main()
