"""Does the charter's model work? `python -m folkmoot.node.train.check SOURCE`, with the charter as msgpack on stdin.

Builds the model (SOURCE is the file of a custom one, else empty), compares its tensors with the charter's and runs it
and its loss once, forward and backward, on rows of zeros. A process of its own: it imports torch and what the model
imports.
"""

import sys

import msgspec
import torch

from folkmoot.node.train.models import build_charter_model, check_forward
from folkmoot.node.train.objectives import make_objective
from folkmoot.node.train.wire import TrainerError
from folkmoot.protocol.charter import Charter


def check_model(charter: Charter, source: str) -> None:
    """Raise `TrainerError` saying what is wrong with the model; `source` is the file of a custom one."""
    features = charter.model.features
    objective = make_objective(charter.data, charter.model.outputs)
    module = build_charter_model(charter.model, source)
    check_forward(module, features, objective)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise TrainerError("model", "the model has no parameter that training could change")
    kind = torch.int64 if objective.classes else torch.float32
    loss = objective.loss(module(torch.zeros(2, features)), torch.zeros(2, dtype=kind))
    torch.autograd.grad(loss, trained, materialize_grads=True)
    if charter.is_private:
        from folkmoot.node.train.private import check_private

        check_private(module, features, objective)


def main(arguments: list[str]) -> int:
    """Check the model of the charter on standard input; the exit status."""
    charter = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Charter)
    try:
        check_model(charter, arguments[0])
    except TrainerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
