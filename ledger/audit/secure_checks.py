"""What differs in secure mode: checks 16 and 18 to 22. No secret is needed for any of them.

The numbers are those of `checks.py`. The rules are the protocol's (`folkmoot.protocol.secure.verify`); here is where
their material comes from. A check returns if all is well, raises `RemoteProtocolError` if a rule is broken, `Lacking`
if something is missing, and `Convicted` if somebody's signature proves that it lied.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from folkmoot.ledger.audit.round_checks import Case, Frame, commitments_of, verify_named_commitments
from folkmoot.ledger.audit.sources import Convicted, Lacking, NotJudged, read_pieces
from folkmoot.protocol.aggregate import Aggregate
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.events import Value
from folkmoot.protocol.messages import Commitment, Fingerprint, Lock, Signed, Unmasking
from folkmoot.protocol.outer import Outer, in_memory
from folkmoot.protocol.pieces import Buffer, Open
from folkmoot.protocol.ring import Float32s
from folkmoot.protocol.robust import Robust
from folkmoot.protocol.secure import verify
from folkmoot.protocol.secure.encoding import RingDecoder
from folkmoot.protocol.secure.fingerprint import Challenge, challenge_seed
from folkmoot.protocol.secure.fingerprint import verify as adds_up
from folkmoot.protocol.secure.stream import Opening, open_sum
from folkmoot.protocol.secure.verify import MaskedRound, Releases
from folkmoot.protocol.types import MemberId


def check_commitments(case: Case, frame: Frame) -> None:
    """(16) Every survivor signed the commitment that is named, it is well-formed, and pairs agree on their seeds."""
    verify_named_commitments(case, frame)
    verify.verify_commitments(masked_round(case, frame))


def check_shards(case: Case, frame: Frame) -> None:
    """(18) Masked shards that an archive still has are what was committed to.

    Nobody has to keep them: each owner has those that it summed, until disputes about the round are over.
    """
    round_, there, wanted = masked_round(case, frame), 0, 0
    for commitment in commitments_of(case):
        for shard in range(round_.layout.shards):
            ref = BlobRef(commitment.shards[shard], round_.layout.shard_bytes(shard))
            copies = list(_copies(frame, case, ref))
            for path in copies:
                if frame.ref_of_file(path) != ref:
                    raise RemoteProtocolError(
                        f"a masked shard is not what its name says: {frame.place(path)}"
                    )
            there += bool(copies or not ref.size)
            wanted += 1
    if there < wanted:
        raise NotJudged(
            f"has {there} of {wanted} masked shards in the archives given; members erase them in time"
        )


def check_sums(case: Case, frame: Frame) -> None:
    """(19) One signed sum for each shard, those that a quorum locked; each is in some archive, and whole in all."""
    withheld = []
    for shard, ref in enumerate(sums_of(case, frame)):
        copies = [path for source in frame.sources if (path := source.blob(ref.root))]
        for path in copies:
            if frame.ref_of_file(path) != ref:
                raise RemoteProtocolError(f"a sum is not what its name says: {frame.place(path)}")
        if ref.size and not copies:
            withheld.append(str(shard))
    if withheld:
        raise Lacking(f"withheld: no archive given has the sum of shard {', '.join(withheld)}")


def check_fingerprints(case: Case, frame: Frame) -> None:
    """(20) A quorum signed fingerprints before the lock; those of the survivors add up to those of the sums."""
    _FingerprintCheck(case, frame).run()


def check_releases(case: Case, frame: Frame) -> None:
    """(21) Every seed and share is the one committed to, and there are enough to take all masks off."""
    releases_of(case, frame)


class UnmaskedSums:
    """(22) Takes the masks off the sums and makes the outer step with their mean, as every node did."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def __call__(self, case: Case, base: Float32s) -> Aggregate[Float32s]:
        """The round's model. Raises `RemoteProtocolError` or `Lacking`."""
        frame, round_ = self._frame, masked_round(case, self._frame)
        verify.verify_commitments(round_)
        charter, layout = frame.federation.charter, round_.layout
        opening = Opening(
            layout,
            RingDecoder(layout, charter.update_sizes, round_.roster.exponents),
            [_open_sum(frame, ref) for ref in sums_of(case, frame)],
            verify.crowds_of(round_, releases_of(case, frame)),
        )
        outer = Outer.of(charter, case.round)
        opened = open_sum(opening, outer, in_memory(outer, base), Robust.of(charter))
        return Aggregate(round_.lock.sums, opened.model, opened.changed, opened.total_weight, ())


# --- the parts of a record ------------------------------------------------------------------------------------------


def masked_round(case: Case, frame: Frame) -> MaskedRound:
    """The round as its record shows it; raises `RemoteProtocolError` if it is none of secure mode."""
    lock = case.record.opening.locks[0].body if case.record.opening.locks else None
    commitments = {commitment.member: commitment for commitment in commitments_of(case)}
    members = list(case.survivors.members)
    if not isinstance(lock, Lock) or sorted(commitments) != members:
        raise RemoteProtocolError("the record has no lock, or not one commitment of each survivor")
    return MaskedRound(frame.federation, case.roster, case.survivors, commitments, lock)


def releases_of(case: Case, frame: Frame) -> Releases:
    """What was released, checked and complete; raises `RemoteProtocolError` or `Lacking`."""
    round_, unmasking = masked_round(case, frame), _unmasking(case)
    releases = verify.verify_releases(round_, unmasking.seeds, unmasking.shares)
    for what, members in (
        ("pair seeds from", verify.missing_seeds(round_, releases)),
        ("enough shares of the self-masks of", verify.missing_shares(round_, releases)),
    ):
        if members:
            raise Lacking(f"the record has no {what} {', '.join(map(frame.name, members))}")
    return releases


def _unmasking(case: Case) -> Unmasking:
    if case.record.unmasking is None:
        raise RemoteProtocolError("the record does not say what took the masks off")
    return case.record.unmasking


def sums_of(case: Case, frame: Frame) -> tuple[BlobRef, ...]:
    """What the locked sums are called; raises `RemoteProtocolError`."""
    return verify.verify_sums(masked_round(case, frame), _unmasking(case).sums, frame.verifier)


def _copies(frame: Frame, case: Case, ref: BlobRef) -> Iterator[Path]:
    """The files that are called like this masked shard."""
    epoch = frame.federation.charter.epoch_of(case.round)
    return (path for source in frame.sources if (path := source.masked_shard(epoch, ref.root)))


def open_shard(case: Case, frame: Frame, commitment: Commitment, shard: int, size: int) -> Open | None:
    """A way to read a masked shard of `size` bytes; None if no archive has it whole."""
    ref = BlobRef(commitment.shards[shard], size)
    if not size:
        return list[Buffer]
    path = next((path for path in _copies(frame, case, ref) if frame.ref_of_file(path) == ref), None)
    return None if path is None else partial(read_pieces, path)


def _open_sum(frame: Frame, ref: BlobRef) -> Open:
    if not ref.size:
        return list[Buffer]
    paths = (path for source in frame.sources if (path := source.blob(ref.root)))
    path = next((path for path in paths if frame.ref_of_file(path) == ref), None)
    if path is None:
        raise Lacking(f"no archive given has the sum {ref.root.hex()}")
    return partial(read_pieces, path)


# --- fingerprints ---------------------------------------------------------------------------------------------------


def signed_values(case: Case, frame: Frame) -> Iterator[tuple[Signed, tuple[Value, ...]]]:
    """Fingerprints on the locked sums with their values: the record's own, then those in other records.

    Raises `RemoteProtocolError` if one of its own is bad.
    """
    round_ = masked_round(case, frame)
    for signed in _unmasking(case).fingerprints:
        yield signed, verify.verify_fingerprint(round_, signed, frame.verifier)
    for signed in frame.fingerprints.get(round_.lock.sums, ()):
        try:
            yield signed, verify.verify_fingerprint(round_, signed, frame.verifier)
        except RemoteProtocolError:
            continue  # told where its own record is checked


class _FingerprintCheck:
    """Check 20 on one record: signed values, and where masked shards are at hand, values taken here."""

    def __init__(self, case: Case, frame: Frame) -> None:
        self._case, self._frame = case, frame
        self._round = masked_round(case, frame)
        self._sums = _unmasking(case).sums
        self._refs = sums_of(case, frame)
        self._signed: dict[MemberId, tuple[Value, ...]] = {}
        self._lies: list[str] = []
        self._wrong: list[str] = []
        self._silent: set[MemberId] = set()

    def run(self) -> None:
        """The worst that was found is raised."""
        prints = list(signed_values(self._case, self._frame))
        for signed, values in prints:
            if values:
                self._signed.setdefault(signed.member, values)
        roots = [ref.root for ref in self._refs]
        challenge = Challenge(self._round.layout, challenge_seed(self._round.survivors.digest, roots))
        for shard in range(len(self._refs)):
            self._check_shard(shard, challenge)
        if self._lies:
            raise Convicted("; ".join(self._lies))
        if self._wrong:
            raise RemoteProtocolError("; ".join(self._wrong))
        if self._silent:
            names = ", ".join(map(self._frame.name, sorted(self._silent)))
            raise Lacking(f"no archive given has fingerprints of {names}, nor all its masked shards")
        if not verify.is_quorum(self._round, [signed for signed, _ in prints]):
            raise Lacking("no archive given has a quorum's fingerprints of the attempt that was locked")

    def _check_shard(self, shard: int, challenge: Challenge) -> None:
        opened = self._open_shards(shard)
        total = _open_sum(self._frame, self._refs[shard])
        crowds = self._round.crowds
        taken, of_sums = challenge.of_shards_and_sums(shard, list(opened.values()), total, len(crowds))
        measured = dict(zip(opened, taken, strict=True))
        for member, value in measured.items():
            if member in self._signed and self._signed[member][shard] != value:
                name = self._frame.name(member)
                self._lies.append(
                    f"{name} signed a fingerprint of its shard {shard} that is not that of the shard it committed to"
                )
        given = {member: values[shard] for member, values in self._signed.items()} | measured
        silent = set(self._round.members) - set(given)
        self._silent |= silent
        if silent or all(
            adds_up((given[member] for member in crowd), of_sum)
            for crowd, of_sum in zip(crowds, of_sums, strict=True)
        ):
            return
        signer = self._frame.name(self._sums[shard].member)
        if len(measured) == len(self._round.members):
            self._lies.append(
                f"{signer} signed a sum of shard {shard} that is not that of the survivors' shards"
            )
        else:
            self._wrong.append(
                f"the survivors' fingerprints of shard {shard} do not add up to that of the sum ({signer} signed it)"
            )

    def _open_shards(self, shard: int) -> dict[MemberId, Open]:
        """The survivors' masked shards that are at hand."""
        size = self._round.layout.shard_bytes(shard)
        opened = {
            member: open_shard(self._case, self._frame, commitment, shard, size)
            for member, commitment in self._round.commitments.items()
        }
        return {member: open_ for member, open_ in opened.items() if open_ is not None}


def fingerprints_in(case: Case) -> Iterator[tuple[bytes, Signed]]:
    """Every fingerprint of a record with the digest of the sums that it is on, unchecked."""
    for signed in case.record.unmasking.fingerprints if case.record.unmasking else ():
        if isinstance(signed.body, Fingerprint):
            yield signed.body.sums, signed
