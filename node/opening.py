"""What a daemon needs before it meets anybody: a home, read and checked, for one term of the federation's charters."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from folkmoot.ledger.development import check_chain, check_secret_keys
from folkmoot.node.archive import Models
from folkmoot.node.charters import known_amendments, load_timeline, working_term
from folkmoot.node.config import Home, NodeConfig, load_config
from folkmoot.node.data.child import prepare_data
from folkmoot.node.keys import NodeKeys, folder_of, load_keys, public_keys
from folkmoot.node.learning import check_data
from folkmoot.node.logs import logger
from folkmoot.node.model_file import read_start
from folkmoot.node.passphrase import read_passphrase
from folkmoot.node.store import Journal
from folkmoot.node.train.source import locate_source
from folkmoot.node.train.wire import terms_of
from folkmoot.node.trainer import Task
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.parts import unshared_refs
from folkmoot.protocol.ring import check_float_environment
from folkmoot.protocol.timeline import Timeline
from folkmoot.protocol.typed_data import Domain
from folkmoot.protocol.types import MemberId, Round


@dataclass(frozen=True)
class Node:
    """A home in one term: rounds from `first` on are under `charter`, until an amendment changes it."""

    home: Home
    config: NodeConfig
    timeline: Timeline
    first: Round
    me: MemberId
    keys: NodeKeys
    initial: BlobRef
    passphrase: str = field(repr=False)
    """For keys that a later charter names; nobody may be there to be asked then."""
    model_source: str = ""

    def in_term(self, timeline: Timeline, first: Round) -> "Node":
        """The same home under the charter in force from round `first` on; blocks, and raises as `open_home`."""
        return open_term(
            self.home, self.config, timeline, first, self.passphrase, self.initial, self.model_source
        )

    @property
    def charter(self) -> Charter:
        """The charter in force."""
        return self.timeline.charter_at(self.first)

    @property
    def contract(self) -> bytes:
        """The contract's address, 20 bytes."""
        return bytes.fromhex(self.config.ledger.contract[2:])

    @property
    def domain(self) -> Domain:
        """The ledger that audit signatures are for."""
        return Domain(self.timeline.founding.ledger.chain_id, self.contract)

    @property
    def federation(self) -> Federation:
        """The frame of every check."""
        return self.timeline.federation_at(self.first)


def open_home(home: Home) -> Node:
    """Read and check a home without any network traffic; raises `FolkmootError` with what to do."""
    if not home.store.is_file():
        timeline, first = load_timeline(home), 1
    else:
        with Journal.open(home.store, read_only=True) as journal:
            timeline, first = load_timeline(home, known_amendments(journal)), working_term(journal)
    config, charter = load_config(home), timeline.charter_at(first)
    _own_keys(home, config, charter)  # what is wrong with them is said at once
    check_chain(charter, config.ledger.rpc)
    source = locate_source(charter.model, home.resolve(config.trainer.path))
    if charter.data is not None and config.data.query is not None:
        prepare_data(home)
    if config.trainer.command is None:  # another trainer knows itself what it can read
        check_data(home.resolve(config.data.train), home.resolve(config.data.test), charter)
    passphrase = read_passphrase(os.environ)
    check_float_environment()
    initial = _initial_model(home, charter, first)
    return open_term(home, config, timeline, first, passphrase, initial, source)


def training_task(home: Home, config: NodeConfig, charter: Charter, model_source: str) -> Task:
    """What the home's trainer is to do under a charter."""
    models = Models(home.models)
    return Task(
        member=config.name,
        model=charter.model,
        train=str(home.resolve(config.data.train)),
        test=str(home.resolve(config.data.test)),
        threads=config.trainer.threads,
        data=charter.data,
        source=model_source,
        device=config.trainer.device,
        mixed=config.trainer.mixed_precision,
        max_steps=config.trainer.max_steps,
        ditto=config.trainer.ditto,
        max_memory=round(config.limits.max_memory * 1e6),
        personal=_place(models, charter.model.personal_start),
        frozen=_place(models, charter.model.frozen_values),
        **terms_of(charter),
    )


def _place(models: Models, root: str) -> str:
    """Where a part of the model lies that is not in its snapshots, or will; empty if the model has no such part."""
    return str(models.place(bytes.fromhex(root))) if root else ""


def open_term(
    home: Home,
    config: NodeConfig,
    timeline: Timeline,
    first: Round,
    passphrase: str,
    initial: BlobRef,
    model_source: str,
) -> Node:
    """The node under the charter in force from round `first` on; what no amendment changes is handed in.

    Raises `FolkmootError`, also where this member is none under that charter.
    """
    charter = timeline.charter_at(first)
    keys = load_keys(home.keys, passphrase, _own_keys(home, config, charter))
    me = charter.member_named(config.name)
    return Node(home, config, timeline, first, me, keys, initial, passphrase, model_source)


def _own_keys(home: Home, config: NodeConfig, charter: Charter) -> Path:
    """The folder with the keys that the charter names for this member."""
    folder = folder_of(home.keys, charter.members[charter.member_named(config.name)])
    check_secret_keys(charter, public_keys(folder, home.keys).gas_key)
    return folder


def _initial_model(home: Home, charter: Charter, first: Round) -> BlobRef:
    """The starting snapshot. It and what else a federation begins with are put into the models, if they are here.

    Who has no model0.safetensors gets them from its peers, and who joins later only what it needs.
    """
    ref = BlobRef(bytes.fromhex(charter.model.initial), 4 * charter.snapshot_values)
    models = Models(home.models)
    if not all(map(models.has, (ref, *unshared_refs(charter.model)))):
        if home.initial_model.is_file():
            models.add_start(read_start(home.initial_model, charter))
        elif first == 1:
            logger().warning("no starting weights here: asking other members", file=str(home.initial_model))
    return ref
