"""Grow and shrink a running testnet: what members do one by one with `folkmoot member`, done for all of them."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.node.charter_files import write_member
from folkmoot.node.config import Home, TrainerConfig
from folkmoot.node.joining import enter_federation, take_charters
from folkmoot.node.keys import AUDIT, chartered, create_keys, folder_of, unlock
from folkmoot.node.passphrase import create_passphrase_file
from folkmoot.node.proposals import Proposal, enclose_federation, write_proposal
from folkmoot.node.standing import Standing
from folkmoot.node.store import Journal
from folkmoot.node.submitting import submit_amendment
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import Member
from folkmoot.protocol.membership import add_member, remove_members
from folkmoot.protocol.types import Round
from folkmoot.testnet import control, found
from folkmoot.testnet.home import Testnet, TestnetHome, read_testnet, write_testnet
from folkmoot.testnet.processes import TestnetError

MARGIN = 10
"""Rounds that may pass, besides `max_ahead`, until a change is recorded."""

SUBMIT_SECONDS = 60.0


def join(home: TestnetHome, name: str, say: Callable[[str], None]) -> Round:
    """Add a node that takes part from the returned round on; raises `TestnetError`, `FolkmootError`.

    It learns from the same rows as one of the others, and does not attest: it has no ether to submit with.
    """
    testnet = _changeable(home)
    if not re.fullmatch("[a-z0-9][a-z0-9-]{0,31}", name) or name in testnet.names:
        raise TestnetError(f"{name!r}: give a new name: small letters, digits and hyphens")
    if testnet.plan.links != "direct":
        raise TestnetError(f"{home.path}: shaped links are made for the nodes that it began with")
    member = _make_home(home, testnet, name)
    spokesman = home.node(_spokesman(testnet))
    folder, proposal = _amend(home, spokesman, lambda charter: add_member(charter, member), say)
    enclose_federation(folder, spokesman, [])
    take_charters(home.node(name), folder, proposal)
    enter_federation(home.node(name), proposal)
    with control.alone(home):
        testnet = read_testnet(home)
        write_testnet(home, msgspec.structs.replace(testnet, joined=(*testnet.joined, name)))
    control.restart(home, name)
    return proposal.amendment.effective


def leave(home: TestnetHome, name: str, say: Callable[[str], None]) -> Round:
    """Remove a node from the returned round on, when it ends by itself; raises `TestnetError`, `FolkmootError`."""
    testnet = _changeable(home)
    control.check_node(testnet, name)
    spokesman = home.node(_spokesman(testnet, but=name))
    _, proposal = _amend(home, spokesman, lambda charter: remove_members(charter, [name]), say)
    with control.alone(home):
        testnet = read_testnet(home)
        write_testnet(home, msgspec.structs.replace(testnet, left=(*testnet.left, name)))
    return proposal.amendment.effective


def _changeable(home: TestnetHome) -> Testnet:
    testnet = read_testnet(home)
    control.check_up(home, testnet)
    control.check_unsupervised(home, testnet)
    return testnet


def _spokesman(testnet: Testnet, but: str = "") -> str:
    """A node that runs, to submit what all agree on."""
    running = [name for name in testnet.members if name != but and testnet.process(name)]
    if not running:
        raise TestnetError("no node runs that could submit the change")
    return running[0]


def _make_home(home: TestnetHome, testnet: Testnet, name: str) -> Member:
    """Keys, configuration, an empty journal, and the rows of one of the others."""
    node, model = home.node(name), home.node(testnet.plan.names[len(testnet.joined) % testnet.plan.nodes])
    if node.path.exists():
        shutil.rmtree(node.path)  # of an earlier try: it was never in the federation
    node.path.mkdir(parents=True)
    create_keys(node.keys, create_passphrase_file(home.passphrase(name)), cheap=True)
    for folder in ("data", TrainerConfig().path):
        if (model.path / folder).is_dir():
            shutil.copytree(model.path / folder, node.path / folder)
    found.write_config(home, testnet.plan, name, testnet.rpc, bytes.fromhex(testnet.contract[2:]))
    Journal.create(node.store)
    blank = Member(
        name=name,
        peer_id="",
        identity_key=64 * "0",
        sealing_key=64 * "0",
        audit_key=f"0x{40 * '0'}",
        attester=False,
    )
    member = chartered(node.keys, blank)
    write_member(node, member)
    return member


def _amend(
    home: TestnetHome, spokesman: Home, change: Callable[[Charter], Charter], say: Callable[[str], None]
) -> tuple[Path, Proposal]:
    """Draft, sign for a quorum, submit through a node that runs."""
    keys = _quorum_keys(home, Standing.read(spokesman))
    standing = Standing.read(spokesman)  # unlocking took a while, and rounds went on
    proposal = standing.draft(change(standing.timeline.newest), standing.earliest + MARGIN)
    folder = home.path / "proposals" / f"{proposal.amendment.number}-{proposal.digest.hex()[:8]}"
    write_proposal(folder, proposal, standing.timeline.newest)
    signatures = {address: proposal.sign(key) for address, key in keys.items()}
    submit_amendment(
        standing, proposal, signatures, SUBMIT_SECONDS, say, lambda: _passphrase(home, standing.config.name)
    )
    return folder, proposal


def _quorum_keys(home: TestnetHome, standing: Standing) -> dict[bytes, AuditKey]:
    """The audit keys of as many attesters as have to sign, by address."""
    charter = standing.timeline.charter_at(standing.head.height + 1)
    signers = list(standing.attesters.items())[: standing.quorum]
    return {
        address: _audit_key(home, charter.members[charter.member_named(name)]) for address, name in signers
    }


def _audit_key(home: TestnetHome, member: Member) -> AuditKey:
    keys = folder_of(home.node(member.name).keys, member)
    (secret,) = unlock([keys / AUDIT], _passphrase(home, member.name))
    return AuditKey(secret)


def _passphrase(home: TestnetHome, name: str) -> str:
    return home.passphrase(name).read_text(encoding="utf-8").strip()
