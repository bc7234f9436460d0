"""How a federation learns: which options of a charter do not go together, and each in a sentence.

An option that is built adds its line to `_OPTIONS`, and to `_CLASHES` what it does not combine with.
"""

from collections.abc import Callable, Iterator, Mapping

from folkmoot.protocol.charter import STATES, Charter
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.privacy import wrong_numbers
from folkmoot.protocol.robust import Robust
from folkmoot.protocol.secure.masked_noise import wrong_noise

LEAST_COMPARED = 3
"""Of two a majority cannot be told from a minority."""

_OPTIONS: Mapping[str, Callable[[Charter], bool]] = {
    "training.correction = 'feddyn'": lambda charter: charter.training.correction == "feddyn",
    "training.correction = 'scaffold'": lambda charter: charter.training.correction == "scaffold",
    "training.optimizer = 'adamw'": lambda charter: charter.training.optimizer == "adamw",
    "training.clip": lambda charter: float(charter.training.clip) > 0,
    "training.prox": lambda charter: float(charter.training.prox) > 0,
    "training.normalize_to": lambda charter: charter.training.normalize_to > 0,
    "an averaging.rule with a state": lambda charter: STATES[charter.averaging.rule] > 0,
    "averaging.robust": lambda charter: charter.averaging.robust != "none",
    "secrecy.ring = 8": lambda charter: charter.is_secure and charter.secrecy.ring == 8,
    "averaging.fragments": lambda charter: charter.averaging.fragments > 1,
    "privacy": lambda charter: charter.is_private,
    "privacy.mechanism = 'secure'": lambda charter: charter.privacy.mechanism == "secure",
    "averaging.mode = 'open'": lambda charter: not charter.is_secure,
    "training.weight_decay": lambda charter: float(charter.training.weight_decay) > 0,
    "training.steps other than 1": lambda charter: charter.training.steps != 1,
    "personal tensors": lambda charter: any(one.part == "personal" for one in charter.model.tensors),
}
"""What a charter may choose, and whether one does."""

_REMEMBERS = "what a member remembers of its rows has no noise, and would be in every update to come"

_CLASHES = (
    (
        "training.correction = 'feddyn'",
        "an averaging.rule with a state",
        "FedDyn's mean is a whole step to the members' consensus, which momentum would overshoot: take 'fedavg'",
    ),
    (
        "training.correction = 'feddyn'",
        "training.prox",
        "FedDyn's alpha pulls to the round's model already",
    ),
    (
        "training.correction = 'feddyn'",
        "training.normalize_to",
        "FedDyn's own vector already makes up for how far a member gets",
    ),
    (
        "training.correction = 'scaffold'",
        "training.optimizer = 'adamw'",
        "SCAFFOLD's control variates are mean gradients, and AdamW's steps are not made of gradients alone",
    ),
    (
        "training.correction = 'scaffold'",
        "secrecy.ring = 8",
        "of control variates, which are differences of gradients, 3 bits a value leave little: take 16",
    ),
    (
        "averaging.robust",
        "training.correction = 'feddyn'",
        "members' own vectors make honest updates as unlike each other as an attacker's, and leaving some out breaks "
        "their mean",
    ),
    (
        "averaging.robust",
        "training.correction = 'scaffold'",
        "the kept mean of the control variates would no longer be that of the members' own",
    ),
    (
        "privacy",
        "training.clip",
        "privacy.clip cuts every row's gradient already, and after the noise there is nothing left to cut by",
    ),
    *(
        ("privacy.mechanism = 'secure'", other, reason)
        for other, reason in (
            (
                "averaging.mode = 'open'",
                "without masks every update would be seen without noise: take 'records'",
            ),
            (
                "secrecy.ring = 8",
                "3 bits a value have no room for noise, and what rounding loses of a row (error feedback) would be "
                "released again and again: take 16 or 32",
            ),
            (
                "training.steps other than 1",
                "after the first step a row is in all that follows, and its part could not be bounded: set it to 1",
            ),
            (
                "training.optimizer = 'adamw'",
                "its first step has the same length whatever the gradient's, so one row could turn it round: take "
                "'sgd', and an adaptive averaging.rule instead",
            ),
            ("training.correction = 'feddyn'", _REMEMBERS),
            ("training.correction = 'scaffold'", _REMEMBERS),
            (
                "averaging.fragments",
                "what is held back is of several rounds, and no row's part in it is bounded",
            ),
            ("personal tensors", "they are trained without noise, and would show in the shared ones"),
            ("training.prox", "of a single step it changes nothing"),
            ("training.normalize_to", "everybody takes one step"),
            ("training.weight_decay", "it is no part of the rows' gradients, for which the scale is fixed"),
        )
    ),
    (
        "averaging.fragments",
        "training.correction = 'feddyn'",
        "FedDyn's vector has to move with all that a member learnt, and a fragment is a part of it",
    ),
    (
        "averaging.fragments",
        "training.correction = 'scaffold'",
        "control variates of the parts that wait would be of other models than the one that they correct",
    ),
    (
        "averaging.fragments",
        "training.normalize_to",
        "what a member holds back is of several rounds, with steps of each",
    ),
    (
        "averaging.fragments",
        "averaging.robust",
        "rules would judge an update by the fragment alone, and what members hold back makes honest ones unlike",
    ),
)
"""(option, option, why they do not go together)."""


def check_options(charter: Charter, source: str) -> None:
    """Raise `CharterError` where options do not combine, or a number makes no sense."""
    for one, other, reason in _CLASHES:
        if _OPTIONS[one](charter) and _OPTIONS[other](charter):
            raise CharterError(f"{source}: {one} does not go with {other}: {reason}")
    for what in _wrong_numbers(charter):
        raise CharterError(f"{source}: {what}")


def _wrong_numbers(charter: Charter) -> Iterator[str]:
    averaging = charter.averaging
    for name in ("momentum", "second_momentum"):
        if not float(getattr(averaging, name)) < 1:
            yield f"averaging.{name} = {getattr(averaging, name)}: it must be below 1, or nothing old is ever forgotten"
    if averaging.faults and not 2 * averaging.faults < len(charter.members):
        yield (
            f"averaging.faults = {averaging.faults} of {len(charter.members)} members: no rule holds against half of "
            "them or more"
        )
    if charter.sums_by_group and len(charter.group_sizes) < LEAST_COMPARED:
        yield (
            f"averaging.robust = {averaging.robust!r} in secure mode compares the means of groups, of which there are "
            f"{len(charter.group_sizes)}: with fewer than {LEAST_COMPARED} no bad one can be told apart; take a "
            "smaller secrecy.group_size (3 or more; everybody then sees each group's sum), or averaging.mode = 'open'"
        )
    fragments = averaging.fragments
    if fragments > 1 and (fragments - 1) * charter.fragment_values >= charter.model.shared_values:
        yield (
            f"averaging.fragments = {fragments}: too many for {charter.model.shared_values:,} values that travel and "
            "are cut at multiples of 64"
        )
    for table, name in (("averaging", "rate"), ("averaging", "epsilon"), ("training", "alpha")):
        value = getattr(getattr(charter, table), name)
        if not 1e-30 < float(value) < 1e30:
            yield f"{table}.{name} = {value}: it must be above 0, and within float32's range"
    yield from wrong_numbers(charter.privacy)
    yield from wrong_noise(charter)


# --- in words -------------------------------------------------------------------------------------------------------

_RULES = {
    "fedavg": "the mean of the updates is added to the model",
    "fedavgm": "the mean of the updates is added with momentum of the rounds before",
    "nesterov": "the mean of the updates is added with Nesterov momentum of the rounds before",
    "fedadam": "each value's step adapts to how much its mean has varied (Adam)",
    "fedyogi": "each value's step adapts, slower to forget, to how much its mean has varied (Yogi)",
}


_ROBUST = {
    "trimmed-mean": "of every value the {} smallest and largest are left out",
    "nnm": "each update is mixed with those nearest to it, then of each value the {} smallest and largest go",
    "multi-krum": "the {} updates that lie farthest from their neighbours are left out",
    "geometric-median": "the geometric median of the updates is taken, which {} bad ones cannot pull far",
    "centered-clipping": "what an update has beyond the median distance from the middle is cut, against {} bad ones",
}


def _who_counts(charter: Charter) -> str:
    if not charter.sums_by_group:
        return "all members' updates count alike"
    least = min(charter.group_sizes)
    return (
        f"updates are here the means of {len(charter.group_sizes)} groups, which count alike and everybody sees, so a "
        f"member is hidden among {least} and not among {len(charter.members)}"
    )


def describe_learning(charter: Charter) -> Iterator[str]:
    """The options that are chosen, one sentence each."""
    averaging, training = charter.averaging, charter.training
    numbers = f"rate {averaging.rate}"
    if STATES[averaging.rule]:
        numbers += f", momentum {averaging.momentum}"
    if STATES[averaging.rule] == 2:
        numbers += f", second momentum {averaging.second_momentum}, epsilon {averaging.epsilon}"
    yield f"{averaging.rule}: {_RULES[averaging.rule]} ({numbers})"
    if not charter.is_secure and charter.has_feedback:
        yield f"what {averaging.codec} loses of an update is added to the member's next one (error feedback)"
    if averaging.fragments > 1:
        yield (
            f"each round one of {averaging.fragments} fragments travels, {charter.update_values:,} values, and takes a "
            "step; of the rest every member holds back what it learnt"
        )
    robust = Robust.of(charter)
    if robust is not None:
        compared = len(charter.group_sizes) if charter.sums_by_group else len(charter.members)
        bad = min(robust.faults, (compared - 1) // 2)
        yield f"{robust.rule}: {_ROBUST[robust.rule].format(bad)}; {_who_counts(charter)}"
    sections = charter.snapshot_values // charter.model.parameters
    if sections > 1:
        yield f"what is agreed on each round is {sections} times the model: the model and what the rule remembers"
    if float(training.clip):
        yield f"gradients longer than {training.clip} are cut to that length"
    if float(training.prox):
        yield f"every step is pulled back to the round's model (FedProx, mu {training.prox})"
    if training.correction == "feddyn":
        yield f"members correct for rows unlike the others' (FedDyn, alpha {training.alpha}); each keeps one vector"
    if training.correction == "scaffold":
        yield "members correct for rows unlike the others' (SCAFFOLD): twice the bytes; each keeps one vector"
    if training.normalize_to:
        yield f"who takes fewer or more steps counts as if it took {training.normalize_to} (FedNova)"
