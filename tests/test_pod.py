"""Probability of detection, against published logistic fits and the likelihood itself."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from steelseg.tune.pod import fit, recall_by_size

# Bliss (1935), as in Dobson and Barnett, An Introduction to Generalized Linear Models (3rd ed.,
# 2008), table 7.2: log10 of the dose of carbon disulphide, beetles, and those that it killed. With
# size for dose and found for killed it is a hit/miss experiment of 481 defects.
LOG_DOSE = [1.6907, 1.7242, 1.7552, 1.7842, 1.8113, 1.8369, 1.8610, 1.8839]
BEETLES = [59, 60, 62, 56, 63, 59, 62, 60]
KILLED = [6, 13, 18, 28, 52, 53, 61, 60]


def bliss():
    """Give each beetle's dose and fate."""
    sizes = np.repeat(10.0 ** np.array(LOG_DOSE), BEETLES)
    hits = np.concatenate([np.arange(n) < k for n, k in zip(BEETLES, KILLED, strict=True)])
    return sizes, hits


def draw(seed=0, n=200):
    """Draw defects that are found the more surely the larger they are: a50 20, a90 60."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(np.log(3), np.log(300), n))
    slope = np.log(9) / np.log(60 / 20)
    return sizes, rng.random(n) < 1 / (1 + (sizes / 20) ** -slope)


def test_a_published_example():
    """Dobson and Barnett's table 7.3: intercept -60.72, slope 34.27; so half die at 1.7717."""
    pod = fit(*bliss())
    assert pod.intercept == pytest.approx(-60.72, abs=0.005)
    assert pod.slope * np.log(10) == pytest.approx(34.27, abs=0.005)
    assert np.log10(pod.sizes[0.5][0]) == pytest.approx(60.717 / 34.270, abs=1e-4)
    assert (pod.n_hits, pod.n_misses) == (sum(KILLED), sum(BEETLES) - sum(KILLED))


def test_the_bound_of_another_package():
    """The a90/95 of statsmodels 0.15: its GLM with an offset, profiled over a90 to 1.6449 squared.

    Wald's bounds, from the same package by the delta method, are smaller: 70.149 and 98.907.
    """
    assert fit(*bliss()).sizes[0.9] == pytest.approx((68.5228563, 70.2702202), rel=1e-8)
    assert fit(*draw()).sizes[0.9] == pytest.approx((74.3838050, 101.9744426), rel=1e-8)


def test_an_independent_implementation():
    """scikit-learn's logistic regression without a penalty finds the same curve."""
    sizes, hits = draw()
    pod = fit(sizes, hits)
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.log(sizes)[:, None], hits
    )
    assert pod.slope == pytest.approx(oracle.coef_.item(), rel=1e-4)
    assert pod.intercept == pytest.approx(oracle.intercept_.item(), rel=1e-4)
    assert pod([20.0, 60.0]) == pytest.approx(
        oracle.predict_proba(np.log([[20.0], [60.0]]))[:, 1], rel=1e-4
    )
    assert pod(pod.sizes[0.9][0]) == pytest.approx(0.9)


@pytest.mark.parametrize("data", [bliss, draw])
def test_the_bound_is_that_of_the_likelihood(data):
    """a90/95 is the largest a90 of all curves whose log likelihood is within 1.3528 of the best."""
    sizes, hits = data()
    pod, log_size = fit(sizes, hits), np.log(sizes)

    def likelihood(log_odds):
        return np.where(hits, -np.logaddexp(0, -log_odds), -np.logaddexp(0, log_odds)).sum(-1)

    best = likelihood(pod.intercept + pod.slope * log_size)
    allowed = []
    for slope in pod.slope * np.linspace(0.4, 1.4, 51):
        log_a90 = np.log(pod.sizes[0.9][0]) + np.linspace(0, 0.5, 251)
        odds = np.log(9) + slope * (log_size - log_a90[:, None])
        allowed += log_a90[2 * (best - likelihood(odds)) <= 2.7055].tolist()
    assert np.log(pod.sizes[0.9][1]) == pytest.approx(max(allowed), abs=3e-3)


def test_the_bound_holds():
    """Where 90% are truly found is below a90/95 in 95 of 100 experiments."""
    bounds = [fit(*draw(seed, 120), shares=[0.9]).sizes[0.9][1] for seed in range(200)]
    assert 0.92 <= np.mean([bound is None or bound >= 60 for bound in bounds]) <= 0.98


def test_defects_that_share_their_luck_say_less():
    """Copies of a defect move the bound only if nobody is told that they are copies."""
    sizes, hits = draw(n=80)
    copies, groups = np.repeat(np.arange(80), 9), np.repeat(np.arange(80), 9)
    alone = fit(sizes, hits).sizes[0.9]
    naive = fit(sizes[copies], hits[copies]).sizes[0.9]
    told = fit(sizes[copies], hits[copies], groups).sizes[0.9]
    assert naive[0] == pytest.approx(told[0]) == pytest.approx(alone[0])
    assert naive[1] < alone[1]
    assert told[1] == pytest.approx(alone[1], rel=0.1)
    assert fit(sizes, hits, np.zeros(80)).sizes[0.9][1] is None


@pytest.mark.parametrize(
    ("sizes", "hits", "message"),
    [
        ([], [], "there are no defects"),
        ([5, 9, 12], [1, 1, 1], "all 3 defects were found, from a size of 5"),
        ([5, 9, 12], [0, 0, 0], "none of 3 defects was found, up to a size of 12"),
        ([5, 9, 12, 14], [0, 0, 1, 1], "all up to a size of 9 were missed and all from 12"),
        ([5, 9, 12, 14], [1, 1, 0, 0], "larger defects are not found more often"),
        ([5, 9, 12, 14], [1, 0, 1, 0], "larger defects are not found more often"),
    ],
)
def test_no_curve_where_there_is_none(sizes, hits, message):
    """What has no maximum of the likelihood, or no sense, is said and not fitted."""
    assert message in fit(np.array(sizes, float), np.array(hits, bool))


def test_a_bound_that_the_data_do_not_show_is_none():
    """Of few defects a90 can be guessed, but no size is shown to be found with 90%."""
    pod = fit([5, 6, 7, 9, 12, 14, 20, 30], np.array([0, 1, 0, 1, 0, 1, 1, 1], bool))
    assert pod.sizes[0.9][0] > 12
    assert pod.sizes[0.9][1] is None


def test_recall_by_size():
    """Bands hold about equally many defects, those of one size together, and none is empty."""
    sizes = np.array([1, 1, 1, 2, 3, 4, 5, 6])
    bands = recall_by_size(sizes, sizes > 2, np.arange(8), n_bands=4)
    assert [(b.low, b.high, b.n) for b in bands] == [(1, 1, 3), (2, 2, 1), (3, 4, 2), (5, 6, 2)]
    assert [b.found.value for b in bands] == [0, 0, 1, 1]
    assert [(b.low, b.n) for b in recall_by_size([7, 7], [1, 0], [0, 1])] == [(7, 2)]
    assert recall_by_size([], [], []) == []
