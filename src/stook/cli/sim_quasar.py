"""`stook sim quasar`: publish and subscribe among thousands of simulated nodes."""

from __future__ import annotations

import sys

import click

from stook.cli.output import emit, say
from stook.cli.run import json_option
from stook.errors import UserError

ENOUGH = 0.95
"""Below this share of subscribers reached the command ends with status 1."""


@click.command("quasar")
@click.option("--nodes", default=1_000, show_default=True, help="How many nodes.")
@click.option("--topics", default=81, show_default=True, help="How many topics, 1 to 162.")
@click.option("--subscriptions", default=3, show_default=True, help="Topics that each node wants, drawn by chance.")
@click.option("--publications", default=200, show_default=True, help="How many are published, by strangers.")
@click.option("--dead", default=0.0, show_default=True, help="Share of nodes that vanish before that, unnoticed.")
@click.option("--links", default=8, show_default=True, help="Neighbours that each node asks for.")
@click.option("--fanout", default=4, show_default=True, help="Neighbours that a node passes a publication to.")
@click.option("--ttl", default=20, show_default=True, help="Hops that a publication may make, at most 20.")
@click.option("--nearest", is_flag=True, help="Neighbours are the nearest by XOR, as in the white paper.")
@click.option("--paper-filters", is_flag=True, help="Filters of 160 bits and 2 hashes, as in the white paper.")
@click.option("--seed", default=1, show_default=True, help="One seed gives one history, everywhere.")
@json_option
def quasar_command(
    nodes: int,
    topics: int,
    subscriptions: int,
    publications: int,
    dead: float,
    links: int,
    fanout: int,
    ttl: int,
    nearest: bool,
    paper_filters: bool,
    seed: int,
    as_json: bool,
) -> None:
    """How many subscribers a publication reaches, over how many hops, and how many messages that costs.

    The nodes decide with the code of real ones. `delivery` is the share of living subscribers reached, `duplicates` the
    share of messages that brought what was known; a renter hands each publication to three nodes. 10,000 nodes take
    half a minute. Exit status 1 when less than 95 % were reached.
    """
    from stook.overlay.bloom import PAPER, STANDARD
    from stook.overlay.publication import MAX_TTL
    from stook.overlay.quasar import QuasarRules
    from stook.sim.quasar import Setting, quasar

    if not 1 <= fanout <= 64 or not 0 <= ttl <= MAX_TTL:
        raise UserError(f"a fanout is 1 to 64, and a publication makes at most {MAX_TTL} hops")
    shape = PAPER if paper_filters else STANDARD
    rules = QuasarRules(shape=shape, fanout=fanout, max_ttl=ttl, links=links, max_neighbours=max(32, 4 * links))
    try:
        setting = Setting(
            seed,
            nodes=nodes,
            topics=topics,
            subscriptions=subscriptions,
            publications=publications,
            dead=dead,
            nearest=nearest,
            rules=rules,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    result = quasar(setting)
    if as_json:
        emit(result)
    else:
        say(f"{nodes:,} nodes with {result['neighbours_mean']:.1f} neighbours, {topics} topics, seed {seed}")
        say(f"  subscribers of a topic    {result['subscribers_mean']:>10,.1f}")
        say(f"  reached                   {result['delivery']:>10.2%}  (worst {result['delivery_worst']:.1%})")
        say(f"  messages a publication    {result['messages_per_publication']:>10,.1f}")
        say(f"  of which brought nothing  {result['duplicates']:>10.1%}")
        say(f"  hops                      {result['hops_mean']:>10.1f}  (most {result['hops_max']})")
        fills = ", ".join(f"{fill:.1%}" for fill in result["filter_fill"])
        false = ", ".join(f"{share:.2%}" for share in result["false_positives"])
        say(f"  filters full to           {fills}")
        say(f"  topics seen falsely       {false}")
    if result["delivery"] < ENOUGH:
        sys.exit(1)
