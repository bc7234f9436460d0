"""Charters with one member more, one less, or one changed: what proposals are drafted from."""

from collections.abc import Iterable

from msgspec.structs import replace

from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import Auditor, Member
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.hashing import digest


def add_member(charter: Charter, member: Member) -> Charter:
    """With `member` as the last one; raises `CharterError` if its name is taken."""
    if charter.find_member(member.name) is not None:
        raise CharterError(f"the charter has a member {member.name!r} already")
    return replace(charter, members=(*charter.members, member))


def remove_members(charter: Charter, names: Iterable[str]) -> Charter:
    """Without the members of these names; raises `CharterError` for one that it does not have."""
    leaving = {charter.member_named(name) for name in names}
    kept = (member for index, member in enumerate(charter.members) if index not in leaving)
    return replace(charter, members=tuple(kept))


def set_role(charter: Charter, name: str, *, attester: bool) -> Charter:
    """With another role for a member; raises `CharterError` if there is none of that name, or it has the role."""
    member = charter.members[charter.member_named(name)]
    if member.attester is attester:
        raise CharterError(
            f"{name} is {'an attester' if attester else 'a member that does not attest'} already"
        )
    return replace_member(charter, replace(member, attester=attester))


def replace_member(charter: Charter, member: Member) -> Charter:
    """With another entry for the member of that name; raises `CharterError` if there is none."""
    members = list(charter.members)
    members[charter.member_named(member.name)] = member
    return replace(charter, members=tuple(members))


# --- what people compare --------------------------------------------------------------------------------------------


def key_fingerprint(entry: Member | Auditor) -> str:
    """All public keys of an entry in 96 bits of hex, short enough to be read out over the phone: `8e0c 11f2 ...`."""
    keys = [entry.sealing_key]
    if isinstance(entry, Member):
        keys = [entry.identity_key, entry.sealing_key, entry.audit_key]
    text = digest("folkmoot/v1/keys", "\n".join(keys).encode()).hex()[:24]
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def admitted_keys(before: Charter, after: Charter) -> dict[str, str]:
    """The fingerprints of keys that `after` has and `before` has not, by whose they are."""
    people: tuple[Member | Auditor, ...] = (*before.members, *before.auditors)
    known = {key_fingerprint(one) for one in people}
    found = {one.name: key_fingerprint(one) for one in after.members}
    found |= {f"auditor {one.name}": key_fingerprint(one) for one in after.auditors}
    return {name: fingerprint for name, fingerprint in found.items() if fingerprint not in known}
