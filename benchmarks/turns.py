"""Timing of several ways to do one thing, in turns, so that other work hits all of them alike.

The standard library's `timeit.Timer` takes the time. pytest-benchmark and pyperf finish one way
before they start the next, which on a shared machine compares two different minutes.
"""

from collections.abc import Callable, Mapping
from statistics import median
from timeit import Timer
from typing import Any

SHORTEST = 0.05  # seconds; a shorter turn is repeated until it takes as long


def in_turns(ways: Mapping[str, Callable[[], Any]], rounds: int = 5) -> dict[str, float]:
    """Call every way once a turn, in `rounds` turns: the median seconds of one call of each.

    What takes less than 50 ms is called more often in a turn. The first call of each way, which
    pays for first times, sets how often and is not counted.
    """
    timers = {name: Timer(way) for name, way in ways.items()}
    repeats = {
        name: max(1, round(SHORTEST / max(timer.timeit(1), 1e-7))) for name, timer in timers.items()
    }
    turns = [
        {name: timer.timeit(repeats[name]) / repeats[name] for name, timer in timers.items()}
        for _ in range(rounds)
    ]
    return {name: median(turn[name] for turn in turns) for name in ways}
