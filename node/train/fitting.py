"""One member's part in one round: from the round's model to what it sends and what it keeps."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from torch import nn

from folkmoot.node.train import local, models
from folkmoot.node.train.noise import Noise
from folkmoot.node.train.objectives import Objective
from folkmoot.node.train.steering import Carried, make_update, shift_of
from folkmoot.node.train.vectors import Fragment, Vector
from folkmoot.node.train.wire import TrainerError
from folkmoot.protocol.charter_tables import Training
from folkmoot.protocol.parts import Parts


@dataclass(frozen=True)
class Turn:
    """Whose turn it is in which round, and what it starts from: the whole model, flat, its parts, and what is carried
    beside it.
    """

    member: str
    round: int
    start: Vector
    carried: Carried
    parts: Parts
    fragment: Fragment | None = None


@dataclass(frozen=True)
class Made:
    """What the member sends, its own vector afterwards (`steering.py`), its personal tensors, and the mean loss on the
    way.
    """

    sent: Vector
    own: Vector
    personal: Vector
    loss: float


def fit(
    module: nn.Module,
    objective: Objective,
    rows: local.Rows,
    training: Training,
    turn: Turn,
    on_step: local.OnStep,
    mixed: bool = False,
    noise: Noise | None = None,
) -> Made:
    """Train `module`, whose weights are overwritten; with `noise`, such that no single row shows.

    Raises `TrainerError` where a loss is not finite.
    """
    parts = turn.parts
    begin = turn.start
    if turn.fragment is not None:
        begin = begin + parts.spread("shared", turn.carried.own)
    models.load_vector(module, begin)
    if noise is not None and noise.plan is not None:
        return _masked_step(module, objective, rows, turn, noise)
    steered = shift_of(training, turn.carried)
    shift = None if steered is None else parts.spread("shared", steered)
    mixed = mixed and noise is None  # per-row gradients are computed in float32
    with _source(module, objective, rows, noise) as source:
        done = local.train(
            module, objective, rows, training, turn.member, turn.round, on_step, shift, mixed, source
        )
    trained = models.to_vector(module)
    moved = parts.take(trained - turn.start, "shared")
    statistics = models.statistics(module)
    if noise is not None and (trained != turn.start)[statistics].any():
        raise TrainerError(
            "model", "privacy: a layer keeps statistics of the rows, which no noise would hide"
        )
    is_statistic = parts.take(statistics, "shared")
    if turn.fragment is not None:
        sent, own = turn.fragment.cut(moved)
    else:
        sent, own = make_update(training, moved, done.steps, is_statistic, turn.carried)
    return Made(sent, own, parts.take(trained, "personal"), done.loss)


def _masked_step(module: nn.Module, objective: Objective, rows: local.Rows, turn: Turn, noise: Noise) -> Made:
    """The round's one step, for noise that is added under the mask; nothing personal goes with it."""
    from folkmoot.node.train.private import masked_step

    vector, loss = masked_step(module, objective, rows, noise)
    parts = turn.parts
    return Made(parts.take(vector, "shared"), turn.carried.own, parts.take(turn.start, "personal"), loss)


@contextmanager
def _source(
    module: nn.Module, objective: Objective, rows: local.Rows, noise: Noise | None
) -> Iterator[Iterator[local.Step] | None]:
    """Where gradients come from; None: from batches as they are."""
    if noise is None:
        yield None
        return
    from folkmoot.node.train.private import private_steps  # Opacus: a second that others need not wait

    with closing(private_steps(module, objective, rows, noise)) as steps:
        yield steps
