"""Which tensors of a model travel: shared ones are averaged, personal ones stay with each member, frozen ones never
change.

A model's whole vector holds all its tensors in charter order; those of one part, in that order, are that part's vector.
Rounds, scales, codecs and digests know the shared part alone.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.charter_tables import Model, Part, Tensor
from folkmoot.protocol.ring import Float32s

Value = TypeVar("Value", bound=np.generic)


class Parts:
    """Takes whole vectors apart and puts them together; all flat."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        ends = list(accumulate(tensor.size for tensor in tensors))
        self.size = ends[-1]
        self._places: dict[Part, list[slice]] = {"shared": [], "personal": [], "frozen": []}
        for tensor, end in zip(tensors, ends, strict=True):
            self._places[tensor.part].append(slice(end - tensor.size, end))

    def count(self, part: Part) -> int:
        """Length of a part's vector."""
        return sum(place.stop - place.start for place in self._places[part])

    def take(self, whole: NDArray[Value], part: Part) -> NDArray[Value]:
        """A copy of one part."""
        return np.concatenate([whole[place] for place in self._places[part]] or [whole[:0]])

    def put(self, whole: Float32s, part: Part, values: Float32s) -> None:
        """Overwrite one part in place."""
        at = 0
        for place in self._places[part]:
            count = place.stop - place.start
            whole[place] = values[at : at + count]
            at += count

    def join(self, vectors: Mapping[Part, Float32s]) -> Float32s:
        """A whole vector; every part that there is must be given."""
        whole = np.empty(self.size, dtype=np.float32)
        for part, places in self._places.items():
            if places:
                self.put(whole, part, vectors[part])
        return whole

    def spread(self, part: Part, values: Float32s) -> Float32s:
        """A whole vector that is zero but for one part."""
        whole = np.zeros(self.size, dtype=np.float32)
        self.put(whole, part, values)
        return whole


def as_own(tensor: Tensor) -> Tensor:
    """The tensor in a model of the member's own, where all that is not frozen is personal."""
    return tensor if tensor.part == "frozen" else msgspec.structs.replace(tensor, part="personal")


def tensors_of(model: Model, part: Part) -> tuple[Tensor, ...]:
    """The tensors of one part, in their order."""
    return tuple(tensor for tensor in model.tensors if tensor.part == part)


def unshared_refs(model: Model) -> tuple[BlobRef, ...]:
    """What a member needs beside the newest snapshot."""
    both: tuple[Part, ...] = ("personal", "frozen")
    return tuple(ref for part in both if (ref := part_ref(model, part)) is not None)


def part_ref(model: Model, part: Part) -> BlobRef | None:
    """What a part that is not in the snapshot begins as, or stays: its vector as a blob; None if there is no such part.

    Who lacks it has it from any other member.
    """
    root = {"personal": model.personal_start, "frozen": model.frozen_values}.get(part, "")
    return BlobRef(bytes.fromhex(root), 4 * Parts(model.tensors).count(part)) if root else None
