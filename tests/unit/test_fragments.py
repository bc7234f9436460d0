"""A model that travels in fragments: what is sent and what is held back, steps of each alone, and every invariant."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from audited_federation import AuditedFederation
from living_federation import LivingFederation, in_virtual_time

from folkmoot.node.member_state import MemberStates
from folkmoot.node.train.vectors import Fragment, read_vector, write_vector
from folkmoot.protocol.amending import check_amended
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_options import check_options, describe_learning
from folkmoot.protocol.charter_tables import Averaging, Secrecy, Tensor, Training
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.outer import Outer, in_memory, take_step
from folkmoot.protocol.traffic import upload_bytes
from folkmoot.testnet.examples import Rows
from folkmoot.testnet.rehearsal import Rehearsal, Terms
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.federation import Simulation

KEY = bytes(32)


def charter_of(values: int, fragments: int, **terms: object) -> Charter:
    charter = AuditedFederation().charter
    model = msgspec.structs.replace(charter.model, tensors=(Tensor(name="w", shape=(values,)),))
    averaging = Averaging(fragments=fragments, **terms)  # type: ignore[arg-type]
    return msgspec.structs.replace(charter, model=model, averaging=averaging)


# --- which values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "fragments"), [(1000, 3), (64, 1), (65, 2), (200_000, 7), (9_000_000, 4)])
def test_every_value_travels_once_in_as_many_rounds(values: int, fragments: int) -> None:
    charter = charter_of(values, fragments)
    check_options(charter, "charter")
    if fragments == 1:
        assert charter.fragment(5) is None
        return
    spans = [charter.fragment(round_) or (0, 0) for round_ in range(1, fragments + 1)]
    assert [span for one in spans for span in one] == sorted(span for one in spans for span in one)
    assert sum(stop - start for start, stop in spans) == values and spans[-1][1] == values
    assert charter.fragment(fragments + 1) == spans[0]
    assert (
        charter.update_values
        == max(stop - start for start, stop in spans) + -max(stop - start for start, stop in spans) % 64
    )
    assert sum(charter.update_sizes) == charter.update_values and len(charter.update_sizes) <= 513


@pytest.mark.parametrize("terms", [{}, {"mode": "secure"}], ids=["open", "secure"])
def test_bytes_go_down_by_as_much(terms: dict[str, str]) -> None:
    whole, quarter = (upload_bytes(charter_of(400_000, count, **terms)) for count in (1, 4))
    assert 3.9 < whole / quarter < 4.1


def test_what_does_not_go_together_is_refused() -> None:
    for terms, text in (
        ({"training": Training(correction="feddyn")}, "feddyn"),
        ({"training": Training(correction="scaffold")}, "scaffold"),
        ({"training": Training(normalize_to=5)}, "normalize_to"),
        ({"averaging": Averaging(fragments=2, robust="nnm")}, "robust"),
    ):
        with pytest.raises(CharterError, match=text):
            check_options(msgspec.structs.replace(charter_of(1000, 2), **terms), "charter")  # type: ignore[arg-type]
    with pytest.raises(CharterError, match="too many for 320 values"):
        check_options(charter_of(320, 4), "charter")  # of 2, 2 and 1 blocks of 64
    assert any("one of 2 fragments" in line for line in describe_learning(charter_of(1000, 2)))


def test_their_number_cannot_be_amended() -> None:
    with pytest.raises(CharterError, match="fragments"):
        check_amended(charter_of(1000, 2), charter_of(1000, 3))


# --- the step -------------------------------------------------------------------------------------------------------


def test_a_step_changes_its_fragment_and_the_state_of_it_alone() -> None:
    charter = charter_of(1000, 3, rule="nesterov", rate="0.7", momentum="0.9")
    plain = Outer.of(charter_of(1000, 1, rule="nesterov", rate="0.7", momentum="0.9"))
    rng = np.random.default_rng(0)
    snapshot, whole = (Outer.of(charter).start(rng.normal(size=1000).astype("<f4")) for _ in range(2))
    whole[:] = snapshot
    for round_ in range(1, 7):
        start, stop = charter.fragment(round_) or (0, 0)
        outer, mean = Outer.of(charter, round_), np.zeros(charter.update_values, np.float32)
        mean[: stop - start] = rng.normal(size=stop - start)
        mean[stop - start :] = 9  # what fills it up is nobody's value
        after, changed = take_step(outer, [mean.copy()], 1, in_memory(outer, snapshot))
        full = np.zeros(1000, np.float32)
        full[start:stop] = mean[: stop - start]
        expected, _ = take_step(plain, [full], 1, in_memory(plain, whole))
        for section in (0, 1000):
            inside = slice(section + start, section + stop)
            assert np.array_equal(after[inside], expected[inside])
            after_out, before_out = np.delete(after, np.r_[inside]), np.delete(snapshot, np.r_[inside])
        assert changed and not np.array_equal(after, snapshot)
        outside = np.ones(2000, bool)
        outside[start:stop] = outside[1000 + start : 1000 + stop] = False
        assert np.array_equal(after[outside], snapshot[outside]) and len(after_out) == len(before_out)
        snapshot = after
        whole[:] = after


def test_a_member_sends_its_part_and_holds_the_rest_back() -> None:
    sent, held = Fragment(2, 5, 8).cut(np.arange(1, 8, dtype=np.float32))
    assert sent.tolist() == [3, 4, 5, 0, 0, 0, 0, 0]
    assert held.tolist() == [1, 2, 0, 0, 0, 6, 7]


# --- learning -------------------------------------------------------------------------------------------------------


def rows_of(sign: int) -> Rows:
    rng = np.random.default_rng(abs(sign))
    return Rows(rng.normal(sign, 1, (40, 80)).astype(np.float32), np.full(40, int(sign > 0)))


@pytest.mark.parametrize(
    ("averaging", "secrecy"),
    [
        (Averaging(codec="f32"), Secrecy()),
        (Averaging(codec="int2"), Secrecy()),
        (Averaging(codec="int4", rule="nesterov", rate="0.7"), Secrecy()),
        (Averaging(mode="secure", weight_cap=40), Secrecy(ring=8)),
    ],
    ids=["exact", "int2", "nesterov", "secure-8"],
)
def test_fragments_with_feedback_and_momentum_learn_what_whole_updates_do(
    averaging: Averaging, secrecy: Secrecy
) -> None:
    """The naive way, which drops what does not travel and moves what did not, diverges with momentum."""
    shares, found = [rows_of(sign) for sign in (-1, 1, -2, 2)], []
    test = Rows(*(np.concatenate([getattr(one, name) for one in shares]) for name in ("x", "y")))
    for count in (1, 2):
        chosen = msgspec.structs.replace(averaging, fragments=count)
        terms = Terms("logistic", (80, 2), Training(steps=4, lr="0.01"), chosen, secrecy)
        federation = Rehearsal(terms, shares, seed=1)
        for _ in range(16):
            federation.play()
        found.append(federation.accuracies(test)[0])
    assert found[1] > 0.97 and abs(found[0] - found[1]) < 0.03


# --- nodes ----------------------------------------------------------------------------------------------------------


def test_what_a_codec_loses_of_a_fragment_waits_for_its_next_turn(tmp_path: Path) -> None:
    states = MemberStates.of(charter_of(1000, 2, codec="int2"), tmp_path)
    assert set(states.kept) == {"own"} and states.kept["own"].values == 1000
    for round_ in (1, 2):
        write_vector(states.residuals.at(round_).staged(round_, KEY), np.full(512, round_, np.float32))
        states.residuals.close(round_, KEY, included=True)
    for round_, value in ((3, 1), (4, 2)):
        path = states.residuals.before(round_)
        assert path is not None and read_vector(path, 512)[0] == value
    states.roll_back(2)
    assert states.residuals.before(4) is None and states.residuals.before(3) is not None


@pytest.mark.parametrize("secure", [False, True], ids=["open", "secure"])
def test_every_invariant_of_the_simulation_holds(secure: bool) -> None:
    for seed in range(3):
        faults = Faults(latency=(0.005, 0.3), loss=0.05, crashes=3)
        Simulation(seed, 4, 5, faults, secure=secure, fragments=3).run(1200.0)


@pytest.mark.parametrize("mode", ["open", "secure"])
def test_nodes_agree_on_models_that_the_audit_replays(tmp_path: Path, mode: str) -> None:
    async def play() -> LivingFederation:
        averaging = Averaging(mode=mode, fragments=2, codec="int4")  # type: ignore[arg-type]
        tensors = (Tensor(name="w", shape=(3, 50)), Tensor(name="b", shape=(2,)))
        federation = LivingFederation(tmp_path, rounds=4, tensors=tensors, averaging=averaging)
        await federation.run()
        return federation

    in_virtual_time(play).check()
