"""What is forgotten, and what never is: unfinal rounds, disputes that may be opened, models that somebody stands on."""

from pathlib import Path

import pytest
from audited_federation import AuditedFederation
from living_federation import House, LivingFederation, in_virtual_time
from masked_federation import MaskedFederation
from msgspec.structs import replace

from folkmoot.node.archive import Archive, Models
from folkmoot.node.config import StorageConfig
from folkmoot.node.retention import JOURNAL_ROUNDS, STEP, Retention
from folkmoot.node.store import Journal
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import Averaging, Secrecy
from folkmoot.protocol.journal import Adopted, Began, Entry, encode_entry, entry_kind
from folkmoot.protocol.messages import Commitment, Final
from folkmoot.protocol.record import encode_record
from folkmoot.protocol.types import Round


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Journal.create(tmp_path / "store.sqlite")
    return tmp_path


def retention(folder: Path, charter: Charter, **storage: int) -> Retention:
    journal = Journal.open(folder / "store.sqlite")
    archive, models = Archive(folder / "archive"), Models(folder / "models")
    return Retention(charter, journal, archive, models, StorageConfig(**storage))


def journalled(round_: Round, entry: Entry) -> tuple[Round, str, bytes]:
    return round_, entry_kind(entry), encode_entry(entry)


def test_models_of_earlier_lives_go_at_the_start(folder: Path) -> None:
    made = AuditedFederation()
    life = retention(folder, made.charter, keep_models=2)
    refs = [life.models.add_bytes(f"model {number}".encode()) for number in range(8)]
    started_from = life.models.add_bytes(made.base.astype("<f4").tobytes())
    unknown = life.models.add_bytes(b"of a round that is not in the journal any more")
    life.journal.append(
        [journalled(number + 1, Began(number + 1, refs[number], bytes(32))) for number in range(8)]
    )
    life.begin(settled=5)
    # Rounds 4 and later, as the last two final ones and all that are not: their bases, and the starting weights.
    assert life.models.digests() == {ref.root for ref in (*refs[3:], started_from)}
    assert not life.models.has(unknown)
    life.promoted(8, BlobRef(b"\x01" * 32, 1).root)
    life.settle(7)
    assert life.models.digests() == {ref.root for ref in (*refs[5:], started_from)}
    life.journal.close()


def test_the_journal_keeps_what_may_still_be_undone_or_disputed(folder: Path) -> None:
    open_mode = AuditedFederation().charter
    life = retention(folder, open_mode)
    life.journal.append([(number, "x", b"") for number in range(1, 2001)])
    life.settle(1500)
    assert life.journal.pruned_before == 501
    life.settle(1500 + STEP - 1)  # not at every round
    assert life.journal.pruned_before == 501
    life.settle(1500 + STEP)
    assert life.journal.pruned_before == 1500 + STEP + 1 - JOURNAL_ROUNDS
    life.journal.close()


def test_epochs_that_may_be_disputed_keep_their_rounds(folder: Path) -> None:
    averaging, secrecy = Averaging(mode="secure", weight_cap=100), Secrecy(epoch=700, dispute_epochs=2)
    charter = replace(AuditedFederation().charter, averaging=averaging, secrecy=secrecy)
    life = retention(folder, charter)
    life.journal.append([(number, "x", b"") for number in range(1, 3001)])
    life.settle(2500)  # in epoch 3
    assert life.journal.pruned_before == 701
    life.journal.close()


@pytest.mark.parametrize("kind", [AuditedFederation, MaskedFederation])
def test_payloads_and_records_go_if_the_operator_says_so(
    folder: Path, kind: type[AuditedFederation] | type[MaskedFederation]
) -> None:
    made = kind()
    for _ in range(3):
        made.add_round()
    made.write_home(folder)
    charter = replace(made.charter, secrecy=Secrecy(epoch=1, dispute_epochs=1))
    life = retention(folder, charter, keep_archive=1)
    blobs = set((folder / "archive" / "blobs").glob("*/*"))
    life.settle(2)
    left = set((folder / "archive" / "blobs").glob("*/*"))
    kept = 2 if charter.is_secure is False else 1
    assert life.archive.rounds() == list(range(kept, 4))
    assert (left < blobs) is (kept > 1)
    life.journal.close()


def test_a_payload_that_was_committed_to_again_stays_with_the_round_that_stays(folder: Path) -> None:
    made = AuditedFederation()
    for _ in range(3):
        made.add_round()
    made.write_home(folder)
    life = retention(folder, made.charter, keep_archive=1)
    again = replace(made.rounds[0].record, commitments=made.rounds[2].record.commitments)
    life.archive.add_record(1, encode_record(again))
    life.settle(2)
    assert life.archive.rounds() == [2, 3]
    roots = [signed.body.root for signed in again.commitments if isinstance(signed.body, Commitment)]
    assert roots and all(life.archive.path(root) is not None for root in roots)
    life.journal.close()


def test_all_of_the_archive_stays_unless_told_otherwise(folder: Path) -> None:
    made = AuditedFederation()
    made.add_round()
    made.write_home(folder)
    life = retention(folder, made.charter)
    life.settle(100_000)
    assert life.archive.rounds() == [1]
    life.journal.close()


def test_a_round_learnt_from_others_keeps_its_model(folder: Path) -> None:
    made = AuditedFederation()
    made.add_round()
    record = made.rounds[0].record
    life = retention(folder, made.charter, keep_models=2)
    life.models.add_bytes(made.models[1].tobytes())
    life.journal.append([journalled(1, Adopted(Final(record.attestations, record.model)))])
    life.begin(settled=1)
    assert life.models.digests() == {record.model.root}
    life.journal.close()


def test_a_node_that_is_started_again_and_again_keeps_as_few_models(tmp_path: Path) -> None:
    async def story() -> None:
        federation = LivingFederation(tmp_path, rounds=24)

        async def live(house: House) -> None:
            for round_ in (6, 12, 18):
                await house.live_until(lambda round_=round_: house.latest >= round_)  # type: ignore[misc]
            await house.live()

        await federation.run({1: live})
        federation.check()
        counts = [len(house.models.digests()) for house in federation.houses]
        assert max(counts) <= 13 and counts[1] <= max(counts)

    in_virtual_time(story)
