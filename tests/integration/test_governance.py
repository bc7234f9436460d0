"""Members come, go and change keys while rounds go on: real daemons, real libp2p, a chain, the commands of people."""

import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from daemons import LIMIT, Daemons

from folkmoot.ledger.audit import Source, Status, run_audit
from folkmoot.ledger.reader import LedgerReader
from folkmoot.node import cli
from folkmoot.node.archive import Archive
from folkmoot.node.charter_files import load_member, render_charter, write_member
from folkmoot.node.charters import load_charter_in_work, load_timeline
from folkmoot.node.config import (
    DataConfig,
    Home,
    LedgerConfig,
    NetworkConfig,
    NodeConfig,
    TrainerConfig,
    load_config,
    render_config,
)
from folkmoot.node.keys import chartered, public_keys
from folkmoot.node.network.directory import read_directory
from folkmoot.node.passphrase import FILE_VARIABLE
from folkmoot.node.status_file import NodeStatus
from folkmoot.node.store import KILL_AFTER_ENTRY, Journal
from folkmoot.node.toml import load
from folkmoot.node.watch import LEFT
from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import Member
from folkmoot.testnet import examples, learning
from folkmoot.testnet.chains import await_url, start_embedded
from folkmoot.testnet.found import found, make_homes
from folkmoot.testnet.home import Plan, Testnet, TestnetHome, open_home
from folkmoot.testnet.learning import trainer_command
from folkmoot.testnet.processes import Child, stop_children

pytestmark = pytest.mark.integration

FOUNDERS = ["alice", "bob", "carol", "dave"]
NEWCOMER = "erin"
ROUNDS = 2000  # it is not waited for
AHEAD = "+25"


NO_STATUS = NodeStatus(name="", pid=0, peer_id="", member=0)


def folkmoot(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


class Growing(Daemons):
    """Four members' daemons, and a fifth home whose keys nobody knows yet."""

    def __init__(self, home: TestnetHome, testnet: Testnet, chain: Child, children: list[Child]) -> None:
        super().__init__(home, testnet.plan, testnet, chain, children)
        self.monkeypatch = pytest.MonkeyPatch()

    def as_member(self, name: str, *arguments: object) -> None:
        """A command that this member types, which succeeds."""
        self.monkeypatch.setenv(FILE_VARIABLE, str(self.home.passphrase(name)))
        assert folkmoot(*arguments, "--home", self.node(name).path) == 0

    def round_of(self, name: str) -> int:
        status = self.status(name)
        return status.rounds if status is not None else 0

    def amend(
        self, folder: Path, proposer: str, *command: object, signers: Sequence[str] = FOUNDERS[:3]
    ) -> int:
        """Draft, sign and submit; the round from which on it is in force."""
        self.as_member(proposer, *command, "--effective", AHEAD, "--out", folder)
        for name in signers:
            self.as_member(name, "member", "sign", folder, "--yes")
        self.as_member(proposer, "member", "submit", folder, "--timeout", LIMIT)
        text = (folder / "proposal.toml").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("effective")).split("=")[1])

    def check_audit(self) -> None:
        """An auditor with everybody's homes finds nothing wrong in the whole history."""
        stop_children(list(self._nodes.values()))
        address = bytes.fromhex(self.testnet.contract[2:])
        ledger = LedgerReader([self.testnet.rpc], address)
        homes = [Source.of_home(self.node(name).path) for name in (*FOUNDERS, NEWCOMER)]
        report = run_audit(ledger, homes, contract=address, development=True)
        wrong = {
            check.id: check for check in report.checks if check.status in (Status.FAIL, Status.MISBEHAVIOUR)
        }
        assert not wrong
        checks = {check.id: check.status for check in report.checks}
        assert {checks[name] for name in ("charter", "amendments", "quorum", "rounds")} == {Status.PASS}

    def takes_part(self, name: str, round_: int) -> bool:
        """Whether the member's update is in a model from that round on, as alice saw it."""
        status = self.status("alice") or self.status("bob")
        return status is not None and any(
            one.round >= round_ and name in one.participants for one in status.history
        )


@pytest.fixture
def federation(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Growing]:
    """In open mode, or in the one that a test asks for."""
    mode = getattr(request, "param", "open")
    home = TestnetHome(tmp_path / "testnet")
    everybody = Plan(nodes=5, rounds=ROUNDS, example="digits", mode=mode, max_ahead=5)
    founders = msgspec.structs.replace(everybody, nodes=4)
    open_home(home, founders, fresh=False)
    children = [server := learning.start_server(home)]
    try:
        example = examples.load(everybody.example)
        drawing = learning.begin_founding(server, home, example, founders)
        publics = make_homes(home, everybody, example)
        children.append(chain := start_embedded(home, [keys.gas_key for keys in publics]))
        tensors = learning.founding_tensors(drawing)
        testnet = found(home, founders, example, publics[:4], tensors, await_url(home, chain))
        made = Growing(home, testnet, chain, children)
        make_newcomer(made)
        yield made
        made.monkeypatch.undo()
    finally:
        stop_children(list(reversed(children)))


def make_newcomer(made: Growing) -> None:
    """As `folkmoot init` does; keys and rows are there."""
    home = made.node(NEWCOMER)
    key = public_keys(home.keys)
    blank = Member(
        name=NEWCOMER,
        peer_id=key.peer_id,
        identity_key=key.identity_key,
        sealing_key=key.sealing_key,
        audit_key=key.audit_key,
    )
    write_member(home, chartered(home.keys, blank))
    config = NodeConfig(
        name=NEWCOMER,
        network=NetworkConfig(bootstrap=tuple(f"../{other}/address" for other in FOUNDERS)),
        ledger=LedgerConfig(rpc=(made.testnet.rpc,), contract="0x" + 40 * "0"),
        trainer=TrainerConfig(command=trainer_command(made.home, made.testnet.plan, NEWCOMER)),
        data=DataConfig(),
    )
    home.config.write_text(render_config(config))
    Journal.create(home.store)


def know_only(federation: Growing, address: str) -> None:
    """Everybody's bootstrap list is this one address."""
    for name in (*FOUNDERS, NEWCOMER):
        home = federation.node(name)
        config = load_config(home)
        network = msgspec.structs.replace(config.network, bootstrap=(address,))
        home.config.write_text(render_config(msgspec.structs.replace(config, network=network)))


def has_heard(federation: Growing, name: str, of: str) -> bool:
    """Whether a member's home has the address at which another one listens now."""
    listening = federation.node(of).address
    home, member = federation.node(name), load_member(federation.node(of))
    known = read_directory(home.known_addresses, load_timeline(home).federation)
    signed = known.get(bytes.fromhex(member.identity_key))
    said = [f"{one}/p2p/{member.peer_id}" for one in signed.body.addresses] if signed is not None else []
    return listening.is_file() and said == listening.read_text().split()


def test_members_join_leave_and_change_keys_while_rounds_go_on(federation: Growing, tmp_path: Path) -> None:
    federation.start("alice")
    federation.wait(federation.node("alice").address.is_file)
    know_only(federation, federation.node("alice").address.read_text().strip())
    for name in FOUNDERS[1:]:
        federation.start(name)
    federation.wait(lambda: federation.round_of("alice") >= 2)

    # A fifth organisation joins.
    folder = tmp_path / "add"
    entry = federation.node(NEWCOMER).member
    joins = federation.amend(folder, "alice", "member", "propose", "--add", entry)
    deadline = time.monotonic() + LIMIT
    federation.as_member(NEWCOMER, "join", folder, "--rpc", federation.testnet.rpc)
    federation.start(NEWCOMER)
    federation.wait(lambda: federation.takes_part(NEWCOMER, joins), deadline - time.monotonic())

    # Two go on on other ports, also the one that is everybody's bootstrap: all learn of it, no file is edited.
    for name in ("alice", "bob"):
        stop_children([federation._nodes[name]])
        federation.start(name)
    federation.wait(
        lambda: all(
            has_heard(federation, name, of)
            for name in (*FOUNDERS, NEWCOMER)
            for of in ("alice", "bob")
            if name != of
        )
    )
    federation.wait(
        lambda: set((federation.status("bob") or NO_STATUS).peers) == {"alice", "carol", "dave", "erin"}
    )

    # One leaves: its node ends by itself, with a word.
    leaves = federation.amend(
        tmp_path / "remove",
        "bob",
        "member",
        "propose",
        "--remove",
        "dave",
        signers=["alice", "bob", "carol", "erin"],
    )
    dave = federation._nodes["dave"]
    federation.wait(lambda: dave.poll() is not None)
    assert dave.poll() == 0
    assert (federation.status("dave") is not None) and federation.status("dave").phase == LEFT  # type: ignore[union-attr]
    assert federation.run("dave").returncode == 0  # started again, it finds out at once
    federation.wait(lambda: federation.round_of("alice") > leaves + 2)

    # One changes all its keys, is away when they come into force, and has lost all charters.
    rotates = federation.amend(
        tmp_path / "rotate", "carol", "keys", "rotate", signers=["alice", "bob", "carol", "erin"]
    )
    assert (federation.node("carol").keys / "2").is_dir()
    stop_children([federation._nodes["carol"]])
    lose_charters(federation.node("carol"))
    federation.wait(lambda: federation.round_of("alice") > rotates)
    federation.start("carol")
    federation.wait(lambda: federation.takes_part("carol", rotates + 1))
    assert "under another identity" in (federation.node("carol").logs / "node.log").read_text()
    federation.check_audit()


def lose_charters(home: Home) -> None:
    """All amended ones, also as they are offered to others."""
    for path in home.charters.iterdir():
        archived = Archive(home.archive).path(ref_of(load(path, Charter).encoded).root)
        assert archived is not None
        archived.unlink()
        path.unlink()


@pytest.mark.parametrize("federation", ["secure"], indirect=True)
def test_nodes_that_are_away_or_die_when_the_charter_changes_go_on_under_the_new_one(
    federation: Growing, tmp_path: Path
) -> None:
    bob = federation.start("bob")
    for name in ("alice", "dave"):
        federation.start(name)
    carol = federation.start("carol", {KILL_AFTER_ENTRY: "adopted"})
    federation.wait(lambda: federation.round_of("alice") >= 2)
    folder = tmp_path / "add"
    entry = federation.node(NEWCOMER).member
    joins = federation.amend(folder, "alice", "member", "propose", "--add", entry)
    bob.ref.signal(signal.SIGKILL)
    federation.as_member(NEWCOMER, "join", folder, "--rpc", federation.testnet.rpc)
    federation.start(NEWCOMER)

    federation.wait(lambda: carol.poll() is not None)  # at the very end of the term
    assert carol.poll() == -signal.SIGKILL
    federation.start("carol")
    federation.wait(lambda: federation.takes_part(NEWCOMER, joins) and federation.takes_part("carol", joins))
    federation.start("bob")
    federation.wait(lambda: federation.takes_part("bob", joins))

    # A change of terms, submitted for a node that does not run.
    stop_children([federation._nodes["alice"]])
    edited = tmp_path / "edited.toml"
    lines = render_charter(load_charter_in_work(federation.node("alice"))).splitlines()
    edited.write_text("\n".join('lr = "0.01"' if line.startswith("lr = ") else line for line in lines))
    changes = federation.amend(
        tmp_path / "amend", "alice", "charter", "amend", edited, signers=["alice", "bob", "carol", "dave"]
    )
    federation.start("alice")
    federation.wait(
        lambda: federation.takes_part("alice", changes) and federation.takes_part("dave", changes)
    )
    assert load_charter_in_work(federation.node("bob")).training.lr == "0.01"
    assert all(status.misbehaviour == [] for status in map(federation.status, FOUNDERS) if status is not None)
