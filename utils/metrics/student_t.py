"""Student's t distribution for any positive degrees of freedom, by quadrature; scipy is not needed."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

NODES = 200
NORMAL_FROM = 1e6  # degrees of freedom from which the normal distribution takes over
MAX_STEPS = 200
PRECISION = 1e-11

_gauss_legendre = lru_cache(maxsize=1)(np.polynomial.legendre.leggauss)  # points in (-1, 1) and weights


def two_sided_cdf(t: float, degrees: float) -> float:
    """Return P(|T| <= t).

    With t = sqrt(degrees) tan(angle) the density becomes cos(angle)^(degrees - 1), which is smooth and bounded.

    Args:
        t: from 0, in standard errors.
        degrees: of freedom, above 0; infinity gives the normal distribution.
    """
    if degrees >= NORMAL_FROM:
        return math.erf(t / math.sqrt(2))
    points, weights = _gauss_legendre(NODES)
    angle = math.atan(t / math.sqrt(degrees))
    powers = (degrees - 1) * np.log(np.cos((points + 1) * angle / 2))
    return min(float((weights * np.exp(powers + _log_scale(degrees))).sum() * angle), 1.0)


def _log_scale(degrees: float) -> float:
    """Return the logarithm of the density's normalizing factor over the angle."""
    return math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(math.pi)


def two_sided_p_value(t: float, degrees: float) -> float:
    """Return the two-sided p-value P(|T| > |t|)."""
    return max(1.0 - two_sided_cdf(abs(t), degrees), 0.0)


def _density(t: float, degrees: float) -> float:
    """Return the density of |T|."""
    if degrees >= NORMAL_FROM:
        return math.sqrt(2 / math.pi) * math.exp(-(t**2) / 2)
    power = -(degrees + 1) / 2 * math.log1p(t**2 / degrees)
    return 2 * math.exp(_log_scale(degrees) - 0.5 * math.log(degrees) + power)


@lru_cache(maxsize=4096)
def two_sided_quantile(probability: float, degrees: float) -> float:
    """Return the t with P(|T| <= t) = `probability`, in (0, 1).

    Newton's method from 0 converges from below, because the distribution function of |T| is concave.
    """
    t = 0.0
    for _ in range(MAX_STEPS):
        step = (probability - two_sided_cdf(t, degrees)) / _density(t, degrees)
        t += step
        if step <= PRECISION * (1 + t):
            break
    return t
