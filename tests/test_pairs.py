"""Paired differences, against the formula and where there is nothing to estimate."""

import numpy as np
import pytest
from scipy.stats import t

from xnornet.pairs import difference


def test_the_interval_and_the_chance_are_student_s():
    one, other = [81.0, 82.5, 80.0, 84.0], [80.0, 80.0, 80.5, 82.0]
    made = difference(one, other)
    each = np.subtract(one, other)
    error = each.std(ddof=1) / 2
    assert made.mean == pytest.approx(1.25)
    assert made.high - made.mean == pytest.approx(t.ppf(0.975, 3) * error)
    assert made.mean - made.low == pytest.approx(made.high - made.mean)
    assert made.chance == pytest.approx(2 * t.sf(1.25 / error, 3))
    assert difference(other, one) == pytest.approx((-made.mean, -made.high, -made.low, made.chance))


@pytest.mark.filterwarnings("error")
def test_where_all_pairs_differ_alike_the_interval_is_a_point():
    assert difference([99.5, 99.25], [99.0, 98.75]) == (0.5, 0.5, 0.5, 0.0)
    assert difference([99.5, 99.25], [99.5, 99.25]) == (0.0, 0.0, 0.0, 1.0)
