"""`stook sim`: ask a simulated network, with the code that real nodes run, what would happen."""

from __future__ import annotations

import sys
import time

import click

from stook.cli.output import emit, plural, say
from stook.cli.run import json_option
from stook.errors import UserError

NOT_SHOWN = 1
"""Exit status of a simulation that ran and did not show what it should."""

seed_option = click.option("--seed", default=1, show_default=True, help="One seed gives one history, everywhere.")


@click.group("sim")
def sim_command() -> None:
    """Simulated networks: real nodes' code in one process and virtual time, drawn from a seed.

    Nothing here touches the home directory or a network. Exit status 1: it ran, and did not show what it should.
    """


@sim_command.command("detection")
@click.option("--trials", default=400, show_default=True, help="How often each fraction is lost and found again.")
@click.option("--leaves", default=8, show_default=True, help="Units that a round draws.")
@click.option(
    "--fraction",
    "fractions",
    type=float,
    multiple=True,
    help="Share of the holding that is gone. Repeatable. Default: 0.001, 0.01, 0.05 and 0.2.",
)
@seed_option
@json_option
def detection_command(trials: int, leaves: int, fractions: tuple[float, ...], seed: int, as_json: bool) -> None:
    """How many audit rounds pass before a loss is seen, measured beside the closed form.

    A farmer with 2,000 units misses some. Rounds are drawn, proved and verified as nodes do it, with real signatures,
    until one fails. Agreement: mean within 3 standard errors, curves within what chance explains 999 times in 1,000.
    """
    from stook.sim.detection import FRACTIONS, Setting, detection

    try:
        result = detection(Setting(seed, trials=trials, leaves=leaves), fractions or FRACTIONS)
    except ValueError as error:
        raise UserError(str(error)) from None
    if as_json:
        emit(result)
    else:
        units = result["shards"] * result["units_per_shard"]
        say(f"{trials} trials each, {leaves} units a round of {units:,}, seed {seed}")
        say(f"{'gone':>8}{'expected':>12}{'measured':>12}{'off by':>10}")
        for one in result["fractions"]:
            say(
                f"{one['fraction']:>8.1%}{one['rounds_expected']:>12.2f}{one['rounds_measured']:>12.2f}"
                f"{one['distance_in_standard_errors']:>+7.1f} s.e."
            )
        say("Rounds until it is seen, on average. " + ("They agree." if result["agrees"] else "They do NOT agree."))
    if not result["agrees"]:
        sys.exit(NOT_SHOWN)


def _known_attack(context: click.Context, parameter: click.Parameter, name: str) -> str:
    from stook.sim.attacks.catalogue import ATTACKS

    if name != "all" and name not in ATTACKS:
        raise click.BadParameter(f"{name!r} is no attack; there are: {', '.join(ATTACKS)}")
    return name


@sim_command.command("attack")
@click.argument("name", metavar="NAME|all", callback=_known_attack)
@seed_option
@json_option
def attack_command(name: str, seed: int, as_json: bool) -> None:
    """Attack a simulated network, and see what the attacker gets of it.

    An attack counts as caught when it did not reach its goal within its bound; both are written down beside it. With
    --json there is one object a line for each attack. `docs/attacks.md` lists them.
    """
    from stook.sim.attacks.catalogue import ATTACKS

    failed = False
    for attack in ATTACKS.values() if name == "all" else [ATTACKS[name]]:
        report = attack.report(seed)
        good = report["caught"] and not report["honest_condemned"]
        failed = failed or not good
        if as_json:
            emit(report)
        else:
            say(f"{attack.name}{f' (white paper {attack.paper})' if attack.paper else ''}")
            say(f"  goal    {attack.goal}")
            say(f"  bound   {attack.bound}")
            verdict = "caught" if report["caught"] else "NOT caught"
            say(f"  result  {verdict}; gain {report['gain']:g} {attack.gain_unit}; {report['signatures']} signatures")
            if report["honest_condemned"]:
                say(f"          {plural(report['honest_condemned'], 'honest node')} CONDEMNED")
            say(f"          {report['detail']}")
    if failed:
        sys.exit(NOT_SHOWN)


@sim_command.command("overlay")
@click.option("--nodes", default=1000, show_default=True, help="How many nodes; 10,000 take some minutes.")
@click.option("--dead", default=0.2, show_default=True, help="Share that is gone when lookups begin, unnoticed.")
@click.option("--hostile", default=0.0, show_default=True, help="Share of the living that turns hostile then.")
@click.option("--kind", default="mixed", show_default=True, help="Hostile nodes drop, lie, name friends, or mixed.")
@click.option("--paths", default=4, show_default=True, help="Disjoint paths of a lookup.")
@click.option("--lookups", default=1000, show_default=True, help="How many lookups.")
@seed_option
@json_option
def overlay_command(
    nodes: int, dead: float, hostile: float, kind: str, paths: int, lookups: int, seed: int, as_json: bool
) -> None:
    """Lookups in a large overlay: do they find the node, and exactly the nearest 20?

    Nodes join one through another with the code that real nodes run; then some die or turn hostile, and living honest
    nodes look for one another. Exit status 1: without hostile nodes fewer than 99.9 % of lookups found their node, or
    fewer than 99 % exactly the nearest 20.
    """
    from stook.sim.overlay import Setting, overlay

    begun = time.monotonic()
    try:
        setting = Setting(seed, nodes=nodes, dead=dead, hostile=hostile, kind=kind, paths=paths, lookups=lookups)
        result = {**overlay(setting), "seconds": round(time.monotonic() - begun, 1)}
    except ValueError as error:
        raise UserError(str(error)) from None
    if as_json:
        emit(result)
    else:
        say(f"{nodes:,} nodes, {dead:.0%} dead, {hostile:.0%} hostile ({kind}), {paths} paths, seed {seed}")
        say(f"  found                    {result['success']:.2%} of {lookups:,} lookups")
        say(f"  exactly the nearest 20   {result['exact_k']:.2%}")
        say(f"  hops                     {result['hops_mean']:.2f}, at most {result['hops_max']}")
        say(f"  requests                 {result['messages_mean']:.1f}")
        say(f"  virtual seconds          {result['lookup_seconds_mean']:.2f}")
        say(f"  contacts in a table      {result['contacts_mean']:.0f}")
    if not hostile and (result["success"] < 0.999 or result["exact_k"] < 0.99):
        sys.exit(NOT_SHOWN)


@sim_command.command("honesty")
@click.option("--farmers", default=300, show_default=True, help="How many farmers, liars included.")
@click.option("--days", default=90, show_default=True, help="How many virtual days.")
@click.option("--objects", default=80, show_default=True, help="Objects stored, a segment each.")
@click.option("--code", default="10/30", show_default=True, help="K/N or K/R/O/N.")
@seed_option
@json_option
def honesty_command(farmers: int, days: int, objects: int, code: str, seed: int, as_json: bool) -> None:
    """Three months on a bad line with a cast of liars: nobody honest is condemned, every liar is named.

    One message in twenty is lost; farmers restart, are away for up to five days, lose half of a disk; clocks are off by
    up to a minute. The full size takes some minutes.
    """
    from stook.sim.honesty import Setting, honesty

    try:
        result = honesty(Setting(seed, farmers=farmers, days=days, objects=objects, code=code))
    except ValueError as error:
        raise UserError(str(error)) from None
    if as_json:
        emit(result)
    else:
        say(
            f"{farmers} farmers, {days} days, {result['signatures']} signatures: {result['restarts']} restarts, "
            f"{result['absences']} absences, {result['chunks_lost']:,} of {result['chunks']:,} chunks lost for good."
        )
        for liar in result["liars"]:
            say(f"  {liar['liar']:<36}{liar['as'] or 'NOT NAMED':<32}{liar['after_days']:>6.1f} days")
        say(
            f"Honest farmers condemned: {result['honest_condemned']} of {result['honest']}; taken for gone: "
            f"{result['honest_gone']}. Objects lost: {result['lost']} of {objects}."
        )
    if not result["ok"]:
        sys.exit(NOT_SHOWN)


@sim_command.command("churn")
@click.option("--farmers", default=200, show_default=True, help="How many farmers; newcomers replace who leaves.")
@click.option("--months", default=12, show_default=True, help="How many virtual months of 30 days.")
@click.option("--churn", "share", default=0.1, show_default=True, help="Share of farmers that leaves in a month.")
@click.option("--code", default="10/30", show_default=True, help="K/N or K/R/O/N.")
@click.option("--objects", default=40, show_default=True, help="Objects stored, a segment each.")
@seed_option
@json_option
def churn_command(farmers: int, months: int, share: float, code: str, objects: int, seed: int, as_json: bool) -> None:
    """Months in which farmers leave without a word: what is lost, and what repair costs.

    repair_ratio is shard bytes placed anew for each byte stored and month. Exit status 1 when an object was lost or a
    living farmer condemned. The full size takes some minutes.
    """
    from stook.sim.churn import Setting, churn

    try:
        result = churn(Setting(seed, farmers=farmers, months=months, churn=share, code=code, objects=objects))
    except ValueError as error:
        raise UserError(str(error)) from None
    if as_json:
        emit(result)
    else:
        say(
            f"{farmers} farmers, {months} months, {share:.0%} leave each month ({result['departed']} did), code "
            f"{result['code']}, {result['signatures']} signatures."
        )
        say(f"  objects lost                  {result['lost']} of {objects}")
        say(f"  fewest shards alive           {result['fewest_shards_alive']} of a segment")
        say(f"  repaired, of what is stored   {result['repair_ratio']:.1%} a month")
        say(f"  from rates alone              {result['repair_ratio_foretold']:.1%}")
        say(f"  living farmers condemned      {result['false_positives']}")
    if result["lost"] or result["false_positives"]:
        sys.exit(NOT_SHOWN)
