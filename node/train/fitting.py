"""One member's part in one round: from the round's model to what it sends and what it keeps."""

from dataclasses import dataclass

from torch import nn

from folkmoot.node.train import local, models
from folkmoot.node.train.objectives import Objective
from folkmoot.node.train.steering import Carried, make_update, shift_of
from folkmoot.node.train.vectors import Vector
from folkmoot.protocol.charter import Training


@dataclass(frozen=True)
class Turn:
    """Whose turn it is in which round, and what it starts from: the model, flat, and what is carried beside it."""

    member: str
    round: int
    start: Vector
    carried: Carried


@dataclass(frozen=True)
class Made:
    """What the member sends, its own vector afterwards (`steering.py`), and the mean loss on the way."""

    sent: Vector
    own: Vector
    loss: float


def fit(
    module: nn.Module,
    objective: Objective,
    rows: local.Rows,
    training: Training,
    turn: Turn,
    on_step: local.OnStep,
    mixed: bool = False,
) -> Made:
    """Train `module`, whose weights are overwritten; raises `TrainerError` where a loss is not finite."""
    models.load_vector(module, turn.start)
    shift = shift_of(training, turn.carried)
    done = local.train(module, objective, rows, training, turn.member, turn.round, on_step, shift, mixed)
    moved = models.to_vector(module) - turn.start
    sent, own = make_update(training, moved, done.steps, models.statistics(module), turn.carried)
    return Made(sent, own, done.loss)
