"""The journal: durable, all or nothing, never silently made anew."""

import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from folkmoot.node.disk import DiskFull
from folkmoot.node.store import PRUNED_AT_ONCE, Journal, OutboxRow, Secret, StoreError

ENTRIES = [(1, "vote", b"one"), (1, "lock", b""), (2, "vote", bytes(range(256)))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "store.sqlite"
    Journal.create(path)
    return path


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal.open(path) as journal:
        yield journal


def contents(path: Path) -> list[tuple[int, str, bytes]]:
    with Journal.open(path) as journal:
        return [entry[1:] for entry in journal.entries()]


def test_entries_come_back_in_order_after_reopening(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append(ENTRIES[:2])
        journal.append(ENTRIES[2:])
        assert [entry[0] for entry in journal.entries()] == [1, 2, 3]
    assert contents(path) == ENTRIES


def test_entries_start_at_the_round_asked_for_and_survive_appends_meanwhile(journal: Journal) -> None:
    journal.append([(number, "x", b"") for number in range(1000)])
    seen = []
    for _, number, _, _ in journal.entries(first_round=300):
        seen.append(number)
        if number == 300:
            journal.append([(5, "old", b""), (1000, "x", b"")])
    assert seen == list(range(300, 1001))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), st.text("abc-", max_size=9), st.binary(max_size=64))))
def test_any_entries_round_trip(journal: Journal, entries: list[tuple[int, str, bytes]]) -> None:
    before = len(list(journal.entries()))
    journal.append(entries)
    assert [entry[1:] for entry in journal.entries()][before:] == entries


def test_an_append_that_fails_leaves_nothing(journal: Journal) -> None:
    bad = [(1, "vote", b"x"), (2, None, b"y")]
    with pytest.raises(StoreError, match="NOT NULL"):
        journal.append(bad)  # type: ignore[arg-type]
    assert list(journal.entries()) == []
    journal.append(ENTRIES)
    assert len(list(journal.entries())) == 3


def test_a_full_disk_is_named_and_what_found_no_room_is_undone(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal.open(path) as journal:
        journal.append(ENTRIES)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            with pytest.raises(DiskFull, match=r"store\.sqlite.*make room"):
                journal.append([(3, "big", bytes(1_000_000))])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        journal.append([(4, "after", b"")])
    assert contents(path) == [*ENTRIES, (4, "after", b"")]


CHILD = """
import sys
from pathlib import Path
from folkmoot.node.store import Journal, OutboxRow, Secret, kill_at_write
with Journal.open(Path(sys.argv[1]), on_write=kill_at_write(int(sys.argv[2]))) as journal:
    for number in (1, 2):
        journal.append([(number, "vote", b"v"), (number, "lock", b"l")], [Secret(number, b"r", 0, b"k")])
        print(number, flush=True)
"""


@pytest.mark.parametrize("write", [1, 2, 3, 4])
def test_killed_at_any_write_the_journal_has_all_of_it_or_nothing(path: Path, write: int) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(write)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    committed = write // 2
    assert len(child.stdout.split()) <= committed
    with Journal.open(path) as journal:
        entries = [entry[1:3] for entry in journal.entries()]
        assert entries == [(number, kind) for number in range(1, committed + 1) for kind in ("vote", "lock")]
        assert [len(journal.secrets(number)) for number in (1, 2)] == [
            int(committed >= 1),
            int(committed >= 2),
        ]


def test_the_hook_is_called_before_and_after_each_commit(path: Path) -> None:
    calls: list[tuple[int, int]] = []

    def hook(number: int) -> None:
        with Journal.open(path, read_only=True) as reader:
            calls.append((number, len(list(reader.entries()))))

    with Journal.open(path, on_write=hook) as journal:
        journal.append(ENTRIES)
        journal.set_meta("a", b"b")
    assert calls == [(1, 0), (2, 3), (3, 3), (4, 3)]


def test_a_missing_journal_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"store\.sqlite: the journal is missing.*what it has signed"):
        Journal.open(tmp_path / "store.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_journal_is_not_overwritten(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append(ENTRIES)
    with pytest.raises(StoreError, match="there is a journal already"):
        Journal.create(path)
    assert contents(path) == ENTRIES
    assert sorted(file.name for file in path.parent.iterdir()) == ["store.sqlite", "store.sqlite.lock"]


def test_only_the_owner_can_read_it(journal: Journal, path: Path) -> None:
    journal.append(ENTRIES)
    for file in (path, path.with_name("store.sqlite-wal")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_it_remembers_whether_it_replaces_a_lost_one(journal: Journal, tmp_path: Path) -> None:
    assert not journal.is_replacement
    Journal.create(tmp_path / "second.sqlite", replacement=True)
    with Journal.open(tmp_path / "second.sqlite") as second:
        assert second.is_replacement


@pytest.mark.parametrize("damage", ["garbage", "pages", "foreign", "empty"])
def test_a_file_that_is_no_journal_or_damaged_is_refused_by_name(path: Path, damage: str) -> None:
    with Journal.open(path) as journal:
        journal.append([(1, "x", bytes(9000))] * 50)
    data = bytearray(path.read_bytes())
    if damage == "garbage":
        data[:] = b"not a database at all" * 500
    elif damage == "pages":
        data[4096:-4096] = os.urandom(len(data) - 8192)
    elif damage == "foreign":
        data[68:72] = b"abcd"
    else:
        data.clear()
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"store\.sqlite: (the journal is damaged|this is not a Folkmoot)"):
        Journal.open(path)


def test_another_version_is_refused(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[60:64] = (99).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(StoreError, match="version 99"):
        Journal.open(path)


def test_one_process_writes_and_others_may_read(journal: Journal, path: Path) -> None:
    with pytest.raises(StoreError, match="another process has this journal open"):
        Journal.open(path)
    journal.append(ENTRIES)
    with Journal.open(path, read_only=True) as reader:
        assert [entry[1:] for entry in reader.entries()] == ENTRIES
        with pytest.raises(StoreError, match="readonly"):
            reader.append(ENTRIES)
    journal.close()
    Journal.open(path).close()


def test_it_belongs_to_one_federation(journal: Journal) -> None:
    journal.bind(b"f" * 32, b"c" * 32)
    journal.bind(b"f" * 32, b"c" * 32)
    with pytest.raises(StoreError, match="belongs to federation 6666"):
        journal.bind(b"g" * 32, b"c" * 32)
    with pytest.raises(StoreError, match="belongs to charter 6363"):
        journal.bind(b"f" * 32, b"d" * 32)


def test_meta(journal: Journal) -> None:
    assert journal.meta("epoch") is None
    journal.set_meta("epoch", b"1")
    journal.set_meta("epoch", b"2")
    assert journal.meta("epoch") == b"2"


def test_prune_forgets_rounds_and_remembers_the_floor(journal: Journal) -> None:
    journal.append(ENTRIES)
    assert journal.pruned_before == 0
    journal.prune(2)
    journal.prune(1)
    assert [entry[:3] for entry in journal.entries()] == [(3, 2, "vote")]
    assert journal.pruned_before == 2
    journal.append([(3, "vote", b"")])
    assert [entry[0] for entry in journal.entries()] == [3, 4]


def test_a_long_history_is_forgotten_step_by_step(journal: Journal) -> None:
    journal.append([(number, "x", b"") for number in range(1, 2 * PRUNED_AT_ONCE + 100)])
    for floor in (PRUNED_AT_ONCE + 1, 2 * PRUNED_AT_ONCE + 1, 2 * PRUNED_AT_ONCE + 50):
        journal.prune(2 * PRUNED_AT_ONCE + 50)
        assert next(journal.entries())[1] == journal.pruned_before == floor


def test_settled_transactions_are_forgotten_and_open_ones_are_not(journal: Journal) -> None:
    journal.append([(1, "x", b""), (9, "x", b"")])
    for state in ("new", "sent", "mined", "final", "dropped"):
        journal.outbox_insert(OutboxRow(round=1, statement=b"s", state=state, first_seen=0.0))
    journal.prune(5)
    assert [row.state for row in journal.outbox_of(b"s")] == ["new", "sent", "mined"]


def test_secrets_are_kept_by_roster_and_not_shown(journal: Journal) -> None:
    secret = Secret(1, b"r" * 32, 2, b"\x13\x37" * 16)
    journal.append([], [secret, Secret(1, b"s" * 32, 2, b"other"), Secret(2, b"r" * 32, 2, b"later")])
    assert journal.secret(1, b"r" * 32, 2) == secret.key
    assert journal.secret(1, b"r" * 32, 3) is None
    assert journal.secrets(1) == [secret, Secret(1, b"s" * 32, 2, b"other")]
    assert "1337" not in repr(secret) and "\\x13" not in repr([secret])


def test_erased_secrets_leave_the_files(journal: Journal, path: Path) -> None:
    key = b"a key nobody should find again!!"
    journal.append([], [Secret(1, b"r", 0, key), Secret(2, b"r", 0, b"kept")])
    files = [path, path.with_name("store.sqlite-wal")]
    assert any(key in file.read_bytes() for file in files)
    journal.append([(1, "x", b""), (2, "x", b"")])
    journal.prune(2)
    assert not any(key in file.read_bytes() for file in files)
    assert (journal.secrets(1), journal.secret(2, b"r", 0)) == ([], b"kept")


def test_outbox_rows_go_from_new_to_final(journal: Journal, path: Path) -> None:
    first = journal.outbox_insert(OutboxRow(round=1, statement=b"s1", first_seen=12.5))
    second = journal.outbox_insert(OutboxRow(round=2, statement=b"s2", first_seen=13.5))
    assert journal.outbox_pending() == [first, second]
    sent = msgspec.structs.replace(first, nonce=0, raw=b"raw", hash=b"h", state="sent")
    journal.outbox_update(sent)
    assert journal.outbox_of(b"s1") == [sent]
    journal.outbox_update(msgspec.structs.replace(sent, state="final"))
    journal.outbox_update(msgspec.structs.replace(second, state="dropped"))
    assert journal.outbox_pending() == []
    with pytest.raises(StoreError, match="no row 77"):
        journal.outbox_update(msgspec.structs.replace(first, id=77))


async def test_threads_may_append_at_the_same_time(journal: Journal) -> None:
    async def append(number: int) -> None:
        await trio.to_thread.run_sync(journal.append, [(number, "a", b""), (number, "b", b"")])

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(append, number)
    rows = [entry[1:3] for entry in journal.entries()]
    assert sorted(rows) == [(number, kind) for number in range(20) for kind in ("a", "b")]
    assert all(rows[at][0] == rows[at + 1][0] for at in range(0, 40, 2))


def test_mask_secrets_are_kept_by_epoch_and_erased(path: Path) -> None:
    with Journal.open(path) as journal:
        for epoch in range(3):
            journal.add_epoch(epoch, bytes([65 + epoch]) * 32)
        with pytest.raises(StoreError):
            journal.add_epoch(1, b"X" * 32)
        journal.erase_epochs(2)
        assert journal.epochs() == [2]
        assert [journal.epoch_secret(epoch) for epoch in (0, 2)] == [None, b"C" * 32]
    on_disk = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"C" * 32 in on_disk and b"A" * 32 not in on_disk and b"B" * 32 not in on_disk


def test_entries_of_one_kind_come_in_order(journal: Journal) -> None:
    journal.append([*ENTRIES, (1, "vote", b"two")])
    assert journal.entries_of(1, "vote") == [b"one", b"two"]
    assert journal.entries_of(3, "vote") == []
