"""Measure what pages say, draw it, and put it into their marked blocks, so that no figure is typed by hand.

    python docs/plots.py detection [--measure]

Without --measure the page is made again from what was measured before and lies in `docs/figures`. A block lies between
``<!-- figures: NAME -->`` and ``<!-- end -->``. Tests make every page again, and measure a part of each again.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stook.sim.detection import Detected, Setting, detection
from stook.sim.svg import Axis, Curve, chart

DOCS = Path(__file__).parent
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Page:
    """How one page's figures are measured, its blocks written, and its pictures drawn."""

    measure: Callable[[], Figures]
    blocks: Mapping[str, Callable[[Figures], str]]
    images: Mapping[str, Callable[[Figures], str]]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def figures_of(name: str) -> Figures:
    """What was measured for a page."""
    found: Figures = json.loads((DOCS / "figures" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def filled(name: str, text: str, figures: Figures) -> str:
    """A page's text with its blocks made again."""
    blocks = PAGES[name].blocks
    return BLOCK.sub(lambda found: found[1] + blocks[found[2]](figures) + found[3], text)


# --- detection -------------------------------------------------------------------------------------------------------


def detected(figures: Figures) -> list[Detected]:
    """The measured fractions."""
    setting = Setting(
        figures["seed"], figures["trials"], figures["leaves"], figures["shards"], figures["units_per_shard"]
    )
    return [Detected(setting, one["fraction"], tuple(one["rounds"])) for one in figures["fractions"]]


def detection_table(figures: Figures) -> str:
    """One row a fraction."""
    rows = [
        [
            f"{one['fraction']:.1%}",
            f"{one['missing_units']}",
            f"{one['chance_per_round']:.4f}",
            f"{one['rounds_expected']:.2f}",
            f"{one['rounds_measured']:.2f} ± {one['standard_error']:.2f}",
            f"{one['distance_in_standard_errors']:+.2f}",
            f"{one['rounds_95_expected']}",
            f"{one['rounds_95_measured']}",
            "yes" if one["agrees"] else "**no**",
        ]
        for one in figures["fractions"]
    ]
    header = ["gone", "units", "seen by a round", "rounds, closed form", "measured", "off, in s.e."]
    header += ["95 % seen by, closed form", "measured", "agree"]
    return (
        f"{figures['shards'] * figures['units_per_shard']:,} units in {figures['shards']} shards, {figures['leaves']} "
        f"drawn a round, {figures['trials']} trials a row, seed {figures['seed']}, {figures['signatures']} "
        "signatures.\n\n" + table(header, rows)
    )


def detection_image(figures: Figures) -> str:
    """Curves of the closed form, marks where measured."""
    curves = []
    for colour, one in enumerate(detected(figures)):
        most = 1000
        steps = sorted({round(most ** (at / 150)) for at in range(151)})
        curves.append(Curve(f"{one.fraction:.1%} gone", [(at, one.foretold_by(at)) for at in steps], colour))
        marks = sorted({round(most ** (at / 24)) for at in range(25)})
        curves.append(Curve("", [(at, one.seen_by(at)) for at in marks], colour, dots=True))
    across = Axis("audit rounds", 1, 1000, [(1, "1"), (10, "10"), (100, "100"), (1000, "1,000")], log=True)
    up = Axis("seen by then", 0, 1, [(share / 4, f"{25 * share} %") for share in range(5)])
    title = "Loss seen after so many rounds: closed form (lines), measured (dots)"
    return chart(title, across, up, curves)


PAGES: dict[str, Page] = {
    "detection": Page(
        measure=lambda: detection(Setting(seed=1)),
        blocks={"detection": detection_table},
        images={"detection.svg": detection_image},
    ),
}


def main() -> None:
    """Make pages and pictures again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", default=list(PAGES), choices=list(PAGES))
    parser.add_argument("--measure", action="store_true", help="measure anew, which takes minutes")
    arguments = parser.parse_args()
    for name in arguments.pages:
        if arguments.measure:
            text = json.dumps(PAGES[name].measure(), indent=1)
            # Long runs of numbers on one line each, so that a change of them is a change of one line.
            text = re.sub(r"\[[\s\d,]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
            (DOCS / "figures" / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        figures = figures_of(name)
        page = DOCS / f"{name}.md"
        page.write_text(filled(name, page.read_text(encoding="utf-8"), figures), encoding="utf-8")
        for image, draw in PAGES[name].images.items():
            (DOCS / "images" / image).write_text(draw(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
