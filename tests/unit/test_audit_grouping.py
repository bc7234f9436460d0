"""Findings of one kind are told once, with the rounds and archives; what differs stays apart."""

from folkmoot.ledger.audit.grouping import group, rounds_told, short_names, spans
from folkmoot.ledger.audit.html import render
from folkmoot.ledger.audit.report import AuditReport, Finding, Status, Tally


def tally_of(rounds: range, *sources: str, what: str = "withheld") -> Tally:
    tally = Tally("payloads")
    for number in rounds:
        for source in sources:
            where = f"round {number} in {source}"
            tally.add(Status.INCONCLUSIVE, f"{where}: {what}", round_=number, where=where)
    return tally


def test_runs_of_rounds() -> None:
    assert spans([4, 2, 3, 9]) == ((2, 4), (9, 9))
    assert rounds_told([52, *range(3, 41)]) == "rounds 3-40, 52"
    assert rounds_told(range(1, 99, 2)) == "rounds 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23 and 37 more"
    assert (rounds_told([7]), spans([])) == ("round 7", ())


def test_the_same_in_many_rounds_is_one_sentence() -> None:
    tally = tally_of(range(3, 203), "/a/b/alice", "/a/b/bob")
    assert [one.told for one in group(tally.findings)] == ["rounds 3-202 in alice, bob: withheld"]
    assert tally.close("{}").detail == "rounds 3-202 in alice, bob: withheld"
    assert len(tally.findings) == 400


def test_many_archives_are_counted() -> None:
    (found,) = group(tally_of(range(1, 2), "a", "b", "c", "d").findings)
    assert found.told == "round 1 in 4 archives: withheld"


def test_one_alone_is_told_as_it_is() -> None:
    (found,) = group(tally_of(range(7, 8), "/a/b/alice").findings)
    assert found.told == "round 7 in /a/b/alice: withheld"


def test_what_differs_stays_apart() -> None:
    findings = [
        *tally_of(range(1, 4), "a").findings,
        *tally_of(range(1, 4), "a", what="damaged").findings,
        Finding(id="1", check="ledger", status=Status.FAIL, what="round 1 and nothing else"),
        Finding(id="2", check="quorum", status=Status.FAIL, what="round 12 is odd", round=1),
    ]
    assert [one.told for one in group(findings)] == [
        "rounds 1-3 in a: withheld",
        "rounds 1-3 in a: damaged",
        "round 1 and nothing else",
        "round 12 is odd",
    ]


def test_blobs_are_of_one_kind() -> None:
    tally = Tally("payloads")
    for number in (1, 2):
        what = (
            f"round {number} in a: a payload is not what its name says: blobs/{number:02}/{number:064} in b c"
        )
        tally.add(Status.FAIL, what, round_=number, where=f"round {number} in a")
    (found,) = group(tally.findings)
    assert found.told == "rounds 1-2 in a: a payload is not what its name says"


def test_names_are_as_short_as_they_may_be() -> None:
    assert list(short_names(["/a/b/alice", "/a/b/bob"])) == ["alice", "bob"]
    assert list(short_names(["/a/b/alice"])) == ["alice"]
    in_bundle = ["archive/1 of the bundle", "archive/2 of the bundle"]
    assert list(short_names(in_bundle)) == in_bundle
    assert list(short_names(["alice", "/b/alice"])) == ["alice", "/b/alice"]


def test_the_page_tells_kinds_and_keeps_each_one() -> None:
    findings = tuple(tally_of(range(1, 6), "/a/<alice>").findings)
    page = render(
        AuditReport(status=Status.INCONCLUSIVE, checks=(), findings=findings),
        command=["folkmoot", "audit"],
        version="1",
        made_at=0,
    )
    assert "rounds 1-5 in &lt;alice&gt;: withheld" in page and "and 4 more" in page
    assert all(one.id in page for one in findings) and "<alice>" not in page
