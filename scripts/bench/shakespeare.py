"""Loss against bytes sent: a small transformer learns Shakespeare, each member one of the eight who speak the most.

    shakespeare.py FILE [--seeds N] [--rounds N] [--out FOLDER] [CODEC ...]

FILE is the tiny Shakespeare text (not part of this project). A row is 32 characters and the one that comes next, in the
words of one speaker; the last tenth of each text is held out. Open mode, every update written down and read by
the codec, with the error feedback that a charter gives it. A member sends its update to seven others. All runs go
through the node's own functions (`folkmoot.testnet.rehearsal`), the model is a custom one (`small_transformer.py`).
Prints a Markdown table; FOLDER gets shakespeare.json and shakespeare.svg.
"""

import argparse
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from plot import COLOURS, Line, plot

from folkmoot.node.train import local
from folkmoot.node.train.custom import CustomSource
from folkmoot.protocol.charter_tables import Averaging, Training
from folkmoot.protocol.codec import codec_named
from folkmoot.testnet.examples import Rows
from folkmoot.testnet.rehearsal import Rehearsal, Terms

MEMBERS, LENGTH, HELD_OUT = 8, 32, 0.1
TRAINING = Training(steps=10, batch=64, optimizer="adamw", lr="0.003")
EVERY, STRIDE = 5, 4
"""The model is measured after so many rounds, on every so manieth held-out row."""

SOURCE = CustomSource("small_transformer:build", Path(__file__).with_name("small_transformer.py"))
CODECS = {"f32": Averaging(codec="f32"), "int4": Averaging(codec="int4"), "top3": Averaging(codec="top3")}


class Run(msgspec.Struct, frozen=True):
    """One seed with one codec: bytes that a member had sent, and the loss in nats a character, after each measure."""

    codec: str
    seed: int
    sent: list[int]
    loss: list[float]
    accuracy: list[float]


def read_speakers(text: str) -> list[str]:
    """What each of those says who speak the most, the longest first."""
    said: dict[str, list[str]] = defaultdict(list)
    for block in text.split("\n\n"):
        name, _, words = block.partition(":\n")
        if words and re.fullmatch(r"[A-Z][A-Za-z ]+", name):
            said[name].append(words)
    return sorted(("\n\n".join(words) for words in said.values()), key=len, reverse=True)[:MEMBERS]


def encode_text(text: str, alphabet: str) -> Rows:
    """Every stretch of the text with the character after it."""
    codes = np.array([alphabet.index(character) for character in text])
    windows = np.lib.stride_tricks.sliding_window_view(codes, LENGTH + 1)
    return Rows(windows[:, :-1].astype(np.float32), windows[:, -1].astype(np.int64))


def prepare(file: Path) -> tuple[int, list[Rows], Rows]:
    """How many characters there are, each member's rows, and those held out of all."""
    text = file.read_text()
    alphabet = "".join(sorted(set(text)))
    train, test = [], []
    for words in read_speakers(text):
        cut = int(len(words) * (1 - HELD_OUT))
        train.append(encode_text(words[:cut], alphabet))
        test.append(encode_text(words[cut:], alphabet))
    held_out = Rows(
        *(np.concatenate([getattr(rows, name)[::STRIDE] for rows in test]) for name in ("x", "y"))
    )
    return len(alphabet), train, held_out


def learn(codec: str, characters: int, train: Sequence[Rows], test: Rows, rounds: int, seed: int) -> Run:
    """One federation to its last round."""
    terms = Terms("custom", (LENGTH, characters), TRAINING, CODECS[codec], source=SOURCE)
    federation = Rehearsal(terms, train, seed)
    size = codec_named(CODECS[codec].codec).encoded_size(federation.charter.update_values)
    measured = [federation.measure(test)]
    for number in range(1, rounds + 1):
        federation.play()
        if number % EVERY == 0:
            measured.append(federation.measure(test))
    sent = [size * (MEMBERS - 1) * EVERY * at for at in range(len(measured))]
    return Run(
        codec, seed, sent, [one["log_loss"] for one in measured], [one["accuracy"] for one in measured]
    )


def show(runs: Sequence[Run], rounds: int) -> None:
    """A row for each codec."""
    print(
        f"| after {rounds} rounds | MB sent by a member | fewer | loss, nats a character | right characters |"
    )
    print("|---|---|---|---|---|")
    most = max(run.sent[-1] for run in runs)
    for codec, own in by_codec(runs).items():
        sent = own[0].sent[-1]
        loss, right = (_spread([getattr(run, name)[-1] for run in own]) for name in ("loss", "accuracy"))
        print(f"| {codec} | {sent / 1e6:.1f} | {most / sent:.1f} | {loss} | {right} |")


def by_codec(runs: Sequence[Run]) -> Mapping[str, list[Run]]:
    """The runs of each codec."""
    return {
        codec: [run for run in runs if run.codec == codec]
        for codec in dict.fromkeys(run.codec for run in runs)
    }


def _spread(values: Sequence[float]) -> str:
    deviation = f" +- {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def picture(runs: Sequence[Run]) -> str:
    """Mean loss over the bytes sent, with the least and the most of the seeds around it."""
    lines = []
    for (codec, own), colour in zip(by_codec(runs).items(), COLOURS, strict=False):
        found = list(zip(*(run.loss[1:] for run in own), strict=True))
        sent = [size / 1e6 for size in own[0].sent[1:]]
        points = list(zip(sent, map(statistics.mean, found), strict=True))
        lines.append(Line(points, colour, codec, around=[(min(one), max(one)) for one in found]))
    title = "loss on held-out text, nats a character: mean and range of the seeds"
    return plot(title, "MB that a member has sent", lines, y_scale="linear")


def main() -> None:
    """Learn, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("codecs", nargs="*", metavar="CODEC", help=f"some of: {', '.join(CODECS)}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    local.limit_threads(1)
    characters, train, test = prepare(options.file)
    print(
        f"{sum(map(len, train)):,} rows to train on, {min(map(len, train)):,} to {max(map(len, train)):,} a member"
    )
    runs = [
        learn(codec, characters, train, test, options.rounds, seed)
        for codec in options.codecs or CODECS
        for seed in range(options.seeds)
    ]
    show(runs, options.rounds)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "shakespeare.json").write_bytes(msgspec.json.encode(runs) + b"\n")
        (options.out / "shakespeare.svg").write_text(picture(runs))


if __name__ == "__main__":
    main()
