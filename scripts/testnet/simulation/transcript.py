"""What leaves honest nodes in a simulated round, read as a coalition would: does anything give a member away?

The rules are PROTOCOL section 4's, counted with the true quorum whatever the nodes believe:

- pair seeds of those left out leave against a certificate only, shares of self-masks against an opening only;
- never, of one roster, a pair seed of a member and (with what f colluders were dealt) enough shares of its self-mask;
- one survivor set of a roster, and one of a round, is ever opened;
- no mask meets two plaintexts; a share goes to the member that it was dealt to, and to nobody else.
"""

from collections import defaultdict
from collections.abc import Iterable

from folkmoot.protocol.charter import max_faults, quorum
from folkmoot.protocol.effects import Effect, Gossip, Persist, Send
from folkmoot.protocol.journal import Entry, Locked, Proposed, RosterTaken, Said, Voted
from folkmoot.protocol.messages import (
    Commitment,
    Frame,
    Lock,
    Propose,
    Roster,
    Seeds,
    Share,
    Shares,
    Signed,
    SurvivorSet,
    Vote,
    body_digest,
    roster_digest,
)
from folkmoot.protocol.types import Attempt, Digest, MemberId, Round
from folkmoot.testnet.simulation.charters import Charters
from folkmoot.testnet.simulation.invariants import Broken
from folkmoot.testnet.simulation.node import Node


class Transcript:
    """Watches all nodes of a run; raises `Broken`. In open mode there is nothing to see."""

    def __init__(self, charters: Charters, liars: Iterable[int], may_fork: bool = False) -> None:
        """`may_fork`: more members forget what they signed than may be faulty; they give each other's masks away."""
        self._charters, self._liars, self._may_fork = charters, frozenset(liars), may_fork
        self._sets: dict[Digest, SurvivorSet] = {}
        self._rosters: dict[Digest, tuple[MemberId, ...]] = {}
        self._commitments: dict[Digest, Commitment] = {}
        self._votes: dict[tuple[Attempt, Digest], set[MemberId]] = defaultdict(set)
        self._locks: dict[tuple[Attempt, Digest, Digest], set[MemberId]] = defaultdict(set)
        self._seeds: dict[tuple[Digest, MemberId], set[MemberId]] = defaultdict(set)
        self._shares: dict[tuple[Digest, MemberId], set[MemberId]] = defaultdict(set)
        self._opened: dict[tuple[str, Round | Digest], Digest] = {}
        self._plaintexts: dict[tuple[MemberId, int, bytes], Digest] = {}
        self.released = 0

    def check(self, node: Node, effect: Effect) -> None:
        """Look at one effect before it is carried out."""
        match effect:
            case Persist(entries=entries):
                for entry in entries:
                    self._learn(node, entry)
            case Send(members=members, frame=frame) if node.person not in self._liars:
                self._check_frame(frame, members)
            case Gossip(frame=frame) if node.person not in self._liars:
                self._check_frame(frame, None)
            case _:
                pass

    def note_mask(self, node: Node, seed: bytes, plaintext: Digest) -> None:
        """This mask is added to that encoded update."""
        key = (node.person, node.face, seed)
        if node.person in self._liars:
            return
        if self._plaintexts.setdefault(key, plaintext) != plaintext:
            raise Broken(f"{node.name} masks two different vectors with one mask")

    def roots_of(self, survivors: SurvivorSet) -> list[Digest]:
        """The roots that the survivors committed to."""
        return [self._commitments[one.commitment].root for one in survivors.survivors]

    # --- what is decided ------------------------------------------------------------------------------------

    def _learn(self, node: Node, entry: Entry) -> None:
        match entry:
            case Proposed(propose=Propose(survivors=survivors)) | Voted(survivors=survivors):
                self._sets[survivors.digest] = survivors
            case RosterTaken(roster=Signed(member=member, body=Roster() as roster)):
                members = tuple(ready.member for ready in roster.readies)
                self._rosters[roster_digest(member, roster)] = members
            case Said(signed=Signed(body=Commitment() as commitment)):
                self._commitments[body_digest(commitment)] = commitment
            case _:
                pass
        match entry:
            case Voted(vote=Signed(body=Vote() as vote)):
                self._votes[vote.attempt, vote.survivors].add(node.member)
            case Locked(lock=Signed(body=Lock() as lock)):
                self._locks[lock.attempt, lock.survivors, lock.sums].add(node.member)
            case _:
                pass

    def _is_certified(self, digest: Digest) -> bool:
        survivors = self._sets[digest]
        era = self._charters.at(survivors.round)
        groups = [group for group in self._groups(survivors.round) if group & set(survivors.members)]
        return any(
            len(voters | era.liars) >= era.federation.charter.quorum
            and all(len((voters | era.liars) & group) >= quorum(len(group)) for group in groups)
            for (_, voted), voters in self._votes.items()
            if voted == digest
        )

    def _is_open(self, digest: Digest) -> bool:
        era = self._charters.at(self._sets[digest].round)
        return any(
            len(lockers | era.liars) >= era.federation.charter.quorum
            for (_, survivors, _), lockers in self._locks.items()
            if survivors == digest
        )

    # --- what leaves ----------------------------------------------------------------------------------------

    def _check_frame(self, frame: Frame, members: tuple[MemberId, ...] | None) -> None:
        match frame:
            case Signed(body=Share(recipient=recipient)):
                if members != (recipient,):
                    raise Broken(f"a share for member {recipient} goes to {members or 'everybody'}")
            case Seeds(survivors=digest, seeds=seeds, member=member):
                survivors = self._released_for(digest, "pair seeds")
                if not self._is_certified(digest):
                    raise Broken(f"member {member}'s pair seeds are released without a certificate")
                for left_out, _ in seeds:
                    self._seeds[survivors.roster, left_out].add(member)
                    self._check_both(survivors, left_out)
            case Shares(survivors=digest, shares=shares, member=member):
                survivors = self._released_for(digest, "shares")
                if not self._is_open(digest):
                    raise Broken(f"member {member}'s shares are released without an opening")
                self._check_one_opening(survivors)
                for survivor, _ in shares:
                    self._shares[survivors.roster, survivor].add(member)
                    self._check_both(survivors, survivor)
            case _:
                pass

    def _released_for(self, digest: Digest, what: str) -> SurvivorSet:
        self.released += 1
        survivors = self._sets.get(digest)
        if survivors is None:
            raise Broken(f"{what} are released for a set that nobody proposed or voted for")
        for group in self._groups(survivors.round):
            crowd, size = len(group & set(survivors.members)), len(group)
            if 0 < crowd < max(3, max_faults(size) + 2):
                raise Broken(f"{what} are released for a crowd of {crowd}")
        return survivors

    def _groups(self, round_: Round) -> list[set[MemberId]]:
        return [set(group.members) for group in self._charters.at(round_).federation.groups(round_)]

    def _check_both(self, survivors: SurvivorSet, member: MemberId) -> None:
        """A pair seed is out, and f colluders of its group have all that the member's self-mask takes."""
        roster = survivors.roster
        shares, group = self._shares[roster, member], self._group_of(survivors.round, member)
        faults, others = max_faults(len(group)), group.intersection(self._rosters.get(roster, ()))
        colluders = min(faults, len(others - shares - {member}))
        threshold = quorum(len(group)) - faults
        if self._may_fork:
            return
        if self._seeds[roster, member] and shares and len(shares) + colluders >= threshold:
            raise Broken(f"both kinds of masks of member {member} come off in one roster")

    def _group_of(self, round_: Round, member: MemberId) -> set[MemberId]:
        return next(group for group in self._groups(round_) if member in group)

    def _check_one_opening(self, survivors: SurvivorSet) -> None:
        if self._may_fork:
            return
        for place in (("round", survivors.round), ("roster", survivors.roster)):
            if self._opened.setdefault(place, survivors.digest) != survivors.digest:
                raise Broken(f"two sets are opened in one {place[0]} (round {survivors.round})")
