"""The rounds in a home's archive and their models: those that are kept, and older ones computed again.

Nothing is taken on trust: a round's statement must stand under the quorum's signatures, and a model's bytes must be
those that the statement names.
"""

from collections.abc import Callable

from folkmoot.ledger.audit.replay import Replay, sealing_secrets
from folkmoot.ledger.audit.round_checks import Case, Frame
from folkmoot.ledger.audit.sources import Source
from folkmoot.ledger.signing import KeyVerifier
from folkmoot.node.archive import Archive
from folkmoot.node.charter_files import load_charter
from folkmoot.node.config import Home, load_config
from folkmoot.node.model_file import ModelCard
from folkmoot.protocol.certificates import Federation, verify_final
from folkmoot.protocol.charter import federation_id
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.messages import Final
from folkmoot.protocol.record import decode_record
from folkmoot.protocol.ring import Float32s
from folkmoot.protocol.typed_data import Domain, struct_hash
from folkmoot.protocol.types import Round


class RecordedError(FolkmootError):
    """A round that is not in the archive, or whose model cannot be had; the message says why."""


class RecordedModels:
    """Reads a home beside the running node; writes nothing."""

    def __init__(self, home: Home) -> None:
        """Raises `FolkmootError` where charter or node.toml are not in order."""
        contract = bytes.fromhex(load_config(home).ledger.contract[2:])
        charter = load_charter(home)
        chain = charter.ledger.chain_id
        self._federation = Federation(federation_id(charter.digest, chain, contract), charter)
        self._archive = Archive(home.archive)
        self._source = Source.of_home(home.path)
        verifier = KeyVerifier(self._federation, Domain(chain, contract))
        self._frame = Frame(self._federation, verifier, [self._source], {})

    def rounds(self) -> list[Round]:
        """The rounds that have a record, ascending."""
        return self._archive.rounds()

    def is_kept(self, number: Round) -> bool:
        """Whether the model of a recorded round lies in the home."""
        return self._kept(self._case(number)) is not None

    def card(self, number: Round) -> ModelCard:
        """What is known of the model of a recorded round; raises `RecordedError`."""
        charter, record = self._federation.charter, self._case(number).record
        try:
            final = Final(record.attestations, record.model)
            statement = verify_final(final, self._federation, self._frame.verifier)
        except FolkmootError as error:
            raise RecordedError(f"round {number}: its record does not hold: {error}") from error
        if statement.round != number:
            raise RecordedError(f"round {number}: its record is of round {statement.round}")
        return ModelCard(
            name=charter.name,
            federation=self._federation.id.hex(),
            charter=charter.digest.hex(),
            round=number,
            model=statement.model.hex(),
            statement=struct_hash(statement).hex(),
            architecture=charter.model,
            data=charter.data,
        )

    def vector(self, number: Round, say: Callable[[str], None]) -> Float32s:
        """The model of a recorded round, flat; `say` is told when it has to be computed again.

        Raises `RecordedError` where neither it nor what it was made of is there.
        """
        lost = [self._case(number)]
        vector = self._kept(lost[0])
        if vector is not None:
            return vector
        # Back to a round whose model is kept; the first starts from the charter's weights.
        while lost[-1].round > 1 and self._kept(before := self._case(lost[-1].round - 1)) is None:
            lost.append(before)
        say(f"the model of round {number} is no longer kept: computing {len(lost)} rounds again")
        return self._replay(lost[::-1])

    def _replay(self, cases: list[Case]) -> Float32s:
        """The model of the last of `cases`, consecutive rounds of which the first's base is kept."""
        number = cases[-1].round
        try:
            replay = Replay(self._frame, sealing_secrets([self._source]))
            for case in cases:
                number = case.round
                replay.check(case)
        except (FolkmootError, OSError) as error:
            raise RecordedError(
                f"round {cases[-1].round}: its model is no longer kept and cannot be computed again: round {number}: "
                f"{error}"
            ) from error
        assert replay.model is not None
        return replay.model

    def _kept(self, case: Case) -> Float32s | None:
        return self._source.vector(case.record.model.root, self._federation.charter.model.tensors)

    def _case(self, number: Round) -> Case:
        data = self._archive.record(number)
        if data is None:
            known = self.rounds()
            there = f"it has rounds {known[0]} to {known[-1]}" if known else "it has none"
            raise RecordedError(
                f"round {number}: no record in the archive ({there}): was this node part of the round?"
            )
        try:
            return Case(number, self._source.name, decode_record(data))
        except FolkmootError as error:
            raise RecordedError(f"round {number}: its record cannot be read: {error}") from error
