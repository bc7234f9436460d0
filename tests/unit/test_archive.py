"""The archive: whole blobs under their roots, or nothing."""

import os
import random
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from folkmoot.node.archive import PARTIAL_SECONDS, Archive, ArchiveError, Models
from folkmoot.node.disk import DiskFull
from folkmoot.node.network.partial import partial_path
from folkmoot.protocol.blob import CHUNK, BlobRef, ref_of

DATA = random.Random(1).randbytes(2 * CHUNK + 12_345)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


def files(archive: Archive) -> list[Path]:
    return [path for path in archive.root.rglob("*") if path.is_file()]


@contextmanager
def disk_full_after(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, len(DATA)])
def test_a_blob_is_found_under_its_root(archive: Archive, size: int) -> None:
    data = DATA[:size]
    ref = archive.add_bytes(data)
    assert ref == ref_of(data)
    name = ref.root.hex()
    assert archive.path(ref.root) == archive.root / "blobs" / name[:2] / name
    assert archive.has(ref)
    assert archive.read(ref) == data
    with archive.open(ref) as file:
        assert file.read() == data
    assert len(archive.leaves(ref)) == -(-size // CHUNK)
    assert files(archive) == [archive.path(ref.root)]


def test_a_blob_that_was_read_for_the_last_time_is_still_there(archive: Archive) -> None:
    ref = archive.add_bytes(DATA)
    for _ in range(2):
        with archive.open(ref, for_the_last_time=True) as file:
            assert file.read() == DATA


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cuts=st.lists(st.integers(0, len(DATA)), max_size=6))
def test_how_a_stream_is_cut_does_not_matter(archive: Archive, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(DATA)]
    with archive.writer() as blob:
        for start, end in pairwise(edges):
            blob.write(DATA[start:end])
    assert blob.ref == ref_of(DATA)


def test_what_is_not_the_expected_blob_is_not_kept(archive: Archive) -> None:
    expected = ref_of(DATA)
    for wrong in (DATA[:-1], DATA + b"x", bytes(len(DATA))):
        with pytest.raises(ArchiveError, match=expected.root.hex()[:16]):
            archive.add_bytes(wrong, expected)
    assert files(archive) == []


def test_a_writer_that_is_interrupted_keeps_nothing(archive: Archive) -> None:
    with pytest.raises(RuntimeError), archive.writer() as blob:
        blob.write(DATA)
        raise RuntimeError("the peer went away")
    assert blob.ref is None
    assert files(archive) == []


def test_a_full_disk_is_named_and_leaves_nothing(archive: Archive) -> None:
    kept = archive.add_bytes(b"earlier")
    with disk_full_after(CHUNK), pytest.raises(DiskFull, match="make room"):
        archive.add_bytes(DATA)
    with disk_full_after(10), pytest.raises(DiskFull, match="make room"):
        archive.add_record(1, bytes(1000))
    assert files(archive) == [archive.path(kept.root)]
    assert archive.record(1) is None
    assert archive.add_bytes(DATA) == ref_of(DATA)


def test_damage_is_noticed(archive: Archive) -> None:
    ref = archive.add_bytes(DATA)
    path = archive.place(ref.root)
    path.write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    assert archive.has(ref)
    for read in (archive.read, archive.leaves):
        with pytest.raises(ArchiveError, match="damaged"):
            read(ref)
    assert archive.read(ref, verify=False) != DATA
    path.write_bytes(DATA[:-1])
    assert not archive.has(ref)
    with pytest.raises(ArchiveError, match=f"{len(DATA) - 1} bytes, expected {len(DATA)}"):
        archive.read(ref)
    archive.add_bytes(DATA)
    assert archive.read(ref) == DATA


def test_an_absent_blob(archive: Archive) -> None:
    ref = BlobRef(b"\x07" * 32, 5)
    assert archive.path(ref.root) is None
    assert not archive.has(ref)
    with pytest.raises(ArchiveError, match="No such file"):
        archive.read(ref)
    archive.remove(ref.root)


def test_reading_creates_nothing(archive: Archive) -> None:
    assert archive.rounds() == []
    assert archive.record(1) is None
    assert not archive.root.exists()


def test_round_records(archive: Archive) -> None:
    for number, record in ((2, b"two"), (10, b"ten"), (1, b"one"), (2, b"again")):
        archive.add_record(number, record)
    assert archive.rounds() == [1, 2, 10]
    assert archive.record(2) == b"again"
    assert (archive.root / "rounds" / "00000010.record").read_bytes() == b"ten"


def test_clean_drops_what_a_killed_writer_left(archive: Archive) -> None:
    ref = archive.add_bytes(b"whole")
    left = archive.root / "tmp" / "left"
    left.write_bytes(b"half")
    archive.clean()
    assert not left.exists()
    assert archive.read(ref) == b"whole"
    archive.add_bytes(b"next")


def test_clean_drops_half_fetched_blobs_that_nobody_will_ask_for_again(archive: Archive) -> None:
    whole, waited, forgotten = archive.add_bytes(b"whole"), bytes([1]) * 32, bytes([2]) * 32
    paths = [partial_path(archive.prepare(root)) for root in (whole.root, waited, forgotten)]
    for path in paths:
        path.write_bytes(b"half")
    day_ago = time.time() - PARTIAL_SECONDS - 1
    os.utime(paths[2], (day_ago, day_ago))
    archive.clean()
    assert [path.exists() for path in paths] == [False, True, False]
    assert archive.read(whole) == b"whole"


def test_models_are_named_by_digest_and_can_be_dropped(tmp_path: Path) -> None:
    models = Models(tmp_path / "models")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model0.safetensors").write_bytes(b"")
    first, second = models.add_bytes(bytes(8)), models.add_bytes(bytes(12))
    assert models.path(first.root) == tmp_path / "models" / f"{first.root.hex()}.f32"
    assert models.digests() == {first.root, second.root}
    models.remove(first.root)
    assert models.digests() == {second.root}


def test_models_that_somebody_else_put_there_are_no_models_of_ours(tmp_path: Path) -> None:
    models = Models(tmp_path)
    mine = models.add_bytes(b"0123")
    for name in ("backup", "ab", mine.root.hex().upper()):
        (tmp_path / f"{name}.f32").write_bytes(b"0123")
    assert models.digests() == {mine.root}


def test_masked_shards_lie_by_epoch_and_go_with_it(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    refs = {epoch: archive.masked(epoch).add_bytes(b"shard %d" % epoch) for epoch in (0, 2, 10)}
    kept = archive.add_bytes(b"a sum")
    assert archive.masked_epochs() == [0, 2, 10]
    assert all(archive.path(ref.root) == archive.masked(epoch).place(ref.root) for epoch, ref in refs.items())
    archive.erase_masked(10)
    assert archive.masked_epochs() == [10]
    assert archive.path(refs[2].root) is None and archive.masked(10).has(refs[10]) and archive.has(kept)


def test_only_a_damaged_blob_is_dropped(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    ref = archive.add_bytes(b"whole")
    assert not archive.drop_damaged(ref) and archive.has(ref)
    archive.place(ref.root).write_bytes(b"other")
    assert archive.drop_damaged(ref) and not archive.has(ref)
