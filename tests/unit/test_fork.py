"""Two histories: noticing, finding the round where they part, refusing the one that lost."""

import pytest
from msgspec.structs import replace
from one_node import ALL, LAST, ME, NEW_MODEL, OTHER, decide, fire, locked, town
from small_federation import MODEL0, Driver, frames, mark, of_kind

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.effects import FetchSnapshot, Fit, ReadRecord, RecordEvidence, RollBack
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.events import HeadAdvanced, RecordRead, SnapshotReady
from folkmoot.protocol.fork import Branch, Fork, RecordedRound, decode_fork, encode_fork
from folkmoot.protocol.history import READ_PATIENCE
from folkmoot.protocol.journal import RolledBack
from folkmoot.protocol.messages import Final, Hello, Opening, Statement
from folkmoot.protocol.typed_data import struct_hash

OURS = town.statement(ALL)
THEIRS = replace(OURS, model=mark(77))


def chain(*models: int) -> list[Statement]:
    """Statements of rounds 1, 2, ..., each on the one before."""
    found: list[Statement] = []
    for number, model in enumerate(models, 1):
        previous = struct_hash(found[-1]) if found else town.federation.id
        found.append(replace(OURS, round=number, previous=previous, model=mark(model)))
    return found


def branch(statements: list[Statement]) -> Branch:
    made = Branch()
    for statement in statements:
        made.hold(statement.round, struct_hash(statement))
    return made


def recorded(statements: list[Statement]) -> tuple[RecordedRound, ...]:
    return tuple(RecordedRound(statement, ()) for statement in statements)


def test_one_history_is_no_contradiction_however_far_the_record_is() -> None:
    mine = chain(1, 2, 3, 4)
    held = branch(mine)
    assert held.find_contradiction() is None
    for height in (2, 3, 9):
        held.note_final(height, struct_hash(mine[height - 1]) if height < 5 else mark(9))
        assert held.find_contradiction() is None
    assert not held.refuses(mine[3])


def test_the_round_in_which_two_histories_part_is_found() -> None:
    mine, theirs = chain(1, 2, 3, 4), chain(1, 2, 30, 40)
    held = branch(mine)
    held.note_final(2, struct_hash(theirs[1]))
    assert held.find_contradiction() is None
    held.note_final(4, struct_hash(theirs[3]))
    assert held.find_contradiction() == (2, 4)
    fork = held.find_fork(recorded(theirs[1:]))
    assert fork is not None and fork.statement == theirs[2]
    assert held.give_up(3) == {struct_hash(one) for one in mine[2:]}
    assert held.find_contradiction() is None
    assert all(held.refuses(one) for one in mine[2:]) and not any(held.refuses(one) for one in theirs)
    # what others build on what was given up is refused as well, and so on
    fifth = replace(OURS, round=5, previous=struct_hash(mine[3]))
    sixth = replace(OURS, round=6, previous=struct_hash(fifth))
    assert held.refuses(fifth) and held.refuses(sixth)


def test_a_round_that_does_not_continue_the_final_record_is_refused() -> None:
    mine = chain(1, 2)
    held = branch(mine)
    held.note_final(2, struct_hash(mine[1]))
    assert held.refuses(replace(OURS, round=3, previous=mark(5)))
    assert not held.refuses(replace(OURS, round=3, previous=struct_hash(mine[1])))


@pytest.mark.parametrize("told", [(3, 5), (5,)])
def test_a_record_that_was_told_wrongly_for_a_while_is_followed_once_it_is_told_right(
    told: tuple[int, ...],
) -> None:
    true = chain(1, 2, 3, 4, 5, 6)
    held = branch(true[:2])
    held.note_final(3, mark(99))
    assert all(held.refuses(one) for one in true[2:5])
    for height in told:
        held.note_final(height, struct_hash(true[height - 1]))
    assert not held.refuses(true[4]) and not held.refuses(true[5])
    held.give_up(2)
    held.note_final(6, struct_hash(true[5]))
    assert not held.refuses(true[5]) and not held.refuses(
        replace(OURS, round=7, previous=struct_hash(true[5]))
    )


def test_an_answer_that_makes_no_sense_rolls_nothing_back() -> None:
    mine, theirs = chain(1, 2, 3), chain(1, 20, 30)
    held = branch(mine)
    held.note_final(3, struct_hash(theirs[2]))
    assert held.find_contradiction() == (1, 3)
    for answer in ([], theirs[:2], [theirs[0], mine[1], theirs[2]], mine):
        assert held.find_fork(recorded(answer)) is None
    assert held.find_contradiction() == (1, 3), "it stands until the ledger explains itself"


def decided() -> Driver:
    """A node that finished round 1 with `OURS`, and has trained for round 2."""
    node = locked()
    decide(node)
    assert node.machine.completed == 1
    return node


def test_the_machine_asks_the_ledger_and_signs_nothing_meanwhile() -> None:
    node = decided()
    (asked,) = of_kind(node.handle(HeadAdvanced(1, struct_hash(THEIRS))), ReadRecord)
    assert (asked.first, asked.last) == (1, 1) and node.machine.phase == "rolling back"
    assert not of_kind(node.handle(HeadAdvanced(1, struct_hash(THEIRS))), ReadRecord), "asked once"
    effects = node.handle(RecordRead(()))
    assert of_kind(effects, ReadRecord) and not of_kind(effects, RollBack), (
        "it stands until the ledger explains it"
    )
    node.handle(RecordRead(recorded([OURS])))
    assert node.machine.completed == 1 and node.machine.phase == "rolling back"


def test_a_record_that_no_quorum_signed_rolls_nothing_back() -> None:
    """A lying RPC can make up statements, but not attestations: the node stands until it hears better."""
    signed = tuple(town.sign(member, THEIRS) for member in range(3))
    forged = tuple(replace(one, member=(one.member + 1) % 3) for one in signed)
    for attestations in ((), signed[:2], forged, tuple(town.sign(member, OURS) for member in range(3))):
        node = decided()
        node.handle(HeadAdvanced(1, struct_hash(THEIRS)))
        effects = node.handle(RecordRead((RecordedRound(THEIRS, attestations),)))
        assert of_kind(effects, ReadRecord) and not of_kind(effects, RollBack)
        assert node.machine.completed == 1 and node.machine.current.round == 2


def test_the_machine_rolls_back_keeps_the_proof_and_sits_out_what_it_may_have_signed() -> None:
    node = decided()
    node.hear(town.sign(OTHER, OURS))
    node.handle(HeadAdvanced(1, struct_hash(THEIRS)))
    attestations = tuple(town.sign(member, THEIRS) for member in range(3))
    effects = node.handle(RecordRead((RecordedRound(THEIRS, attestations),)))
    (rolled,) = of_kind(effects, RollBack)
    assert rolled.statements == {struct_hash(OURS)} and rolled.fork.held == struct_hash(OURS)
    assert rolled.fork.record is not None and rolled.fork.record.model == NEW_MODEL
    assert decode_fork(encode_fork(rolled.fork)) == rolled.fork
    (entry,) = (one for one in node.journal if isinstance(one, RolledBack))
    assert (entry.through, entry.base) == (2, MODEL0)
    convicted = {one.member for one in of_kind(effects, RecordEvidence)}
    assert convicted == {ME, OTHER} & {one.member for one in attestations}
    assert not of_kind(effects, Fit) and node.machine.current.round == 1
    (fetch,) = of_kind(effects, FetchSnapshot)
    assert fetch.model.root == THEIRS.model

    for one in (node, node.restart()):  # it follows, and signs nothing in rounds 1 and 2
        effects = one.boot() if one is not node else []
        effects += one.hear(town.final(OURS), OTHER)  # the history that lost is no news any more
        assert not [fetched for fetched in of_kind(effects, FetchSnapshot) if fetched.model == NEW_MODEL]
        one.hear(town.final(THEIRS), OTHER)
        effects = one.handle(SnapshotReady(BlobRef(THEIRS.model, NEW_MODEL.size)))
        assert one.machine.current.round == 2 and one.machine.phase == "sitting out"
        assert not of_kind(effects, Fit)
        assert not of_kind(one.handle(HeadAdvanced(1, struct_hash(THEIRS))), ReadRecord)


def later(round_: int, previous: Statement) -> Statement:
    """A statement of that round, on another one."""
    return replace(OURS, round=round_, previous=struct_hash(previous), model=mark(60 + round_))


def test_what_does_not_continue_my_rounds_is_not_taken_until_the_ledger_has_decided() -> None:
    for first, taken in ((OURS, True), (THEIRS, False)):
        second = later(2, first)
        node = decided()
        assert bool(of_kind(node.hear(town.final(second), OTHER), FetchSnapshot)) is taken
        node = decided()  # nor what continues it, as soon as anybody attested the round between
        node.hear(town.sign(OTHER, second))
        assert bool(of_kind(node.hear(town.final(later(3, second)), OTHER), FetchSnapshot)) is taken
    unknown = town.final(later(3, later(2, THEIRS)))
    assert of_kind(decided().hear(unknown, OTHER), FetchSnapshot), "nobody said what is between"


def passed() -> tuple[Driver, Statement]:
    """The record has gone on to round 3, and somebody shows its end: who skips to it hears no more of round 1."""
    node, third = decided(), later(3, later(2, THEIRS))
    node.handle(HeadAdvanced(3, struct_hash(third)))
    effects = node.hear(town.final(third), OTHER)
    assert of_kind(effects, ReadRecord) == [ReadRecord(1, 1)] and not of_kind(effects, FetchSnapshot)
    again = node.hear(town.final(third), LAST)
    assert not of_kind(again, FetchSnapshot) and not of_kind(again, ReadRecord)
    return node, third


def test_who_skips_rounds_asks_first_whether_the_record_has_its_own() -> None:
    node, third = passed()
    effects = node.handle(RecordRead(recorded([OURS])))
    assert [one.model.root for one in of_kind(effects, FetchSnapshot)] == [third.model]
    node, third = passed()
    attestations = tuple(town.sign(member, THEIRS) for member in range(3))
    effects = node.handle(RecordRead((RecordedRound(THEIRS, attestations),)))
    assert [one.fork.round for one in of_kind(effects, RollBack)] == [1]
    node.hear(town.final(third), OTHER)
    node.handle(SnapshotReady(BlobRef(THEIRS.model, NEW_MODEL.size)))
    assert node.machine.current.round == 2
    node.hear(town.final(third), OTHER)
    node.handle(SnapshotReady(BlobRef(third.model, NEW_MODEL.size)))
    assert node.machine.current.round == 4


def test_a_ledger_that_does_not_answer_keeps_nobody_behind() -> None:
    node, third = passed()
    effects = fire(node, "announce", after=READ_PATIENCE / 2, round_=2)
    assert not of_kind(effects, FetchSnapshot)
    effects = fire(node, "announce", after=READ_PATIENCE, round_=2)
    assert [one.model.root for one in of_kind(effects, FetchSnapshot)] == [third.model]


def test_rounds_that_the_record_contradicts_are_shown_to_nobody() -> None:
    node = decided()
    assert [one for one in frames(node.hear(Hello(1, 0, 0), OTHER)) if isinstance(one, Opening)]
    node.handle(HeadAdvanced(1, struct_hash(THEIRS)))
    shown = frames(node.hear(Hello(1, 0, 0), OTHER))
    assert not [one for one in shown if isinstance(one, Opening | Final)]


def test_only_rounds_that_the_record_has_as_i_have_them_are_settled() -> None:
    node = decided()
    node.handle(HeadAdvanced(1, struct_hash(THEIRS)))
    assert node.machine.settled == 0
    node = decided()
    node.handle(HeadAdvanced(9, mark(9)))
    assert node.machine.settled == 0
    node.handle(HeadAdvanced(1, struct_hash(OURS)))
    assert node.machine.settled == 1


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x94\xa1x", bytes(100)])
def test_what_is_no_fork_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_fork(data)


def test_a_fork_says_its_round() -> None:
    fork = Fork(struct_hash(OURS), None, RecordedRound(THEIRS, ()))
    assert fork.round == 1
