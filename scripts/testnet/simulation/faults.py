"""What may go wrong in a simulation."""

from dataclasses import dataclass, fields, replace

from folkmoot.protocol.toml import ConfigError
from folkmoot.protocol.types import MemberId

Members = tuple[MemberId, ...]

CHANGES = ("joins", "leaves", "suspensions", "rotations", "new_terms")
"""The fields of `Faults` that count changes of the charter."""

LIES = (
    "two_faced",
    "contradicting",
    "agreeing",
    "silent",
    "biased",
    "flooding",
    "stale",
    "forging",
    "boasting",
    "begging",
    "huge_scales",
    "garbage",
    "withholding",
    "wrong_sums",
    "wrong_prints",
    "bad_shares",
    "odd_seeds",
)
"""The fields of `Faults` that name members who break a rule."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What may go wrong before `until` (virtual seconds); after it every link is whole and every node comes back.

    *Links.* `loss`, `duplicate` and `replay` (the same message again, up to a minute later) are probabilities.
    `latency` bounds the seconds that a message takes; every pair has its own upper bound between them, so messages
    overtake each other. `bandwidth` is bytes a second in each direction of each pair (0: any). With `crossing`
    everybody hears of the votes of an attempt, and of its locks, either at once or all together up to so many seconds
    later: attempts cross each other (`crossing.py`). `partitions` cut the honest in two for a while.

    *Nodes.* `crashes` happen between two events, `broken_off` inside the effects of one (biased to the edges of a
    Persist); both end in a restart from the journal. `freezes` stop a node for a while without its knowing. `dead`
    members stop for good at some moment. Everything takes `slow` members `SLOWNESS` times as long. Clocks go wrong by
    up to the part `skew`, and begin anywhere. `fit_failure` is a probability. The privacy budget of `spent` members
    allows no update.

    *Ledger.* A block every `ledger` seconds, final under `finality` others; `reorgs` undo blocks that are not final,
    `outages` take the RPC of one member or of all away for a while. `undone` times blocks are undone that were final:
    nodes that saw them stop, until their operators accept the chain.

    *Disks.* `emptied` members come back once with an empty journal, `outdated` ones with a disk of some time ago: they
    recall, and sit out. When final blocks are undone, `restored` members go back to a backup of that moment too, and
    sign anew without asking: if they are more than may be faulty, there are two histories, and the record decides.

    *Charters.* So many times somebody new `joins` (or comes back), somebody `leaves`, is suspended (`suspensions`) or
    has new keys (`rotations`), or other terms change (`new_terms`): with an amendment on the ledger, in force from a
    stated round on. Those who join have the numbers after the founders'. Where an amendment would leave too few members
    to count on, or comes too late, there is none.

    *Lies*, for all time, also of those who join. `two_faced` members are two nodes each, of which every other member
    sees one. `contradicting` ones sign a second, different body now and then. `agreeing` ones sign every vote and lock
    that they hear, for whom they hear it from alone. `silent` ones propose nothing; `biased` ones do not hear the
    honest member with the smallest id, which they so leave out. `flooding` ones send what is of no use, `stale` ones
    what they heard earlier, `forging` ones what others never signed. `boasting` ones say that they are further than
    they are, and remember nothing that others signed; `begging` ones ask again and again for all that a late member
    needs. `huge_scales`: the largest exponents that a READY may have. `garbage`: payloads that are none.
    `withholding`: nobody gets their payloads, shards or sums. In secure mode `wrong_sums` members add one to a value
    of every sum that they make, `wrong_prints` sign fingerprints that are not those of their shards, `bad_shares` deal
    shares that do not fit, `odd_seeds` mask with other pair seeds than their peers. With `coordinated` liars show the
    same faces to the same members, and their faces keep apart.
    """

    until: float = 60.0
    loss: float = 0.0
    duplicate: float = 0.0
    replay: float = 0.0
    latency: tuple[float, float] = (0.005, 0.05)
    bandwidth: float = 0.0
    crossing: float = 0.0
    partitions: int = 0
    crashes: int = 0
    broken_off: int = 0
    freezes: int = 0
    fit_failure: float = 0.0
    spent: Members = ()
    slow: Members = ()
    skew: float = 0.0
    dead: Members = ()
    ledger: float = 0.2
    finality: int = 0
    reorgs: int = 0
    outages: int = 0
    undone: int = 0
    emptied: Members = ()
    outdated: Members = ()
    restored: Members = ()
    joins: int = 0
    leaves: int = 0
    suspensions: int = 0
    rotations: int = 0
    new_terms: int = 0
    two_faced: Members = ()
    contradicting: Members = ()
    agreeing: Members = ()
    silent: Members = ()
    biased: Members = ()
    flooding: Members = ()
    stale: Members = ()
    forging: Members = ()
    boasting: Members = ()
    begging: Members = ()
    huge_scales: Members = ()
    garbage: Members = ()
    withholding: Members = ()
    wrong_sums: Members = ()
    wrong_prints: Members = ()
    bad_shares: Members = ()
    odd_seeds: Members = ()
    coordinated: bool = False

    @property
    def liars(self) -> frozenset[MemberId]:
        """Members that break a rule, other than by being away."""
        return frozenset(member for lie in LIES for member in getattr(self, lie))

    @property
    def doubted(self) -> frozenset[MemberId]:
        """Members whose word nobody holds them to: they lie, or sign anew what they have forgotten."""
        return self.liars | set(self.restored)

    @property
    def rewound(self) -> frozenset[MemberId]:
        """Members whose disk goes back in time."""
        return frozenset((*self.emptied, *self.outdated, *self.restored))

    @property
    def lost(self) -> frozenset[MemberId]:
        """Members on whom nobody can count."""
        return self.liars | set(self.dead)


def format_faults(faults: Faults) -> str:
    """The fields that are not as usual, as `parse_faults` reads them: `loss=0.1,two_faced=0+2`."""
    changed = {
        field.name: getattr(faults, field.name)
        for field in fields(Faults)
        if getattr(faults, field.name) != field.default
    }
    return ",".join(
        f"{name}={'+'.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in changed.items()
    )


def parse_faults(text: str) -> Faults:
    """Read `format_faults` back; raises `ConfigError`."""
    usual, changed = Faults(), {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in {field.name for field in fields(Faults)}:
            raise ConfigError(f"no fault is called {name!r}; see folkmoot.testnet.simulation.faults")
        try:
            changed[name] = _value(getattr(usual, name), value)
        except ValueError:
            raise ConfigError(f"{part}: expected numbers, several joined by '+'") from None
    return replace(usual, **changed)  # type: ignore[arg-type]


def _value(usual: object, text: str) -> object:
    if isinstance(usual, bool):
        return {"True": True, "False": False}[text]
    numbers = tuple(_number(one) for one in text.split("+") if one)
    if isinstance(usual, tuple):
        return numbers
    (number,) = numbers
    return number


def _number(text: str) -> float | int:
    return float(text) if "." in text or "e" in text else int(text)
