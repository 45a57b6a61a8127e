"""How often farmers lose what they hold, estimated from what was seen of them. Pure.

Losses are taken as a Poisson process; what is known of its rate is a Gamma distribution. It begins with a prior worth
some farmer-years, so a grid that has lost nothing yet, because it is new, is not called perfect. All farmers together
give the grid's rate, and that, worth some years again, is where each single farmer begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

YEAR_MS = 8766 * 3_600_000


@dataclass(frozen=True, slots=True)
class Exposure:
    """What was seen of one farmer: over so many years it lost so many holdings.

    A farmer that is gone or condemned lost one; one that declared a share of its holding lost, that share.
    """

    years: float
    losses: float = 0.0

    def __post_init__(self) -> None:
        if self.years < 0 or self.losses < 0:
            raise ValueError("years and losses are not negative")

    @classmethod
    def between(cls, since_ms: int, until_ms: int, losses: float = 0.0) -> Exposure:
        """What was seen from one moment to another; nothing when they are in the wrong order."""
        return cls(max(0, until_ms - since_ms) / YEAR_MS, losses)


@dataclass(frozen=True, slots=True)
class LossRate:
    """What is known of a rate of losses per year: a Gamma distribution of this shape, as if seen over `years`."""

    shape: float
    years: float

    def __post_init__(self) -> None:
        if self.shape <= 0 or self.years <= 0:
            raise ValueError("a Gamma distribution has two parameters above 0")

    @property
    def mean(self) -> float:
        """Losses per year, expected."""
        return self.shape / self.years

    def seen(self, exposure: Exposure) -> LossRate:
        """After more was seen."""
        return LossRate(self.shape + exposure.losses, self.years + exposure.years)

    def chance_within(self, years: float) -> float:
        """The chance of a loss within this time, averaged over all rates that are still possible. Exact."""
        if years < 0:
            raise ValueError("time does not run backwards")
        return -math.expm1(-self.shape * math.log1p(years / self.years))

    def quantile(self, confidence: float) -> float:
        """The rate that the true one stays below with this chance. Raises `ValueError` unless above 0 and below 1."""
        if not 0 < confidence < 1:
            raise ValueError("a confidence is above 0 and below 1")
        high = 1.0
        while _below(self.shape, high) < confidence:
            high *= 2
        low = 0.0
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if _below(self.shape, middle) < confidence else (low, middle)
        return high / self.years


PRIOR = LossRate(shape=0.3, years=2.0)
"""Consumer machines: 0.15 losses a year, believed as firmly as two farmer-years of watching would make it."""
OWN_YEARS = 2.0
"""How many years of its own history weigh as much for one farmer as what the grid says."""


def grid_rate(exposures: Iterable[Exposure], prior: LossRate = PRIOR) -> LossRate:
    """What all farmers together tell."""
    rate = prior
    for exposure in exposures:
        rate = rate.seen(exposure)
    return rate


def farmer_rate(exposure: Exposure, per_year: float, own_years: float = OWN_YEARS) -> LossRate:
    """What is known of one farmer on a grid with this rate: `grid_rate(...).mean`, or to be wary its quantile.

    Raises `ValueError` unless the rate and `own_years` are above 0.
    """
    return LossRate(per_year * own_years, own_years).seen(exposure)


def _below(shape: float, value: float) -> float:
    """The regularised lower incomplete Gamma function: by its series below the mean, by a continued fraction above."""
    if value <= 0:
        return 0.0
    scale = math.exp(shape * math.log(value) - value - math.lgamma(shape))
    if value < shape + 1:
        term = total = 1 / shape
        step = shape
        while term > total * 1e-16:
            step += 1
            term *= value / step
            total += term
        return min(1.0, scale * total)
    # Lentz's method for 1 - the upper function.
    tiny = 1e-300
    base = value + 1 - shape
    ratio_c, ratio_d = 1 / tiny, 1 / base
    fraction = ratio_d
    for step_number in range(1, 10_000):
        weight = -step_number * (step_number - shape)
        base += 2
        ratio_d = 1 / (weight * ratio_d + base or tiny)
        ratio_c = base + weight / ratio_c or tiny
        fraction *= ratio_c * ratio_d
        if abs(ratio_c * ratio_d - 1) < 1e-15:
            break
    return max(0.0, 1 - scale * fraction)
