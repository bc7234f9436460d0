"""Rows dealt unevenly: the class shares of each node are drawn from a Dirichlet distribution (Hsu et al. 2019)."""

import numpy as np
import numpy.typing as npt

from folkmoot.protocol.errors import FolkmootError

PREFIX = "dirichlet:"

LEAST_ROWS = 2
"""Rows that every node gets: of a single one batch normalisation has no variance."""


def concentration_of(split: str) -> float:
    """The A of "dirichlet:A", 0 for any other text. Raises ValueError where A is not a number above 0."""
    if not split.startswith(PREFIX):
        return 0.0
    try:
        found = float(split[len(PREFIX) :])
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise ValueError(f"{split!r}: write a number above 0, such as dirichlet:0.1")
    return found


def deal(
    y: npt.NDArray[np.int64], nodes: int, concentration: float, seed: int
) -> list[npt.NDArray[np.int64]]:
    """The row numbers of each node, ascending; `y` is the class of each row.

    Of every class each node gets a part, the parts drawn from Dirichlet(`concentration`): with 0.1 most nodes have few
    classes, with 100 all are alike. A node with too few rows is given some of the largest. Raises `FolkmootError`.
    """
    if len(y) < LEAST_ROWS * nodes:
        raise FolkmootError(
            f"{len(y)} rows are too few for {nodes} nodes: give --nodes {len(y) // LEAST_ROWS} or less"
        )
    random = np.random.default_rng(seed)
    shares: list[list[npt.NDArray[np.int64]]] = [[] for _ in range(nodes)]
    for value in np.unique(y):
        rows = random.permutation(np.flatnonzero(y == value))
        parts = random.dirichlet(np.full(nodes, concentration))
        edges = (np.cumsum(parts)[:-1] * len(rows)).astype(np.int64)
        for share, part in zip(shares, np.split(rows, edges), strict=True):
            share.append(part)
    dealt = [np.concatenate(share) for share in shares]
    for poor in range(nodes):
        while len(dealt[poor]) < LEAST_ROWS:
            rich = max(range(nodes), key=lambda node: len(dealt[node]))
            dealt[poor], dealt[rich] = np.append(dealt[poor], dealt[rich][-1]), dealt[rich][:-1]
    return [np.sort(rows) for rows in dealt]
