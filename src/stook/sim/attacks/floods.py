"""Attacks on publish and subscribe: drowning the network in publications."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from stook.identity.keys import NodeKey
from stook.overlay.publication import sign_publication
from stook.sim.attacks.outcome import Attack, Outcome
from stook.sim.dice import Dice
from stook.sim.factories import NETWORK
from stook.sim.quasar import Field, Journey, Setting

NODES = 300
MINUTE_MS = 60_000
FLOOD = 600
"""Publications of the flooder in its minute."""
ENTRIES = 12
"""Nodes to which it hands each."""
HONEST = 30
"""Publications of others in the same minute."""
NAMES = 200
"""Keys of the flooder that has many."""
DELIVERED = 0.95


def publication_flood(seed: int) -> Outcome:
    """Publish a minute long as fast as one can, as a stranger to a dozen nodes; and once more under many names."""
    alone = _flood(seed, names=1)
    many = _flood(seed, names=NAMES)
    limit = 2 * Setting(seed).rules.originator_per_minute
    caught = alone.most_taken <= limit and alone.delivery >= DELIVERED
    detail = (
        f"Of {FLOOD} publications in one minute no node took more than {alone.most_taken}, the average one "
        f"{alone.mean_taken:.0f}; {HONEST} publications of others reached {alone.delivery:.1%} of their subscribers. "
        f"Under {NAMES} names the average node took {many.mean_taken:.0f} of {FLOOD}, and others reached "
        f"{many.delivery:.1%}."
    )
    return Outcome(caught, alone.mean_taken, detail)


class _Flooded:
    """What one minute of flood came to."""

    def __init__(self, taken: Sequence[int], journeys: Sequence[Journey]) -> None:
        self.most_taken = max(taken)
        self.mean_taken = statistics.fmean(taken)
        self.delivery = statistics.fmean(journey.delivery for journey in journeys)


def _flood(seed: int, names: int) -> _Flooded:
    field = Field(Setting(seed, nodes=NODES))
    field.spread()
    dice = Dice(seed).child("flood")
    keys = [field.key() for _ in range(names)]
    honest: list[Journey] = []
    taken: Counter[int] = Counter()
    for number in range(FLOOD):
        field.now_ms += MINUTE_MS // FLOOD
        before = [node.counts.taken for node in field.nodes]
        _hand_in(field, keys[number % names], number, dice)
        for at, node in enumerate(field.nodes):
            taken[at] += node.counts.taken - before[at]
        if number % (FLOOD // HONEST) == 0:
            honest.append(field.publish(field.topics[dice.whole(0, len(field.topics) - 1)], pause_ms=0))
    return _Flooded([taken[at] for at in range(NODES)], honest)


def _hand_in(field: Field, key: NodeKey, number: int, dice: Dice) -> None:
    signed = sign_publication(
        key, network=NETWORK, topic=field.topics[number % 3], contents=number.to_bytes(4, "big"), now_ms=field.now_ms
    )
    field.follow(signed, [field.living(dice) for _ in range(ENTRIES)])


ATTACKS = (
    Attack(
        name="publication-flood",
        paper="",
        goal="drown what others publish in publications of one's own",
        bound="no node takes more than a minute's share of 20 and what runs in meanwhile, 40 in the first minute, and "
        "what others publish reaches 95 % of its subscribers",
        gain_unit="publications that the average node took in the first minute",
        stops="every node counts by originator, and charges who signed; a stranger hands in its own words only. Under "
        "many names it is only dearer: each costs the network's puzzle, and what one neighbour hands on is bounded",
        run=publication_flood,
    ),
)
