"""`folkmoot repair`: what is damaged is found and named, and only what can be had again is removed."""

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audited_federation import AuditedFederation
from click.testing import CliRunner, Result
from msgspec.structs import replace

from folkmoot.node.archive import Archive, Models
from folkmoot.node.cli.repair import repair
from folkmoot.node.config import Home, LedgerConfig, NodeConfig, render_config
from folkmoot.node.repair import find_faults
from folkmoot.node.status_file import NodeStatus, write_status
from folkmoot.node.store import Journal, StoreDamaged
from folkmoot.protocol.journal import Adopted, Voted, decode_entry, encode_entry, entry_kind
from folkmoot.protocol.messages import Final


@pytest.fixture(scope="module")
def federation() -> AuditedFederation:
    made = AuditedFederation()
    made.add_round()
    made.add_round(survivors=(0, 2, 3))
    return made


@pytest.fixture
def home(federation: AuditedFederation, tmp_path: Path) -> Home:
    home = federation.write_home(tmp_path / "alice")
    contract = f"0x{federation.contract.hex()}"
    config = NodeConfig(name="alice", ledger=LedgerConfig(rpc=("http://127.0.0.1:1",), contract=contract))
    home.config.write_text(render_config(config))
    Models(home.models).add_bytes(federation.models[2].tobytes())
    write_status(home.status, NodeStatus(name="alice", pid=1, peer_id="x", member=0))
    Journal.create(home.store)
    record = federation.rounds[1].record
    vote = next(vote for vote in federation.rounds[1].record.certificate.votes if vote.member == 0)
    entries = [
        Voted(vote, record.certificate.survivors, record.commitments),
        Adopted(Final(record.attestations, record.model)),
    ]
    with Journal.open(home.store) as journal:
        journal.append([(2, entry_kind(entry), encode_entry(entry)) for entry in entries])
        journal.append([(2, "disclosure", b"\x00")])
    return home


def run(home: Home, *words: str, answer: str = "") -> Result:
    return CliRunner().invoke(repair, ["--home", str(home.path), *words], input=answer)


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def a_blob(home: Home) -> Path:
    return sorted((home.archive / "blobs").glob("*/*"))[0]


def a_model(home: Home) -> Path:
    return sorted(home.models.glob("*.f32"))[0]


def test_a_home_that_is_in_order(home: Home) -> None:
    done = run(home)
    assert done.exit_code == 0 and "all is well" in done.output


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
@pytest.mark.parametrize("which", [a_blob, a_model])
def test_a_damaged_blob_or_model_is_named_and_removed(home: Home, which: object, damage: str) -> None:
    path: Path = which(home)  # type: ignore[operator]
    if damage == "flip":
        flip(path)
    else:
        path.write_bytes(path.read_bytes()[: 10 if damage == "truncate" else 0])
    looked = run(home)
    assert looked.exit_code == 1 and str(path) in looked.output and "nothing was changed" in looked.output
    assert path.exists()
    assert run(home, "--fix").exit_code == 0
    assert not path.exists()
    assert run(home).exit_code == 0


@pytest.mark.parametrize("which", [a_blob, a_model])
def test_what_cannot_be_read_is_not_taken_for_damaged(
    home: Home, which: Callable[[Home], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = which(home), Path.open

    def refuse(self: Path, *words: Any, **more: Any) -> Any:
        if self == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(self, *words, **more)

    monkeypatch.setattr(Path, "open", refuse)
    done = run(home, "--fix")
    assert done.exit_code == 1 and "Permission denied" in done.output
    assert path.exists()


def test_models_of_other_names_are_left_alone(home: Home) -> None:
    other = home.models / "ab.f32"
    other.write_bytes(b"mine")
    assert run(home, "--fix").exit_code == 0 and other.exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "another round's"])
def test_a_damaged_record_is_set_aside(home: Home, damage: str) -> None:
    path = Archive(home.archive).record_path(1)
    if damage == "flip":
        flip(path, -40)
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.write_bytes(Archive(home.archive).record(2) or b"")
    assert str(path) in run(home).output
    assert run(home, "--fix").exit_code == 0
    assert not path.exists() and path.with_suffix(".record.damaged").exists()


def test_a_half_written_status_is_removed(home: Home) -> None:
    home.status.write_bytes(home.status.read_bytes()[:50])
    assert run(home, "--fix").exit_code == 0
    assert not home.status.exists()


def test_starting_weights_are_only_named(home: Home) -> None:
    home.initial_model.write_bytes(b"nothing")
    done = run(home, "--fix")
    assert done.exit_code == 1 and "to do: copy another member's" in done.output
    assert home.initial_model.exists()


@pytest.mark.parametrize("damage", ["lost", "truncated", "overwritten", "a signature", "an entry"])
def test_a_journal_is_set_aside_and_the_new_one_knows_that_it_is_new(home: Home, damage: str) -> None:
    match damage:
        case "lost":
            home.store.unlink()
        case "truncated":
            home.store.write_bytes(home.store.read_bytes()[:5000])
        case "overwritten":
            home.store.write_bytes(b"nothing" * 1000)
        case _:
            with Journal.open(home.store) as journal:
                row = next(journal.entries())
                voted = decode_entry(row[3])
                assert isinstance(voted, Voted)
                forged = replace(voted, vote=replace(voted.vote, signature=bytes(64)))
                journal.append([(2, row[2], encode_entry(forged) if damage == "a signature" else b"\xff")])
    looked = run(home)
    assert looked.exit_code == 1 and str(home.store) in looked.output
    assert run(home, "--fix", answer="n\n").exit_code == 1
    assert not list(home.path.glob("store.sqlite.damaged*"))
    assert run(home, "--fix", answer="y\n").exit_code == 0
    with Journal.open(home.store) as journal:
        assert journal.is_replacement and list(journal.entries()) == []
    assert (home.path / "store.sqlite.damaged-1").exists() == (damage != "lost")
    assert run(home).exit_code == 0


def test_journals_that_were_set_aside_stay(home: Home) -> None:
    for number in (1, 2):
        home.store.write_bytes(b"nothing" * 1000)
        assert run(home, "--fix", "--yes").exit_code == 0
        assert (home.path / f"store.sqlite.damaged-{number}").exists()


def test_nothing_is_mended_under_a_running_node(home: Home) -> None:
    home.store.write_bytes(b"nothing" * 1000)
    from folkmoot.node.database import claimed

    with claimed(home.store):
        done = run(home, "--fix", "--yes")
    assert done.exit_code != 0 and "is this node running?" in str(done.exception)
    with pytest.raises(StoreDamaged):
        Journal.open(home.store)


def test_faults_come_with_what_to_do(home: Home) -> None:
    flip(a_model(home))
    (fault,) = find_faults(home)
    assert fault.mend is not None and "the others" in fault.remedy


def test_no_bit_of_a_journal_turns_unnoticed(home: Home) -> None:
    with Journal.open(home.store, read_only=True) as journal:
        written = list(journal.entries())
    before = home.store.read_bytes()
    for log in home.path.glob("store.sqlite-*"):
        log.unlink()
    rng, noticed = random.Random(7), 0
    for _ in range(60):
        home.store.write_bytes(before)
        flip(home.store, rng.randrange(len(before)))
        faults = [fault.path for fault in find_faults(home)]
        noticed += faults == [home.store]
        if not faults:  # it was in no entry
            with Journal.open(home.store, read_only=True) as journal:
                assert list(journal.entries()) == written
    assert noticed > 2
