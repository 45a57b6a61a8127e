"""`stook durability`: how likely is it that something is lost, and what would do it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stook.cli.local_tree import shown
from stook.cli.output import emit, plural, say, warn
from stook.cli.renting import open_home
from stook.cli.run import json_option, pass_home, run

if TYPE_CHECKING:
    from stook.renter.durability import Hazard
    from stook.renter.outlook import Outlook
    from stook.shards.geometry import Policy

_BREAKS_SHOWN = 5
_LOSSES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Chances of a single shard for the table of a plan."""


def odds(chance: float) -> str:
    """A chance as people say it: ``1 in 25,000``."""
    if chance <= 0:
        return "none that could be told from nothing"
    if chance > 0.5:
        return f"{chance:.0%}"
    return f"1 in {float(f'{1 / chance:.2g}'):,.0f}"


def party(name: str) -> str:
    """A farmer or group of `breaking_sets` by a name that people can look up."""
    kind, _, rest = name.partition(" ")
    return (
        f"farmer {rest[:16]}" if kind == "farmer" else f"{'failure ' if kind == 'domain' else ''}{kind} {shown(rest)}"
    )


def outlook_fields(bucket: str, look: Outlook) -> dict[str, Any]:
    """One bucket for programs."""
    return {
        "bucket": bucket,
        "segments": look.segments,
        "segments_unknown": look.unknown,
        "segments_unreadable": look.unreadable,
        "loss_per_year": {"at_least": look.likely.at_least, "at_most": look.likely.at_most},
        "loss_per_year_wary": {"at_least": look.wary.at_least, "at_most": look.wary.at_most},
        "worst_segment": None if look.likely.worst is None else look.likely.worst.hex(),
        "farmers": look.farmers,
        "farmers_gone": look.gone,
        "watched_farmer_years": look.watched_years,
        "losses_seen": look.losses,
        "computed": look.computed,
        "losses_per_farmer_year": look.rate,
        "losses_per_farmer_year_wary": look.wary_rate,
        "assumed_share": look.assumed_share,
        "shards": look.shards,
        "shards_audited": look.audited,
        "least_margin": look.least_margin,
        "breaks": [{"parties": list(each.parties), "segments": len(each.segments)} for each in look.breaks],
        "breaks_looked_at": look.looked_at,
        "assumptions": {
            "repair_window_hours": look.hazard.repair_window_hours,
            "group_loss_per_year": look.hazard.group_loss_per_year,
        },
    }


def figure_words(look: Outlook) -> str:
    """The live number in a sentence."""
    if look.unreadable:
        return f"{plural(look.unreadable, 'segment')} cannot be read now, unless farmers come back"
    low, high = odds(look.likely.at_least), odds(look.likely.at_most)
    between = low if low == high else f"between {low} and {high}"
    return f"the chance that any of it is lost within a year is {between}; to be wary, {odds(look.wary.at_most)}"


def proof_words(look: Outlook) -> list[str]:
    """How much of the figure was measured."""
    years = f"{look.watched_years:.2g}" if look.watched_years < 100 else f"{look.watched_years:,.0f}"
    lines = [
        f"watched for {years} farmer-years, {look.losses:.3g} holdings lost in them: {look.rate:.2g} losses a farmer "
        f"and year are expected, {look.wary_rate:.2g} to be wary"
    ]
    if look.assumed_share > 0.1:
        mostly = "This is still mostly" if look.assumed_share > 0.5 else f"{look.assumed_share:.0%} of this is"
        lines.append(f"{mostly} an assumption (0.15, machines in homes), not a measurement: the grid is young.")
    if look.audited < look.shards:
        signed = "None" if not look.audited else f"{look.audited:,}"
        lines.append(f"{signed} of {plural(look.shards, 'shard')} was proved by an audit; the rest is signed for.")
    if look.gone:
        lines.append(f"{plural(look.gone, 'farmer')} silent for a week or more: what they hold counts as lost.")
    return lines


def assumed_words(look: Outlook) -> list[str]:
    """What the figure takes for granted."""
    return [
        f"lost shards are made again within {look.hazard.repair_window_hours:g} hours;",
        f"an operator, network or failure domain falls as a whole with {look.hazard.group_loss_per_year:g} a year;",
        "what farmers say of operator and domain is true; your 24 words and this program do not fail.",
    ]


def break_words(look: Outlook) -> list[str]:
    """What would break it."""
    if not look.looked_at:
        return []
    if not look.breaks:
        return [
            f"no two farmers, operators, networks or failure domains together: the weakest segment can lose "
            f"{plural(look.least_margin, 'shard')}"
        ]
    lines = []
    for each in look.breaks[:_BREAKS_SHOWN]:
        who = " and ".join(party(name) for name in each.parties)
        together = "if both were lost at once" if len(each.parties) > 1 else "if it was lost"
        lines.append(f"{who}: {together}, {plural(len(each.segments), 'segment')} could not be rebuilt")
    more = len(look.breaks) - _BREAKS_SHOWN
    if more > 0:
        lines.append(f"and {more:,} more, of {plural(look.looked_at, 'segment')} looked at")
    return lines


def _print(bucket: str, look: Outlook) -> None:
    say(f"{shown(bucket)}: {plural(look.segments, 'segment')} at {plural(look.farmers, 'farmer')}")
    if not look.segments:
        say("  nothing at farmers, so nothing to lose there")
        return
    say(f"  number     {figure_words(look)}")
    for at, line in enumerate(proof_words(look)):
        say(f"  {'' if at else 'measured':<10} {line}")
    for at, line in enumerate(assumed_words(look)):
        say(f"  {'' if at else 'assumes':<10} {line}")
    for at, line in enumerate(break_words(look)):
        say(f"  {'' if at else 'breaks it':<10} {line}")


# --- the calculator --------------------------------------------------------------------------------------------------


def plan_fields(policy: Policy, groups: list[int], hazard: Hazard) -> dict[str, Any]:
    """What a policy is worth, for programs."""
    from stook.renter.durability import assess, grouped_loss_chance, loss_chance, nines

    window = hazard.within_window(hazard.farmer_loss_per_year)
    together = hazard.within_window(hazard.group_loss_per_year)
    yearly = assess(policy, groups, hazard)
    return {
        "policy": {"k": policy.k, "r": policy.r, "o": policy.o, "n": policy.n},
        "expansion": policy.n / policy.k,
        "may_be_lost": policy.n - policy.k,
        "groups": groups or None,
        "farmer_loss_per_year": hazard.farmer_loss_per_year,
        "group_loss_per_year": hazard.group_loss_per_year,
        "repair_window_hours": hazard.repair_window_hours,
        "shard_loss_per_window": window,
        "loss_per_window_from_n": grouped_loss_chance(policy.k, groups or [1] * policy.n, window, together),
        "loss_per_year_from_r": yearly,
        "nines": nines(yearly),
        "loss_if_each_shard_is_lost_with": {f"{lost:g}": loss_chance(policy.k, policy.n, lost) for lost in _LOSSES},
    }


def _print_plan(policy: Policy, fields: dict[str, Any]) -> None:
    say(
        f"Any {policy.k} of {policy.n} shards bring a segment back, so {plural(fields['may_be_lost'], 'shard')} may be "
        f"lost at once; it takes {fields['expansion']:.2f} times the space, and repair begins below {policy.r}."
    )
    groups = fields["groups"]
    where = f"in groups of {', '.join(str(size) for size in groups)}" if groups else "each on its own"
    say(
        f"A farmer is lost with {fields['farmer_loss_per_year']:g} a year, a whole group with "
        f"{fields['group_loss_per_year']:g}, repair takes {fields['repair_window_hours']:g} hours, shards lie {where}:"
    )
    say(f"  one segment with all its shards is lost before repair  {fields['loss_per_window_from_n']:.3g}")
    yearly = fields["loss_per_year_from_r"]
    say(f"  one segment is lost within a year, at worst            {yearly:.3g}, {odds(yearly)}")
    say("Without any repair: if each shard is lost with the chance on the left, a segment is with that on the right.")
    for lost, chance in fields["loss_if_each_shard_is_lost_with"].items():
        say(f"  {float(lost):>5.0%}   {chance:.3e}")


@click.command("durability")
@click.argument("bucket", metavar="[BUCKET]", required=False)
@click.option("--plan", "code", metavar="K/N", help="What a code would be worth instead; needs no home.")
@click.option("--groups", metavar="SIZES", help="With --plan: shards that fail together, as 4,4,2; they add up to N.")
@click.option(
    "--farmer-loss", type=click.FloatRange(0, 1, max_open=True), help="With --plan: chance per farmer and year."
)
@click.option("--group-loss", type=click.FloatRange(0, 1, max_open=True), help="Chance per group and year.")
@click.option(
    "--window", metavar="HOURS", type=click.FloatRange(0, min_open=True), help="Hours until a loss is repaired."
)
@json_option
@pass_home
def durability_command(
    home: Path,
    bucket: str | None,
    code: str | None,
    groups: str | None,
    farmer_loss: float | None,
    group_loss: float | None,
    window: float | None,
    as_json: bool,
) -> None:
    """How likely stored things are lost, from what was seen of their farmers, and what would break them.

    For a bucket, or for each: the chance that any of it is lost within a year, computed exactly from where each shard
    is, how often these farmers lost what they held, and who fails together. It is given between two bounds, because
    segments share farmers, and once more for those who would rather be wary. How much of it was measured is said too.

    \b
    stook durability photos
    stook durability --plan 4/10 --groups 5,5
    """
    from stook.errors import UserError
    from stook.renter.durability import Hazard

    if code is None and (groups is not None or farmer_loss is not None):
        raise UserError("--groups and --farmer-loss go with --plan: of what is stored they are measured")
    usual = Hazard()
    hazard = Hazard(
        farmer_loss_per_year=usual.farmer_loss_per_year if farmer_loss is None else farmer_loss,
        group_loss_per_year=usual.group_loss_per_year if group_loss is None else group_loss,
        repair_window_hours=usual.repair_window_hours if window is None else window,
    )
    if code is not None:
        if bucket is not None:
            raise UserError("--plan is about a code, not about a bucket: leave one of them out")
        _plan(code, groups, hazard, as_json=as_json)
        return

    async def work() -> None:
        async with open_home(home, refresh=True) as renter:
            names = [bucket] if bucket is not None else [each.name for each in await renter.client.buckets()]
            for name in names:
                look = await renter.client.outlook(name, hazard)
                if as_json:
                    emit(outlook_fields(name, look))
                else:
                    _print(name, look)
            if not names and not as_json:
                warn("No bucket yet: `stook mb NAME` makes one.")

    run(work())


def _plan(code: str, groups: str | None, hazard: Hazard, *, as_json: bool) -> None:
    from stook.errors import UserError
    from stook.shards.geometry import Policy

    policy = Policy.parse(code)
    sizes = [] if groups is None else [_size(part) for part in groups.split(",")]
    if sizes and (min(sizes) < 1 or sum(sizes) != policy.n):
        raise UserError(f"--groups are whole numbers above 0, as 4,4,2, that add up to the {policy.n} shards")
    fields = plan_fields(policy, sizes, hazard)
    if as_json:
        emit({"ok": True} | fields)
    else:
        _print_plan(policy, fields)


def _size(text: str) -> int:
    """A group's size; 0 for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 3 else 0
