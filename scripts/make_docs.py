"""Write the parts of README.md and docs/SPEC.md that follow from the code, between their markers.

    <!-- made by scripts/make_docs.py: NAME -->
    ...
    <!-- end -->

A second run changes nothing; `tests/unit/test_readme.py` holds the documents to the code.
"""

import json
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import inspect
from nacl.signing import SigningKey

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.build import contract_build
from folkmoot.ledger.signing import KeySigner
from folkmoot.node.cli import cli
from folkmoot.protocol import addresses as member_addresses
from folkmoot.protocol import charter, messages, schema, typed_data
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import archive_digest
from folkmoot.protocol.charter import federation_id
from folkmoot.protocol.record import RoundRecord
from folkmoot.protocol.secure import permit
from folkmoot.protocol.signing import identity_preimage
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
    charter.Charter, charter.Model, charter.Tensor, charter.Schedule, charter.LedgerTerms, charter.Training,
    charter.Averaging, charter.Privacy, charter.Member, charter.Auditor, schema.Schema, schema.Column,
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
    ("attempts.STRETCH_AFTER", "rounds in a row without a slow member until it is waited for"),
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
    ("charter.MAX_GROUP", "members of the largest group of secure mode"),
    ("charter.MAX_SUMMED", "members of the largest federation in open mode"),
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
    return _fenced("\n".join(_array(kind) for kind in _MESSAGES))


def charter_layout() -> str:
    """Every table of the charter, with its defaults."""
    return _fenced("\n\n".join(_map(kind) for kind in _CHARTER))


def addresses() -> str:
    """What a member says of where it is: layout, and one example."""
    key = SigningKey(b"\x01" * 32)
    federation = federation_id(b"\x11" * 32, 31337, bytes(range(1, 21)))
    body = member_addresses.Addresses(bytes(key.verify_key), 7, ("/ip4/192.0.2.7/tcp/4001",))
    preimage = member_addresses.addresses_preimage(federation, body)
    signed = messages.encode(member_addresses.sign_addresses(key, federation, body))
    arrays = [_array(kind) for kind in (member_addresses.Addresses, member_addresses.SignedAddresses)]
    example = ["preimage", *_folded(preimage), f"signed, {len(signed)} bytes", *_folded(signed)]
    return _fenced("\n".join([*arrays, "", *example]))


def permit_layout() -> str:
    """A permit's table, and the array that answers it."""
    return _fenced("\n\n".join([_map(permit.Permit), _array(permit.Answer)]))


def _array(kind: type[msgspec.Struct]) -> str:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    tag = [] if info.tag is None else [f'"{info.tag}"']
    items = tag + [f"{field.name} {_type(field.type)}" for field in info.fields]
    return _wrapped(f"{kind.__name__:<12} = [", items, "]")


def _map(kind: type[msgspec.Struct]) -> str:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    lines = [f"{kind.__name__} = {{"]
    for field in info.fields:
        default = "" if field.default is msgspec.NODEFAULT else f"   (default {_default(field.default)})"
        lines.append(f"  {field.name:<13} {_type(field.type)}{default}")
    return "\n".join([*lines, "}"])


def _default(value: object) -> str:
    return "all defaults" if isinstance(value, msgspec.Struct) else json.dumps(value)


def _type(node: inspect.Type) -> str:
    match node:
        case inspect.Metadata(type=inner):
            return _type(inner)
        case inspect.BytesType(min_length=low, max_length=high):
            return f"bytes{low}" if low is not None and low == high else f"bytes{_at_most(high)}"
        case inspect.StrType(pattern=pattern, max_length=high):
            return f"str{_at_most(high)}" if pattern is None else f"str {pattern}"
        case inspect.IntType() | inspect.FloatType():
            return _number(node)
        case inspect.TupleType(item_types=items):
            return f"[{', '.join(map(_type, items))}]"
        case inspect.VarTupleType(item_type=item, max_length=high):
            return f"[{_type(item)}, ...{_at_most(high)}]"
        case inspect.LiteralType(values=values):
            return " | ".join(json.dumps(value) for value in values)
        case inspect.UnionType(types=options):
            structs = [option for option in options if isinstance(option, inspect.StructType)]
            return "Body" if len(structs) > 1 else " or ".join(_type(option) for option in options)
        case inspect.NoneType():
            return "nil"
        case inspect.BoolType():
            return "bool"
        case inspect.StructType(cls=cls):
            return cls.__name__
    raise TypeError(f"no notation for {node}")


def _number(node: inspect.IntType | inspect.FloatType) -> str:
    if isinstance(node, inspect.IntType) and node.ge == 0:
        for bits in (31, 32, 63, 64):
            if node.lt == 2**bits or node.le == 2**bits - 1:
                return f"uint{bits}"
    name = "int" if isinstance(node, inspect.IntType) else "float64"
    low = f"{node.ge:g} <= " if node.ge is not None else f"{node.gt:g} < " if node.gt is not None else ""
    high = "" if node.le is None else f" <= {_power(node.le)}"
    return f"{low}{name}{high}"


def _power(value: float) -> str:
    power = int(value + 1).bit_length() - 1
    return f"2^{power}-1" if power >= 16 and value == 2**power - 1 else f"{value:g}"


def _at_most(count: int | None) -> str:
    return "" if count is None else f" <= {count}"


def _wrapped(start: str, items: list[str], end: str) -> str:
    lines, indent = [start], " " * len(start)
    for place, item in enumerate(items):
        text = item + (end if place == len(items) - 1 else ",")
        if lines[-1].strip() != start.strip() and len(lines[-1]) + len(text) > 104:
            lines.append(indent + text)
        else:
            lines[-1] += ("" if lines[-1] == start else " ") + text
    return "\n".join(lines)


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
    bodies, frames = _example_frames(federation, signer)
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


def _example_frames(
    federation: bytes, signer: KeySigner
) -> tuple[dict[str, messages.Body], dict[str, messages.Frame]]:
    """A body of each kind, all of round 1 and member 0, and a frame of each kind."""
    base, config, root, key = (bytes([value]) * 32 for value in (0x22, 0x11, 0x33, 0x44))

    def sign(body: messages.Body) -> messages.Signed:
        return messages.Signed(0, body, signer.sign(body))

    salted = (b"\x55" * 32, b"\x66" * 32, b"\x77" * 32)
    metrics = (("accuracy", 0.5), ("examples", 20.0))
    ready = messages.Ready(1, base, bytes([0, 0xFE]), *salted, num_examples=100, metrics=metrics)
    roster = messages.Roster(1, 0, base, (sign(ready),), ready.exponents)
    roster_name = messages.roster_digest(0, roster)
    commitment = messages.Commitment(federation, 1, roster_name, 0, root, 200, key)
    named = messages.body_digest(commitment)
    survivors = messages.SurvivorSet(1, base, federation, config, roster_name, (messages.Survivor(0, named),))
    masked = messages.Commitment(
        federation,
        1,
        roster_name,
        0,
        b"\x34" * 32,
        256,
        bytes(32),
        (b"\x35" * 32,),
        (b"\x36" * 32,),
        (bytes(32),),
    )
    bodies: dict[str, messages.Body] = {
        "ready": ready,
        "ready in secure mode": messages.Ready(1, base, ready.exponents, *salted, 0, mask_key=b"\x78" * 32),
        "roster": roster,
        "commitment": commitment,
        "commitment in secure mode": masked,
        "receipt": messages.Receipt(1, 0, roster_name, (named,)),
        "proposal": messages.Proposal(federation, 1, 0, survivors.digest, b"\x88" * 32),
        "vote": messages.Vote(federation, 1, 0, survivors.digest),
        "lock": messages.Lock(federation, 1, 0, survivors.digest, b"\x99" * 32),
        "statement": messages.Statement(
            federation, 1, federation, config, base, survivors.digest, b"\xaa" * 32, b"\xbb" * 32
        ),
        "share": messages.Share(1, roster_name, 0, b"\xa1" * 32),
        "sum": messages.Sum(federation, 1, survivors.digest, 0, b"\xa2" * 32, 288),
        "fingerprint": messages.Fingerprint(
            federation, 1, 0, survivors.digest, b"\xa3" * 32, bytes(range(16))
        ),
        "enter": messages.Enter(1, 1),
        "declined": messages.Declined(1, base, "its privacy budget is spent"),
    }
    signed = {name: sign(body) for name, body in bodies.items()}
    certificate = messages.Certificate(survivors, (signed["vote"],))
    other = sign(messages.Vote(federation, 1, 0, b"\xcc" * 32))
    frames: dict[str, messages.Frame] = {
        **signed,
        "certificate": certificate,
        "opening": messages.Opening(survivors, (signed["lock"],)),
        "propose": messages.Propose(signed["proposal"], survivors, (messages.Omission(1, 0),), None),
        "seeds": messages.Seeds(1, survivors.digest, 0, ((1, bytes(range(16))),)),
        "shares": messages.Shares(1, survivors.digest, 0, ((0, b"\xa1" * 32),)),
        "final": messages.Final((signed["statement"],), BlobRef(b"\xaa" * 32, 8)),
        "hello": messages.Hello(2, 0, 1),
        "recall": messages.Recall(),
        "recalled": messages.Recalled(1, (signed["vote"],)),
        "evidence": messages.Evidence(signed["vote"], other),
        "key-wanted": messages.KeyWanted(named),
        "key-shared": messages.KeyShared(named, b"\xdd" * 32),
    }
    return bodies, frames


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
