"""`stook sim`, run as a person runs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from stook.cli import main as main_module
from stook.sim.attacks.catalogue import ATTACKS
from stook.sim.attacks.outcome import Outcome
from stook.sim.detection import Detected


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


Stook = Callable[..., Ran]


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Stook:
    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["stook", "sim", *arguments])
        code = 0
        try:
            main_module.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


FEW = ("detection", "--trials", "5", "--fraction", "0.2", "--seed", "3")


def test_detection_in_words_and_in_json(sim: Stook):
    told = sim(*FEW)
    assert told.code == 0
    assert "They agree." in told.out
    result = sim(*FEW, "--json").json
    assert result["agrees"] is True
    assert (result["seed"], result["trials"], result["signatures"]) == (3, 5, "real")
    assert sim(*FEW, "--json").json == result


def test_what_does_not_agree_ends_with_status_1(sim: Stook, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Detected, "agrees", False)
    ran = sim(*FEW)
    assert ran.code == 1
    assert "They do NOT agree." in ran.out


@pytest.mark.parametrize("wrong", [("--trials", "0"), ("--fraction", "2"), ("--leaves", "3000")])
def test_wrong_use_is_said(sim: Stook, wrong: tuple[str, str]):
    ran = sim("detection", *wrong)
    assert ran.code == 2
    assert "Traceback" not in ran.err


def test_an_attack_in_words_and_in_json(sim: Stook):
    told = sim("attack", "spartacus")
    assert told.code == 0
    assert "caught; gain 0 messages believed" in told.out
    report = sim("attack", "spartacus", "--seed", "2", "--json").json
    assert {"attack", "caught", "gain", "honest_condemned", "detail", "bound", "goal"} <= set(report)
    assert (report["attack"], report["caught"], report["seed"]) == ("spartacus", True, 2)


def test_an_attack_that_succeeds_ends_with_status_1(sim: Stook, monkeypatch: pytest.MonkeyPatch):
    won = replace(ATTACKS["spartacus"], run=lambda seed: Outcome(False, 3, "It won.", 1))
    monkeypatch.setattr("stook.sim.attacks.catalogue.ATTACKS", {"spartacus": won})
    ran = sim("attack", "all")
    assert ran.code == 1
    assert "NOT caught" in ran.out
    assert "1 honest node CONDEMNED" in ran.out
    assert sim("attack", "all", "--json").code == 1


def test_an_attack_that_does_not_exist_is_named(sim: Stook):
    ran = sim("attack", "jupiter")
    assert ran.code == 2
    assert "spartacus" in ran.err


def test_an_overlay_in_words_and_in_json(sim: Stook):
    few = ("overlay", "--nodes", "40", "--lookups", "20", "--seed", "2")
    told = sim(*few)
    assert told.code == 0
    assert "found                    100.00% of 20 lookups" in told.out
    result = sim(*few, "--dead", "0.1", "--json").json
    assert {"success", "exact_k", "hops_mean", "messages_mean", "seconds"} <= set(result)
    hostile = sim(*few, "--hostile", "0.9", "--kind", "drop", "--paths", "1")
    assert hostile.code == 0, "with hostile nodes nothing is promised"


@pytest.mark.parametrize("wrong", [("--nodes", "1"), ("--dead", "1"), ("--kind", "nice"), ("--paths", "0")])
def test_overlays_that_cannot_be_are_said(sim: Stook, wrong: tuple[str, str]):
    ran = sim("overlay", *wrong)
    assert ran.code == 2
    assert "Traceback" not in ran.err


def test_an_overlay_that_finds_too_little_ends_with_status_1(sim: Stook, monkeypatch: pytest.MonkeyPatch):
    figures = {"success": 0.5, "exact_k": 0.5, "hops_mean": 1, "hops_max": 1, "messages_mean": 1}
    monkeypatch.setattr(
        "stook.sim.overlay.overlay", lambda _: {**figures, "lookup_seconds_mean": 1, "contacts_mean": 1}
    )
    assert sim("overlay", "--nodes", "40").code == 1


def test_quasar_in_words_and_in_json(sim: Stook) -> None:
    small = ("quasar", "--nodes", "120", "--publications", "10")
    found = sim(*small, "--json").json
    assert found["delivery"] > 0.95
    for key in ("messages_per_publication", "duplicates", "filter_fill", "hops_mean"):
        assert key in found
    words = sim(*small)
    assert words.code == 0
    assert "reached" in words.out
    corner = sim(*small, "--nearest", "--links", "3", "--paper-filters", "--ttl", "6")
    assert corner.code == 1


@pytest.mark.parametrize(
    "wrong", [("--nodes", "1"), ("--ttl", "21"), ("--fanout", "0"), ("--topics", "163"), ("--links", "0")]
)
def test_quasar_says_what_it_cannot_do(sim: Stook, wrong: tuple[str, str]) -> None:
    ran = sim("quasar", *wrong)
    assert ran.code == 2
    assert "Traceback" not in ran.err
