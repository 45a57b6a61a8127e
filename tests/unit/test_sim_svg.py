"""Curves as SVG: well-formed, the same each time, everything inside the picture."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from stook.sim.svg import HEIGHT, LEFT, RIGHT, WIDTH, Axis, Curve, chart

ACROSS = Axis("rounds <n>", 1, 1000, [(1, "1"), (1000, "1,000")], log=True)
UP = Axis("seen & found", 0, 1, [(0, "0 %"), (1, "100 %")])


def test_the_picture_is_well_formed_and_the_same_each_time():
    curves = [Curve("a < b", [(1, 0), (10, 0.5), (1000, 1)]), Curve("", [(5, 0.2)], 1, dots=True)]
    text = chart("Title & more", ACROSS, UP, curves)
    assert text == chart("Title & more", ACROSS, UP, curves)
    root = ElementTree.fromstring(text)
    assert next(root.iter("{http://www.w3.org/2000/svg}text")).text == "Title & more"
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 1


def test_what_lies_beyond_an_axis_is_drawn_at_its_end():
    text = chart("", ACROSS, UP, [Curve("", [(0.001, -5), (1e9, 7)], dots=True)])
    places = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', text)]
    assert places == [(LEFT, HEIGHT - 50), (WIDTH - RIGHT, 40)]


def test_a_logarithmic_axis_gives_each_power_the_same_room():
    assert [round(ACROSS.share(value), 6) for value in (1, 10, 100, 1000)] == [0, 0.333333, 0.666667, 1]


@pytest.mark.parametrize(("low", "high", "log"), [(1, 1, False), (2, 1, False), (0, 1, True)])
def test_an_axis_that_leads_nowhere_is_refused(low: float, high: float, log: bool):
    with pytest.raises(ValueError, match="upwards"):
        Axis("", low, high, [], log=log)
