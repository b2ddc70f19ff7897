"""Student's t distribution: the chance of a deviation, and the deviation of a chance. Degrees need not be whole."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

NODES = 200
NEARLY_NORMAL = 1e6
MOST_STEPS = 200
PRECISION = 1e-11


@lru_cache(maxsize=1)
def _nodes() -> tuple[np.ndarray, np.ndarray]:
    """Return points in (-1, 1) and weights of Gauss and Legendre's rule."""
    points, weights = np.polynomial.legendre.leggauss(NODES)
    return points, weights


def t_cdf_two_sided(deviation: float, degrees: float) -> float:
    """Return P(|T| <= deviation).

    With t = sqrt(degrees) tan(angle) the density becomes cos(angle)^(degrees - 1), smooth and of bounded range.

    Args:
        deviation: in standard errors, from 0.
        degrees: of freedom, above 0; infinity gives the normal distribution.
    """
    if degrees >= NEARLY_NORMAL:
        return math.erf(deviation / math.sqrt(2))
    points, weights = _nodes()
    angle = math.atan(deviation / math.sqrt(degrees))
    powers = (degrees - 1) * np.log(np.cos((points + 1) * angle / 2))
    return min(float((weights * np.exp(powers + _log_scale(degrees))).sum() * angle), 1.0)


def _log_scale(degrees: float) -> float:
    """Return the logarithm of the density's factor over the angle."""
    return math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(math.pi)


def t_sf(deviation: float, degrees: float) -> float:
    """Return the two-sided P(|T| > |deviation|), from 0 to 1."""
    return max(1.0 - t_cdf_two_sided(abs(deviation), degrees), 0.0)


def _density(deviation: float, degrees: float) -> float:
    """Return the density of |T|."""
    if degrees >= NEARLY_NORMAL:
        return math.sqrt(2 / math.pi) * math.exp(-(deviation**2) / 2)
    power = -(degrees + 1) / 2 * math.log1p(deviation**2 / degrees)
    return 2 * math.exp(_log_scale(degrees) - 0.5 * math.log(degrees) + power)


@lru_cache(maxsize=4096)
def t_ppf(confidence: float, degrees: float) -> float:
    """Return the deviation that |T| keeps within with the given chance, in (0, 1).

    Newton's steps from 0: the chance is a concave function of the deviation, so none goes too far.
    """
    deviation = 0.0
    for _ in range(MOST_STEPS):
        step = (confidence - t_cdf_two_sided(deviation, degrees)) / _density(deviation, degrees)
        deviation += step
        if step <= PRECISION * (1 + deviation):
            break
    return deviation
