"""The file that a bundle is: a ZIP file with large blobs as they are, and `packed.xz` with everything else.

What archives say of one round is nearly the same in all of them, so it is compressed together: for each file a line
with its name and size (`<name> <size>`), then its bytes. Blobs are ciphertext, which no compression makes smaller;
those that are large stand beside it. Whoever reads trusts nothing: names, sizes and memory have limits.
"""

import hashlib
import lzma
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from folkmoot.protocol.errors import FolkmootError

PACKED = "packed.xz"
SMALL = 4096
"""Bytes of the largest blob that goes with the rest: beside it a file costs some 200 bytes more."""

_PRESET = 2
"""Looks back 2 MiB, enough for all records of a round, at some 5 MB a second."""

_PIECE = 1 << 20
_MEMORY = 64 << 20
"""Bytes that a reader lets the decompression have."""

_MAX_LINE = 200
_LINE = re.compile(rb"([!-~]+) (0|[1-9][0-9]{0,17})\n")
_MIN_ROOM, _MAX_RATIO = 512 << 20, 200
"""Bytes that any bundle may come to, and how many more for each byte of its own."""

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""Of the others zipfile expands whatever it has read at once: gigabytes from some hundred bytes."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every file: the same audit gives the same bytes."""

_UNREADABLE = (
    zipfile.BadZipFile, OSError, EOFError, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, ValueError,
    MemoryError,
)  # fmt: skip


class BundleError(FolkmootError):
    """The file is no bundle, or is not what its manifest says."""

    exit_code = 2


# --- writing --------------------------------------------------------------------------------------------------------


class Packer:
    """Puts files into a bundle; see `packing`."""

    def __init__(self, archive: zipfile.ZipFile, packed: lzma.LZMAFile) -> None:
        self._archive, self._packed = archive, packed

    def add_bytes(self, name: str, data: bytes) -> str:
        """Pack `data`; returns its SHA-256 in hex."""
        self._packed.write(b"%s %d\n" % (name.encode(), len(data)))
        self._packed.write(data)
        return hashlib.sha256(data).hexdigest()

    def add_file(self, name: str, path: Path, *, is_blob: bool = False) -> str:
        """Put in a file; returns its SHA-256 in hex. A blob that is large stands by itself."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if is_blob and size > SMALL:
                with self._archive.open(_entry(name), "w", force_zip64=True) as inside:
                    return _copy(file, inside, size)
            self._packed.write(b"%s %d\n" % (name.encode(), size))
            return _copy(file, self._packed, size)


@contextmanager
def packing(path: Path) -> Iterator[Packer]:
    """Write a bundle into `path`, in place of what was there, when the block ends well."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(temporary, "w") as archive, TemporaryFile() as spool:
            with lzma.open(spool, "wb", preset=_PRESET) as packed:
                yield Packer(archive, packed)
            spool.seek(0)
            with archive.open(_entry(PACKED, zipfile.ZIP_STORED), "w", force_zip64=True) as inside:
                shutil.copyfileobj(spool, inside, _PIECE)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _entry(name: str, method: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = method
    entry.external_attr = 0o644 << 16
    return entry


# --- reading --------------------------------------------------------------------------------------------------------


def unpack(path: Path, folder: Path, names: re.Pattern[str]) -> dict[str, str]:
    """Unpack the bundle `path` into the empty `folder`; the SHA-256 in hex of every file by name.

    Raises `BundleError`, also for a file that is not called as `names` say.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Unpacking(path, folder, names).run(archive)
    except _UNREADABLE as error:
        raise BundleError(f"{path}: not a readable bundle: {error}") from error


class _Unpacking:
    def __init__(self, path: Path, folder: Path, names: re.Pattern[str]) -> None:
        self._path, self._folder, self._names = path, folder, names
        self._room = min(_MIN_ROOM + _MAX_RATIO * path.stat().st_size, shutil.disk_usage(folder).free)
        self._found: dict[str, str] = {}

    def run(self, archive: zipfile.ZipFile) -> dict[str, str]:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise BundleError(f"{self._path}: a file stands in it twice")
        if any(entry.compress_type not in _METHODS for entry in entries.values()):
            raise BundleError(f"{self._path}: a file is packed otherwise than bundles are")
        if PACKED not in entries:
            raise BundleError(f"{self._path}: no {PACKED} in it: not a bundle")
        with archive.open(entries.pop(PACKED)) as packed, TemporaryFile(dir=self._folder) as spool:
            self._expand(packed, spool)
            spool.seek(0)
            while line := spool.readline(_MAX_LINE):
                self._put(*_parse_line(line), spool)
        for name, entry in entries.items():
            self._take(entry.file_size)
            with archive.open(entry) as inside:
                self._put(name, entry.file_size, inside)
        return self._found

    def _expand(self, packed: IO[bytes], spool: IO[bytes]) -> None:
        expander = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
        while not expander.eof:
            data = packed.read(_PIECE) if expander.needs_input else b""
            if expander.needs_input and not data:
                raise EOFError(f"{PACKED} is cut off")
            piece = expander.decompress(data, _PIECE)
            self._take(len(piece))
            spool.write(piece)

    def _take(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise BundleError(
                f"{self._path}: it is far larger inside than a bundle of its size, or than the disk"
            )

    def _put(self, name: str, size: int, data: IO[bytes]) -> None:
        if not self._names.fullmatch(name):
            raise BundleError(f"{self._path}: a file with a strange name: {name!r}")
        if name in self._found:
            raise BundleError(f"{self._path}: {name} stands in it twice")
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            self._found[name] = _copy(data, file, size)


def _parse_line(line: bytes) -> tuple[str, int]:
    """The name and the size of the file that follows."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"{line[:60]!r} where a file should begin")
    return found[1].decode(), int(found[2])


def _copy(data: IO[bytes], file: IO[bytes], size: int) -> str:
    """Copy exactly `size` bytes; returns their SHA-256 in hex. Raises `EOFError` if there are fewer."""
    state = hashlib.sha256()
    while size:
        piece = data.read(min(_PIECE, size))
        if not piece:
            raise EOFError("a file is shorter than it says")
        size -= len(piece)
        state.update(piece)
        file.write(piece)
    return state.hexdigest()
