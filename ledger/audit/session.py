"""One audit as a command makes it: from what the command line names to reports, a page, a bundle and a memory."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from folkmoot.ledger.audit import memory
from folkmoot.ledger.audit.bundle import open_bundle, write_bundle
from folkmoot.ledger.audit.charters import finality_depth, gather_charters
from folkmoot.ledger.audit.checks import Audited, audit
from folkmoot.ledger.audit.html import render
from folkmoot.ledger.audit.in_force import Ground
from folkmoot.ledger.audit.ledger_checks import PublicRecord
from folkmoot.ledger.audit.memory import Remembered
from folkmoot.ledger.audit.rpc_record import RpcRecord
from folkmoot.ledger.audit.shown import ShownLedger
from folkmoot.ledger.audit.sources import SignedCharter, Source, load_signed_charter
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.types import Digest


class OutputError(FolkmootError):
    """A report, page or bundle cannot be written."""

    exit_code = 2


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into an `OutputError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


@dataclass(frozen=True)
class Outputs:
    """Where an audit goes besides the terminal; None: nowhere."""

    html: Path | None = None
    bundle: Path | None = None


@dataclass(frozen=True)
class Session:
    """What is audited, and what is remembered of it.

    `state`: the file that remembers; `remembers`: whether there is one (if no file is named, the federation's own).
    `max_age`: seconds that the newest block may be old; None: any.
    """

    contract: bytes
    ledgers: Sequence[PublicRecord]
    names: Sequence[str]
    sources: Sequence[Source]
    charter: SignedCharter | None
    development: bool
    command: Sequence[str]
    remembers: bool
    state: Path | None = None
    max_age: float | None = None

    def run(self) -> Audited:
        """Audit once; what was verified is remembered for the next time."""
        audited = audit(
            self.ledgers,
            self.sources,
            contract=self.contract,
            charter=self.charter,
            development=self.development,
            recall=self._recall if self.remembers else None,
            names=self.names,
            oldest=self._oldest(),
        )
        if self.remembers and audited.memory is not None:
            memory.save(self._state_file(audited.memory.federation), audited.memory)
        return audited

    def ground(self) -> Ground:
        """The same, for who looks at one round alone."""
        return Ground(
            self.contract,
            self.sources,
            self.charter,
            self.ledgers,
            self.names,
            development=self.development,
            oldest=self._oldest(),
        )

    def export(self, audited: Audited, outputs: Outputs) -> None:
        """Write the page and the bundle that were asked for; raises `OutputError`."""
        if outputs.bundle is not None:
            shown = [ShownLedger.of_view(view) for view in audited.views]
            with writing(outputs.bundle):
                write_bundle(
                    outputs.bundle,
                    shown,
                    self.sources,
                    self._founding(audited),
                    contract=self.contract,
                    development=self.development,
                )
        if outputs.html is not None:
            again = (
                ["folkmoot", "audit", "--offline", str(outputs.bundle)] if outputs.bundle else self.command
            )
            page = render(audited.report, command=again, version=program_version(), made_at=time.time())
            with writing(outputs.html):
                outputs.html.write_text(page, encoding="utf-8")

    def _oldest(self) -> float | None:
        return None if self.max_age is None else time.time() - self.max_age

    def _recall(self, federation: Digest) -> Remembered | None:
        return memory.load(self._state_file(federation.hex()))

    def _state_file(self, federation: str) -> Path:
        return self.state or memory.default_path(federation)

    def _founding(self, audited: Audited) -> SignedCharter | None:
        return gather_charters(self.charter, self.sources, audited.views).founding


def online_session(
    rpcs: Sequence[str],
    contract: bytes,
    sources: Sequence[Source],
    charter_file: Path | None,
    *,
    first_block: int | None,
    remembers: bool,
    state: Path | None,
    max_age: float,
) -> Session:
    """An audit of a chain, through `rpcs`."""
    charter = load_signed_charter(charter_file) if charter_file else None
    depth = finality_depth(charter, sources)
    ledgers = [RpcRecord(url, contract, first_block=first_block, finality_depth=depth) for url in rpcs]
    named = [("--rpc", ledger.name) for ledger in ledgers]
    named += [("--home" if source.is_home else "--archive", source.name) for source in sources]
    named += [("--charter", str(charter_file))] if charter_file else []
    return Session(
        contract=contract,
        ledgers=ledgers,
        names=[f"RPC {place} ({ledger.name})" for place, ledger in enumerate(ledgers, start=1)],
        sources=sources,
        charter=charter,
        development=any(list(map(RpcRecord.is_development, ledgers))),
        command=[
            "folkmoot",
            "audit",
            "--contract",
            f"0x{contract.hex()}",
            *(word for pair in named for word in pair),
        ],
        remembers=remembers,
        state=state,
        max_age=max_age,
    )


def offline_session(
    bundle: Path,
    sources: Sequence[Source],
    charter_file: Path | None,
    *,
    state: Path | None,
    max_age: float | None,
    stack: ExitStack,
) -> Session:
    """An audit of a bundle, which is unpacked until `stack` is closed; `sources` may add homes with keys.

    An old bundle is behind what later audits saw: only a named file remembers, and any age may do (`max_age`: None).
    """
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="folkmoot-audit-")))
    opened = open_bundle(bundle, folder)
    return Session(
        contract=opened.contract,
        ledgers=opened.ledgers,
        names=opened.names,
        sources=[*opened.sources, *sources],
        charter=load_signed_charter(charter_file) if charter_file else opened.charter,
        development=opened.development,
        command=["folkmoot", "audit", "--offline", str(bundle)],
        remembers=state is not None,
        state=state,
        max_age=max_age,
    )


def encode_report(audited: Audited) -> str:
    """The report as JSON."""
    return msgspec.json.format(msgspec.json.encode(audited.report)).decode()


def program_version() -> str:
    """This program's release."""
    try:
        return version("folkmoot")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
