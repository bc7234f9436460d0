"""What was exchanged, kept by content: blobs and round records, and the models.

Layout of an archive: `blobs/ab/<hex root>`, `rounds/<8 digits>.record`, in secure mode `masked/<epoch>/<hex root>`, and
`forks/<8 digits>-<statement>.fork` and `.record` where this node gave up a history that the ledger had otherwise. A
file is written under `tmp/`, fsynced and renamed, so that whatever stands in its place is whole; a full disk leaves
nothing behind. Reading creates nothing: an archive on read-only media can be audited.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from folkmoot.node.disk import raise_if_full
from folkmoot.node.network.partial import PARTIAL
from folkmoot.protocol import merkle
from folkmoot.protocol.blob import CHUNK, BlobRef, ref_of
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.outer import Piece, Snapshots, Start
from folkmoot.protocol.types import Digest, Round

TEMPORARY = "tmp"
MASKED = "masked"
FORKS = "forks"
PARTIAL_SECONDS = 86400.0
"""How long a half-fetched blob is kept for who asks for it again."""

_NAME = re.compile(r"[0-9a-f]{64}")
"""Of a blob. Files with other names are somebody else's, and stay as they are."""


class ArchiveError(FolkmootError):
    """A blob or record cannot be stored, is damaged or not what was asked for; the message names the file.

    A full disk is none of that, but `DiskFull`: nothing that it keeps from being stored is ever missing for good.
    """


class BlobWriter:
    """Takes a blob in pieces of any sizes and puts it in place once it is whole; see `BlobStore.writer`."""

    def __init__(self, store: "BlobStore", expected: BlobRef | None) -> None:
        self._store = store
        self._expected = expected
        self._temporary, self._file = _open_temporary(store.root)
        self._leaves: list[Digest] = []
        self._chunk = bytearray()
        self._size = 0
        self.ref: BlobRef | None = None
        """What was stored; None until the block of `writer()` has ended well."""

    def __enter__(self) -> Self:
        return self

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`; raises `ArchiveError` if it cannot be written or exceeds the expected size."""
        view = memoryview(data).cast("B")
        self._size += len(view)
        if self._expected is not None and self._size > self._expected.size:
            raise ArchiveError(f"blob {self._expected}: {self._size} bytes came, more than it has")
        with _explained(self._temporary):
            _write_all(self._file, view)
        while view:
            taken = view[: CHUNK - len(self._chunk)]
            self._chunk += taken
            view = view[len(taken) :]
            if len(self._chunk) == CHUNK:
                self._close_chunk()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.ref = self._place()
        finally:
            self._file.close()
            self._temporary.unlink(missing_ok=True)

    def _close_chunk(self) -> None:
        self._leaves.append(merkle.leaf_hash(self._chunk))
        self._chunk = bytearray()

    def _place(self) -> BlobRef:
        if self._chunk:
            self._close_chunk()
        ref = BlobRef(merkle.root(self._leaves), self._size)
        if self._expected is not None and ref != self._expected:
            raise ArchiveError(f"blob {self._expected}: the bytes that came are {ref}")
        _move_into_place(self._file, self._temporary, self._store.place(ref.root))
        return ref


class BlobStore:
    """Blobs as files named by their root. Subclasses say where a blob lies (`place`)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, root: Digest) -> Path:
        """Where the blob called `root` lies, whether it is there or not."""
        raise NotImplementedError

    def prepare(self, root: Digest) -> Path:
        """Make room for a blob that is about to be fetched; returns where its file has to appear, whole and checked.

        Raises `ArchiveError` if its directory cannot be made.
        """
        path = self.place(root)
        with _explained(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def writer(self, expected: BlobRef | None = None) -> BlobWriter:
        """A context manager to write a blob as it arrives: `with store.writer() as blob: blob.write(...)`.

        At the end of the block the blob is in place, durably, as `blob.ref`; if the block raises, nothing is
        kept. With `expected`, anything that is not exactly that blob raises `ArchiveError`.
        """
        return BlobWriter(self, expected)

    def add_bytes(self, data: bytes | bytearray | memoryview, expected: BlobRef | None = None) -> BlobRef:
        """Store `data`, durable on return; raises `ArchiveError` (not the `expected` blob), `DiskFull`."""
        with self.writer(expected) as blob:
            blob.write(data)
        assert blob.ref is not None
        return blob.ref

    def path(self, root: Digest) -> Path | None:
        """The file of the blob called `root`; None if it is not here."""
        path = self.place(root)
        return path if path.is_file() else None

    def has(self, ref: BlobRef) -> bool:
        """Whether the blob is here with its full size (contents are not read)."""
        try:
            return self.place(ref.root).stat().st_size == ref.size
        except OSError:
            return False

    @contextmanager
    def open(self, ref: BlobRef, *, for_the_last_time: bool = False) -> Iterator[BinaryIO]:
        """The blob's file, open for reading; raises `ArchiveError` if it is absent or has the wrong size.

        `for_the_last_time`: afterwards the system need not keep it in memory. Payloads are read once; left alone, they
        would drive everything else out of the page cache, and each write would need fresh pages.
        """
        path = self.place(ref.root)
        with _explained(path):
            file = path.open("rb")
        with file:
            size = os.fstat(file.fileno()).st_size
            if size != ref.size:
                raise ArchiveError(
                    f"{path}: {size} bytes, expected {ref.size}: the file is damaged: run 'folkmoot repair'"
                )
            try:
                yield file
            finally:
                if for_the_last_time and hasattr(os, "posix_fadvise"):  # not on macOS
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def read(self, ref: BlobRef, verify: bool = True) -> bytes:
        """The whole blob; `ArchiveError` if absent, of wrong size or (with `verify`) of other contents."""
        with self.open(ref) as file, _explained(self.place(ref.root)):
            data = file.read()
        if verify and ref_of(data) != ref:
            raise ArchiveError(
                f"{self.place(ref.root)}: the contents are not {ref}: the file is damaged: run 'folkmoot repair'"
            )
        return data

    def leaves(self, ref: BlobRef) -> list[Digest]:
        """The blob's chunk hashes, in order; raises `ArchiveError` unless they fold to its root."""
        with self.open(ref) as file, _explained(self.place(ref.root)):
            leaves = [merkle.leaf_hash(chunk) for chunk in iter(lambda: file.read(CHUNK), b"")]
        if merkle.root(leaves) != ref.root:
            raise ArchiveError(
                f"{self.place(ref.root)}: the contents are not {ref}: the file is damaged: run 'folkmoot repair'"
            )
        return leaves

    def remove(self, root: Digest) -> None:
        """Forget the blob called `root`, if it is here."""
        with _explained(self.place(root)):
            self.place(root).unlink(missing_ok=True)

    def drop_damaged(self, ref: BlobRef) -> bool:
        """Remove a blob whose file is not what its name says; whether it was."""
        try:
            self.leaves(ref)
        except ArchiveError:
            self.remove(ref.root)
            return True
        return False

    def clean(self) -> None:
        """Drop what a killed writer left behind; for the store's one writing process, at its start.

        Of half-fetched blobs those that are here whole by now, and those on which nothing came for a day: the rounds
        have gone on, and nobody will ask for them again.
        """
        shutil.rmtree(self.root / TEMPORARY, ignore_errors=True)
        for path in self.root.rglob(f"*{PARTIAL}"):
            with suppress(OSError):
                is_old = time.time() - path.stat().st_mtime > PARTIAL_SECONDS
                if is_old or path.with_name(path.name.removesuffix(PARTIAL)).exists():
                    path.unlink()


class MaskedShards(BlobStore):
    """The masked shards of one epoch: `masked/<epoch>/<hex root>` of an archive, so that they can go at once."""

    def __init__(self, root: Path, epoch: int) -> None:
        super().__init__(root)
        self.folder = root / MASKED / str(epoch)

    def place(self, root: Digest) -> Path:
        return self.folder / root.hex()


class Archive(BlobStore):
    """Everything that the rounds exchanged; what an auditor asks for."""

    def place(self, root: Digest) -> Path:
        name = root.hex()
        return self.root / "blobs" / name[:2] / name

    def path(self, root: Digest) -> Path | None:
        """The file of the blob called `root`, a masked shard's too; None if it is not here."""
        stores = (self, *(self.masked(epoch) for epoch in self.masked_epochs()))
        places = (store.place(root) for store in stores)
        return next((place for place in places if place.is_file()), None)

    def masked(self, epoch: int) -> MaskedShards:
        """Where the masked shards of an epoch's rounds are, own and others'."""
        return MaskedShards(self.root, epoch)

    def masked_epochs(self) -> list[int]:
        """The epochs of which there are masked shards, ascending."""
        names = (path.name for path in (self.root / MASKED).glob("*"))
        return sorted(int(name) for name in names if name.isdecimal())

    def erase_masked(self, before_epoch: int) -> None:
        """Remove the masked shards of all epochs below `before_epoch`; raises `ArchiveError`."""
        for epoch in self.masked_epochs():
            if epoch < before_epoch:
                folder = self.masked(epoch).folder
                with _explained(folder):
                    shutil.rmtree(folder)

    def add_record(self, number: Round, record: bytes) -> None:
        """Store the record of a round, durable on return; replaces an earlier one (a reorganised chain)."""
        self._write(self.record_path(number), record)

    def add_fork(self, number: Round, statement: Digest, proof: bytes) -> None:
        """Keep the proof that the ledger has another statement of a round than this one; durable on return."""
        self._write(self._fork_path(number, statement, "fork"), proof)

    def set_aside(self, number: Round, statement: Digest) -> None:
        """Put a round's record, which is on this statement, to the proofs: it is in no history any more."""
        path = self._fork_path(number, statement, "record")
        with _explained(path):
            path.parent.mkdir(exist_ok=True)
            self.record_path(number).replace(path)
            _sync_directory(path.parent)

    def forks(self) -> list[Path]:
        """The proofs of histories that were given up, by round."""
        return sorted((self.root / FORKS).glob("*.fork"))

    def record(self, number: Round) -> bytes | None:
        """The record of a round, None if there is none; raises `ArchiveError` if it cannot be read."""
        path = self.record_path(number)
        with _explained(path):
            return path.read_bytes() if path.is_file() else None

    def remove_record(self, number: Round) -> None:
        """Forget the record of a round, if it is here."""
        path = self.record_path(number)
        with _explained(path):
            path.unlink(missing_ok=True)

    def rounds(self) -> list[Round]:
        """The rounds that have a record, ascending."""
        names = (path.stem for path in (self.root / "rounds").glob("*.record"))
        return sorted(int(name) for name in names if name.isdecimal())

    def _write(self, path: Path, data: bytes) -> None:
        temporary, file = _open_temporary(self.root)
        try:
            with _explained(path):
                _write_all(file, memoryview(data))
            _move_into_place(file, temporary, path)
        finally:
            file.close()
            temporary.unlink(missing_ok=True)

    def _fork_path(self, number: Round, statement: Digest, suffix: str) -> Path:
        return self.root / FORKS / f"{number:08d}-{statement.hex()[:16]}.{suffix}"

    def record_path(self, number: Round) -> Path:
        """Where the record of a round lies, whether it is there or not."""
        return self.root / "rounds" / f"{number:08d}.record"


class Models(BlobStore):
    """Snapshots: flat little-endian float32, the parameters in charter order first, each `<hex root>.f32`."""

    def place(self, root: Digest) -> Path:
        return self.root / f"{root.hex()}.f32"

    def add_snapshot(self, pieces: Iterable[Piece]) -> BlobRef:
        """Store a snapshot that comes in pieces of its sections; durable on return. Raises `ArchiveError`.

        The parameters go to their place at once, the sections behind them by way of temporary files.
        """
        with ExitStack() as stack, self.writer() as blob:
            later: dict[int, BinaryIO] = {}
            for section, values in pieces:
                if section == 0:
                    blob.write(values.data)
                    continue
                with _explained(self.root):
                    if section not in later:
                        (self.root / TEMPORARY).mkdir(parents=True, exist_ok=True)
                        later[section] = stack.enter_context(
                            tempfile.TemporaryFile(dir=self.root / TEMPORARY, buffering=0)
                        )
                    _write_all(later[section], values.data.cast("B"))
            for _, file in sorted(later.items()):
                file.seek(0)
                while chunk := file.read(CHUNK):
                    blob.write(chunk)
        assert blob.ref is not None
        return blob.ref

    def add_start(self, start: Start) -> None:
        """Store what a federation begins with."""
        for vector in (start.snapshot, start.personal, start.frozen):
            if len(vector):
                self.add_bytes(vector.data.cast("B"))

    def read_from(self, ref: BlobRef, start: int) -> Iterator[bytes]:
        """A snapshot's bytes from `start` on, unchecked; raises `ArchiveError`."""
        with self.open(ref) as file:
            file.seek(start)
            yield from iter(partial(file.read, CHUNK), b"")

    def snapshots(self, before: BlobRef) -> Snapshots[BlobRef]:
        """From this one to the next, which lies here when the step is taken."""
        return Snapshots(partial(self.read_from, before), self.add_snapshot, before)

    def digests(self) -> set[Digest]:
        """The models that are here."""
        return {bytes.fromhex(path.stem) for path in self.root.glob("*.f32") if _NAME.fullmatch(path.stem)}


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into an `ArchiveError` that names `path`, or into `DiskFull`."""
    try:
        yield
    except OSError as error:
        raise_if_full(error, path)
        raise ArchiveError(f"{path}: {error.strerror or error}: check the disk and permissions") from error


def _open_temporary(root: Path) -> tuple[Path, BinaryIO]:
    directory = root / TEMPORARY
    with _explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=directory)
        # Unbuffered: a write that fails must fail in write(), not in a later close().
        return Path(name), os.fdopen(descriptor, "wb", buffering=0)


def _write_all(file: BinaryIO, data: memoryview) -> None:
    while data:  # an unbuffered write may take less than it is given
        data = data[file.write(data) :]


def _move_into_place(file: BinaryIO, temporary: Path, path: Path) -> None:
    """Make the written `temporary` durable as `path`: data first, then the name, then the directories."""
    with _explained(path):
        os.fsync(file.fileno())
        fresh = [directory for directory in path.parents if not directory.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.chmod(0o644)  # mkstemp's 0600 would hide the archive from an auditor's account
        temporary.replace(path)
        for directory in [path.parent, *(made.parent for made in fresh)]:
            _sync_directory(directory)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
