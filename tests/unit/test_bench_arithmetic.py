"""The benchmarks' own arithmetic: ratios within rounds, tables, the floor's sum, the page's blocks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bench.floor import Parts, against, floor_down, floor_up
from bench.performance_page import BLOCK, BLOCKS, markdown, rewritten
from bench.versus.ratios import Run, summarise, table

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def run(who: str, turn: int, seconds: float, cpu: float, way: str = "up") -> Run:
    return Run(who, "2 MB", way, turn, 2_000_000, seconds, cpu)


def test_a_run_knows_its_rates() -> None:
    assert run("a", 0, 0.5, 0.01).mb_s == 4
    assert run("a", 0, 0.5, 0.01).cpu_s_per_gb == pytest.approx(5)


def test_ratios_are_taken_within_rounds_and_then_spread() -> None:
    runs = [
        run("fast", 0, 1, 1),
        run("slow", 0, 4, 8),
        run("fast", 1, 10, 2),  # a busy spell that both met
        run("slow", 1, 60, 6),
        run("fast", 2, 1, 1),  # the other has no such round
    ]
    cell = summarise(runs, [("fast", "slow"), ("fast", "absent")])["2 MB"]["up"]
    assert cell["ratios"] == {
        "fast / slow": {
            "rate": {"min": 4, "median": 5, "max": 6},
            "cpu": {"min": 3, "median": 5.5, "max": 8},
        }
    }
    assert cell["contenders"]["slow"]["mb_s"]["max"] == 0.5
    assert set(cell["contenders"]) == {"fast", "slow"}


def test_less_than_a_tick_of_cpu_is_taken_for_a_tick() -> None:
    cell = summarise([run("a", 0, 1, 0), run("b", 0, 1, 0.5)], [("a", "b")])["2 MB"]["up"]
    assert cell["ratios"]["a / b"]["cpu"]["median"] == pytest.approx(50)


def test_the_table_shows_every_cell() -> None:
    runs = [run("ours", 0, 1, 1), run("theirs", 0, 3, 2), run("ours", 0, 1, 1, "down")]
    text = table(summarise(runs, [("ours", "theirs")]))
    lines = text.splitlines()
    assert lines[0].split() == ["job", "way", "who", "MB/s", "CPU-s/GB"]
    assert len(lines) == 2 + 3 + 1
    assert "ours / theirs" in text
    assert "x 3.00 (3.00–3.00)" in text


def test_the_floor_counts_coded_bytes_n_over_k_times_up_and_once_down() -> None:
    class Ones(dict[str, float]):
        def __missing__(self, _: str) -> float:
            return 1.0

    ones = Parts(plain=Ones(), coded=Ones())
    up, down = floor_up(ones, 3, 12), floor_down(ones)
    assert up["encode"] == up["mask"] == 1
    assert up["TLS, sending"] == up["write and sync"] == 4
    assert set(down.values()) == {1.0}
    figures = against(down, 12.0)
    assert figures["floor"] == len(down)
    assert figures["times_the_floor"] == 12 / len(down)


def test_a_block_is_filled_and_the_rest_of_the_page_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BLOCKS, "known", ("result", lambda result: markdown(["a"], [[result["value"]]])))
    page = "before\n<!-- figures: known -->\nold\n<!-- end -->\nafter\n<!-- figures: wire -->\nkept\n<!-- end -->\n"
    once, left = rewritten(page, {"result": {"value": "7"}})
    assert once.startswith("before\n<!-- figures: known -->\n\n| a |\n| --- |\n| 7 |\n\n<!-- end -->\nafter\n")
    assert "old" not in once
    assert "kept" in once
    assert left == ["wire"]
    assert rewritten(once, {"result": {"value": "7"}})[0] == once


def test_every_block_of_the_page_is_one_we_fill_and_the_other_way_round() -> None:
    assert sorted(found[2] for found in BLOCK.finditer(PAGE.read_text())) == sorted(BLOCKS)


def test_no_figure_outside_the_blocks_claims_a_rate() -> None:
    prose = BLOCK.sub("", PAGE.read_text())
    assert not re.search(r"\d ?MB/s", prose)
