"""Check 30: what members spent of their privacy budget, by their own logs, and that these are the logs of the record.

A log is declared, not proven: that noise was added, and how many rows a member has, no signature shows. But every READY
commits to the whole log, so whoever wants to hide an update would have had to know it before that round.
"""

from collections.abc import Iterator, Sequence

from folkmoot.ledger.audit.accountant import TOLERANCE, NoAccountant, epsilon_of
from folkmoot.ledger.audit.report import Status, Tally
from folkmoot.ledger.audit.round_checks import Case, Frame
from folkmoot.ledger.audit.sources import Source
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Ready
from folkmoot.protocol.privacy import Log, Logged, read_log, window_of
from folkmoot.protocol.secure.masked_noise import plan_noise
from folkmoot.protocol.timeline import Timeline
from folkmoot.protocol.types import Digest, Round


class PrivacyAudit:
    """Holds READYs against the logs, round by round, and then the logs against the budget."""

    def __init__(self, sources: Sequence[Source], timeline: Timeline, tally: Tally) -> None:
        self._timeline = timeline
        self._tally = tally
        self._lines: dict[str, dict[tuple[Round, Digest], Logged]] = {}
        self._logs: dict[str, Log] = {}
        self._without: set[str] = set()
        """Who takes part under a budget, and whose log was not given."""
        for source in sources:
            self._read(source)

    def _read(self, source: Source) -> None:
        try:
            text = source.privacy_log()
            log = read_log(text) if text is not None else None
        except (RemoteProtocolError, OSError) as error:
            self._tally.add(Status.FAIL, f"{source.name}: {error}", where=source.name)
            return
        if log is None:
            return
        if log.owner.federation != self._timeline.federation.hex():
            problem = f"{source.name}: the privacy log is that of another federation"
            self._tally.add(Status.FAIL, problem, where=source.name)
            return
        known = self._logs.get(log.owner.member)
        if known is None or len(known.lines) < len(log.lines):  # of two copies the longer tells more
            self._logs[log.owner.member] = log
            lines = {(line.spending.round, line.commitment): line for line in log.lines}
            self._lines[log.owner.member] = lines

    # --- rounds -----------------------------------------------------------------------------------------------------

    def add_round(self, case: Case, frame: Frame) -> None:
        """A round whose roster is checked: what its READYs say of logs, they must hold."""
        charter = frame.federation.charter
        if not charter.is_private:
            return
        for signed in case.roster.readies:
            name = frame.name(signed.member)
            if name not in self._logs:
                self._without.add(name)
            elif isinstance(signed.body, Ready):
                problem = self._fault_of(signed.body, self._lines[name], charter)
                self._note(case.round, name, problem)

    def _note(self, round_: Round, name: str, problem: str) -> None:
        if problem:
            self._tally.add(Status.FAIL, f"round {round_}: {name}: {problem}", round_=round_, member=name)
        else:
            self._tally.add_pass()

    def _fault_of(self, ready: Ready, lines: dict[tuple[Round, Digest], Logged], charter: Charter) -> str:
        line = lines.get((ready.round, ready.privacy_log))
        if line is None:
            return "its READY commits to another privacy log than was given, or to one without this round"
        spending, privacy = line.spending, charter.privacy
        if spending.base != ready.base.hex():
            return "its privacy log names another model for the round than READY"
        if spending.clip != privacy.clip:
            return f"it cut gradients to {spending.clip}, the charter says {privacy.clip}"
        if spending.cost.noise < float(privacy.noise):
            return f"it added noise of {spending.cost.noise:g}, the charter asks for {privacy.noise}"
        plan = plan_noise(charter)
        if spending.cost.bound != (plan.bound if plan else 0.0):
            return "the noise that it counts with is not that of the charter's ring"
        return ""

    # --- the budget -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """After all rounds: what every log comes to, in every window."""
        if not any(self._charter(span.first) for span in self._timeline.spans):
            self._tally.add(Status.SKIPPED, "the charter has no privacy budget")
            return
        try:
            for name, log in sorted(self._logs.items()):
                self._check_budget(name, log)
        except NoAccountant:
            self._tally.add(
                Status.INCONCLUSIVE,
                "the logs cannot be counted without dp-accounting: pip install 'folkmoot[privacy]'",
            )
        if not self._logs:
            self._tally.add(Status.SKIPPED, "no privacy log was given")
        elif self._without:
            self._tally.remark(f"not those of {', '.join(sorted(self._without))}, whose logs were not given")

    def _charter(self, round_: Round) -> Charter | None:
        charter = self._timeline.span_at(round_).charter
        return charter if charter is not None and charter.is_private else None

    def _check_budget(self, name: str, log: Log) -> None:
        most = 0.0
        for charter, rounds in self._windows(log):
            epsilon = epsilon_of(log.costs(charter, rounds[-1]), float(charter.privacy.delta))
            most = max(most, epsilon)
            if epsilon > _allowed(charter):
                self._tell_excess(name, log, charter, rounds, epsilon)
        self._tally.remark(f"{name} spent epsilon {most:.3g}")

    def _windows(self, log: Log) -> Iterator[tuple[Charter, list[Round]]]:
        """The rounds of the log that share a budget, with the charter of the last of them."""
        rounds = sorted({line.spending.round for line in log.lines})
        while rounds:
            charter = self._charter(rounds[-1])
            window = window_of(charter, rounds[-1]) if charter else range(rounds[-1], rounds[-1] + 1)
            if charter:
                yield charter, [one for one in rounds if one in window]
            rounds = [one for one in rounds if one < window.start]

    def _tell_excess(
        self, name: str, log: Log, charter: Charter, rounds: Sequence[Round], epsilon: float
    ) -> None:
        privacy = charter.privacy
        first = next(one for one in rounds if _epsilon_until(log, charter, one) > _allowed(charter))
        self._tally.add(
            Status.FAIL,
            f"round {first}: {name} went on beyond its privacy budget: rounds {rounds[0]} to {rounds[-1]} come to "
            f"epsilon {epsilon:.4g} at delta {privacy.delta}, the charter allows {privacy.epsilon}",
            round_=first,
            member=name,
        )


def _allowed(charter: Charter) -> float:
    return float(charter.privacy.epsilon) * (1 + TOLERANCE)


def _epsilon_until(log: Log, charter: Charter, round_: Round) -> float:
    """What the window of a round had cost when that round was over."""
    window = window_of(charter, round_)
    spent = (line.spending for line in log.lines)
    costs = [one.cost for one in spent if one.round in window and one.round <= round_]
    return epsilon_of(costs, float(charter.privacy.delta))
