"""One survivor set on its way from the certificate to the open sum: who summed what, what I hold, what was released."""

from collections import defaultdict
from functools import lru_cache

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.events import Value
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.messages import Seeds, Shares, Signed, Sum, SurvivorSet
from folkmoot.protocol.secure.exchange import MaskedExchange
from folkmoot.protocol.types import Digest, MemberId

VALUE_SIZE = 16


def sums_digest(survivors: Digest, roots: tuple[Digest, ...]) -> Digest:
    """What fingerprints and locks name: the masked sums of all shards, in order."""
    return digest("folkmoot/v1/masked-sums", survivors, *roots)


def encode_values(values: tuple[Value, ...]) -> bytes:
    """Fingerprints on the wire: two big-endian 64-bit numbers for each shard."""
    return b"".join(number.to_bytes(8, "big") for value in values for number in value)


@lru_cache(maxsize=1024)
def decode_values(data: bytes) -> tuple[Value, ...]:
    """The other way; the caller has checked the length."""
    numbers = [int.from_bytes(data[at : at + 8], "big") for at in range(0, len(data), 8)]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


class Gathering:
    """Holds no rules (`secure/mode.py` does)."""

    def __init__(self, survivors: SurvivorSet, exchange: MaskedExchange) -> None:
        self.survivors = survivors
        self.digest = survivors.digest
        self.exchange = exchange
        self.members = survivors.members
        circles = exchange.circles
        self.crowds = circles.crowds(survivors)
        self.left_out = {member: circles.left_out(member, survivors) for member in self.members}
        # Sums, by shard: who claims which, and the one that I hold and take for right
        self.claims: list[dict[Digest, Signed]] = [{} for _ in range(exchange.shards)]
        self.held: dict[int, BlobRef] = {}
        self.fetching: set[tuple[int, Digest]] = set()
        self.failed: set[tuple[int, Digest]] = set()
        self.summing: set[int] = set()
        self.recounted: set[int] = set()
        # Fingerprints, by sums digest
        self.checking: set[Digest] = set()
        self.totals: dict[Digest, tuple[tuple[Value, ...], ...]] = {}
        self.mine: dict[Digest, tuple[Value, ...]] = {}
        self.measured: defaultdict[tuple[Digest, MemberId], dict[int, Value]] = defaultdict(dict)
        self.measuring: set[tuple[Digest, MemberId, int]] = set()
        self.verified: Digest | None = None
        self.accused: set[MemberId] = set()
        # Released
        self.seeds: dict[MemberId, Seeds] = {}
        self.shares: dict[MemberId, Shares] = {}
        self._dealt_by: defaultdict[MemberId, dict[int, bytes]] = defaultdict(dict)
        self.unmasking = False
        self.given_up = False
        self.failed_here = False

    def begin_anew(self) -> None:
        """Something that I held is gone from my disk: fetch and sum again; what is still there comes at once."""
        self.failed_here = self.unmasking = False
        self.held.clear()
        self.fetching.clear()
        self.summing.clear()
        self.recounted.clear()
        self.checking &= set(self.totals)
        self.measuring = {(*key, shard) for key, shards in self.measured.items() for shard in shards}
        exchange = self.exchange
        others = {part for part in exchange.parts if part[0] != exchange.me}
        exchange.parts -= others
        exchange.asked -= others

    @property
    def sums(self) -> tuple[BlobRef, ...] | None:
        """The sums of all shards, once I hold them all."""
        if len(self.held) < self.exchange.shards:
            return None
        return tuple(self.held[shard] for shard in range(self.exchange.shards))

    @property
    def sums_digest(self) -> Digest | None:
        """Their name."""
        sums = self.sums
        return None if sums is None else sums_digest(self.digest, tuple(ref.root for ref in sums))

    @property
    def signed_sums(self) -> tuple[Signed, ...]:
        """Somebody's word for each sum that I hold, in order; only those that there are."""
        held = sorted(self.held.items())
        return tuple(self.claims[shard][ref.root] for shard, ref in held if ref.root in self.claims[shard])

    def add_claim(self, signed: Signed) -> None:
        """A verified `Sum`; of those who claim the same the first is kept, of one who claims many two."""
        assert isinstance(signed.body, Sum)
        shard, claims = signed.body.shard, self.claims[signed.body.shard]
        held = self.held[shard].root if shard in self.held else None
        idle = [root for root, other in claims.items() if other.member == signed.member and root != held]
        if signed.body.root not in claims and len(idle) > 1:
            del claims[idle[-1]]
        claims.setdefault(signed.body.root, signed)

    @property
    def disputed(self) -> list[int]:
        """Shards of which different sums are claimed, and that I have not summed myself."""
        return [
            shard
            for shard, claims in enumerate(self.claims)
            if len(claims) > 1 and shard not in self.recounted
        ]

    @property
    def seedless(self) -> set[MemberId]:
        """Survivors that have yet to release their seeds with members of their circle that are left out."""
        return {member for member, gone in self.left_out.items() if gone and member not in self.seeds}

    @property
    def has_seeds(self) -> bool:
        """Whether the masks towards those left out can be taken off."""
        return not self.seedless

    def new_shares(self, shares: Shares) -> Shares:
        """Those of a frame that are not known."""
        known = dict(self.shares[shares.member].shares) if shares.member in self.shares else {}
        news = tuple(pair for pair in shares.shares if pair[0] not in known)
        return Shares(shares.round, shares.survivors, shares.member, news)

    def add_shares(self, shares: Shares) -> None:
        """Verified shares of one holder, besides those that are known."""
        known = self.shares[shares.member].shares if shares.member in self.shares else ()
        pairs = dict((*known, *shares.shares))
        merged = tuple((dealer, pairs[dealer]) for dealer in sorted(pairs))
        self.shares[shares.member] = Shares(shares.round, shares.survivors, shares.member, merged)
        for dealer, value in shares.shares:
            self._dealt_by[dealer][shares.member + 1] = value

    def shares_of(self, member: MemberId) -> dict[int, bytes]:
        """Released shares of a survivor's self-mask, by the place on its polynomial."""
        return self._dealt_by[member]
