import math

import pytest

from utils.metrics.student_t import two_sided_cdf, two_sided_p_value, two_sided_quantile


@pytest.mark.parametrize(
    ("degrees", "probability", "t"),
    [  # printed tables of Student's t, two-sided
        (1, 0.95, 12.706),
        (2, 0.95, 4.3027),
        (3, 0.99, 5.8409),
        (4, 0.95, 2.7764),
        (10, 0.90, 1.8125),
        (30, 0.95, 2.0423),
        (120, 0.99, 2.6174),
        (math.inf, 0.95, 1.95996),
    ],
)
def test_values_equal_those_of_printed_tables(degrees, probability, t):
    assert two_sided_quantile(probability, degrees) == pytest.approx(t, rel=3e-5)
    assert two_sided_cdf(t, degrees) == pytest.approx(probability, abs=2e-5)


def test_one_and_two_degrees_of_freedom_have_closed_forms():
    for t in (0.0, 0.3, 1.0, 7.5, 300.0):
        assert two_sided_cdf(t, 1) == pytest.approx(2 / math.pi * math.atan(t), abs=1e-12)
        assert two_sided_cdf(t, 2) == pytest.approx(t / math.sqrt(2 + t * t), abs=1e-12)


def test_many_degrees_of_freedom_approach_the_normal_distribution_continuously():
    for t in (0.5, 1.96, 4.0):
        assert two_sided_cdf(t, 999_999) == pytest.approx(math.erf(t / math.sqrt(2)), abs=1e-6)
    assert two_sided_cdf(2, 2.5) == pytest.approx((two_sided_cdf(2, 2) + two_sided_cdf(2, 3)) / 2, abs=0.01)


def test_the_p_value_is_two_sided():
    assert two_sided_p_value(-2.0, 7) == two_sided_p_value(2.0, 7) == pytest.approx(1 - two_sided_cdf(2.0, 7))
    assert two_sided_p_value(0, 3) == 1 and 0 <= two_sided_p_value(1e6, 5) < 1e-12
