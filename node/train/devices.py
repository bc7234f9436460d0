"""Which device this member computes on: its own choice, in node.toml."""

import torch

from folkmoot.node.config import Device
from folkmoot.node.train.wire import TrainerError


def choose_device(wanted: Device) -> torch.device:
    """`auto` takes a GPU where there is one; raises `TrainerError` where one is asked for that cannot be used."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if reason := _why_not():
        raise TrainerError(
            "device", f"trainer.device = 'cuda', but {reason}; set 'cpu' or 'auto' in node.toml"
        )
    return torch.device("cuda")


def _why_not() -> str:
    """Why there is no GPU; empty if there is one."""
    if torch.cuda.is_available():
        return ""
    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) is built without CUDA"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        return f"CUDA does not start: {str(error).splitlines()[0]}"
    return "torch finds no GPU"
