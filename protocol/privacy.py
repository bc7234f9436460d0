"""What a member spends of its privacy budget, and the log in which it stands: pure rules, for nodes and auditors alike.

The log (HOME/privacy.jsonl) has a line of JSON for whose it is, then one for each update that may have left the node.
Every line is chained to those before it, and READY commits to the chain with a salt that the line holds:

    chain(0) = H("folkmoot/v1/privacy-chain", zeros, first line)
    chain(n) = H("folkmoot/v1/privacy-chain", chain(n-1), line n)
    READY.privacy_log = H("folkmoot/v1/privacy-log", salt of line n, chain(n))

Who has the log can therefore check that no line was left out or changed since; who has not, learns nothing from READY.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import Hex32, Name, Privacy
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.types import Digest, Round

MAX_LINE = 4096
"""Bytes of the longest line."""

_L = TypeVar("_L", "Owner", "Spending")
_Share = Annotated[float, Meta(gt=0, le=1)]
_Positive = Annotated[float, Meta(gt=0, le=1e9)]


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the log's lines: immutable, nothing unknown."""


class Cost(_Line, frozen=True, kw_only=True, omit_defaults=True):
    """What one update costs: `steps` mechanisms on Poisson samples.

    Every row is in a step's sample with the chance `sample_rate`; the noise has `noise` times the deviation that one
    row may move the sum by. It is Gaussian, or Skellam noise on so many whole `values`, which one row moves by `bound`
    at most (L2 norm).
    """

    sample_rate: _Share
    noise: _Positive
    steps: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    bound: Annotated[float, Meta(ge=0, le=2**31)] = 0.0
    values: Annotated[int, Meta(ge=0, le=2**48)] = 0


class Owner(_Line, frozen=True, kw_only=True):
    """The log's first line: of which member, in which federation (hex)."""

    format: Literal["folkmoot/v1/privacy"] = "folkmoot/v1/privacy"
    federation: Hex32
    member: Name


class Spending(_Line, frozen=True, kw_only=True):
    """One update that left the node, or may have. `epsilon`: what all of the window had cost with it, by the node.

    `clip` is the charter's, `base` (hex) the model that was trained on.
    """

    round: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    base: Hex32
    cost: Cost
    clip: str
    epsilon: Annotated[float, Meta(ge=0)]
    salt: Hex32


@dataclass(frozen=True, slots=True)
class Logged:
    """A line of the log with the chain up to it."""

    spending: Spending
    chain: Digest

    @property
    def commitment(self) -> Digest:
        """What READY says of it."""
        return digest("folkmoot/v1/privacy-log", bytes.fromhex(self.spending.salt), self.chain)


@dataclass(frozen=True, slots=True)
class Log:
    """A whole log, as read."""

    owner: Owner
    chain: Digest
    lines: tuple[Logged, ...] = ()

    @classmethod
    def begin(cls, owner: Owner) -> "Log":
        """An empty one."""
        return cls(owner, _chain(bytes(32), encode_line(owner)))

    def add(self, spending: Spending) -> "Log":
        """The log with one more line."""
        chain = _chain(self.chain, encode_line(spending))
        return Log(self.owner, chain, (*self.lines, Logged(spending, chain)))

    def costs(self, charter: Charter, round_: Round) -> list[Cost]:
        """What was spent in the window that `round_` is in."""
        window = window_of(charter, round_)
        return [one.spending.cost for one in self.lines if one.spending.round in window]

    def spent(self, charter: Charter, round_: Round) -> float:
        """Epsilon of that window by the node's own word; 0 before its first update."""
        window = window_of(charter, round_)
        return max((one.spending.epsilon for one in self.lines if one.spending.round in window), default=0.0)


def encode_line(line: Owner | Spending) -> bytes:
    """A line's bytes, without the newline."""
    return msgspec.json.encode(line)


def read_log(text: bytes) -> Log:
    """A log from its bytes; raises `RemoteProtocolError` for anything that is not, byte for byte, one.

    A last line without its newline was being written when the node died: its update never left, so it does not count.
    """
    first, *rest = text.split(b"\n")[:-1] or [b""]
    log = Log.begin(_decode(first, Owner, 1))
    lines, chain = [], log.chain
    for number, data in enumerate(rest, start=2):
        spending = _decode(data, Spending, number)
        chain = _chain(chain, data)
        lines.append(Logged(spending, chain))
    return Log(log.owner, chain, tuple(lines))


def _chain(before: Digest, line: bytes) -> Digest:
    return digest("folkmoot/v1/privacy-chain", before, line)


def _decode(data: bytes, kind: type[_L], number: int) -> _L:
    try:
        line = msgspec.json.decode(data[: MAX_LINE + 1], type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"line {number} of the privacy log cannot be read: {error}") from error
    if encode_line(line) != data:
        raise RemoteProtocolError(f"line {number} of the privacy log is not as a node writes it")
    return line


def window_of(charter: Charter, round_: Round) -> range:
    """The rounds that share a budget with `round_`."""
    window = charter.privacy.window
    if not window:
        return range(1, 2**63)
    first = round_ - (round_ - 1) % window
    return range(first, first + window)


def planned_rounds(charter: Charter) -> int:
    """For how many rounds one budget is to last."""
    rounds = charter.schedule.rounds
    return min(charter.privacy.window or rounds, rounds)


def grouped(costs: Iterable[Cost]) -> list[Cost]:
    """The same costs, equal ones as one with all their steps: a sum does not depend on its order."""
    steps: dict[Cost, int] = {}
    for cost in costs:
        key = msgspec.structs.replace(cost, steps=1)
        steps[key] = steps.get(key, 0) + cost.steps
    return [msgspec.structs.replace(cost, steps=count) for cost, count in steps.items()]


# --- the charter's table --------------------------------------------------------------------------------------------


def wrong_numbers(privacy: Privacy) -> Iterator[str]:
    """What of the table makes no sense, in words."""
    for name in ("epsilon", "clip"):
        value = getattr(privacy, name)
        if not 1e-6 <= float(value) <= 1e6:
            yield f"privacy.{name} = {value}: it must be from 1e-6 to 1e6"
    if not 1e-15 <= float(privacy.delta) <= 0.01:
        yield (
            f"privacy.delta = {privacy.delta}: the chance that the promise fails must be well below one in the number "
            "of rows, such as 0.00001; at least 1e-15, at most 0.01"
        )
    if float(privacy.noise) and not 0.05 <= float(privacy.noise) <= 1e6:
        yield f"privacy.noise = {privacy.noise}: it is a multiple of privacy.clip, from 0.05 to 1e6 (0: computed)"


def describe_privacy(charter: Charter) -> Iterator[str]:
    """What the table means, one sentence each."""
    if not charter.is_private:
        return
    privacy = charter.privacy
    noise = (
        f"{privacy.noise} times that"
        if float(privacy.noise)
        else f"as much as lets {planned_rounds(charter)} rounds just fit the budget"
    )
    rounds = f"every {privacy.window} rounds" if privacy.window else "all rounds"
    if privacy.mechanism == "secure":
        yield (
            f"single rows are hidden: of a row's gradient a length of {privacy.clip} counts, a round is one step, and "
            f"every member adds a share of noise under its mask, {privacy.noise} times that in all"
        )
    else:
        yield (
            f"single rows are hidden (DP-SGD): of a row's gradient a length of {privacy.clip} counts, and every member "
            f"adds noise, {noise}"
        )
    yield (
        f"what is seen of a row in {rounds} costs at most epsilon {privacy.epsilon} at delta {privacy.delta}; a member "
        "whose budget is spent takes no part"
    )
    yield "updates count alike and no measures of held-out rows are told, since both would speak of rows too"
