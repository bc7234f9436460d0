"""Which fingerprints a record shows: a quorum's of the attempt that decided must be among them."""

from folkmoot.protocol.groups import one_group
from folkmoot.protocol.messages import Fingerprint, Signed
from folkmoot.protocol.secure.ballot import FingerprintBallot

SET, SUMS = b"\x01" * 32, b"\x02" * 32


def signed(member: int, attempt: int) -> Signed:
    return Signed(member, Fingerprint(bytes(32), 1, attempt, SET, SUMS, b""), bytes(64))


def test_fingerprints_of_the_preferred_attempt_win_over_later_ones() -> None:
    ballot = FingerprintBallot(0, one_group(4))
    for member, attempt in ((0, 0), (1, 0), (2, 0), (0, 1), (3, 1), (1, 2)):
        ballot.add_print(signed(member, attempt))

    def attempts(preferred: int | None) -> dict[int, int]:
        return {
            member: one.body.attempt
            for member, one in ballot.prints(SET, SUMS, preferred).items()
            if isinstance(one.body, Fingerprint)
        }

    assert attempts(None) == {0: 1, 1: 2, 2: 0, 3: 1}
    assert attempts(0) == {0: 0, 1: 0, 2: 0, 3: 1}
    assert ballot.is_printed(0, SET, SUMS)
    assert not ballot.is_printed(1, SET, SUMS)
