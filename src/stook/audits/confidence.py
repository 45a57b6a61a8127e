"""What passed audits prove: chances of missing a loss, and how many leaves and rounds a wanted confidence takes. Pure.

A farmer holds `total` units and `missing` of them are gone; an audit draws `sampled` different units. It sees nothing
with the hypergeometric chance C(total - missing, sampled) / C(total, sampled). The white paper computes the same for
bytes of a shard (6.4). Counts are exact integers to the end, so tails of 1e-162 keep their digits.

The white paper's other calculations of the same kind stand below: 6.2 (eclipse), 6.3 (beach) and mirrors (2.7); 6.1
is `stook.renter.durability.loss_chance`. What it printed wrong is in `docs/protocol/scores.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction


def miss_chance(total: int, missing: int, sampled: int) -> float:
    """The chance that an audit of `sampled` of `total` units touches none of the `missing` ones (white paper 6.4).

    Exact. Raises `ValueError` unless 0 <= missing, sampled <= total.
    """
    if not 0 <= missing <= total or not 0 <= sampled <= total:
        raise ValueError("missing and sampled units are between 0 and all of them")
    return math.comb(total - missing, sampled) / math.comb(total, sampled)


def miss_chance_of_fraction(fraction: float, sampled: int) -> float:
    """The same for a holding without end, of which `fraction` is gone: (1 - fraction) ** sampled.

    Never below the exact chance, because drawing without putting back finds more. Raises `ValueError` unless
    0 <= fraction <= 1.
    """
    _check_chance(fraction)
    return (1 - fraction) ** sampled


def window_miss_chance(total: int, missing: int, window: int) -> float:
    """The chance that a *contiguous* window misses a *contiguous* gap, each anywhere, in a ring of `total` units.

    Linear in the window, not exponential: why units are scattered. Raises `ValueError` outside the holding.
    """
    if not 0 <= missing <= total or not 0 <= window <= total:
        raise ValueError("missing and window are between 0 and all units")
    if missing == 0 or window == 0:
        return 1.0
    return max(0, total - missing - window + 1) / total


def detection_chance(total: int, missing: int, sampled: int, rounds: int = 1) -> float:
    """The chance that `rounds` audits, each with fresh units, see the loss at least once. Exact up to rounding.

    Consecutive passes multiply (white paper 2.3). Raises `ValueError` as `miss_chance`.
    """
    missed = miss_chance(total, missing, sampled)
    if missed <= 0.0:
        return 1.0 if rounds else 0.0
    return -math.expm1(rounds * math.log(missed))


def mixed_miss_chance(total: int, missing: int, audits: Iterable[int]) -> float:
    """The chance that a series of audits of so many units each, full ones among them, sees nothing (white paper 2.3).

    Raises `ValueError` as `miss_chance`.
    """
    return math.prod(miss_chance(total, missing, sampled) for sampled in audits)


def mean_rounds(detection: float) -> float:
    """Rounds until the first detection, on average, when each detects with chance `detection`; infinite at 0."""
    _check_chance(detection)
    return math.inf if detection == 0 else 1 / detection


def rounds_until(detection: float, confidence: float) -> int:
    """The fewest rounds after which the loss has been seen with chance `confidence`: a quantile of the geometric law.

    Raises `ValueError` when nothing is ever detected, or for a confidence that is not at least 0 and below 1.
    """
    _check_confidence(confidence)
    _check_chance(detection)
    if detection == 0:
        raise ValueError("what is never detected in one round is never detected")
    if confidence == 0:
        return 0
    if detection == 1:
        return 1
    per_round = math.log1p(-detection)
    rounds = max(1, math.floor(math.log1p(-confidence) / per_round) - 1)
    while -math.expm1(rounds * per_round) < confidence:
        rounds += 1
    return rounds


def leaves_needed(total: int, missing: int, confidence: float) -> int:
    """The fewest units that one round draws to see `missing` of `total` with at least `confidence`. Exact.

    Raises `ValueError` when none is missing, or for a confidence that is not at least 0 and below 1.
    """
    _check_confidence(confidence)
    if not 1 <= missing <= total:
        raise ValueError("at least one unit is missing, at most all")
    low, high = 0, total - missing + 1
    while low < high:
        middle = (low + high) // 2
        if 1 - miss_chance(total, missing, middle) >= confidence:
            high = middle
        else:
            low = middle + 1
    return low


def leaves_for_fraction(fraction: float, confidence: float) -> int:
    """The same from the geometric bound: enough whatever the size of the holding.

    Raises `ValueError` for a fraction that is not above 0 and at most 1, or a confidence not at least 0 and below 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError("the fraction that is gone is above 0 and at most 1")
    return rounds_until(fraction, confidence)


def largest_unseen_fraction(passed: int, confidence: float) -> float:
    """After `passed` units in a row were proved: the largest share that may be gone without surprising at `confidence`.

    1 with nothing proved. Raises `ValueError` for a confidence that is not at least 0 and below 1.
    """
    _check_confidence(confidence)
    if passed <= 0:
        return 1.0
    return -math.expm1(math.log1p(-confidence) / passed)


def eclipse_chance(generated: int, honest: int) -> float:
    """The chance that `generated` keys give three ids closer to a victim than any of `honest` nodes (white paper 6.2).

    The sum runs from 3 to generated - 1, as printed; the term left out is honest ** -generated. Raises `ValueError`
    below one honest node.
    """
    if honest < 1:
        raise ValueError("a network has at least one node")
    near = Fraction(1, honest)
    rest = 1 - sum(
        (math.comb(generated, hits) * near**hits * (1 - near) ** (generated - hits) for hits in range(3)), Fraction(0)
    )
    return float(max(Fraction(0), rest - near**generated))


def beach_chance(population: int, wanted: int, drawn: int) -> float:
    """The chance that `drawn` of `population` shards include all `wanted` shards of one file (white paper 6.3). Exact.

    Raises `ValueError` unless 0 <= wanted, drawn <= population.
    """
    if not 0 <= wanted <= population or not 0 <= drawn <= population:
        raise ValueError("wanted and drawn shards are between 0 and all of them")
    if drawn < wanted:
        return 0.0
    return math.comb(population - wanted, drawn - wanted) / math.comb(population, drawn)


def mirror_availability(uptimes: Iterable[float]) -> float:
    """The chance that at least one mirror of a shard is up, given each one's uptime (white paper 2.7, corrected).

    The paper prints 1 - Π a with a called uptime; that is the chance that not all are up. It must be 1 - Π (1 - a).
    """
    return 1 - math.prod(1 - uptime for uptime in uptimes)


def _check_chance(chance: float) -> None:
    if not 0 <= chance <= 1:
        raise ValueError("a chance is between 0 and 1")


def _check_confidence(confidence: float) -> None:
    if not 0 <= confidence < 1:
        raise ValueError("a confidence is at least 0 and below 1")
