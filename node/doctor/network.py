"""Ports, peers, and how others see this node: from the running node's own word, and a look at its port."""

import socket
import statistics
from collections.abc import Iterator

from folkmoot.node.config import bootstrap_files
from folkmoot.node.doctor.finding import Case, Finding, ok, problem, warning
from folkmoot.node.status_file import MissingPeer, NodeStatus, PeerView

OFF_SECONDS = 2.0
"""Clocks that differ by more should be looked at; rounds do not depend on them, but logs and certificates do."""


def check_port(case: Case) -> Finding:
    """Free for a node that is to start; answering where one runs."""
    listen = case.config.network.listen
    host, port = listen.split("/")[2], int(listen.split("/")[4])
    if case.status is not None:
        return _check_answers(case)
    if not port:
        return ok("port", "the system will choose one")
    family = socket.AF_INET6 if "/ip6/" in listen else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return problem(
                "port", f"{listen}: {error.strerror}", "stop what listens there, or change network.listen"
            )
    return ok("port", f"{listen} is free")


def _check_answers(case: Case) -> Finding:
    try:
        listening = case.home.address.read_text(encoding="ascii").split()
    except OSError:
        return problem("port", "the node runs, but does not listen yet", "see its log")
    if case.config.network.announce:
        return ok("port", f"the node listens on {case.config.network.listen}")
    host, port = listening[0].split("/")[2], int(listening[0].split("/")[4])
    try:
        socket.create_connection((host, port), 2.0).close()
    except OSError as error:
        return problem("port", f"{host} port {port} does not answer: {error}", "see the node's log")
    return ok("port", f"the node answers on {host} port {port}")


def check_bootstrap(case: Case) -> Iterator[Finding]:
    """Files that should name addresses and are not there."""
    for path in bootstrap_files(case.config.network, case.home):
        if not path.is_file():
            yield warning(
                "bootstrap", f"{path}: no such file", "mend network.bootstrap, if it is not to come yet"
            )


def check_peers(case: Case) -> Iterator[Finding]:
    """Who is connected, and why the others are not."""
    if case.status is None:
        yield warning(
            "peers", "the node does not run: nobody can be asked", "folkmoot run --home HOME, then again"
        )
        return
    others = len(case.charter.members) - 1
    if case.status.peers or not others:
        yield ok("peers", f"{len(case.status.peers)} of {others} connected")
    else:
        yield problem("peers", f"none of {others} is connected", "see what is wrong with each, below")
    yield from (_describe(one, case.now) for one in case.status.missing)


def _describe(one: MissingPeer, now: float) -> Finding:
    why = one.error or "waiting for its call"
    advice = "is it down, or its port closed?"
    if "no address known" in why:
        advice = "put the address of any member into network.bootstrap"
    return warning("peer", f"{one.member}, for {now - one.since:.0f} s: {why}", advice)


def check_reach(case: Case) -> Finding:
    """Whether others can call this node, as they said when they were asked."""
    status = case.status
    if status is None or not status.views:
        return warning(
            "reachable", "nobody has said yet whether it can call this node", "try again in a minute"
        )
    if not case.config.network.via:
        return _check_direct(case, status)
    if status.announced:
        return ok("reachable", f"through {len(status.announced)} relays")
    return problem(
        "reachable",
        "network.via is set, but no connected member relays",
        "ask one to set network.relay = true",
    )


def _check_direct(case: Case, status: NodeStatus) -> Finding:
    reached = [view.member for view in status.views if view.reached]
    unreached = [view.member for view in status.views if not view.reached]
    if not unreached:
        return ok("reachable", f"{', '.join(reached)} can call {', '.join(status.announced)}")
    seen = sorted({view.seen_as for view in status.views if view.seen_as})
    advice = "open the port, set network.announce to where others reach it, or set network.via"
    told = ", ".join(status.announced) or "no address"
    who, where = ", ".join(unreached), ", ".join(seen)
    detail = f"{who} cannot call it: it announces {told}, and others see it come from {where}"
    return warning("reachable", detail, advice) if reached else problem("reachable", detail, advice)


def check_clock(views: list[PeerView]) -> Finding:
    """This clock against the median of the peers': one wrong peer does not count."""
    if not views:
        return warning("clock", "no peer has told its time yet", "try again in a minute")
    off = statistics.median(view.clock_offset for view in views)
    if abs(off) > OFF_SECONDS:
        word = "behind" if off > 0 else "ahead of"
        return warning("clock", f"{abs(off):.1f} s {word} the peers'", "set this machine's clock (NTP)")
    return ok("clock", f"within {OFF_SECONDS:g} s of {len(views)} peers'")
