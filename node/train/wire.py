"""What daemon and trainer process say to each other: small framed messages over the trainer's own pipes.

A frame is a length (unsigned 32-bit, little-endian) and that many bytes of msgpack. Vectors never travel
here: they cross as flat little-endian float32 files whose paths are in the messages. Both sides import this
file, so it knows neither torch nor trio.
"""

import os
import struct
from typing import Any, Literal, TypeAlias

import msgspec

from folkmoot.node.config import Device
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import Model, Privacy, Training
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.privacy import Cost, planned_rounds
from folkmoot.protocol.schema import Schema
from folkmoot.protocol.secure.masked_noise import NoisePlan, plan_noise

MAX_FRAME = 8 << 20
"""Bytes of the longest body; a layout of 50,000 tensors still fits."""

HEADER = struct.Struct("<I")

FailureKind: TypeAlias = Literal[
    "crash",
    "stalled",
    "memory",
    "limit",
    "data",
    "model",
    "device",
    "non_finite",
    "budget",
    "protocol",
    "error",
]
"""Why training failed: the process died or fell silent, had no memory, would go beyond the node's limits, could not use
the member's data, was given a model that is not the charter's or a device that is not there, produced NaN or infinity,
would cost more privacy than the charter allows, spoke nonsense on its pipe, or raised anything else."""

Metrics: TypeAlias = dict[str, float]
"""Measures of a model on the member's held-out data (`protocol/metrics.py`); empty where it holds none out."""


OWN, PERSONAL = "own", "personal"
"""Vectors that a member keeps, flat float32: its correction's (`steering.py`), its personal tensors. Under the names
in `config.py` two models of its own, without the frozen tensors: one that is held near the federation's (Ditto), one
that learns from its rows alone (`beside.py`)."""


class TrainerError(FolkmootError):
    """Local training failed. It costs this round's update, never the node."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(f"trainer: {detail}")
        self.kind = kind
        self.detail = detail


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Base of the messages: immutable, nothing unknown, told apart by their name."""


class Task(_Message, frozen=True):
    """First frame to a new trainer: whose training, of what model, on which safetensors files.

    Both files hold `x` float32 (rows, features) and `y` (rows,): int64 classes, or float32 for a regression. Where
    `test` does not exist nothing is measured. `data` is the charter's schema, `source` the file of a custom model;
    `mixed` asks for bfloat16 where the device has it, `max_steps` (0: no) bounds a round's steps. The budget of
    `privacy` is to last for `planned` rounds; `plan` is how its noise lies
    under the masks, if it does. `personal` and `frozen` are the files of what such tensors begin as,
    flat; they may not be there before the first request. `ditto` is that model's lambda (0: without).
    The process takes no more than `max_memory` bytes (0: no bound).
    """

    member: str
    model: Model
    training: Training
    train: str
    test: str
    threads: int = 1
    data: Schema | None = None
    source: str = ""
    device: Device = "cpu"
    mixed: bool = False
    max_steps: int = 0
    privacy: Privacy = Privacy()
    planned: int = 1
    plan: NoisePlan | None = None
    personal: str = ""
    frozen: str = ""
    ditto: float = 0.0
    max_memory: int = 0


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A vector that the member keeps: the file that it is in (empty: none yet), and where its next value goes."""

    before: str
    after: str


class Fit(_Message, frozen=True):
    """Train from the snapshot in file `base`, which begins with the shared tensors; write what is to be sent to file
    `update`.

    That is trained minus base, unless the charter says more (`steering.py`). `kept` names the files of what the member
    keeps, each of which is to be written anew. `fragment`: only the values [start, stop) are sent, filled up with zeros
    to the third number; what was learnt of the others is kept (`fitting.py`). `spent` is what the updates before cost,
    which share a privacy budget with this one.
    """

    id: int
    round: int
    base: str
    update: str
    kept: dict[str, Kept] = {}
    fragment: tuple[int, int, int] | None = None
    spent: tuple[Cost, ...] = ()


class Evaluate(_Message, frozen=True):
    """Measure the snapshot in file `model` on the held-out data; `kept` are the files of what the member keeps."""

    id: int
    model: str
    kept: dict[str, str] = {}


class Cancel(_Message, frozen=True):
    """Drop request `id` and all before it; nothing is answered to them any more."""

    id: int


class Ready(_Message, frozen=True):
    """First frame from a trainer: model and data are loaded."""

    pid: int
    examples: int


class Progress(_Message, frozen=True):
    """Still at work on request `id`: `done` of `total` steps."""

    id: int
    done: int
    total: int


class Fitted(_Message, frozen=True):
    """The update is in its file. `metrics` are the base's, measured before training; `beside` those of own models.

    `cost` is what it costs of the privacy budget, `epsilon` what all of it come to with this one.
    """

    id: int
    num_examples: int
    train_loss: float
    metrics: Metrics
    beside: dict[str, Metrics] = {}
    cost: Cost | None = None
    epsilon: float = 0.0


class Evaluated(_Message, frozen=True):
    """The answer to `Evaluate`; `beside` are the measures of the member's own models."""

    id: int
    metrics: Metrics
    beside: dict[str, Metrics] = {}


class Failed(_Message, frozen=True):
    """Request `id` (0: the start itself) failed."""

    id: int
    kind: FailureKind
    detail: str


Request: TypeAlias = Task | Fit | Evaluate | Cancel
Reply: TypeAlias = Ready | Progress | Fitted | Evaluated | Failed

_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def terms_of(charter: Charter) -> dict[str, Any]:
    """What of a `Task` an amendment may change."""
    return {
        "training": charter.training,
        "privacy": charter.privacy,
        "planned": planned_rounds(charter),
        "plan": plan_noise(charter),
    }


def encode(message: Request | Reply) -> bytes:
    """The whole frame of `message`."""
    body = msgspec.msgpack.encode(message)
    return HEADER.pack(len(body)) + body


def body_size(header: bytes) -> int:
    """The length that a frame's header announces; raises `TrainerError` above `MAX_FRAME`."""
    (size,) = HEADER.unpack(header)
    if size > MAX_FRAME:
        raise TrainerError("protocol", f"a frame of {size} bytes; at most {MAX_FRAME} are allowed")
    return int(size)


def decode_request(body: bytes) -> Request:
    """A message to the trainer; raises `TrainerError`."""
    try:
        return _requests.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TrainerError("protocol", f"a request that cannot be read: {error}") from error


def decode_reply(body: bytes) -> Reply:
    """A message from the trainer; raises `TrainerError`."""
    try:
        return _replies.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TrainerError("protocol", f"a reply that cannot be read: {error}") from error


def read_exactly(fd: int, size: int) -> bytes:
    """`size` bytes from a blocking pipe, or fewer where it ends first."""
    pieces = []
    while size and (piece := os.read(fd, min(size, 1 << 20))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def read_request(fd: int) -> Request | None:
    """The next message from a blocking pipe; None at its end. Raises `TrainerError`."""
    header = read_exactly(fd, HEADER.size)
    if len(header) < HEADER.size:
        return None
    size = body_size(header)
    body = read_exactly(fd, size)
    return decode_request(body) if len(body) == size else None


def write_reply(fd: int, message: Reply) -> None:
    """Write `message` to a blocking pipe, whole."""
    frame = memoryview(encode(message))
    while frame:
        frame = frame[os.write(fd, frame) :]
