"""Starting weights for a new federation: `python -m folkmoot.node.train.founding TABLE SEED FILE`.

TABLE is JSON: see `Table`. Writes the vector to FILE and prints the layout as JSON (`[{"name", "shape"}]`), both for
the charter. A process of its own, because whoever drafts a charter does not otherwise need torch.
"""

import sys
from pathlib import Path

import msgspec

from folkmoot.node.train.custom import CustomSource
from folkmoot.node.train.models import build_seeded, layout, to_vector
from folkmoot.node.train.starting import take_start
from folkmoot.node.train.vectors import write_vector
from folkmoot.node.train.wire import TrainerError


class Table(msgspec.Struct, frozen=True):
    """What a draft says of the model (`charter_draft.model_table`), and where things are.

    `path` is the file of a custom model; weights are those of the file `start` if one is given, and with `fill` it need
    not have them all.
    """

    kind: str
    layers: tuple[int, ...]
    image: tuple[int, ...] = ()
    source: str = ""
    path: str = ""
    start: str = ""
    fill: bool = False


def main(arguments: list[str]) -> int:
    """Run with the words after the program's name; the exit status."""
    text, seed, file = arguments
    table = msgspec.json.decode(text, type=Table)
    source = CustomSource(table.source, Path(table.path)) if table.path else None
    try:
        module = build_seeded(table.kind, table.layers, int(seed), source, table.image)
        if table.start:
            take_start(module, Path(table.start), fill=table.fill)
        write_vector(Path(file), to_vector(module))
        tensors = layout(module)
    except TrainerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(msgspec.json.encode(tensors).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
