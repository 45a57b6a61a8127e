"""Pages with measured figures say what was measured, and measuring a part of it again gives the same."""

from __future__ import annotations

import re

import pytest
from docs.plots import BLOCK, DOCS, PAGES, detected, figures_of, filled, quasar_run

from stook.sim.attacks.catalogue import ATTACKS
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


def test_every_attack_is_on_the_page_and_none_that_is_not_there_is_named() -> None:
    reports = {one["attack"]: one for one in figures_of("attacks")["reports"]}
    assert list(reports) == list(ATTACKS)
    for name, attack in ATTACKS.items():
        said = {key: reports[name][key] for key in ("paper", "goal", "bound", "gain_unit", "stops")}
        assert said == {key: getattr(attack, key) for key in said}, f"python docs/plots.py attacks --measure ({name})"
        assert reports[name]["caught"], name
        assert not reports[name]["honest_condemned"], name
    threats = (DOCS / "threat-model.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", threats)) <= set(ATTACKS)


@pytest.mark.parametrize("name", ["spartacus", "frame-up", "cheating-owner", "tunnel-eclipse", "hostage-bytes"])
def test_attacks_run_again_give_the_same(name: str) -> None:
    (report,) = [one for one in figures_of("attacks")["reports"] if one["attack"] == name]
    assert ATTACKS[name].report(report["seed"]) == report


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


def test_quasar_measured_again_gives_the_same() -> None:
    first = figures_of("quasar")["sizes"][0]
    again = quasar_run(first["nodes"], first["publications"])
    assert {**again, "seconds": 0} == {**first, "seconds": 0}
