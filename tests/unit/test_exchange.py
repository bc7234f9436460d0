"""Who holds what, whom to propose, and who was left out unjustly."""

from small_federation import SmallFederation, mark

from folkmoot.protocol.exchange import Exchange
from folkmoot.protocol.messages import Commitment, Omission, Receipt, Signed, body_digest

town = SmallFederation(4)
ROSTER = town.roster()
ME = 0


def exchange_holding(*members: int) -> Exchange:
    exchange = town.exchange(ME, ROSTER)
    exchange.held.update(members)
    return exchange


def receipt_of(member: int, *holding: int) -> tuple[int, Receipt]:
    signed = town.receipt(member, ROSTER, holding)
    assert isinstance(signed.body, Receipt)
    return member, signed.body


def with_receipts(exchange: Exchange, **receipts: tuple[int, ...]) -> Exchange:
    for name, holding in receipts.items():
        exchange.add_receipt(*receipt_of(int(name[1:]), *holding))
    return exchange


EVERYTHING = (0, 1, 2, 3)


def test_the_first_commitment_of_a_member_counts() -> None:
    exchange = town.exchange(ME, ROSTER)
    second = town.commitment(1, ROSTER, root=mark(77))
    exchange.add_commitment(second)
    assert exchange.commitments[1] == town.commitment(1, ROSTER)
    assert exchange.member_of(body_digest(second.body)) is None


def test_the_certified_one_of_two_commitments_replaces_the_first_and_is_fetched_anew() -> None:
    exchange = exchange_holding(*EVERYTHING)
    second = town.commitment(1, ROSTER, root=mark(77))
    exchange.replace_commitment(second)
    assert exchange.commitments[1] == second
    assert exchange.held == {0, 2, 3}
    assert exchange.member_of(body_digest(second.body)) == 1


def test_holding_a_set_means_every_payload_under_exactly_that_commitment() -> None:
    exchange = exchange_holding(0, 1, 2)
    assert exchange.holds(town.survivors(ROSTER, [0, 1, 2]))
    assert not exchange.holds(town.survivors(ROSTER))
    exchange.replace_commitment(town.commitment(1, ROSTER, root=mark(77)))
    exchange.held.add(1)
    assert not exchange.holds(town.survivors(ROSTER, [0, 1, 2]))


def test_the_receipt_names_what_is_held() -> None:
    exchange = exchange_holding(0, 2)
    expected = town.receipt(ME, ROSTER, (0, 2))
    assert exchange.receipt() == expected.body


def test_receipts_only_ever_grow() -> None:
    exchange = exchange_holding(*EVERYTHING)
    with_receipts(exchange, m1=EVERYTHING, m2=EVERYTHING)
    with_receipts(exchange, m1=(0,))  # an older one, late
    assert exchange.choose_survivors(town.groups, (), patient=False) == EVERYTHING


# --- whom to propose ----------------------------------------------------------------------------------------------


def test_everybody_is_proposed_as_soon_as_a_quorum_holds_everything() -> None:
    exchange = with_receipts(exchange_holding(*EVERYTHING), m1=EVERYTHING)
    assert exchange.choose_survivors(town.groups, (), patient=True) is None
    with_receipts(exchange, m3=EVERYTHING)
    assert exchange.choose_survivors(town.groups, (), patient=True) == EVERYTHING


def test_a_late_payload_is_awaited_until_patience_ends() -> None:
    exchange = with_receipts(exchange_holding(0, 1, 2), m1=(0, 1, 2), m2=(0, 1, 2))
    assert exchange.choose_survivors(town.groups, (), patient=True) is None
    assert exchange.choose_survivors(town.groups, (), patient=False) == (0, 1, 2)


def test_a_member_that_is_down_is_not_awaited() -> None:
    exchange = with_receipts(exchange_holding(0, 1, 2), m1=(0, 1, 2), m2=(0, 1, 2))
    assert exchange.choose_survivors(town.groups, {3}, patient=True) == (0, 1, 2)


def test_what_i_alone_hold_is_not_proposed_when_patience_ends() -> None:
    exchange = with_receipts(exchange_holding(*EVERYTHING), m1=(0, 1, 2), m2=(0, 1, 2), m3=(0, 1, 3))
    assert exchange.choose_survivors(town.groups, (), patient=False) == (0, 1, 2)


def test_too_little_in_common_is_nothing_to_propose() -> None:
    exchange = with_receipts(exchange_holding(0, 1), m1=(0, 1), m2=(0, 1))
    assert exchange.choose_survivors(town.groups, (), patient=False) is None
    exchange = with_receipts(exchange_holding(*EVERYTHING), m1=(1,), m2=(2,), m3=(3,))
    assert exchange.choose_survivors(town.groups, (), patient=False) is None


def test_the_payload_of_a_member_that_committed_to_two_is_left_out() -> None:
    """Others hold it under another commitment than I do."""
    exchange = exchange_holding(*EVERYTHING)
    other = body_digest(town.commitment(3, ROSTER, root=mark(77)).body)
    for member in (1, 2):
        _, receipt = receipt_of(member, 0, 1, 2)
        exchange.add_receipt(member, Receipt(1, 0, exchange.digest, (*receipt.held, other)))
    assert exchange.choose_survivors(town.groups, (), patient=False) == (0, 1, 2)


# --- who was left out ---------------------------------------------------------------------------------------------


def test_each_omitted_member_is_named_with_one_that_lacks_its_payload() -> None:
    exchange = with_receipts(exchange_holding(0, 1, 2), m1=EVERYTHING, m2=EVERYTHING)
    assert exchange.omissions((0, 1, 2)) == (Omission(3, ME),)
    exchange = with_receipts(exchange_holding(*EVERYTHING), m1=EVERYTHING, m2=(0, 1, 2))
    assert exchange.omissions((0, 1, 2)) == (Omission(3, 2),)
    assert exchange.omissions(EVERYTHING) == ()


def root_of(signed: Signed) -> bytes:
    assert isinstance(signed.body, Commitment)
    return signed.body.root


def test_who_delivered_the_payload_contradicts_its_omission() -> None:
    exchange = exchange_holding(*EVERYTHING)
    exchange.add_forwarded(root_of(exchange.commitments[3]), 2)
    assert exchange.contradicts([Omission(3, 2)])
    assert not exchange.contradicts([Omission(3, 1)])
    assert not exchange.contradicts([Omission(2, 2)])
    assert not exchange.contradicts([])


def test_deliveries_of_other_things_are_not_remembered() -> None:
    exchange = town.exchange(ME, town.roster([0, 1, 2]))
    exchange.add_forwarded(mark(1), 2)
    assert not exchange.contradicts([Omission(3, 2)])
    assert not exchange.contradicts([Omission(1, 2)])
