"""What an auditor was given: archives, and homes of nodes, read without trusting them.

The layout is the node's (`folkmoot.node.archive`, `folkmoot.node.config`; a test holds the two together):

    archive/blobs/ab/<hex root>   archive/rounds/<8 digits>.record   archive/masked/<epoch>/<hex root>
    HOME/archive/   HOME/charter.toml   HOME/charter.sig/<name>.sig   HOME/charters/<hex digest>.toml
    HOME/keys/sealing.key   HOME/keys/<number>/sealing.key   HOME/store.sqlite (table `secrets`)
    HOME/models/<hex digest>.f32   HOME/models/model0.safetensors
    HOME/privacy.jsonl (or archive/privacy.jsonl)

Nothing is written, nothing is followed but these names, and sizes are looked at before contents.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from folkmoot.protocol import merkle
from folkmoot.protocol.blob import CHUNK, BlobRef, ref_of
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_rules import parse_charter
from folkmoot.protocol.charter_tables import Tensor
from folkmoot.protocol.errors import CharterError, FolkmootError, RemoteProtocolError
from folkmoot.protocol.messages import MAX_FRAME
from folkmoot.protocol.record import MAX_RECORD
from folkmoot.protocol.ring import Float32s
from folkmoot.protocol.types import Digest, MemberId, Round

_MAX_CHARTER = 8 * 1024 * 1024
_MAX_PRIVACY_LOG = 256 * 1024 * 1024
_PRIVACY_LOG = "privacy.jsonl"
_KEY_SIZE = 32
_EVIDENCE_START = b"\x93\xa8evidence"  # msgpack: an array of three, the first of which is this tag
_SIGNATURE_SIZE = 64


class Lacking(FolkmootError):
    """Something that a check needs is not in what the auditor was given; of `members`, if it is of somebody."""

    exit_code = 3

    def __init__(self, message: str, members: Sequence[MemberId] = ()) -> None:
        super().__init__(message)
        self.members = tuple(members)


class Damaged(RemoteProtocolError):
    """What a member committed to is not what an archive has in its place."""

    def __init__(self, message: str, member: MemberId) -> None:
        super().__init__(message)
        self.member = member


class NotJudged(FolkmootError):
    """A check rests on something that did not hold, or was not to be had, and that another check has told of."""


class Convicted(FolkmootError):
    """A member signed what is not so, and the proof is here; the message names it."""

    exit_code = 4


@dataclass(frozen=True)
class SignedCharter:
    """A charter with the signatures (by member name) that lie beside it; neither is checked yet."""

    charter: Charter
    signatures: dict[str, bytes]
    where: str
    amended: tuple[Charter, ...] = ()
    """Those in `charters/` beside it."""


class Source:
    """An archive, and the home that it belongs to if that was given too."""

    def __init__(self, archive: Path, home: Path | None = None, *, name: str = "") -> None:
        """`name`: what it is called in reports (default: its path)."""
        self._archive = archive
        self._home = home
        self.name = name or str(home or archive)

    @classmethod
    def of_home(cls, home: Path) -> "Source":
        """A node's home: its archive, models and sealing key."""
        return cls(home / "archive", home)

    @property
    def is_home(self) -> bool:
        """Whether it comes with models and keys."""
        return self._home is not None

    def place(self, path: Path) -> str | None:
        """What a file of this archive is called in reports; None if it is not of this archive."""
        if not path.is_relative_to(self._archive):
            return None
        return f"{path.relative_to(self._archive).as_posix()} in {self.name}"

    def rounds(self) -> list[Round]:
        """The rounds that have a record here, ascending."""
        names = (path.stem for path in (self._archive / "rounds").glob("*.record"))
        return sorted(int(name) for name in names if len(name) == 8 and name.isascii() and name.isdecimal())

    def marker(self) -> object:
        """Changes when a record or a blob is added, replaced or taken away."""
        folders = (self._archive / "rounds", *(self._archive / "blobs").glob("??"))
        return sorted((str(folder), folder.stat().st_mtime_ns) for folder in folders if folder.is_dir())

    def has_record(self, number: Round) -> bool:
        """Whether there is a record of that round, good or bad."""
        return self._archived(self.record_path(number)) is not None

    def record_path(self, number: Round) -> Path:
        """Where the record of that round lies, or would."""
        return self._archive / "rounds" / f"{number:08d}.record"

    def record(self, number: Round) -> bytes | None:
        """The record's bytes; None if there is none. Raises `RemoteProtocolError` if it is absurdly long."""
        path = self._archived(self.record_path(number))
        return _read(path, MAX_RECORD) if path else None

    def blob(self, root: Digest) -> Path | None:
        """Where the blob called `root` lies; None if it is not here. Its contents are unchecked."""
        name = root.hex()
        return self._archived(self._archive / "blobs" / name[:2] / name)

    def files_of(self, root: Digest) -> Iterator[tuple[str, Path]]:
        """Every file here that is called `root`, with its name in an archive."""
        name = root.hex()
        masked = sorted((self._archive / "masked").glob(f"*/{name}"))
        for path in (self._archive / "blobs" / name[:2] / name, *masked):
            if self._archived(path):
                yield path.relative_to(self._archive).as_posix(), path

    def privacy_log(self) -> bytes | None:
        """What the home's member wrote down of its privacy budget, unchecked; None if it is not here.

        Who gives only an archive may put it there. Raises `RemoteProtocolError` if it is absurdly long.
        """
        own = _existing(self._home / _PRIVACY_LOG) if self._home else None
        path = own or self._archived(self._archive / _PRIVACY_LOG)
        return _read(path, _MAX_PRIVACY_LOG) if path else None

    def masked_shard(self, epoch: int, root: Digest) -> Path | None:
        """Where a masked shard of that epoch lies; None if it is not here (any more). Its contents are unchecked."""
        return self._archived(self._archive / "masked" / str(epoch) / root.hex())

    def vector(self, root: Digest, tensors: Sequence[Tensor], sections: int = 1) -> Float32s | None:
        """The snapshot called `root`, checked against it; None if it is not here whole.

        It has `sections` vectors, each as long as the `tensors` together.
        """
        size = 4 * sections * sum(tensor.size for tensor in tensors)
        for path in filter(None, (self.blob(root), self._model(f"{root.hex()}.f32"))):
            if path.stat().st_size == size:
                data = path.read_bytes()
                if ref_of(data).root == root:
                    return np.frombuffer(data, dtype="<f4").astype(np.float32, copy=False)
        return self._initial_vector(root, tensors, sections)

    def sealing_secrets(self) -> Iterator[bytes]:
        """The X25519 secrets of the home's keys, to which payloads and answers are sealed: those in use and older ones.

        Raises `Lacking` for a file that holds none.
        """
        keys = self._home / "keys" if self._home else None
        folders = [keys, *sorted(keys.glob("[0-9]*"))] if keys else []
        for path in filter(None, (_existing(folder / "sealing.key") for folder in folders)):
            yield _read_secret(path)

    def content_key(self, number: Round, roster: Digest, member: MemberId) -> bytes | None:
        """The key of one payload that the home's node kept, unchecked; None if there is none to be read."""
        query = "SELECT key FROM secrets WHERE round = ? AND roster = ? AND member = ?"
        return next(iter(self._query(query, (number, roster, member))), None)

    def journal(self, number: Round) -> Iterator[bytes]:
        """What the home's node wrote down of a round: entries of `folkmoot.protocol.journal`, unchecked."""
        query = (
            "SELECT body FROM journal WHERE round = ? AND kind IN ('said', 'proposed', 'voted') ORDER BY seq"
        )
        yield from self._query(query, (number,))

    def evidence(self) -> Iterator[bytes]:
        """Blobs that look like proof against a member (`messages.Evidence`), which nodes keep in their archives."""
        for path in self.evidence_files():
            yield path.read_bytes()

    def evidence_files(self) -> Iterator[Path]:
        """Where those blobs lie."""
        for path in sorted((self._archive / "blobs").glob("??/*")):
            if self._archived(path) and _begins_with(path, _EVIDENCE_START, MAX_FRAME):
                yield path

    def forks(self) -> Iterator[bytes]:
        """Proofs (`protocol.fork`) of histories that nodes gave up, unchecked; none that is too large for one."""
        for path in self.fork_files():
            if path.stat().st_size <= MAX_RECORD:
                yield path.read_bytes()

    def fork_files(self) -> Iterator[Path]:
        """Where those lie."""
        yield from filter(self._archived, sorted((self._archive / "forks").glob("*.fork")))

    def charter(self) -> SignedCharter | None:
        """The home's charter with its signatures; None if there is none."""
        path = _existing(self._home / "charter.toml") if self._home else None
        return load_signed_charter(path) if path else None

    def _archived(self, path: Path) -> Path | None:
        """`path` if it is a file of the archive itself.

        Archives are given by others, and what lies in them goes into bundles: a link could lead to a key of the
        auditor's.
        """
        if path.is_symlink() and not path.resolve().is_relative_to(self._archive.resolve()):
            return None
        return _existing(path)

    def _query(self, query: str, values: tuple[object, ...]) -> list[bytes]:
        """The blobs in the first column of the home's store; none if there is no store of ours that can be read."""
        path = _existing(self._home / "store.sqlite") if self._home else None
        if path is None:
            return []
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as store:
                return [value for (value,) in store.execute(query, values) if isinstance(value, bytes)]
        except sqlite3.Error:
            return []

    def _model(self, name: str) -> Path | None:
        return _existing(self._home / "models" / name) if self._home else None

    def _initial_vector(self, root: Digest, tensors: Sequence[Tensor], sections: int) -> Float32s | None:
        path = self._model("model0.safetensors")
        if path is None:
            return None
        try:
            named = safetensors.numpy.load_file(path)
        except safetensors.SafetensorError:
            return None
        pieces = [named.get(tensor.name) for tensor in tensors]
        if any(piece is None or piece.dtype != np.float32 for piece in pieces):
            return None
        weights = np.concatenate([np.ravel(piece) for piece in pieces if piece is not None])
        vector = np.concatenate([weights, np.zeros((sections - 1) * len(weights), dtype=np.float32)])
        return vector if ref_of(vector.astype("<f4", copy=False).data).root == root else None


def load_signed_charter(path: Path) -> SignedCharter:
    """Read `path` and the signatures in `charter.sig/` beside it.

    Raises `CharterError` or `ConfigError` if it is no charter. A signature that is missing or malformed is left out:
    that the charter lacks it is the audit's finding.
    """
    try:
        text = _read(path, _MAX_CHARTER).decode()
    except (OSError, UnicodeDecodeError, RemoteProtocolError) as error:
        raise CharterError(f"{path}: cannot be read as a charter: {error}") from error
    charter = parse_charter(text, str(path))
    folder = path.parent / "charter.sig"
    found = ((member.name, _signature(folder / f"{member.name}.sig")) for member in charter.members)
    signatures = {name: signature for name, signature in found if signature}
    return SignedCharter(charter, signatures, str(path), tuple(_amended_charters(path.parent / "charters")))


def _amended_charters(folder: Path) -> Iterator[Charter]:
    """Those that can be read; whether one that is needed is missing, the ledger's amendments say."""
    for path in sorted(folder.glob("*.toml")):
        try:
            yield parse_charter(_read(path, _MAX_CHARTER).decode(), str(path))
        except (OSError, UnicodeDecodeError, FolkmootError):
            continue


def ref_of_file(path: Path) -> BlobRef:
    """What the blob in a file is called by its contents; one chunk is in memory at a time."""
    leaves, size = [], 0
    for chunk in read_pieces(path):
        leaves.append(merkle.leaf_hash(chunk))
        size += len(chunk)
    return BlobRef(merkle.root(leaves), size)


def read_pieces(path: Path, offset: int = 0) -> Iterator[bytes]:
    """The file's bytes from `offset` on, in pieces of `CHUNK` bytes (the last is shorter)."""
    with path.open("rb") as file:
        file.seek(offset)
        while piece := file.read(CHUNK):
            yield piece


def _existing(path: Path) -> Path | None:
    """`path` if it is a regular file (or leads to one) that we can get at."""
    try:
        return path if path.is_file() else None
    except OSError:
        return None


def _read_secret(path: Path) -> bytes:
    try:
        secret = bytes.fromhex(_read(path, 1024).decode("ascii"))
    except ValueError:
        secret = b""
    if len(secret) != _KEY_SIZE:
        # No "from": the chained error would quote the key's text.
        raise Lacking(f"{path} is not 32 bytes in hex: the key is damaged")
    return secret


def _begins_with(path: Path, start: bytes, limit: int) -> bool:
    """Whether the file has these first bytes and at most `limit`; False for what cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(start)) == start and path.stat().st_size <= limit
    except OSError:
        return False


def _read(path: Path, limit: int) -> bytes:
    size = path.stat().st_size
    if size > limit:
        raise RemoteProtocolError(f"{path} has {size} bytes, the limit is {limit}")
    return path.read_bytes()


def _signature(path: Path) -> bytes | None:
    try:
        signature = bytes.fromhex(_read(path, 1024).decode("ascii"))
    except (OSError, ValueError, RemoteProtocolError):
        return None
    return signature if len(signature) == _SIGNATURE_SIZE else None
