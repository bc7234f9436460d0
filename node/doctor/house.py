"""The home itself: keys, data, room on the disk."""

import os
import shutil
from pathlib import Path

from folkmoot.node.doctor.finding import Case, Finding, ok, problem, warning
from folkmoot.node.keys import folder_of, load_identity, public_keys
from folkmoot.node.learning import check_data

FEW_ROUNDS = 500
"""With room for fewer rounds than these the operator should think of it."""
LEAST_FREE = 1_000_000_000
"""Bytes that should be free in any case."""


def check_keys(case: Case) -> Finding:
    """Those that the charter names are here, readable by their owner alone. Raises `FolkmootError`."""
    folder = folder_of(case.home.keys, case.member)
    load_identity(case.home.keys, case.member)
    public_keys(folder, case.home.keys)
    loose = sorted(str(path) for path in _files(case.home.keys) if path.stat().st_mode & 0o077)
    if loose:
        return problem("keys", f"others can read {', '.join(loose)}", f"chmod 600 {' '.join(loose)}")
    return ok("keys", f"the charter's, in {folder}, readable by their owner alone")


def check_rows(case: Case) -> Finding:
    """The built-in trainer can use the data files. Raises `ConfigError`."""
    data, resolve = case.config.data, case.home.resolve
    if case.config.trainer.command is not None:
        return ok("data", "a trainer of your own reads it: not looked at")
    if data.query is not None and not resolve(data.train).is_file():
        return ok("data", "encoded from data.query at the first start ('folkmoot data check' tries it)")
    check_data(resolve(data.train), resolve(data.test), case.charter)
    return ok("data", f"{resolve(data.train)} fits the charter's model")


def check_disk(case: Case) -> Finding:
    """For how many rounds there is room, going by what the archive took so far."""
    free = shutil.disk_usage(case.home.path).free
    rounds, taken = _archived(case.home.archive)
    model = 4 * case.charter.model.parameters
    if free < 3 * model + 10_000_000:
        return problem(
            "disk", f"{free / 1e6:,.0f} MB free, and a model has {model / 1e6:,.0f} MB", "make room"
        )
    if not rounds:
        room = f"{free / 1e9:,.0f} GB free"
        return ok("disk", room) if free >= LEAST_FREE else warning("disk", room, "make room")
    left = int(free / (taken / rounds))
    detail = f"{free / 1e9:,.1f} GB free: about {left:,} rounds of {taken / rounds / 1e6:,.2f} MB"
    if left < FEW_ROUNDS or free < LEAST_FREE:
        return warning("disk", detail, "make room, or move the home to a larger disk")
    return ok("disk", detail)


def _archived(archive: Path) -> tuple[int, int]:
    """Rounds and bytes in an archive."""
    sizes = [path.stat().st_size for path in _files(archive)]
    return len(list((archive / "rounds").glob("*.record"))), sum(sizes)


def _files(folder: Path) -> list[Path]:
    found = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return [path for path in found if path.is_file()]
