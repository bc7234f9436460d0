"""All checks, in the order in which a node needs things."""

import time
from collections.abc import Callable, Iterable, Iterator

from folkmoot.node.charters import load_charter_in_work
from folkmoot.node.config import Home, load_config
from folkmoot.node.doctor.chain import check_ledger
from folkmoot.node.doctor.finding import Case, Finding, ok, problem
from folkmoot.node.doctor.house import check_disk, check_keys, check_rows
from folkmoot.node.doctor.network import check_bootstrap, check_clock, check_peers, check_port, check_reach
from folkmoot.node.doctor.training import check_trainer
from folkmoot.node.status_file import NodeStatus, StatusError, is_running, read_status
from folkmoot.protocol.errors import FolkmootError

STALE_SECONDS = 10.0


def examine(home: Home) -> Iterator[Finding]:
    """One finding after the other, as they come. Nothing is written, and the journal's lock is not touched."""
    try:
        config = load_config(home)
        yield ok("configuration", str(home.config))
    except FolkmootError as error:
        yield problem("configuration", str(error))
        return
    try:
        charter = load_charter_in_work(home)
        charter.member_named(config.name)
        yield ok("charter", f"{charter.name}: {len(charter.members)} members, all signatures fit")
    except FolkmootError as error:
        yield problem("charter", str(error))
        return
    yield from _examine(Case(home, config, charter, _running(home), time.time()))


def _examine(case: Case) -> Iterator[Finding]:
    status = case.status
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("keys", lambda: [check_keys(case)]),
        ("data", lambda: [check_rows(case)]),
        ("disk", lambda: [check_disk(case)]),
        ("trainer", lambda: [check_trainer(case)]),
        ("ledger", lambda: check_ledger(case)),
        ("port", lambda: [check_port(case)]),
        ("bootstrap", lambda: check_bootstrap(case)),
        ("peers", lambda: check_peers(case)),
        ("reachable", lambda: [check_reach(case)] if status is not None else []),
        ("clock", lambda: [check_clock(status.views)] if status is not None else []),
    ]
    for name, check in checks:
        try:
            yield from check()
        except FolkmootError as error:
            yield problem(name, str(error))


def _running(home: Home) -> NodeStatus | None:
    """What a node says that runs now; a status of another version is none."""
    try:
        status = read_status(home.status)
    except StatusError:
        return None
    if status is None or not is_running(status) or time.time() - status.updated > STALE_SECONDS:
        return None
    return status
