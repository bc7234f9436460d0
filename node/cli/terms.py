"""A charter's terms, and what they mean, in words."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from folkmoot.protocol.charter import Charter
    from folkmoot.protocol.schema import Schema


def describe(terms: "Charter") -> Iterator[tuple[str, str]]:
    """The terms and what they mean, as (heading, sentence)."""
    members, faults, needed = len(terms.members), terms.faults, terms.survivors_needed
    model, schedule = terms.model, terms.schedule
    yield "charter", f"{terms.name!r}, digest {terms.digest.hex()}"
    yield "members", ", ".join(member.name for member in terms.members)
    yield "quorum", f"{terms.quorum} of {members} (Q) decide; {members - needed} may be away"
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
    widths = " - ".join(map(str, model.layers))
    yield (
        "model",
        f"{model.kind}, {widths}: {model.parameters:,} parameters, starting from {model.initial[:16]}",
    )
    yield from _describe_data(terms)
    training = ", ".join(f"{key} {value}" for key, value in msgspec.structs.asdict(terms.training).items())
    yield "training", training
    yield from _describe_averaging(terms)
    yield (
        "schedule",
        f"{schedule.rounds} rounds; an attempt takes at least {schedule.attempt_min:g} s to be given up",
    )
    if terms.ledger.cadence > 1:
        yield "ledger", f"rounds are recorded every {terms.ledger.cadence}, in one transaction"
    if terms.auditors:
        yield "auditors", ", ".join(auditor.name for auditor in terms.auditors) + " can open every update"


def _describe_averaging(terms: "Charter") -> Iterator[tuple[str, str]]:
    averaging, secrecy = terms.averaging, terms.secrecy
    if not terms.is_secure:
        yield (
            "averaging",
            f"{averaging.rule}, open mode: members see each other's updates; codec {averaging.codec}",
        )
        return
    yield (
        "averaging",
        f"{averaging.rule}, secure mode: only the sum of all updates is ever seen (the codec is not used)",
    )
    yield "", f"members with {averaging.weight_cap:,} rows or more weigh the same, fewer rows in proportion"
    needed, faults = terms.survivors_needed, terms.faults
    yield (
        "secrecy",
        f"ring of {secrecy.ring} bits; a sum holds {needed} updates or more (k_min); {terms.threshold} of "
        f"{len(terms.members)} shares open it; mask keys change every {secrecy.epoch} rounds",
    )
    yield (
        "",
        f"if {faults} (f) members collude, an update hides among those of {needed - faults} honest ones or more",
    )
    if terms.threshold > terms.quorum - faults:
        yield (
            "",
            f"{faults} silent members can keep a sum from being opened: {terms.threshold} shares are many",
        )


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
