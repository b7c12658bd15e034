"""What became of a fault, and the table of all of them."""

from collections import Counter
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple


class Outcome(Enum):
    """The four ends that a fault can come to; the last two must not happen."""

    SURVIVED = "survived"  # the outputs are those of the undisturbed run
    REFUSED = "refused"  # one clear message, an exit status, and no output
    LOST = "lost"  # a traceback, a hang, or work that cannot be gone on with
    WRONG = "silently wrong"  # success, or an output, that is not the undisturbed run's


class Trial(NamedTuple):
    """One fault: the kind that the table counts it under, what exactly, and how it ended."""

    kind: str
    what: str
    outcome: Outcome
    said: str = ""


def judge(returncode: int, output: str, *, sound: bool) -> Outcome:
    """Judge a command by its exit status, what it said, and whether its outputs are `sound`.

    Sound outputs are the undisturbed run's, or after a failure none at all.
    """
    if not sound:
        return Outcome.WRONG
    if returncode == 0:
        return Outcome.SURVIVED
    is_clear = "error: " in output and "Traceback" not in output
    return Outcome.REFUSED if is_clear else Outcome.LOST


def table(trials: Sequence[Trial]) -> str:
    """Lay out the counts of every kind of fault, with a total."""
    counts = Counter((trial.kind, trial.outcome) for trial in trials)
    kinds = list(dict.fromkeys(trial.kind for trial in trials))
    lines = [f"{'fault':24}{'tried':>8}" + "".join(f"{o.value:>16}" for o in Outcome)]
    for kind in [*kinds, "total"]:
        row = [
            sum(n for (k, o), n in counts.items() if kind in (k, "total") and o is outcome)
            for outcome in Outcome
        ]
        lines.append(f"{kind:24}{sum(row):>8}" + "".join(f"{n:>16}" for n in row))
    return "\n".join(lines)


def is_clean(trials: Sequence[Trial]) -> bool:
    """Whether nothing was lost and nothing silently wrong."""
    return all(trial.outcome in {Outcome.SURVIVED, Outcome.REFUSED} for trial in trials)
