"""The probability of detection (POD) by size, as in non-destructive testing.

Hit/miss: a logistic curve over the logarithm of the size, by maximum likelihood. It gives a50 and
a90 (the sizes found with 50% and 90% probability) and a90/95: the size of which 90% of defects are
found with 95% confidence. They are defined by MIL-HDBK-1823A (2009) and ASTM E2862 (hit/miss; E3023
is for signal amplitudes). The bound is the one-sided one of the likelihood ratio, which the
handbook prefers for hit/miss, not Wald's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtri, stdtrit

from steelseg.core.arrays import Bool, Float64
from steelseg.quality.intervals import CONFIDENCE, Estimate, rate

_STEPS = 100  # of Newton's method, which needs fewer than 10 if there is a maximum
_FARTHEST = 1e4  # times the largest size: bounds beyond that are meaningless


class Pod(NamedTuple):
    """A curve: the log odds of being found are `intercept + slope * ln(size)`.

    `sizes` maps a probability to the size found with it and to its confidence bound:
    {0.9: (a90, a90/95)}. The bound is None if the data support it for no size.
    """

    intercept: float
    slope: float
    sizes: dict[float, tuple[float, float | None]]
    n_hits: int
    n_misses: int

    def __call__(self, sizes: npt.ArrayLike) -> Float64:
        """Return the probability of detection of sizes."""
        return np.asarray(expit(self.intercept + self.slope * np.log(sizes)))


class Band(NamedTuple):
    """Defects of similar size: from `low` to `high`, their number, and the share found."""

    low: float
    high: float
    n: int
    found: Estimate


def recall_by_size(
    sizes: npt.ArrayLike, is_hit: npt.ArrayLike, groups: npt.ArrayLike, n_bands: int = 4
) -> list[Band]:
    """Count hits in bands of about equally many of the (D,) defects; no band is empty."""
    size, hit, label = np.asarray(sizes), np.asarray(is_hit, dtype=bool), np.asarray(groups)
    if not size.size:
        return []
    edges = np.unique(np.quantile(size, np.linspace(0, 1, n_bands + 1)[1:-1], method="lower"))
    band = np.searchsorted(edges, size)
    bands = []
    for rows in (band == number for number in np.unique(band)):
        found = rate(hit[rows], label[rows])
        assert found is not None, "no band is empty"
        bands.append(Band(float(size[rows].min()), float(size[rows].max()), int(rows.sum()), found))
    return bands


def fit(
    sizes: npt.ArrayLike,
    is_hit: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    shares: Sequence[float] = (0.5, 0.9),
    confidence: float = CONFIDENCE,
) -> Pod | str:
    """Fit the curve, or return a sentence on why there is none.

    Args:
        sizes: (N,) of true defects, above 0: pixels or millimetres.
        is_hit: (N,) whether each was found.
        groups: (N,) labels of images, parts or coils; None for independent defects. If defects of a
            group are correlated, the likelihood ratio is divided by the design effect at the size
            in question (Rao and Scott, 1984).
        shares: probabilities of detection to find the sizes of.
        confidence: of the bounds, one-sided.
    """
    size, hit = np.asarray(sizes, dtype=np.float64), np.asarray(is_hit, dtype=bool)
    if reason := _no_curve(size, hit):
        return reason
    log_size = np.log(size)
    middle = log_size.mean()
    design = np.stack([np.ones_like(log_size), log_size - middle], axis=1)  # (N, 2)
    at_middle, slope = _newton(design, hit)
    if slope <= 0:
        return "larger defects are not found more often than small ones: there is no curve by size"
    intercept = at_middle - slope * middle
    found = {}
    for share in shares:
        log_a = (logit(share) - intercept) / slope
        limit = _limit(design, hit, groups, log_a - middle, (at_middle, slope), confidence)
        bound = _bound(log_size, hit, (intercept, slope), share, log_a, limit)
        found[share] = float(np.exp(log_a)), bound
    return Pod(intercept, slope, found, int(hit.sum()), int((~hit).sum()))


def _no_curve(size: Float64, hit: Bool) -> str:
    """Return why there is no maximum (Albert and Anderson, 1984); empty if there is one."""
    if not size.size:
        return "there are no defects"
    smallest, largest = f"{size.min():.4g}", f"{size.max():.4g}"
    if hit.all():
        return f"all {len(hit)} defects were found, from a size of {smallest}: no miss, no curve"
    if not hit.any():
        return f"none of {len(hit)} defects was found, up to a size of {largest}: no hit, no curve"
    missed, found = size[~hit].max(), size[hit].min()
    if missed <= found:
        return f"all up to a size of {missed:.4g} were missed and all from {found:.4g} were found"
    if size[hit].max() <= size[~hit].min():
        return "larger defects are not found more often than small ones: there is no curve by size"
    return ""


def _newton(design: Float64, hit: Bool, offset: float = 0.0) -> Float64:
    """Maximise the likelihood of a logistic regression; there must be a maximum."""
    coefficients = np.zeros(design.shape[1])
    best = _likelihood(design @ coefficients + offset, hit)
    for _ in range(_STEPS):
        p = expit(design @ coefficients + offset)
        information = design.T @ (design * (p * (1 - p))[:, None])
        step = np.linalg.solve(information, design.T @ (hit - p))
        new = _likelihood(design @ (coefficients + step) + offset, hit)
        while new < best - 1e-9 and np.abs(step).max() > 1e-12:  # overshot
            step = step / 2
            new = _likelihood(design @ (coefficients + step) + offset, hit)
        coefficients, gain, best = coefficients + step, new - best, new
        if gain < 1e-12:
            break
    return coefficients


def _likelihood(odds: Float64, hit: Bool) -> float:
    return float(np.sum(np.where(hit, odds, 0.0) - np.logaddexp(0, odds)))


def _bound(
    log_size: Float64,
    hit: Bool,
    curve: tuple[float, float],
    share: float,
    log_a: float,
    limit: float,
) -> float | None:
    """Find the largest size found with this probability by any curve within `limit`."""
    best = _likelihood(curve[0] + curve[1] * log_size, hit)

    def excess(log_bound: float) -> float:
        design = (log_size - log_bound)[:, None]  # curves through (bound, share)
        odds = design @ _newton(design, hit, float(logit(share))) + logit(share)
        return 2 * (best - _likelihood(odds, hit)) - limit

    farthest = max(log_a, float(log_size.max())) + np.log(_FARTHEST)
    if excess(farthest) <= 0:
        return None
    return float(np.exp(brentq(excess, log_a, farthest)))


def _limit(
    design: Float64,
    hit: Bool,
    groups: npt.ArrayLike | None,
    at: float,
    coefficients: tuple[float, float],
    confidence: float,
) -> float:
    """Return the limit of twice the loss of log likelihood; larger for correlated groups."""
    if groups is None:
        return float(ndtri(confidence) ** 2)
    p = expit(design @ np.array(coefficients))
    inverse = np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))
    direction = inverse @ np.array([1.0, at])  # of the log odds at the size in question
    labels, group = np.unique(np.asarray(groups), return_inverse=True)
    if len(labels) < 2:
        return float(np.inf)
    scores = np.bincount(group, (hit - p) * (design @ direction))
    variance = np.sum(scores**2) * len(labels) / (len(labels) - 1)
    inflation = max(1.0, variance / float(np.array([1.0, at]) @ direction))
    return float(stdtrit(len(labels) - 1, confidence) ** 2 * inflation)
