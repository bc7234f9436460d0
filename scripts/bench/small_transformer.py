"""A small transformer over characters, as a custom model: `model.source = "small_transformer:build"`.

A row is the last `features` characters, as their numbers in float32; the scores are for the character that comes next.
"""

import torch
from torch import Tensor, nn

WIDTH, HEADS = 32, 4


class Block(nn.Module):
    """Attention, then a network of two layers, each added to its normed input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.network = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor, places: int, mask: Tensor | None = None) -> Tensor:
        """(rows, length, width) to the last so many `places` of it."""
        normed = self.norm(x)
        seen, _ = self.attention(normed[:, -places:], normed, normed, attn_mask=mask, need_weights=False)
        x = x[:, -places:] + seen
        return x + self.network(self.norm2(x))


class SmallTransformer(nn.Module):
    """Characters and their places embedded, a block over all places, one for the last of them, and scores."""

    def __init__(self, length: int, characters: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(characters, WIDTH)
        self.places = nn.Parameter(torch.randn(length, WIDTH) * 0.02)
        self.first, self.last = Block(), Block()
        self.norm, self.scores = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, characters)
        later = torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)
        self.register_buffer("later", later, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, length) float32 to (rows, characters)."""
        hidden = self.first(self.characters(x.long()) + self.places, x.shape[1], self.later)
        scores: Tensor = self.scores(self.norm(self.last(hidden, 1)[:, 0]))
        return scores


def build(features: int, outputs: int) -> nn.Module:
    """The charter's model: `features` characters are read, one of `outputs` comes next."""
    return SmallTransformer(features, outputs)
