"""What a node tells of itself outlives its process."""

from pathlib import Path

import trio
from audited_federation import AuditedFederation

from folkmoot.node.config import Home
from folkmoot.node.status_file import read_status
from folkmoot.node.watch import Watch


def test_who_was_caught_is_still_told_after_a_restart(tmp_path: Path) -> None:
    charter = AuditedFederation().charter

    async def live(*accusations: tuple[str, str, str]) -> None:
        watch = Watch(Home(tmp_path), charter, 0)
        with watch.telling():
            for one in accusations:
                watch.accused(*one)

    trio.run(live, ("bob", "wrong sum", "of shard 1"), ("bob", "wrong sum", "of shard 2"))
    trio.run(live, ("bob", "equivocation", "two votes"))
    status = read_status(Home(tmp_path).status)
    assert status is not None
    caught = [(one.member, one.kind, one.reason) for one in status.misbehaviour]
    assert caught == [("bob", "wrong sum", "of shard 1"), ("bob", "equivocation", "two votes")]
