"""What an amended charter changes: what it must leave alone, what it means for the ledger, and how people read it.

An amendment (`governance.py`) names a complete new charter and the roles that change with it. Both must tell the same:
who checks an amendment compares it with the charter before it (`verify_amendment`).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from folkmoot.protocol.blob import BlobRef, ref_of
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import Member
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.governance import Amendment, Change, Role, decode_changes, encode_changes
from folkmoot.protocol.types import Digest, Round

MAX_CHARTER = 1024 * 1024
"""Bytes of the largest charter that is fetched (256 members and 1000 tensors need about 0.2 MB)."""

_FIXED = (
    ("format", "what was founded keeps its format"),
    ("name", "a federation keeps its name"),
    ("data", "members' rows are encoded by it, into the model's inputs"),
    ("model", "the rounds so far are of this model: found another federation for another one"),
)
_FIXED_TERMS = (
    ("ledger", "chain_id", "the record is kept by the contract that it began with"),
    ("ledger", "code_hash", "the record is kept by the contract that it began with"),
    ("ledger", "cadence", "members on both sides of a change would wait for each other's checkpoints"),
    ("averaging", "mode", "no quorum may decide that others' updates are seen"),
    (
        "averaging",
        "fragments",
        "what members hold back, and what writing down lost of each fragment, would be of other values",
    ),
    ("averaging", "rule", "what one rule remembers of the rounds so far means nothing to another"),
    (
        "training",
        "correction",
        "members' own vectors, and the model's with SCAFFOLD, would mean something else",
    ),
    ("schedule", "max_ahead", "the contract was deployed with it"),
    ("secrecy", "epoch", "members' mask keys are counted in epochs of this length"),
)
_KEYS = (
    ("audit_key", "audit key"),
    ("identity_key", "identity key"),
    ("sealing_key", "sealing key"),
    ("peer_id", "peer id"),
)
_TABLES = ("ledger", "schedule", "training", "averaging", "secrecy")


def check_amended(before: Charter, after: Charter, source: str = "amended charter") -> None:
    """Raise `CharterError` where `after` changes what no amendment may; both charters are well-formed."""
    for name, reason in _FIXED:
        if getattr(before, name) != getattr(after, name):
            raise CharterError(f"{source}: changes {name!r}: {reason}")
    for table, name, reason in _FIXED_TERMS:
        old, new = (getattr(getattr(charter, table), name) for charter in (before, after))
        if old != new:
            raise CharterError(f"{source}: changes {table}.{name} from {old} to {new}: {reason}")
    _check_names(before, after, source)
    _check_order(before, after, source)
    if before == after:
        raise CharterError(f"{source}: changes nothing")


def _check_names(before: Charter, after: Charter, source: str) -> None:
    """A node finds itself in a charter by its member's name."""
    names = {member.identity_key: member.name for member in before.members}
    for member in after.members:
        if names.get(member.identity_key, member.name) != member.name:
            raise CharterError(
                f"{source}: calls {names[member.identity_key]} {member.name}: members keep their names"
            )


def _check_order(before: Charter, after: Charter, source: str) -> None:
    """While nodes are on both sides of a change, ids must order two members alike: the smaller one calls the other."""
    old, new = _by_name(before), [member.name for member in after.members]
    staying = [name for name in old if name in new]
    if new[: len(staying)] != staying:
        raise CharterError(
            f"{source}: members must stay in their order, and new ones come last: {', '.join(staying)}, then the others"
        )


def compute_changes(before: Charter, after: Charter, suspended: Collection[str] = ()) -> tuple[Change, ...]:
    """The roles that change on the ledger. `suspended` names those of the leaving who are only suspended."""
    old, new = _roles(before), _roles(after)
    names = {_address(member): member.name for member in before.members}
    leaving = {
        address: Role.SUSPENDED if names[address] in suspended else Role.REMOVED
        for address in old.keys() - new
    }
    changed = {address: role for address, role in new.items() if old.get(address) is not role}
    return tuple(sorted(Change(address, role) for address, role in {**leaving, **changed}.items()))


def make_amendment(
    federation: Digest,
    number: int,
    previous: Digest,
    effective: Round,
    after: Charter,
    changes: tuple[Change, ...],
) -> Amendment:
    """The amendment that puts `after` in force; `number` and `previous` continue the ledger's chain of them."""
    ref = charter_ref(after)
    words = encode_changes(changes)
    return Amendment(federation, number, previous, after.digest, ref.root, ref.size, effective, words)


def charter_ref(charter: Charter) -> BlobRef:
    """What the charter's canonical bytes are called."""
    return ref_of(charter.encoded)


def verify_amendment(amendment: Amendment, before: Charter, after: Charter) -> None:
    """Raise `CharterError` (or `RemoteProtocolError`) unless the amendment says of `after` what it is.

    The ledger has checked signatures, number and round, but sees only digests.
    """
    source = f"amendment {amendment.number}"
    if amendment.charter != after.digest or BlobRef(amendment.blob, amendment.size) != charter_ref(after):
        raise CharterError(f"{source}: names another charter than {after.digest.hex()}")
    check_amended(before, after, source)
    if amendment.effective > before.schedule.rounds + 1:
        raise CharterError(
            f"{source}: in force from round {amendment.effective}, but the charter before it ends with round "
            f"{before.schedule.rounds}"
        )
    said = {change.address: change.role for change in decode_changes(amendment.changes)}
    for change in compute_changes(before, after):
        found = said.pop(change.address, None)
        # Who leaves may be removed or only suspended: to the charter it is the same.
        allowed = {change.role} if change.role > Role.SUSPENDED else {Role.REMOVED, Role.SUSPENDED}
        if found not in allowed:
            raise CharterError(
                f"{source}: the ledger has not the role of 0x{change.address.hex()} that the charter gives it"
            )
    # What is left may only concern former members: what is taken from a present one would not show in the charter
    former = said.keys() - _roles(before).keys() - _roles(after).keys()
    if said.keys() != former or any(role > Role.SUSPENDED for role in said.values()):
        raise CharterError(
            f"{source}: changes roles on the ledger of addresses whose role the charter does not change"
        )


# --- in words -------------------------------------------------------------------------------------------------------


def describe_change(before: Charter, after: Charter, changes: Sequence[Change] = ()) -> list[str]:
    """What changes, one short sentence each: "adds clinic-d as attester", "training.lr 0.1 -> 0.05"."""
    roles = {change.address: change.role for change in changes}
    return [
        *_describe_members(before, after, roles),
        *_describe_others(before, after, roles),
        *_describe_terms(before, after),
    ]


def _describe_others(before: Charter, after: Charter, roles: Mapping[bytes, Role]) -> Iterator[str]:
    """Nothing that is signed goes unsaid."""
    known = {*_roles(before), *_roles(after)}
    for address, role in sorted(roles.items()):
        if address not in known:
            yield f"makes 0x{address.hex()}, an address of no member, {role.name.lower()} on the ledger"


def _describe_members(before: Charter, after: Charter, roles: Mapping[bytes, Role]) -> Iterator[str]:
    old, new = _by_name(before), _by_name(after)
    for name, member in old.items():
        if name not in new:
            is_suspended = roles.get(_address(member)) is Role.SUSPENDED
            yield f"suspends {name}" if is_suspended else f"removes {name}"
    for name, member in new.items():
        known = old.get(name)
        if known is None:
            yield f"adds {name} as {'attester' if member.attester else 'member'}"
            continue
        rotated = [what for key, what in _KEYS[:3] if getattr(known, key) != getattr(member, key)]
        if rotated:
            yield f"rotates the {_listed(rotated)} of {name}"
        if known.attester != member.attester:
            yield f"makes {name} {'an attester' if member.attester else 'a member that does not attest'}"
    kept = [one for one in after.auditors if one in before.auditors]
    yield from (f"removes the auditor {one.name}" for one in before.auditors if one not in kept)
    yield from (f"adds the auditor {one.name}" for one in after.auditors if one not in kept)


def _describe_terms(before: Charter, after: Charter) -> Iterator[str]:
    for table in _TABLES:
        old, new = getattr(before, table), getattr(after, table)
        for field in msgspec.structs.fields(old):
            was, will = getattr(old, field.name), getattr(new, field.name)
            if was != will:
                yield f"{table}.{field.name} {was} -> {will}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


# --- members --------------------------------------------------------------------------------------------------------


def _by_name(charter: Charter) -> dict[str, Member]:
    return {member.name: member for member in charter.members}


def _address(member: Member) -> bytes:
    return bytes.fromhex(member.audit_key[2:])


def _roles(charter: Charter) -> dict[bytes, Role]:
    return {_address(member): Role.ATTESTER if member.attester else Role.MEMBER for member in charter.members}
