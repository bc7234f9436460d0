"""The finished rounds of a home and their models: those that are kept, and older ones computed again.

Nothing is taken on trust: a round's statement must stand under the quorum's signatures, and a model's bytes must be
those that the statement names.
"""

from collections.abc import Callable

from folkmoot.ledger.audit.replay import OpenedPayloads, Replay, sealing_secrets
from folkmoot.ledger.audit.round_checks import Case, Frame
from folkmoot.ledger.audit.secure_checks import UnmaskedSums
from folkmoot.ledger.audit.sources import Source
from folkmoot.ledger.signing import KeyVerifier
from folkmoot.node.archive import Archive
from folkmoot.node.charters import load_timeline
from folkmoot.node.config import DITTO, Home, load_config
from folkmoot.node.member_state import MemberState, round_kept
from folkmoot.node.model_file import ModelCard
from folkmoot.node.store import Journal
from folkmoot.node.train.vectors import read_vector
from folkmoot.node.train.wire import PERSONAL
from folkmoot.protocol.certificates import verify_final
from folkmoot.protocol.charter_tables import Part
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.journal import Adopted, RolledBack, decode_entry, entry_tag
from folkmoot.protocol.messages import Final, round_of
from folkmoot.protocol.outer import Outer
from folkmoot.protocol.parts import Parts, as_own, part_ref, tensors_of
from folkmoot.protocol.record import decode_record
from folkmoot.protocol.ring import Float32s
from folkmoot.protocol.typed_data import Domain, struct_hash
from folkmoot.protocol.types import Digest, Round

_ADOPTED, _ROLLED_BACK = entry_tag(Adopted), entry_tag(RolledBack)


class RecordedError(FolkmootError):
    """A round that is not in the archive, or whose model cannot be had; the message says why."""


def _adopted_rounds(home: Home) -> dict[Round, Final]:
    """Rounds that the node learnt from others, from its journal."""
    if not home.store.is_file():
        return {}
    with Journal.open(home.store, read_only=True) as journal:
        bodies = [body for _, _, kind, body in journal.entries() if kind in (_ADOPTED, _ROLLED_BACK)]
    found: dict[Round, Final] = {}
    for entry in map(decode_entry, bodies):
        if isinstance(entry, Adopted):
            found[round_of(entry.final)] = entry.final
        elif isinstance(entry, RolledBack):
            found = {round_: final for round_, final in found.items() if round_ < entry.fork.round}
    return found


class RecordedModels:
    """Reads a home beside the running node; writes nothing.

    Of a round that the node finished itself the archive has a record; of one that it learnt from others the journal has
    the attested statement.
    """

    def __init__(self, home: Home) -> None:
        """Raises `FolkmootError` where charter or node.toml are not in order."""
        self._timeline = load_timeline(home)
        contract = bytes.fromhex(load_config(home).ledger.contract[2:])
        self._domain = Domain(self._timeline.founding.ledger.chain_id, contract)
        self._archive = Archive(home.archive)
        self._updates = home.updates
        self._source = Source.of_home(home.path)
        self._frames: dict[Round, Frame] = {}
        self._adopted = _adopted_rounds(home)

    def rounds(self) -> list[Round]:
        """The finished rounds, ascending."""
        return sorted({*self._archive.rounds(), *self._adopted})

    def is_kept(self, number: Round) -> bool:
        """Whether the model of a finished round lies in the home."""
        return self._kept(self._final(number).model.root) is not None

    def card(self, number: Round) -> ModelCard:
        """What is known of the model of a finished round; raises `RecordedError`."""
        frame, final = self._frame(number), self._final(number)
        charter = frame.federation.charter
        try:
            statement = verify_final(final, frame.federation, frame.verifier)
        except FolkmootError as error:
            raise RecordedError(f"round {number}: its record does not hold: {error}") from error
        if statement.round != number:
            raise RecordedError(f"round {number}: its record is of round {statement.round}")
        return ModelCard(
            name=charter.name,
            federation=frame.federation.id.hex(),
            charter=charter.digest.hex(),
            round=number,
            model=statement.model.hex(),
            statement=struct_hash(statement).hex(),
            architecture=charter.model,
            data=charter.data,
        )

    def vector(self, number: Round, say: Callable[[str], None]) -> Float32s:
        """The snapshot of a finished round, flat; `say` is told when it has to be computed again.

        Raises `RecordedError` where neither it nor what it was made of is there.
        """
        vector = self._kept(self._final(number).model.root)
        if vector is not None:
            return vector
        lost = [self._case(number)]
        # Back to a round whose base is kept; the first starts from the charter's weights.
        while lost[-1].round > 1 and self._kept(lost[-1].survivors.base) is None:
            lost.append(self._case(lost[-1].round - 1))
        say(f"the model of round {number} is no longer kept: computing {len(lost)} rounds again")
        return self._replay(lost[::-1])

    def whole(self, number: Round, say: Callable[[str], None]) -> Float32s:
        """The model of a finished round as this home has it, with what no snapshot holds; raises as both."""
        shared = self.vector(number, say)[: self._timeline.founding.model.shared_values]
        return Parts(self._timeline.founding.model.tensors).join({"shared": shared, **self.own_parts()[0]})

    def own_parts(self) -> tuple[dict[Part, Float32s], Round]:
        """What this home adds to a snapshot: its personal tensors, newest, and the frozen ones; all flat.

        And the round that the personal ones are from, 0 if they are as they began. Raises `RecordedError` where they
        are not here.
        """
        model = self._timeline.founding.model
        state = MemberState(self._updates, PERSONAL, Parts(model.tensors).count("personal"))
        newest = state.newest()
        found = dict[Part, Float32s]()
        both: tuple[Part, ...] = ("personal", "frozen")
        for part in both:
            ref = part_ref(model, part)
            if ref is not None:
                found[part] = self._beginning(ref.root, part)
        if newest is not None:
            found["personal"] = read_vector(newest, state.values)
        return found, 0 if newest is None else round_kept(newest)

    def own_model(self) -> tuple[Float32s, Round]:
        """The model that this member trains for itself (Ditto), whole, and the round that it is from.

        Raises `RecordedError` where there is none.
        """
        parts = Parts([as_own(tensor) for tensor in self._timeline.founding.model.tensors])
        state = MemberState(self._updates, DITTO, parts.count("personal"))
        newest = state.newest()
        if newest is None:
            raise RecordedError(
                "there is no model of this member's own: set trainer.ditto in node.toml, and it begins with the next "
                "round that this node is in"
            )
        vectors: dict[Part, Float32s] = {"personal": read_vector(newest, state.values)}
        if parts.count("frozen"):
            vectors["frozen"] = self.own_parts()[0]["frozen"]
        return parts.join(vectors), round_kept(newest)

    def _beginning(self, root: Digest, part: Part) -> Float32s:
        values = self._source.vector(root, tensors_of(self._timeline.founding.model, part))
        if values is None:
            raise RecordedError(
                f"the model's {part} tensors are not in this home: start its node, which gets them from others, or "
                "copy another member's models/model0.safetensors"
            )
        return values

    def _replay(self, cases: list[Case]) -> Float32s:
        """The model of the last of `cases`, consecutive rounds of which the first's base is kept."""
        number, frame, replay = cases[-1].round, None, None
        try:
            for case in cases:
                number = case.round
                if replay is None or frame is not self._frame(number):  # another charter
                    frame = self._frame(number)
                    replay = Replay(frame, self._aggregation(frame), replay)
                replay.check(case)
        except (FolkmootError, OSError) as error:
            raise RecordedError(
                f"round {cases[-1].round}: its model is no longer kept and cannot be computed again: round {number}: "
                f"{error}"
            ) from error
        assert replay is not None and replay.model is not None
        return replay.model

    def _aggregation(self, frame: Frame) -> UnmaskedSums | OpenedPayloads:
        if frame.federation.charter.is_secure:
            return UnmaskedSums(frame)
        return OpenedPayloads(frame, sealing_secrets([self._source]))

    def _frame(self, number: Round) -> Frame:
        """What a round is held against: the charter that was in force in it. Raises `CharterMissing`."""
        first = self._timeline.span_at(number).first
        if first not in self._frames:
            federation = self._timeline.federation_at(number)
            verifier = KeyVerifier(federation, self._domain)
            self._frames[first] = Frame(federation, verifier, [self._source], {})
        return self._frames[first]

    def _kept(self, model: Digest) -> Float32s | None:
        charter = self._timeline.founding  # no amendment changes the snapshot's form
        return self._source.vector(model, charter.model.shared, Outer.of(charter).sections)

    def _final(self, number: Round) -> Final:
        """The statement of a finished round, with its attestations, unchecked."""
        if number in self._archive.rounds() or number not in self._adopted:
            record = self._case(number).record
            return Final(record.attestations, record.model)
        return self._adopted[number]

    def _case(self, number: Round) -> Case:
        data = self._archive.record(number)
        if data is None:
            known = self.rounds()
            there = f"it knows rounds {known[0]} to {known[-1]}" if known else "it knows none"
            raise RecordedError(
                f"round {number}: no record in this home's archive ({there}): ask a member that took part in it"
            )
        try:
            return Case(number, self._source.name, decode_record(data))
        except FolkmootError as error:
            raise RecordedError(f"round {number}: its record cannot be read: {error}") from error
