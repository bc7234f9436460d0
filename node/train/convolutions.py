"""The built-in model for images: convolutions that halve the sides, then one layer to the outputs."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

KERNEL = 3


class Image(nn.Module):
    """Flat rows (n, height * width * channels), channels fastest, as (n, channels, height, width)."""

    def __init__(self, height: int, width: int, channels: int) -> None:
        super().__init__()
        self._height, self._width, self._channels = height, width, channels

    def forward(self, rows: Tensor) -> Tensor:
        """The same values as images."""
        return rows.reshape(-1, self._height, self._width, self._channels).permute(0, 3, 1, 2)


def cnn(layers: Sequence[int], image: Sequence[int]) -> nn.Module:
    """For each width between inputs and outputs a 3x3 convolution to so many channels, ReLU and 2x2 max pooling.

    Its tensors are called `conv1.weight`, ..., `head.bias`. `image`: height, width and channels of a row.
    """
    height, width, channels = image
    module = nn.Sequential()
    module.add_module("image", Image(height, width, channels))
    for number, (before, after) in enumerate(pairwise((channels, *layers[1:-1])), 1):
        module.add_module(f"conv{number}", nn.Conv2d(before, after, KERNEL, padding=KERNEL // 2))
        module.add_module(f"relu{number}", nn.ReLU())
        module.add_module(f"pool{number}", nn.MaxPool2d(2))
    halvings = len(layers) - 2
    module.add_module("flat", nn.Flatten())
    module.add_module("head", nn.Linear((height >> halvings) * (width >> halvings) * layers[-2], layers[-1]))
    return module
