"""Starting weights for a new federation: `python -m folkmoot.node.train.founding KIND LAYERS SEED FILE [SOURCE PATH]`.

Writes the vector to FILE and prints the layout as JSON (`[{"name", "shape"}]`), both for the charter. SOURCE and PATH
are a custom model's module:function and its file. A process of its own, because whoever drafts a charter does not
otherwise need torch.
"""

import sys
from pathlib import Path

import msgspec

from folkmoot.node.train.custom import CustomSource
from folkmoot.node.train.models import build_seeded, layout, to_vector
from folkmoot.node.train.vectors import write_vector
from folkmoot.node.train.wire import TrainerError


def main(arguments: list[str]) -> int:
    """Run with the words after the program's name, LAYERS as `64,256,10`; the exit status."""
    kind, widths, seed, file, *custom = arguments
    layers = [int(width) for width in widths.split(",")]
    source = CustomSource(custom[0], Path(custom[1])) if custom else None
    try:
        module = build_seeded(kind, layers, int(seed), source)
        write_vector(Path(file), to_vector(module))
        tensors = layout(module)
    except TrainerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(msgspec.json.encode(tensors).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
