"""Pages with measured figures say what was measured, and measuring a part of it again gives the same."""

from __future__ import annotations

import pytest
from docs.plots import BLOCK, DOCS, PAGES, detected, figures_of, filled

from stook.sim.detection import Experiment


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_made_of_its_figures(name: str) -> None:
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert filled(name, text, figures_of(name)) == text, f"run: python docs/plots.py {name}"
    assert {found[1] for found in BLOCK.findall(text)} == set(PAGES[name].blocks)


@pytest.mark.parametrize("name", PAGES)
def test_the_pictures_are_drawn_from_the_figures(name: str) -> None:
    for image, draw in PAGES[name].images.items():
        assert (DOCS / "images" / image).read_text(encoding="utf-8") == draw(figures_of(name)), image
        assert f"images/{image}" in (DOCS / f"{name}.md").read_text(encoding="utf-8")


def test_detection_measured_again_gives_the_same() -> None:
    figures = figures_of("detection")
    measured = detected(figures)
    assert figures["agrees"]
    assert all(one.agrees for one in measured)
    assert [one.as_json() for one in measured] == figures["fractions"]
    experiment = Experiment(measured[0].setting)
    for one in measured:
        again = [experiment.trial(one.fraction, number) for number in range(3)]
        assert again == list(one.rounds[:3]), one.fraction
