"""The data sets that a testnet can learn: scikit-learn's bundled files, split and dealt to the nodes.

Scikit-learn is not imported (0.9 CPU s): its data files are plain CSV, and only their folder is asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from folkmoot.protocol.charter_tables import Training
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.schema import Schema
from folkmoot.testnet import dirichlet

Floats: TypeAlias = npt.NDArray[np.float32]

TRAIN_SHARE = 0.8
SPLIT_SEED = 0


@dataclass(frozen=True)
class Rows:
    """Examples: inputs `x` float32 (n, d) and classes `y` int64 (n,)."""

    x: Floats
    y: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)


class Learnable(Protocol):
    """What a federation can be founded on: the model and training that suit some rows, and where those go."""

    @property
    def name(self) -> str:
        """What the charter is called."""
        ...

    @property
    def kind(self) -> Literal["mlp", "logistic"]:
        """The model's."""
        ...

    @property
    def image(self) -> tuple[int, ...]:
        """Height, width and channels of a row; empty if it is no image."""
        ...

    @property
    def layers(self) -> tuple[int, ...]:
        """The model's widths, from inputs to outputs."""
        ...

    @property
    def training(self) -> Training:
        """How the members train; the seed is not chosen here."""
        ...

    @property
    def data(self) -> Schema | None:
        """How the rows are encoded, if that is left to the members."""
        ...

    def most_rows(self, nodes: int) -> int:
        """How many rows to train on the node with the most gets."""
        ...

    def write_data(self, folders: Sequence[Path]) -> None:
        """Put into `folders` (HOME/data of each node) what it needs of the rows."""
        ...


@dataclass(frozen=True)
class Example:
    """A data set, how its raw columns became inputs, and the model and training that suit it.

    Inputs are (raw - offset) / scale, both float32 (d,): constants that all members share, as a charter
    declares them, so that no member needs another's rows to prepare its own.
    """

    name: str
    kind: Literal["mlp", "logistic"]
    layers: tuple[int, ...]
    training: Training
    offset: Floats
    scale: Floats
    train: Rows
    test: Rows
    image: tuple[int, ...] = ()
    """Height, width and channels of a row; empty if it is no image."""
    concentration: float = 0.0
    """Of the Dirichlet distribution from which the nodes' shares of each class are drawn; 0: nodes are alike."""

    @property
    def data(self) -> None:
        """No schema: the rows of an example are encoded before they are dealt."""
        return None

    def most_rows(self, nodes: int) -> int:
        """Of the node with the most."""
        return max(map(len, self.deal(nodes)))

    def write_data(self, folders: Sequence[Path]) -> None:
        """Deal to `folders` (HOME/data of each node) its share of the training rows, and to all the same test rows."""
        for folder, rows in zip(folders, self.deal(len(folders)), strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            safetensors.numpy.save_file({"x": rows.x, "y": rows.y}, folder / "train.safetensors")
            safetensors.numpy.save_file({"x": self.test.x, "y": self.test.y}, folder / "test.safetensors")

    def deal(self, nodes: int) -> list[Rows]:
        """The training rows in `nodes` nearly equal shares, in the shuffled order of the split, or in uneven ones."""
        if self.concentration:
            dealt = dirichlet.deal(self.train.y, nodes, self.concentration, SPLIT_SEED)
            return [self.share(part) for part in dealt]
        return [self.share(part) for part in np.array_split(np.arange(len(self.train)), nodes)]

    def share(self, index: npt.NDArray[np.int64]) -> Rows:
        """The training rows numbered by `index`."""
        return Rows(self.train.x[index], self.train.y[index])


def digits() -> Example:
    """1,797 images of handwritten digits, 8x8 pixels of 0 to 16; 10 classes."""
    table = _read("digits.csv.gz", header=0)
    width = table.shape[1] - 1
    example = _split(
        "digits",
        "mlp",
        (width, 256, 128, 10),
        table,
        lambda _: (np.zeros(width, np.float32), np.full(width, 16, np.float32)),
    )
    return replace(example, image=(8, 8, 1))


def breast_cancer() -> Example:
    """569 tumours, 30 measures of their cell nuclei; malignant (0) or benign (1)."""
    table = _read("breast_cancer.csv", header=1)
    return _split("breast-cancer", "logistic", (table.shape[1] - 1, 2), table, _mean_and_deviation)


EXAMPLES: dict[str, Callable[[], Example]] = {"digits": digits, "breast-cancer": breast_cancer}


def load(name: str) -> Example:
    """The example called `name`; raises `FolkmootError` naming those there are."""
    if name not in EXAMPLES:
        raise FolkmootError(f"no example {name!r}; there are {', '.join(EXAMPLES)}")
    return EXAMPLES[name]()


def _read(file: str, header: int) -> npt.NDArray[np.float64]:
    """One of scikit-learn's CSV files as numbers; the class is the last column."""
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise FolkmootError("the examples need scikit-learn's data files: pip install 'folkmoot[testnet]'")
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / file
    return np.loadtxt(path, delimiter=",", skiprows=header)


def _split(
    name: str,
    kind: Literal["mlp", "logistic"],
    layers: tuple[int, ...],
    table: npt.NDArray[np.float64],
    constants: Callable[[Floats], tuple[Floats, Floats]],
) -> Example:
    """Shuffle, cut at 80 %, and scale both parts by `constants` of the raw training rows."""
    order = np.random.RandomState(SPLIT_SEED).permutation(len(table))
    raw, y = table[order, :-1].astype(np.float32), table[order, -1].astype(np.int64)
    cut = int(TRAIN_SHARE * len(table))
    offset, scale = constants(raw[:cut])
    x = (raw - offset) / scale
    train, test = Rows(x[:cut], y[:cut]), Rows(x[cut:], y[cut:])
    return Example(name, kind, layers, Training(), offset, scale, train, test)


def _mean_and_deviation(raw: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each column, measured in float64."""
    wide = raw.astype(np.float64)
    return wide.mean(axis=0).astype(np.float32), wide.std(axis=0).astype(np.float32)
