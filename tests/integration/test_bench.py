"""`folkmoot bench round` as it is typed: few nodes, a small model."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

NODES, PARAMETERS, ROUNDS = 2, 300_000, 2


@pytest.mark.parametrize(("codec", "bytes_each"), [("f32", 4.0), ("int4", 0.53125)])
def test_a_bench_moves_every_update_to_every_other_node(codec: str, bytes_each: float) -> None:
    words = [
        "bench",
        "round",
        "--nodes",
        NODES,
        "--params",
        PARAMETERS,
        "--rounds",
        ROUNDS,
        "--codec",
        codec,
        "--delay",
        "2ms",
        "--rate",
        "1gbit",
        "--json",
    ]
    command = [sys.executable, "-m", "folkmoot.node.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert len(figures["rounds"]) == ROUNDS
    for one in figures["rounds"]:
        assert one["seconds"] > 0 and one["cpu_s"] > 0 and one["participants"] == NODES
    wanted = PARAMETERS * bytes_each / 1e6
    assert figures["payload_mb"] == pytest.approx(wanted, rel=0.01)
    assert wanted < figures["sent_mb_per_node"] < wanted + 0.2
    assert wanted < figures["received_mb_per_node"] < wanted + 0.2
    assert 50 < figures["peak_rss_mb"] < 400
    assert 0 < figures["trio_tcp_seconds"] < figures["median_seconds"]
