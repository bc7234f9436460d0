"""Secure mode on the node's disk: what is masked and opens to what, and what a restart or a bad disk changes."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from masked_members import CAP, EVERYBODY, MaskedFederation, examples_of

from folkmoot.node.archive import ArchiveError
from folkmoot.node.train.vectors import Vector, read_vector, write_vector
from folkmoot.node.trainer import TrainerError
from folkmoot.protocol.effects import Measure, SumParts
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Ready, Roster, Signed, roster_digest
from folkmoot.protocol.secure.dealing import disagree, is_good_share, verify_masked_commitment
from folkmoot.protocol.secure.encoding import member_weight
from folkmoot.protocol.secure.fingerprint import verify

ROUND = 1

Found = Callable[..., MaskedFederation]


@pytest.fixture
def found(tmp_path: Path) -> Iterator[Found]:
    """Founds a federation; at the end its journals are closed."""
    towns: list[MaskedFederation] = []

    def make(*terms: int, **secrecy: int) -> MaskedFederation:
        towns.append(MaskedFederation(tmp_path, *terms, **secrecy))
        return towns[-1]

    yield make
    for town in towns:
        for member in town.members:
            member.journal.close()


def draw_updates(seed: int = 0, parameters: int = 300, scale: float = 0.9) -> list[Vector]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-scale, scale, parameters).astype("<f4") for _ in EVERYBODY]


def expected_mean(updates: Sequence[Vector], staying: Sequence[int]) -> np.ndarray:
    weights = np.array([member_weight(examples_of(member), CAP) for member in staying], dtype=np.float64)
    chosen = np.stack([updates[member] for member in staying]).astype(np.float64)
    return np.asarray((weights[:, None] * chosen).sum(axis=0) / weights.sum())


# --- a whole round ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("staying", [EVERYBODY, (0, 2, 3)])
@pytest.mark.parametrize(("ring", "parameters"), [(8, 300), (16, 300), (32, 300), (16, 5)])
def test_what_is_masked_opens_to_the_weighted_mean(
    found: Found, ring: int, parameters: int, staying: tuple[int, ...]
) -> None:
    """Of 5 parameters there are more shards than blocks: some shards are empty."""
    town = found(ring, parameters)
    updates = draw_updates(parameters=parameters)
    roster = town.roster(ROUND, updates)
    encoded = [member.encode(roster) for member in town.members]
    commitments = town.commitments(roster, encoded)
    for signed in commitments:
        verify_masked_commitment(signed.body, town.circles(roster))  # type: ignore[arg-type]
    bodies = [signed.body for signed in commitments]
    assert disagree(town.circles(roster), bodies) == set()  # type: ignore[arg-type]
    for dealer in EVERYBODY:
        assert all(is_good_share(bodies[dealer], to, encoded[dealer].dealt[to]) for to in EVERYBODY)  # type: ignore[arg-type]
    town.share_archives()
    survivors = town.survivors(roster, commitments, staying)
    sums = town.sum_all(survivors, commitments)
    done = [member.sums.unmask(town.unmask(roster, survivors, sums, encoded)) for member in town.members]
    assert len({one.model for one in done}) == 1
    model = read_vector(town.members[0].models.place(done[0].model.root), parameters)
    # Half a unit of v = ring - 3 bits below 2^0, twice for good measure, and what float32 rounds.
    unit = 2.0 ** -(ring - 3) * 255 / min(member_weight(examples_of(member), CAP) for member in staying)
    assert np.abs(model - town.base - expected_mean(updates, staying)).max() <= unit + 5e-7


def test_fingerprints_of_shards_add_up_to_those_of_the_sums(found: Found) -> None:
    town = found()
    roster = town.roster(ROUND, draw_updates())
    encoded = [member.encode(roster) for member in town.members]
    commitments = town.commitments(roster, encoded)
    town.share_archives()
    survivors = town.survivors(roster, commitments, EVERYBODY)
    sums = town.sum_all(survivors, commitments)
    checked = [
        member.sums.check(town.check(survivors, sums, commitments[member.me])) for member in town.members
    ]
    assert len({one.totals for one in checked}) == 1
    for shard in EVERYBODY:
        (total,) = checked[0].totals[shard]
        assert verify((one.mine[shard] for one in checked), total)
        assert not verify((one.mine[shard] for one in checked[1:]), total)
    # Whoever is measured by another gets the values that it signs itself.
    wanted = tuple((commitments[2], shard) for shard in EVERYBODY)
    name = town.name(survivors, sums)
    measured = town.members[0].sums.measure(Measure(survivors, sums, name, wanted))
    assert measured.values == tuple((2, shard, checked[2].mine[shard]) for shard in EVERYBODY)
    # Who is no survivor takes those of the sums only.
    assert town.members[0].sums.check(town.check(survivors, sums)).mine == ()


# --- restarts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ring", [8, 16])
def test_after_a_restart_the_same_is_masked_and_dealt(found: Found, ring: int) -> None:
    town = found(ring)
    roster = town.roster(ROUND, draw_updates())
    member = town.members[1]
    before = member.encode(roster)
    member.restart()
    assert member.encode(roster) == before


def test_another_roster_has_other_masks(found: Found) -> None:
    town = found()
    roster = town.roster(ROUND, draw_updates())
    again = town.roster_of(roster.readies, attempt=1)
    first, second = town.members[0].encode(roster), town.members[0].encode(again)
    for one, other in [
        (first.shards, second.shards),
        (first.seeds, second.seeds),
        (first.shares, second.shares),
    ]:
        assert len({*one, *other} - {bytes(32)}) == len(set(one) - {bytes(32)}) + len(
            set(other) - {bytes(32)}
        )


def test_only_the_update_that_ready_was_said_for_is_masked(found: Found) -> None:
    """One mask must never meet two updates."""
    town = found()
    roster = town.roster(ROUND, draw_updates())
    member = town.members[0]
    write_vector(member.learning.update_path(ROUND), draw_updates(seed=1)[0])
    with pytest.raises(TrainerError, match="not the update that READY was said for"):
        member.encode(roster)


def test_a_training_before_ready_does_not_confuse(found: Found) -> None:
    """A node that dies between training and READY trains again; the READY that counts is the last."""
    town = found()
    member = town.members[0]
    member.train(ROUND, draw_updates(seed=1)[0])
    member.restart()
    roster = town.roster(ROUND, draw_updates())
    member.encode(roster)


def test_a_ready_that_the_journal_does_not_know_is_not_masked_for(found: Found) -> None:
    town = found()
    roster = town.roster(ROUND, draw_updates())
    for changed, match in ({"manifest": bytes(32)}, "which update"), ({"mask_key": bytes(32)}, "mask key"):
        readies = (replace_ready(roster.readies[0], **changed), *roster.readies[1:])
        with pytest.raises(TrainerError, match=match):
            town.members[0].encode(town.roster_of(readies))


def replace_ready(signed: Signed, **changed: object) -> Signed:
    assert isinstance(signed.body, Ready)
    fields = {name: getattr(signed.body, name) for name in signed.body.__struct_fields__}
    return Signed(signed.member, Ready(**{**fields, **changed}), signed.signature)  # type: ignore[arg-type]


def test_a_key_that_gives_no_seed_costs_its_owner_its_place(found: Found) -> None:
    """Everybody else encodes, and agrees; the two who disagree are always the owner and somebody else."""
    town = found()
    roster = town.roster(ROUND, draw_updates())
    readies = (*roster.readies[:3], replace_ready(roster.readies[3], mask_key=bytes(32)))
    bad = town.roster_of(readies)
    encoded = []
    for member in town.members[:3]:
        one, unusable = member.masking.encode(
            ROUND, roster_digest(0, bad), bad, member.learning.update_path(ROUND)
        )
        assert unusable == (3,)
        encoded.append(one)
    liar = encoded[0]  # whatever it commits to
    commitments = town.commitments(bad, [*encoded, liar])
    pairs = disagree(town.circles(bad), [signed.body for signed in commitments])  # type: ignore[misc]
    assert pairs and all(3 in pair for pair in pairs)
    # What they released towards it takes their masks off.
    town.share_archives()
    survivors = town.survivors(bad, commitments, (0, 1, 2))
    sums = town.sum_all(survivors, commitments)
    done = town.members[0].sums.unmask(town.unmask(bad, survivors, sums, [*encoded, liar]))
    model = read_vector(town.members[0].models.place(done.model.root), 300)
    assert np.abs(model - town.base - expected_mean(draw_updates(), (0, 1, 2))).max() < 1e-3


# --- epochs -------------------------------------------------------------------------------------------------------


def test_secrets_and_shards_of_old_epochs_are_erased(found: Found) -> None:
    town = found(epoch=2, dispute_epochs=1)
    member, keys = town.members[0], dict[int, bytes]()
    for round_ in range(1, 8):
        roster = town.roster(round_, draw_updates(seed=round_))
        member.encode(roster)
        keys[round_] = roster.readies[0].body.mask_key  # type: ignore[union-attr]
        epoch = town.charter.epoch_of(round_)
        kept = [one for one in (epoch - 1, epoch) if one >= 0]
        assert member.journal.epochs() == member.archive.masked_epochs() == kept
    assert keys[1] == keys[2] != keys[3] == keys[4]
    assert member.journal.epoch_secret(0) is None
    raw = b"".join(path.read_bytes() for path in member.path.glob("store.sqlite*"))
    assert all(secret in raw for epoch in (2, 3) if (secret := member.journal.epoch_secret(epoch)))


def test_an_erased_secret_is_not_on_the_disk(found: Found) -> None:
    town = found(epoch=1, dispute_epochs=1)
    member = town.members[0]
    member.masking.mask_key(1)
    secret = member.journal.epoch_secret(0)
    assert secret is not None
    member.masking.mask_key(3)
    assert not any(secret in path.read_bytes() for path in member.path.glob("store.sqlite*"))


# --- what a disk or a peer does -------------------------------------------------------------------------------------


def test_a_damaged_shard_is_never_summed(found: Found) -> None:
    """A disk must not make an honest member sign a wrong sum or fingerprint."""
    town = found()
    roster = town.roster(ROUND, draw_updates())
    commitments = town.commitments(roster, [member.encode(roster) for member in town.members])
    town.share_archives()
    survivors = town.survivors(roster, commitments, EVERYBODY)
    member = town.members[0]
    place = member.archive.masked(0).place(commitments[2].body.shards[0])  # type: ignore[union-attr]
    place.write_bytes(bytes([place.read_bytes()[0] ^ 1]) + place.read_bytes()[1:])
    with pytest.raises(ArchiveError, match="damaged, removed"):
        member.sums.sum_parts(SumParts(survivors, (commitments,), 0))
    with pytest.raises(ArchiveError, match="No such file"):
        member.sums.sum_parts(SumParts(survivors, (commitments,), 0))


def test_a_sum_that_is_none_is_refused(found: Found) -> None:
    town = found()
    roster = town.roster(ROUND, draw_updates())
    commitments = town.commitments(roster, [member.encode(roster) for member in town.members])
    town.share_archives()
    survivors = town.survivors(roster, commitments, EVERYBODY)
    sums = town.sum_all(survivors, commitments)
    member = town.members[0]
    member.sums.check_sum(0, sums[0])
    with pytest.raises(RemoteProtocolError, match="larger than"):
        member.sums.check_sum(0, member.archive.add_bytes(b"\xff" * sums[0].size))


# --- error feedback -------------------------------------------------------------------------------------------------


def decode_round(town: MaskedFederation, roster: Roster, staying: Sequence[int]) -> np.ndarray:
    """Play a round to its end with these survivors; what the model gained."""
    encoded = [member.encode(roster) for member in town.members]
    commitments = town.commitments(roster, encoded)
    town.share_archives()
    survivors = town.survivors(roster, commitments, staying)
    sums = town.sum_all(survivors, commitments)
    effect = town.unmask(roster, survivors, sums, encoded)
    for member in town.members:
        model = member.sums.unmask(effect).model
        member.states.close(roster.round, survivors, included=member.me in staying)
    return read_vector(town.members[0].models.place(model.root), 300) - town.base


def test_what_the_small_ring_loses_is_made_up_for(found: Found) -> None:
    """The mean of many rounds of one update comes closer to it than one round's unit allows."""
    town = found(ring=8)
    updates, gained = draw_updates(), np.zeros(300)
    rounds = 12
    for round_ in range(1, rounds + 1):
        gained += decode_round(town, town.roster(round_, updates), EVERYBODY)
    error = np.abs(gained / rounds - expected_mean(updates, EVERYBODY)).max()
    assert error < 1.5 * 2.0**-5 / rounds


def residuals(town: MaskedFederation, member: int) -> list[str]:
    return sorted(path.name for path in (town.members[member].path / "updates").glob("residual-*"))


def test_a_residual_counts_once_its_roster_has_decided_the_round(found: Found) -> None:
    town = found(ring=8)
    first = town.roster(1, draw_updates())
    other = town.roster_of(first.readies, attempt=1)
    for member in town.members:
        member.encode(other)
    assert len(residuals(town, 0)) == 1 and residuals(town, 0)[0].endswith(".staged")
    decode_round(town, first, (0, 1, 2))
    assert residuals(town, 0) == ["residual-000001.f32"]
    assert residuals(town, 3) == []  # what it masked in vain is in nobody's model
    roster = town.roster(2, draw_updates(seed=2))
    staged = town.members[0].encode(roster)
    town.members[0].restart()
    assert town.members[0].encode(roster) == staged
    town.members[0].states.close(2, None, included=False)
    assert residuals(town, 0) == ["residual-000001.f32"]


def test_a_residual_that_another_node_decided_about_is_dropped(found: Found) -> None:
    """A node that was away when its update was summed cannot know what was lost; the older residual is used up."""
    town = found(ring=8)
    decode_round(town, town.roster(1, draw_updates()), EVERYBODY)
    town.members[0].encode(town.roster(2, draw_updates(seed=2)))
    town.members[0].states.close(2, None, included=True)
    assert residuals(town, 0) == []


@pytest.mark.parametrize("ring", [16, 32])
def test_larger_rings_keep_no_residuals(found: Found, ring: int) -> None:
    town = found(ring=ring)
    decode_round(town, town.roster(1, draw_updates()), EVERYBODY)
    assert residuals(town, 0) == []
