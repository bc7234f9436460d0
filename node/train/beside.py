"""Models that a member trains for itself beside the federation's, from the same rows in the same order.

Ditto (Li et al. 2021): gradient += lambda (v - x), where x is the federation's model of the round and v the member's
own, which is carried on from round to round. With lambda 0 that is a model which learns from this member's rows alone:
what the federation has to be better than. Nobody else gets to see either; neither has a part in what is sent.
"""

import sys

import msgspec
import numpy as np
from torch import nn

from folkmoot.node.train import local, models
from folkmoot.node.train.objectives import Objective
from folkmoot.node.train.vectors import Vector
from folkmoot.node.train.wire import TrainerError
from folkmoot.protocol.charter_tables import Training


def train_beside(
    module: nn.Module,
    objective: Objective,
    rows: local.Rows,
    training: Training,
    turn: tuple[str, int],
    own: Vector,
    common: Vector,
    pull: float,
    on_step: local.OnStep,
) -> Vector:
    """One round of the member's own model `own`, held to `common` by `pull` (Ditto's lambda); both whole vectors.

    `turn` is (member, round). A model that runs off to infinity is taken back to where it was: it costs no round.
    """
    alone = msgspec.structs.replace(training, prox=repr(pull), correction="none", normalize_to=0)
    # prox pulls to where training began, which is `own`: the rest of the way to `common` is the same in every step.
    shift = np.float32(pull) * (own - common) if pull else None
    models.load_vector(module, own)
    try:
        local.train(module, objective, rows, alone, *turn, on_step, shift)
    except TrainerError as error:
        if error.kind != "non_finite":
            raise
        print(f"this member's own model was left as it was: {error.detail}", file=sys.stderr)
        return own
    after = models.to_vector(module)
    return after if np.isfinite(after).all() else own
