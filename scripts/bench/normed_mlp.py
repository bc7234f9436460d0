"""A custom model with one hidden layer that is normed by batches: `model.source = "normed_mlp:build"`."""

from collections import OrderedDict

from torch import nn

WIDTH = 16


def build(features: int, outputs: int) -> nn.Module:
    """Tensors `first`, `norm` and `last`: what a member may keep to itself."""
    return nn.Sequential(
        OrderedDict(
            first=nn.Linear(features, WIDTH),
            norm=nn.BatchNorm1d(WIDTH),
            relu=nn.ReLU(),
            last=nn.Linear(WIDTH, outputs),
        )
    )
