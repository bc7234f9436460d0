"""Members that speak different versions of the protocols: the one in common is taken, or both say what is wrong."""

import logging
from pathlib import Path

import pytest
from libp2p_peers import running, until

from folkmoot.node.network.libp2p_versions import SPOKEN, describe

pytestmark = pytest.mark.integration

OURS = SPOKEN[0]


@pytest.mark.parametrize("theirs", [OURS + 1, OURS - 1])
@pytest.mark.parametrize("newcomer", [0, 1])  # the smaller id opens the stream
async def test_neighbouring_versions_are_refused_and_both_know_why(
    tmp_path: Path, theirs: int, newcomer: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    other = 1 - newcomer
    async with running(newcomer, tmp_path, versions=(theirs,)) as new, running(other, tmp_path) as old:
        await until(lambda: newcomer in old.network.troubles() and other in new.network.troubles())
        words = old.network.troubles()[newcomer].error, new.network.troubles()[other].error
        assert not old.network.peers() and not new.network.peers()
    assert words[0] == f"it speaks folkmoot/{theirs}, this node folkmoot/{OURS}: " + (
        "upgrade this node" if theirs > OURS else "it has to be upgraded"
    )
    assert words[1] == describe([OURS], [theirs])
    said = [
        record.getMessage() for record in caplog.records if "no protocol in common" in record.getMessage()
    ]
    assert len(said) == 2  # once on each side, however often they try


async def test_who_speaks_both_uses_the_common_one(tmp_path: Path) -> None:
    async with running(0, tmp_path, versions=(OURS + 1, OURS)) as new, running(1, tmp_path) as old:
        await until(lambda: new.network.peers() == {1} and old.network.peers() == {0})
        await new.network.send(1, b"hello")
        await until(lambda: old.messages("control") == [(0, b"hello")])
        assert 1 not in new.network.troubles() and 0 not in old.network.troubles()
