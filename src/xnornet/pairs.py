"""How much one treatment differs from another, over pairs that differ in nothing else."""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import ttest_rel


class Difference(NamedTuple):
    """Mean over the pairs, its 95 % interval, and the chance of one as large where there is none (Student's t)."""

    mean: float
    low: float
    high: float
    chance: float


def difference(one: ArrayLike, other: ArrayLike) -> Difference:
    """Of `one` less `other`, pair by pair: (N,) each, N at least 2. Where all pairs differ alike, it is certain."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of lost precision, where all pairs differ alike
        test = ttest_rel(one, other)
        low, high = test.confidence_interval(0.95)
    chance = 1.0 if np.array_equal(one, other) else test.pvalue  # of which SciPy says nan
    return Difference(float(np.subtract(one, other).mean()), float(low), float(high), float(chance))
