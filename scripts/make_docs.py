"""Write the parts of README.md and docs/SPEC.md that follow from the code, between their markers.

    <!-- made by scripts/make_docs.py: NAME -->
    ...
    <!-- end -->

A second run changes nothing; `tests/unit/test_readme.py` holds the documents to the code.
"""

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import msgspec
from nacl.signing import SigningKey

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.build import contract_build
from folkmoot.ledger.signing import KeySigner
from folkmoot.node.cli import cli
from folkmoot.protocol import addresses as member_addresses
from folkmoot.protocol import charter, messages, schema, typed_data
from folkmoot.protocol import charter_tables as tables
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import archive_digest
from folkmoot.protocol.charter import federation_id
from folkmoot.protocol.record import RoundRecord
from folkmoot.protocol.secure import permit
from folkmoot.protocol.signing import identity_preimage
from folkmoot.testnet.notation import array_of, table_of
from folkmoot.testnet.sample_frames import sample_frames
from folkmoot.testnet.sample_masks import sample_masks

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "SPEC.md")
_BLOCK = re.compile(r"(<!-- made by scripts/make_docs\.py: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_HEX_COLUMNS = 96

_MESSAGES: tuple[type[msgspec.Struct], ...] = (
    messages.Ready, messages.Roster, messages.Commitment, messages.Share, messages.Receipt, messages.Proposal,
    messages.Vote, messages.Sum, messages.Fingerprint, messages.Lock, messages.Statement, messages.Enter,
    messages.Declined,
    messages.Signed, messages.Survivor, messages.SurvivorSet, messages.Omission, messages.Certificate,
    messages.Opening, messages.Propose, messages.Seeds, messages.Shares, BlobRef, messages.Final, messages.Hello,
    messages.Recall, messages.Recalled, messages.Evidence, messages.KeyWanted, messages.KeyShared,
    messages.Unmasking, RoundRecord,
)  # fmt: skip
_CHARTER: tuple[type[msgspec.Struct], ...] = (
    charter.Charter, tables.Model, tables.Tensor, tables.Schedule, tables.LedgerTerms, tables.Training,
    tables.Averaging, tables.Secrecy, tables.Privacy, tables.Member, tables.Auditor, schema.Schema, schema.Column,
)  # fmt: skip

_LIMITS = (
    ("blob.CHUNK", "bytes of every chunk of a blob but the last"),
    ("messages.MAX_FRAME", "bytes of the largest frame"),
    ("record.MAX_RECORD", "bytes of the largest round record"),
    ("sealing.FRAME", "plaintext bytes of every AEAD frame but the last"),
    ("ring.VALUE_BITS", "binary places of a value below 2^E"),
    ("ring.MAX_WEIGHT", "largest weight"),
    ("validation.MAX_ATTEMPTS_AHEAD", "attempts ahead of one's own for which ballots are kept"),
    ("pace.PATIENCE", "an attempt may last this many times the slowest of the last five rounds"),
    ("pace.GROWTH", "factor by which time-outs grow per attempt"),
    ("attempts.MAX_STRETCH", "arriving payloads hold a time-out back to at most this many times its length"),
    ("long_waits.STRETCH_AFTER", "rounds in a row without a slow member until it is waited for"),
    (
        "round.ANNOUNCE_DELAYS",
        "seconds between repetitions of what was last said; then the last one for ever",
    ),
    ("work.REFIT_DELAY", "seconds until a failed training is tried again"),
    ("recall.SIT_OUT", "rounds beyond the highest decided one that a node sits out"),
    ("recall.SHOWN", "most signatures in one answer to a recall"),
    ("addresses.MAX_ADDRESSES", "addresses that one member may announce"),
    ("addresses.MAX_ADDRESS", "characters of the longest"),
    ("addresses.MAX_SIGNED", "bytes of the largest signed announcement of addresses"),
    ("charter_tables.MAX_GROUP", "members of the largest group of secure mode"),
    ("charter_tables.MAX_SUMMED", "members of the largest federation in open mode"),
)
"""Constants of folkmoot.protocol that the specification names, and what they are."""

_SECURE_LIMITS = (
    ("layout.BLOCK", "values of the weight block; shards begin and end at multiples of it"),
    ("keystream.SEED_SIZE", "bytes of a mask's or a challenge's seed"),
    ("sharing.SCALAR_SIZE", "bytes of a share"),
    ("fingerprint.PIECE", "values of a challenge that are drawn together"),
    ("gathering.VALUE_SIZE", "bytes of one shard's fingerprint"),
    ("permit.MAX_ANSWER", "bytes of the largest answer to a permit"),
)
"""The same of folkmoot.protocol.secure."""

_NETWORK_LIMITS = (
    ("port.MAX_MESSAGE", "bytes of the largest control message"),
    ("port.MAX_ANNOUNCEMENT", "bytes of the largest announcement"),
    ("control.HEARTBEAT_SECONDS", "seconds of silence after which a heartbeat is sent"),
    ("control.SILENT_AFTER_SECONDS", "seconds of silence after which a peer's READY is not waited for"),
    ("control.LOST_AFTER_SECONDS", "seconds of silence after which a peer is lost"),
    ("control.QUEUE_BYTES", "bytes that may wait for one peer"),
    ("libp2p_addresses.MAX_TOLD", "members of whose addresses a peer may tell at once"),
    ("libp2p_relay.MAX_CIRCUITS", "circuits that a relay carries at once"),
    (
        "libp2p_relay.MAX_CIRCUITS_OF_ONE",
        "of these, circuits that one member asked for, and circuits that lead to one",
    ),
    ("libp2p_relay.MAX_CIRCUITS_OF_TWO", "of these, circuits from one member to another"),
    ("bulk.MAX_RUN", "chunks in one answer"),
    ("bulk.MAX_BLOB", "bytes of the largest blob"),
    ("serving.MAX_STREAMS_PER_PEER", "bulk streams that one peer may have open"),
    ("fetching.IDLE_SECONDS", "seconds without a byte after which a fetch gives up"),
)
"""The same of folkmoot.node.network."""


# --- README ---------------------------------------------------------------------------------------------------------


def help_text() -> str:
    """What `folkmoot --help` prints."""
    context = click.Context(cli, info_name="folkmoot", terminal_width=78, **cli.context_settings)
    return _fenced("$ folkmoot --help\n" + cli.get_help(context))


# --- layouts --------------------------------------------------------------------------------------------------------


def layouts() -> str:
    """Every wire struct as a msgpack array."""
    return _fenced("\n".join(array_of(kind) for kind in _MESSAGES))


def charter_layout() -> str:
    """Every table of the charter, with its defaults."""
    return _fenced("\n\n".join(table_of(kind) for kind in _CHARTER))


def addresses() -> str:
    """What a member says of where it is: layout, and one example."""
    key = SigningKey(b"\x01" * 32)
    federation = federation_id(b"\x11" * 32, 31337, bytes(range(1, 21)))
    body = member_addresses.Addresses(bytes(key.verify_key), 7, ("/ip4/192.0.2.7/tcp/4001",))
    preimage = member_addresses.addresses_preimage(federation, body)
    signed = messages.encode(member_addresses.sign_addresses(key, federation, body))
    arrays = [array_of(kind) for kind in (member_addresses.Addresses, member_addresses.SignedAddresses)]
    example = ["preimage", *_folded(preimage), f"signed, {len(signed)} bytes", *_folded(signed)]
    return _fenced("\n".join([*arrays, "", *example]))


def permit_layout() -> str:
    """A permit's table, and the array that answers it."""
    return _fenced("\n\n".join([table_of(permit.Permit), array_of(permit.Answer)]))


# --- constants, types, contract -------------------------------------------------------------------------------------


def limits() -> str:
    """The protocol's constants."""
    return _constants("folkmoot.protocol", _LIMITS)


def secure_limits() -> str:
    """The constants of secure mode."""
    return _constants("folkmoot.protocol.secure", _SECURE_LIMITS)


def network_limits() -> str:
    """The network's constants."""
    return _constants("folkmoot.node.network", _NETWORK_LIMITS)


def _constants(package: str, table: tuple[tuple[str, str], ...]) -> str:
    rows = ["| name | value | what |", "|---|---|---|"]
    for path, what in table:
        module, name = path.split(".")
        value = getattr(import_module(f"{package}.{module}"), name)
        values = value if isinstance(value, tuple) else (value,)
        shown = ", ".join(f"{one:,}" if isinstance(one, int) else f"{one:g}" for one in values)
        rows.append(f"| `{name}` | {shown} | {what} |")
    return "\n".join(rows) + "\n"


def type_strings() -> str:
    """The EIP-712 types."""
    domain = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    return _fenced("\n".join((domain, *typed_data.TYPES)))


def contract() -> str:
    """Methods, events and code hash of the contract that ships."""
    build = contract_build()
    methods = [f"{selector}  {signature}" for signature, selector in sorted(build.methods.items())]
    events = [_event(entry) for entry in build.abi if entry["type"] == "event"]
    return _fenced("\n".join([*methods, "", *events, f"code hash {build.code_hash}"]))


def _event(entry: dict[str, Any]) -> str:
    inputs = ", ".join(
        f"{one['type']}{' indexed' if one['indexed'] else ''} {one['name']}" for one in entry["inputs"]
    )
    signature = f"{entry['name']}({','.join(one['type'] for one in entry['inputs'])})"
    topic = typed_data.keccak256(signature.encode()).hex()
    return f"event {entry['name']}({inputs})\ntopic 0x{topic}\n"


# --- example bytes --------------------------------------------------------------------------------------------------


def examples() -> str:
    """One frame of each kind, with the keys and the federation that they are signed for."""
    return "".join(_examples())


def _examples() -> Iterator[str]:
    identity, audit = SigningKey(b"\x01" * 32), AuditKey(b"\x01" * 32)
    domain = typed_data.Domain(chain_id=31337, contract=bytes(range(1, 21)))
    federation = federation_id(b"\x11" * 32, domain.chain_id, domain.contract)
    signer = KeySigner(federation, domain, identity, audit)
    setting: dict[str, bytes | int] = {
        "charter digest": b"\x11" * 32,
        "chain id": domain.chain_id,
        "contract": domain.contract,
        "federation": federation,
        "identity key (seed)": b"\x01" * 32,
        "identity key (public)": bytes(identity.verify_key),
        "audit key (secret)": b"\x01" * 32,
        "audit key (address)": audit.address,
    }
    bodies, frames = sample_frames(federation, signer)
    certificate, roster, commitment = frames["certificate"], bodies["roster"], bodies["commitment"]
    assert isinstance(certificate, messages.Certificate) and isinstance(roster, messages.Roster)
    setting["roster digest"] = messages.roster_digest(0, roster)
    setting["commitment digest"] = messages.body_digest(commitment)
    setting["survivor set digest"] = certificate.survivors.digest
    setting["archive digest"] = archive_digest(certificate.survivors)
    setting["statement digest"] = typed_data.struct_hash(bodies["statement"])
    shown = ((name, value.hex() if isinstance(value, bytes) else value) for name, value in setting.items())
    yield _fenced("\n".join(f"{name:<22} {value}" for name, value in shown))
    for name, frame in frames.items():
        body = bodies.get(name)
        lines = []
        if isinstance(body, messages.AuditBody):
            lines += ["signing digest", *_folded(typed_data.signing_digest(domain, body))]
        elif body is not None:
            lines += ["preimage", *_folded(identity_preimage(federation, body))]
        lines += [f"frame, {len(messages.encode(frame))} bytes", *_folded(messages.encode(frame))]
        yield f"\n**{name}**\n\n" + _fenced("\n".join(lines))


def _folded(data: bytes) -> list[str]:
    text = data.hex()
    return [f"  {text[at : at + _HEX_COLUMNS]}" for at in range(0, len(text), _HEX_COLUMNS)]


def secure_examples() -> str:
    """Every derivation and encoding of secure mode."""
    domain = typed_data.Domain(chain_id=31337, contract=bytes(range(1, 21)))
    federation = federation_id(b"\x11" * 32, domain.chain_id, domain.contract)
    parts = []
    for heading, samples in sample_masks(federation, b"\x22" * 32):
        lines: list[str] = []
        for name, value in samples:
            short = value if isinstance(value, str) else value.hex()
            is_long = isinstance(value, bytes) and len(value) > 32
            lines += (
                [name, *_folded(value)] if is_long and isinstance(value, bytes) else [f"{name:<42} {short}"]
            )
        parts.append(f"\n**{heading}**\n\n" + _fenced("\n".join(lines)))
    return "".join(parts).removeprefix("\n")


# --- filling in -----------------------------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[], str]] = {
    "help": help_text,
    "layouts": layouts,
    "addresses": addresses,
    "permit": permit_layout,
    "charter": charter_layout,
    "limits": limits,
    "network-limits": network_limits,
    "secure-limits": secure_limits,
    "type-strings": type_strings,
    "contract": contract,
    "examples": examples,
    "secure-examples": secure_examples,
}


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```\n"


def fill(text: str) -> str:
    """`text` with every block made anew; raises KeyError for a block that nobody makes."""
    return _BLOCK.sub(lambda found: found[1] + MAKERS[found[2]]() + found[3], text)


def main() -> None:
    """Rewrite the documents."""
    for path in DOCUMENTS:
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
