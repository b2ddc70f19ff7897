"""The difference of two models, each trained with one or several seeds and judged on the same images.

Two kinds of luck stand between the figures and the truth: which images the validation set happens to hold, and which
seed a training happened to have. docs/statistics.md derives the interval and measures how often it holds the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.metrics.student_t import t_ppf, t_sf

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One figure (mAP, or the AP of a class) of all runs of one model.

    Attributes:
        points: (s,) on the validation set itself, one for each seed.
        resampled: (s, r) on r resamples of its images, the same for all runs of a comparison; nan where undefined.
    """

    points: np.ndarray
    resampled: np.ndarray

    @property
    def seeds(self) -> int:
        """How many runs there are."""
        return len(self.points)

    @property
    def variance(self) -> float:
        """Variance of a run's figure over seeds; nan with one seed."""
        return float(np.var(self.points, ddof=1)) if self.seeds > 1 else math.nan


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference and how sure it is.

    Attributes:
        value: the model's mean minus the baseline's.
        low: lower end of the 95 % interval; nan when the luck of the images is unknown, as from one image.
        high: upper end.
        standard_error: of the value; nan when unknown.
        degrees: of freedom of Student's t.
        p_value: chance of a difference at least as large between equal models, other seeds and images or other
            images alone, whichever is greater.
        seed_variances: of a run of the model and of the baseline, over seeds; nan when no model has two.
        image_variance: of the value, through the choice of images, whatever the seeds.
        seed_by_image_variance: of a run of the model and of the baseline, through the choice of images, where another
            seed would have gone another way; their spread over seeds holds it.
        images: images in the validation set.
        seeds: how many runs the model and the baseline have.
        knows_seeds: whether the interval covers the luck of the seed; otherwise it speaks of these weights alone.
    """

    value: float
    low: float
    high: float
    standard_error: float
    degrees: float
    p_value: float
    seed_variances: tuple[float, float]
    image_variance: float
    seed_by_image_variance: tuple[float, float]
    images: int
    seeds: tuple[int, int]
    knows_seeds: bool

    @property
    def has_seed_variance(self) -> bool:
        """Whether a model that was trained once is taken to have the luck of those trained several times."""
        return self.knows_seeds and min(self.seeds) == 1


def paired_difference(
    model: Scores, baseline: Scores, *, images: int, variance_donors: Sequence[Scores] = ()
) -> Difference:
    """Return model minus baseline with a 95 % interval that covers other images and other seeds.

    The variance is s_m^2 / S_m + s_b^2 / S_b + c: the spread over seeds as seen on these images, which holds the
    seeds' interplay with the images too, and what all seeds of a model have in common under resampling of the
    images. Student's t gets its degrees of freedom after Welch and Satterthwaite. A few seeds may agree by luck, so
    the p-value is not taken for less than the one that the resampled images alone give for these very runs.

    Args:
        model: its figures.
        baseline: likewise, with the same resamples.
        images: images in the validation set.
        variance_donors: models of the comparison, whose mean spread over seeds whichever of the two has one run borrows; if
            none has several runs, the interval covers images only.
    """
    value = float(model.points.mean() - baseline.points.mean())
    common, of_these_runs, interplay = _image_variance(model, baseline, images=images)
    shares = [_seed_shares(one, variance_donors) for one in (model, baseline)]
    knows_seeds = all(shares)
    seed_variances = [sum(share * lender.variance for lender, share in own) if own else math.nan for own in shares]
    # A spread may serve twice, for its own model and lent to the other: its terms are one guess and add up first.
    terms: dict[int, tuple[float, float]] = {}
    for one, own in zip((model, baseline), shares, strict=True):
        for lender, share in own:
            before = terms.get(id(lender), (0.0, 0.0))[0]
            terms[id(lender)] = before + share * lender.variance / one.seeds, lender.seeds - 1.0
    if images < 2 or (value != 0 and of_these_runs == 0 and not knows_seeds):  # nothing is known of any luck
        common = of_these_runs = math.nan
    of_seeds = sum(term for term, _ in terms.values())
    spread = sum(term**2 / degrees for term, degrees in terms.values())  # squares over degrees of freedom
    from_images = common if knows_seeds else of_these_runs
    total = of_seeds + from_images
    spread += from_images**2 / max(images - 1, 1)
    degrees = total**2 / spread if spread > 0 else math.inf
    error = math.sqrt(total) if math.isfinite(total) else math.nan
    reach = t_ppf(CONFIDENCE, degrees) * error if math.isfinite(error) else math.nan
    p_value = max(_p_value(value, total, degrees), _p_value(value, of_these_runs, max(images - 1.0, 1.0)))
    return Difference(
        value=value,
        low=value - reach,
        high=value + reach,
        standard_error=error,
        degrees=degrees,
        p_value=p_value,
        seed_variances=(seed_variances[0], seed_variances[1]),
        image_variance=common,
        seed_by_image_variance=interplay,
        images=images,
        seeds=(model.seeds, baseline.seeds),
        knows_seeds=knows_seeds,
    )


def _seed_shares(model: Scores, variance_donors: Sequence[Scores]) -> list[tuple[Scores, float]]:
    """Return whose spread over seeds, in which shares, tells that of a model; nothing where no spread is known."""
    several = [model] if model.seeds > 1 else [lender for lender in variance_donors if lender.seeds > 1]
    degrees = sum(lender.seeds - 1 for lender in several)
    return [(lender, (lender.seeds - 1) / degrees) for lender in several]


def _p_value(value: float, variance: float, degrees: float) -> float:
    """Return the chance of a value at least as large when the truth is 0; 1 when the variance is unknown."""
    if variance > 0:
        return t_sf(value / math.sqrt(variance), degrees)
    return 0.0 if value and variance == 0 else 1.0


def _image_variance(model: Scores, baseline: Scores, *, images: int) -> tuple[float, float, tuple[float, float]]:
    """Return the variance of the difference through the choice of images.

    The variance of the resampled mean difference holds, for each model, the share (V - C) / S of what images do to
    each seed apart: V is the variance of one run, C the covariance of two runs of the model. The spread over seeds
    holds the same share already, so it is taken out; counted twice, it would make the interval too wide.

    Returns:
        Without that share, at least 0, and with it; and V - C of both models, 0 for one run. All nan where too few
        resamples have the figure.
    """
    whole = np.isfinite(model.resampled).all(0) & np.isfinite(baseline.resampled).all(0)
    if whole.sum() < 2:
        return math.nan, math.nan, (math.nan, math.nan)
    ours, theirs = model.resampled[:, whole], baseline.resampled[:, whole]
    widened = images / max(images - 1, 1)  # a resample's variance is that of n - 1 images in n
    variance = widened * float(np.var(ours.mean(0) - theirs.mean(0), ddof=1))
    first, second = (
        widened * float(np.var(one - one.mean(0), axis=1, ddof=1).sum()) / (len(one) - 1) if len(one) > 1 else 0.0
        for one in (ours, theirs)
    )
    share = first / len(ours) + second / len(theirs)
    return max(variance - share, 0.0), variance, (first, second)
