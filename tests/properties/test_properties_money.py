"""Prices against exact fractions: rounded up once, never down, never twice."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stook.money import BYTES_PER_GIB, MS_PER_HOUR, UNITS_PER_CREDIT, download_cost, storage_cost

prices = st.integers(0, 2**63 - 1)
sizes = st.integers(0, 2**63 - 1)
durations = st.integers(0, 2**63 - 1)


@given(prices, sizes, durations)
def test_storage_costs_are_the_exact_fraction_rounded_up(price, size, duration):
    exact = Fraction(price * size * duration, BYTES_PER_GIB * MS_PER_HOUR)
    assert storage_cost(price, size, duration) == ceil(exact)


@given(prices, sizes)
def test_download_costs_are_the_exact_fraction_rounded_up(price, size):
    assert download_cost(price, size) == ceil(Fraction(price * size, BYTES_PER_GIB))


@given(prices, sizes, durations, durations)
def test_cutting_a_stay_in_two_never_costs_less_nor_a_unit_more_than_one(price, size, first, second):
    whole = storage_cost(price, size, first + second)
    parts = storage_cost(price, size, first) + storage_cost(price, size, second)
    assert whole <= parts <= whole + 1


@given(prices, sizes, sizes)
def test_cutting_a_download_in_two_never_costs_less_nor_a_unit_more_than_one(price, first, second):
    whole = download_cost(price, first + second)
    assert whole <= download_cost(price, first) + download_cost(price, second) <= whole + 1


@given(prices, sizes, durations, st.integers(0, 1000))
def test_more_of_anything_never_costs_less(price, size, duration, more):
    cost = storage_cost(price, size, duration)
    assert storage_cost(price + more, size, duration) >= cost
    assert storage_cost(price, size + more, duration) >= cost
    assert storage_cost(price, size, duration + more) >= cost


def test_known_prices():
    assert storage_cost(UNITS_PER_CREDIT, BYTES_PER_GIB, MS_PER_HOUR) == UNITS_PER_CREDIT
    assert storage_cost(1, 1, 1) == 1
    assert storage_cost(0, 2**60, 2**60) == 0
    assert storage_cost(7, 0, 5) == 0
    assert download_cost(3, BYTES_PER_GIB) == 3
    assert download_cost(3, BYTES_PER_GIB + 1) == 4


@pytest.mark.parametrize("arguments", [(-1, 1, 1), (1, -1, 1), (1, 1, -1)])
def test_nothing_is_negative(arguments):
    with pytest.raises(ValueError, match="negative"):
        storage_cost(*arguments)


@pytest.mark.parametrize("arguments", [(-1, 1), (1, -1)])
def test_no_download_is_negative(arguments):
    with pytest.raises(ValueError, match="negative"):
        download_cost(*arguments)
