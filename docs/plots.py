"""Measure what pages say, draw it, and put it into their marked blocks, so that no figure is typed by hand.

    python docs/plots.py detection|attacks|honesty|churn|overlay|all [--measure]

Without --measure the page is made again from what was measured before and lies in `docs/figures`. A block lies between
``<!-- figures: NAME -->`` and ``<!-- end -->``. Tests make every page again, and measure a part of each again.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stook.shards.geometry import Policy
from stook.sim.attacks.catalogue import ATTACKS
from stook.sim.churn import Setting as ChurnSetting
from stook.sim.churn import churn, foretold
from stook.sim.detection import Detected, Setting, detection
from stook.sim.honesty import Setting as HonestySetting
from stook.sim.honesty import honesty
from stook.sim.overlay import figures as overlay_figures
from stook.sim.svg import Axis, Curve, chart

DOCS = Path(__file__).parent
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Figures = Mapping[str, Any]
ATTACKS_SEED = 1


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


# --- attacks ---------------------------------------------------------------------------------------------------------


def attacks_measured() -> Figures:
    """Every attack, with one seed."""
    return {"reports": [attack.report(ATTACKS_SEED) for attack in ATTACKS.values()]}


def attacks_table(figures: Figures) -> str:
    """One row an attack."""
    reports = figures["reports"]
    rows = [
        [
            f"`{one['attack']}`",
            one["paper"] or "–",
            one["goal"],
            one["bound"],
            "caught" if one["caught"] else "**not caught**",
            f"{one['gain']:.4g} {one['gain_unit']}",
            str(one["honest_condemned"]),
        ]
        for one in reports
    ]
    header = ["attack", "paper", "its goal", "its bound", "result", "gain", "honest condemned"]
    caught = sum(one["caught"] for one in reports)
    return f"{caught} of {len(reports)} attacks caught, seed {reports[0]['seed']}.\n\n" + table(header, rows)


def attacks_details(figures: Figures) -> str:
    """What each run showed, and what stopped it."""
    return "\n".join(
        f"**`{one['attack']}`**{' (white paper ' + one['paper'] + ')' if one['paper'] else ''}. {one['detail']} "
        f"*What stops it:* {one['stops']}. ({one['signatures']} signatures)\n"
        for one in figures["reports"]
    )


# --- honesty ---------------------------------------------------------------------------------------------------------


def honesty_table(figures: Figures) -> str:
    """The network, and one row a liar."""
    rows = [[one["liar"], one["as"] or "**not named**", f"{one['after_days']:.1f}"] for one in figures["liars"]]
    one = figures
    return (
        f"{one['farmers']} farmers, {one['days']} virtual days, code {one['code']}, seed {one['seed']}, "
        f"{one['signatures']} signatures: {one['restarts']:,} restarts, {one['absences']:,} absences, "
        f"{one['disk_losses']} half-lost disks, {one['chunks_lost']:,} of {one['chunks']:,} chunks lost for good.\n\n"
        f"**Honest farmers condemned: {one['honest_condemned']} of {one['honest']}.** Taken for gone: "
        f"{one['honest_gone']}. Liars named: {one['liars_named']} of {len(one['liars'])}. Objects lost: "
        f"{one['lost']} of {one['objects']}.\n\n" + table(["liar", "named as", "after days"], rows)
    )


# --- churn -----------------------------------------------------------------------------------------------------------


def churn_measured() -> Figures:
    """One run a row."""
    return {"runs": [churn(ChurnSetting(seed=1))]}


def churn_table(figures: Figures) -> str:
    """One row a run."""
    header = ["code", "farmers", "months", "leave a month", "departed", "objects lost", "fewest shards alive"]
    header += ["repaired of stored, a month", "from rates alone", "living condemned", "signatures"]
    rows = [
        [
            one["code"],
            f"{one['farmers']}",
            f"{one['months']}",
            f"{one['churn']:.0%}",
            f"{one['departed']}",
            f"**{one['lost']}** of {one['objects']}",
            f"{one['fewest_shards_alive']}",
            f"**{one['repair_ratio']:.3f}**",
            f"{one['repair_ratio_foretold']:.3f}",
            f"{one['false_positives']}",
            one["signatures"],
        ]
        for one in figures["runs"]
    ]
    return table(header, rows)


def moved_ratio(policy: Policy, ratio: float) -> float:
    """Bytes moved both ways for each byte of data and month, from shard bytes placed for each byte stored."""
    placed = policy.n - policy.r + 1
    return ratio * policy.n / policy.k * (placed + policy.k) / placed


def published_table(figures: Figures) -> str:
    """Our figures in the terms of others, beside theirs."""
    rows = []
    for one in figures["runs"]:
        policy = Policy.parse(one["code"])
        name = f"Stook {one['code']}, {one['churn']:.0%} leave a month"
        rows.append([name, f"{moved_ratio(policy, one['repair_ratio']):.2f}", "measured here"])
        rows.append([name, f"{one['moved_ratio_foretold']:.2f}", "from rates alone"])
    rows.append(["Storj v3, 30/80, repair at 45, mean life 12 months", "0.31", "its white paper"])
    rows.append(["the same, mean life 1 month", "3 to 9", "its white paper"])
    foretold_30 = foretold(Policy.parse("30/46/60/80"), 1 / 12)[1]
    rows.append(["30/46/60/80, mean life 12 months", f"{foretold_30:.2f}", "our formula"])
    return table(["who", "bytes moved for each byte of data, a month", "source"], rows)


# --- overlay ---------------------------------------------------------------------------------------------------------


def overlay_growth(figures: Figures) -> str:
    """One row a size."""
    header = ["nodes", "found", "exactly the nearest 20", "hops", "most hops", "log2 n", "requests", "virtual seconds"]
    header += ["contacts in a table"]
    rows = [
        [
            f"{one['nodes']:,}",
            f"**{one['success']:.2%}**",
            f"**{one['exact_k']:.2%}**",
            f"{one['hops_mean']:.2f}",
            f"{one['hops_max']}",
            f"{math.log2(one['nodes']):.1f}",
            f"{one['messages_mean']:.1f}",
            f"{one['lookup_seconds_mean']:.1f}",
            f"{one['contacts_mean']:.0f}",
        ]
        for one in figures["growth"]
    ]
    first = figures["growth"][0]
    return (
        f"{first['lookups']:,} lookups a row, {first['dead']:.0%} of all nodes dead, {first['paths']} paths, seed "
        f"{first['seed']}.\n\n" + table(header, rows)
    )


def overlay_growth_image(figures: Figures) -> str:
    """Hops measured, and the bound."""
    grown = figures["growth"]
    sizes = [(one["nodes"], f"{one['nodes']:,}") for one in grown]
    curves = [
        Curve("Kademlia's bound, log2 n", [(one["nodes"], math.log2(one["nodes"])) for one in grown], 5),
        Curve("most hops of a lookup", [(one["nodes"], one["hops_max"]) for one in grown], 1),
        Curve("hops, mean", [(one["nodes"], one["hops_mean"]) for one in grown], 0),
        Curve("", [(one["nodes"], one["hops_mean"]) for one in grown], 0, dots=True),
    ]
    across = Axis("nodes", grown[0]["nodes"], grown[-1]["nodes"], sizes, log=True)
    up = Axis("hops", 0, 14, [(value, str(value)) for value in range(0, 15, 2)])
    return chart("Hops of a lookup, a fifth of all nodes dead", across, up, curves)


_HOSTILE_WORDS = {
    "mixed": "a third of each",
    "drop": "drop requests",
    "lie": "name addresses where nobody is",
    "friends": "name only each other",
}


def overlay_hostile(figures: Figures) -> str:
    """One row for a kind and share."""
    cells: dict[tuple[str, float], dict[int, Mapping[str, Any]]] = {}
    for one in figures["hostile"]:
        cells.setdefault((one["kind"], one["hostile"]), {})[one["paths"]] = one
    paths = sorted({one["paths"] for one in figures["hostile"]})
    header = ["hostile nodes", "share", *(f"found, {count} path{'s' * (count > 1)}" for count in paths)]
    header += [f"requests, {count} path{'s' * (count > 1)}" for count in paths]
    rows = [
        [
            _HOSTILE_WORDS[kind],
            f"{share:.0%}",
            *(f"{row[count]['success']:.1%}" for count in paths),
            *(f"{row[count]['messages_mean']:.0f}" for count in paths),
        ]
        for (kind, share), row in cells.items()
    ]
    first = figures["hostile"][0]
    return f"{first['nodes']:,} nodes, {first['lookups']:,} lookups a cell, seed {first['seed']}.\n\n" + table(
        header, rows
    )


def overlay_hostile_image(figures: Figures) -> str:
    """Nodes not found, by share of nodes that name only each other."""
    curves = []
    for colour, paths in enumerate(sorted({one["paths"] for one in figures["hostile"]})):
        points = [
            (one["hostile"], one["success"])
            for one in figures["hostile"]
            if one["kind"] == "friends" and one["paths"] == paths
        ]
        name = f"{paths} path{'s' * (paths > 1)}"
        curves += [Curve(name, [(0.0, 1.0), *points], colour), Curve("", points, colour, dots=True)]
    across = Axis("share of hostile nodes", 0, 0.5, [(share / 10, f"{10 * share} %") for share in range(6)])
    up = Axis("found", 0.85, 1, [(share / 100, f"{share} %") for share in range(85, 101, 5)])
    return chart("Honest nodes found while hostile ones name only each other", across, up, curves)


def overlay_eclipse(figures: Figures) -> str:
    """One row for nodes and keys."""
    header = ["honest nodes", "keys made", "paper's formula", "counted as it assumes", "exact, ids drawn", "counted"]
    rows = [
        [
            f"{one['nodes']}",
            f"{row['keys']}",
            f"{row['formula']:.4f}",
            f"{row['counted_as_the_formula_has_it']:.4f}",
            f"{row['exact_for_drawn_ids']:.4f}",
            f"{row['counted_for_drawn_ids']:.4f}",
        ]
        for one in figures["eclipse"]
        for row in one["keys"]
    ]
    return f"{figures['eclipse'][0]['trials']:,} trials a row.\n\n" + table(header, rows)


PAGES: dict[str, Page] = {
    "detection": Page(
        measure=lambda: detection(Setting(seed=1)),
        blocks={"detection": detection_table},
        images={"detection.svg": detection_image},
    ),
    "attacks": Page(attacks_measured, {"attacks": attacks_table, "details": attacks_details}, {}),
    "honesty": Page(lambda: honesty(HonestySetting(seed=1)), {"honesty": honesty_table}, {}),
    "overlay": Page(
        measure=lambda: overlay_figures(seed=1),
        blocks={"growth": overlay_growth, "hostile": overlay_hostile, "eclipse": overlay_eclipse},
        images={"overlay-growth.svg": overlay_growth_image, "overlay-hostile.svg": overlay_hostile_image},
    ),
    "churn": Page(churn_measured, {"churn": churn_table, "published": published_table}, {}),
}


def main() -> None:
    """Make pages and pictures again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", choices=[*PAGES, "all"])
    parser.add_argument("--measure", action="store_true", help="measure anew, which takes minutes")
    arguments = parser.parse_args()
    for name in list(PAGES) if arguments.page == "all" else [arguments.page]:
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
