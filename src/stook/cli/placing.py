"""What the planner would say of the next segment, for commands that explain it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from stook.errors import NotEnoughError

if TYPE_CHECKING:
    from stook.config import RentSettings
    from stook.ids import NodeId
    from stook.renter.agent import LocalAgent
    from stook.renter.planner import Demand, Reason

WORDS = {
    "EXCLUDED": "holds a shard already",
    "CONDEMNED": "lied in an audit",
    "SILENT": "does not prove what it holds just now",
    "LOSES_TOO_MUCH": "lost too much too often and rests until that has faded",
    "AVOIDED": "failed lately and rests until later",
    "FULL": "has too little free space",
    "SHARD_TOO_LARGE": "takes no shards of the size needed",
    "TOO_SHORT": "wants a longer contract",
    "TOO_LONG": "wants a shorter contract",
    "TOO_DEAR": "asks more than the price limit",
    "SETTLEMENT": "does not settle the way we pay",
    "OPERATOR_CAP": "belongs to an operator that has its share",
    "NETWORK_CAP": "is in a network that has its share",
    "DOMAIN_CAP": "is in a failure domain that has its share",
}
"""`planner.Reason` of one farmer; goes on from "it"."""


def words(reason: Reason) -> str:
    """Why one farmer is passed over; goes on from "it"."""
    return WORDS[reason.name]


async def next_demand(agent: LocalAgent, rent: RentSettings) -> Demand:
    """What a new segment of the largest size would ask for. Raises `NotEnoughError` when no farmer is known."""
    from stook.config import parse_duration_ms, parse_size
    from stook.renter.planner import Demand, Spread
    from stook.renter.slots import segment_bytes

    placement = await agent.policy()
    return Demand(
        k=placement.policy.k,
        count=placement.policy.n,
        shard_bytes=placement.largest_shape(segment_bytes(parse_size(rent.memory_budget))).shard_bytes,
        duration_ms=parse_duration_ms(rent.contract_duration),
        max_storage_price_per_gib_hour=rent.max_storage_price_per_gib_hour,
        max_download_price_per_gib=rent.max_download_price_per_gib,
        spread=Spread(rent.spread),
    )


async def refusals(agent: LocalAgent, rent: RentSettings, now_ms: int) -> Mapping[NodeId, str]:
    """Why farmers would get no shard now, by farmer; each judged alone, without the caps of its group."""
    from stook.renter.planner import Spread, choose

    candidates = agent.candidates()
    try:
        demand = await next_demand(agent, rent)
    except NotEnoughError:
        return {}
    alone = replace(demand, count=len(candidates), spread=Spread.FARMERS)
    # The order does not matter here, so the dice need not be thrown.
    choice = choose(candidates, alone, at_least=0, now_ms=now_ms, dice=bytes)
    return {rejection.node_id: words(rejection.reason) for rejection in choice.rejected}


async def shortage(agent: LocalAgent, rent: RentSettings, now_ms: int) -> str:
    """Empty when a new segment could get all its shards, caps included; else the sentence that says what is missing."""
    from stook.renter.planner import choose

    try:
        demand = await next_demand(agent, rent)
    except NotEnoughError as error:
        return str(error)
    return choose(agent.candidates(), demand, at_least=0, now_ms=now_ms, dice=bytes).shortage
