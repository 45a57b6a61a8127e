"""From runs to ratios: pure arithmetic and one readable table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.common import spread


@dataclass(frozen=True, slots=True)
class Run:
    """One upload or download of one job by one contender."""

    contender: str
    job: str
    direction: str
    round: int
    size_bytes: int
    seconds: float
    cpu_seconds: float

    @property
    def mb_s(self) -> float:
        """MB (10^6 bytes) of plain data a second."""
        return self.size_bytes / 1e6 / self.seconds

    @property
    def cpu_s_per_gb(self) -> float:
        """CPU seconds of all the contender's processes for each GB (10^9 bytes) of plain data."""
        return self.cpu_seconds / self.size_bytes * 1e9


def in_order(values: Iterable[str]) -> list[str]:
    """Each once, as they first come."""
    return list(dict.fromkeys(values))


def select(runs: Sequence[Run], contender: str, job: str, direction: str) -> dict[int, Run]:
    """The runs of one cell by round."""
    return {run.round: run for run in runs if (run.contender, run.job, run.direction) == (contender, job, direction)}


def summarise(runs: Sequence[Run], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Figures with spread per job, direction and contender, and ratios of the pairs' first to their second.

    A ratio is taken within each round, where both met the same bytes and the same weather, and then spread. `rate` says
    how many times as fast the first is, `cpu` how many times as much CPU the second takes: above 1 the first is better.
    """
    result: dict[str, Any] = {}
    for job in in_order(run.job for run in runs):
        for direction in in_order(run.direction for run in runs):
            cell: dict[str, Any] = {"contenders": {}, "ratios": {}}
            for contender in in_order(run.contender for run in runs):
                mine = select(runs, contender, job, direction).values()
                if mine:
                    cell["contenders"][contender] = {
                        "mb_s": spread([run.mb_s for run in mine]),
                        "cpu_s_per_gb": spread([run.cpu_s_per_gb for run in mine]),
                    }
            for first, second in pairs:
                ratio = ratios(select(runs, first, job, direction), select(runs, second, job, direction))
                if ratio:
                    cell["ratios"][f"{first} / {second}"] = ratio
            result.setdefault(job, {})[direction] = cell
    return result


def ratios(first: dict[int, Run], second: dict[int, Run]) -> dict[str, dict[str, float]]:
    """Ratios over the rounds that both have; empty without such a round."""
    both = sorted(first.keys() & second.keys())
    if not both:
        return {}
    rate = [first[turn].mb_s / second[turn].mb_s for turn in both]
    # A process's clock ticks in hundredths of a second: what took less than one tick is taken for one.
    cpu = [second[turn].cpu_seconds / max(first[turn].cpu_seconds, 0.01) for turn in both]
    return {"rate": spread(rate), "cpu": spread(cpu)}


HEADER = ("job", "way", "who", "MB/s", "CPU-s/GB")


def table(summary: dict[str, Any]) -> str:
    """Everything as lines of text with a column each: medians, with minimum and maximum behind."""
    rows: list[tuple[str, ...]] = [HEADER]
    for job, ways in summary.items():
        for way, cell in ways.items():
            for who, figures in cell["contenders"].items():
                rows.append((job, way, who, shown(figures["mb_s"]), shown(figures["cpu_s_per_gb"])))
            for pair, ratio in cell["ratios"].items():
                rows.append((job, way, f"  {pair}", f"x {shown(ratio['rate'])}", f"÷ {shown(ratio['cpu'])}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def shown(value: dict[str, float]) -> str:
    """``12.3 (11.9–14.0)``"""
    return f"{brief(value['median'])} ({brief(value['min'])}–{brief(value['max'])})"


def brief(value: float) -> str:
    """Three digits that say something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
