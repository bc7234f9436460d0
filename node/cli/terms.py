"""A charter's terms, and what they mean, in words."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from folkmoot.protocol.charter import Charter
    from folkmoot.protocol.charter_tables import Model
    from folkmoot.protocol.groups import Group
    from folkmoot.protocol.schema import Schema


def describe(terms: "Charter") -> Iterator[tuple[str, str]]:
    """The terms and what they mean, as (heading, sentence)."""
    from folkmoot.ledger.development import DEVELOPMENT_CHAINS
    from folkmoot.protocol.privacy import describe_privacy
    from folkmoot.protocol.secure.masked_noise import describe_noise

    members, faults = len(terms.members), terms.faults
    model, schedule = terms.model, terms.schedule
    yield "charter", f"{terms.name!r}, digest {terms.digest.hex()}"
    yield "members", ", ".join(member.name for member in terms.members)
    yield "quorum", f"{terms.quorum} of {members} (Q) decide; {_may_be_away(terms)}"
    yield (
        "",
        f"up to {faults} (f) may lie without the others ever deciding two things"
        + ("" if faults else ": with fewer than 4 members nobody may"),
    )
    attesters = len(terms.attesters)
    yield (
        "ledger",
        f"chain {terms.ledger.chain_id}; {terms.attester_quorum} of {attesters} attesters sign each round",
    )
    if terms.ledger.chain_id in DEVELOPMENT_CHAINS:
        yield "", "a chain for development: whoever runs it can rewrite the record, so it proves nothing"
    widths = " - ".join(map(str, model.layers))
    if model.image:
        widths += " on images of " + " x ".join(map(str, model.image))
    yield (
        "model",
        f"{model.kind}, {widths}: {model.parameters:,} parameters, starting from {model.initial[:16]}",
    )
    yield from _describe_parts(model)
    yield from _describe_data(terms)
    training = ", ".join(f"{key} {value}" for key, value in msgspec.structs.asdict(terms.training).items())
    yield "training", training
    yield from _describe_averaging(terms)
    for at, line in enumerate((*describe_privacy(terms), *describe_noise(terms))):
        yield "" if at else "privacy", line
    yield (
        "schedule",
        f"{schedule.rounds} rounds; an attempt takes at least {schedule.attempt_min:g} s to be given up",
    )
    if schedule.rounds <= schedule.max_ahead:
        yield (
            "",
            f"nothing can be changed before they are over: changes come more than max_ahead, {schedule.max_ahead} "
            "rounds, after they are recorded",
        )
    if terms.ledger.cadence > 1:
        yield "ledger", f"rounds are recorded every {terms.ledger.cadence}, in one transaction"
    yield (
        "ledger",
        f"final is a block with {terms.ledger.finality_depth} on top, unless the chain says it itself",
    )
    if terms.auditors:
        yield "auditors", ", ".join(auditor.name for auditor in terms.auditors) + " can open every update"


_PARTS = {
    "shared": "travel and are averaged",
    "personal": "stay with each member, who trains them for itself",
    "frozen": "stay as they begin",
}
_SHOWN_NAMES = 4


def _describe_parts(model: "Model") -> Iterator[tuple[str, str]]:
    """Which tensors do what, unless all are shared."""
    from folkmoot.protocol.parts import tensors_of

    for part, what in _PARTS.items():
        tensors = tensors_of(model, part)  # type: ignore[arg-type]
        if tensors and len(model.shared) < len(model.tensors):
            names = ", ".join(tensor.name for tensor in tensors[:_SHOWN_NAMES])
            more = f" and {len(tensors) - _SHOWN_NAMES} more" if len(tensors) > _SHOWN_NAMES else ""
            values = sum(tensor.size for tensor in tensors)
            yield "", f"{part} ({names}{more}; {values:,} values): they {what}"


def _describe_averaging(terms: "Charter") -> Iterator[tuple[str, str]]:
    from folkmoot.protocol.charter_options import describe_learning

    averaging = terms.averaging
    for at, line in enumerate(describe_learning(terms)):
        yield "" if at else "learning", line
    if not terms.is_secure:
        yield "averaging", f"open mode: members see each other's updates; codec {averaging.codec}"
        return
    yield "averaging", "secure mode: only the sum of all updates is ever seen (the codec is not used)"
    if not terms.is_private:
        yield (
            "",
            f"members with {averaging.weight_cap:,} rows or more weigh the same, fewer rows in proportion",
        )
    yield from _describe_groups(terms)


def _describe_groups(terms: "Charter") -> Iterator[tuple[str, str]]:
    secrecy, sizes = terms.secrecy, terms.group_sizes
    heading = f"ring of {secrecy.ring} bits; mask keys change every {secrecy.epoch} rounds"
    if len(sizes) > 1:
        heading += f", and {len(sizes)} groups of {_range(sizes)} members with them"
    yield "secrecy", heading
    for group in _kinds_of_groups(terms):
        yield from _describe_group(group, f" of each group of {len(group.members)}" if len(sizes) > 1 else "")
    if len(sizes) > 1:
        tenth = max(1, len(terms.members) // 10)
        yield (
            "",
            f"if {tenth} of all members collude, some group has more than its f of them in {_chance(sizes, tenth)} of "
            "all epochs",
        )


def _describe_group(group: "Group", whose: str) -> Iterator[tuple[str, str]]:
    from folkmoot.protocol.charter import max_faults

    size = len(group.members)
    faults = max_faults(size)
    yield (
        "",
        f"a sum holds {group.needed} updates{whose} or more (k_min); {group.threshold} of {size} shares open it",
    )
    yield (
        "",
        f"if {faults} (f) members{whose} collude, an update hides among those of {group.needed - faults} honest ones "
        "or more",
    )
    if group.threshold > group.quorum - faults:
        yield (
            "",
            f"{faults} silent members{whose} can keep a sum from being opened: {group.threshold} shares are many",
        )


def _kinds_of_groups(terms: "Charter") -> list["Group"]:
    """One group of each size."""
    from folkmoot.protocol.groups import draw_groups

    drawn = draw_groups(terms, bytes(32), 1)
    return list({len(group.members): group for group in drawn}.values())


def _may_be_away(terms: "Charter") -> str:
    members, kinds = len(terms.members), _kinds_of_groups(terms)
    if len(terms.group_sizes) == 1:
        return f"{members - kinds[0].needed} may be away"
    return f"{members - terms.quorum} may be away; a group that has too few left sits out"


def _chance(sizes: tuple[int, ...], colluders: int) -> str:
    from folkmoot.protocol.groups import chance_of_capture

    return f"{chance_of_capture(sizes, colluders):.2%}"


def _range(sizes: tuple[int, ...]) -> str:
    return str(min(sizes)) if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"


def _describe_data(terms: "Charter") -> Iterator[tuple[str, str]]:
    schema: Schema | None = getattr(terms, "data", None)
    if schema is None:
        yield "data", "x and y in safetensors files, as they are"
        return
    goal = f" ({', '.join(schema.classes)})" if schema.classes else ""
    yield "data", f"{schema.task}: predict {schema.target!r}{goal} from {len(schema.columns)} columns"
    for column in schema.columns:
        detail = f"{len(column.categories)} categories" if column.kind == "category" else "number"
        yield "", f"  {column.name}: {detail}, missing: {column.missing}"
