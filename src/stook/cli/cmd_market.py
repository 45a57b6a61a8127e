"""`stook market`: ask the open market for offers, and watch them come."""

from __future__ import annotations

import asyncio
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stook.cli.output import emit, plural, say, warn
from stook.cli.renting import home_passphrase
from stook.cli.run import json_option, pass_home, run
from stook.errors import NotEnoughError, UserError, named

if TYPE_CHECKING:
    from stook.renter.agent import LocalAgent
    from stook.renter.market import Heard, Solicited

NEIGHBOURS_FIRST_SECONDS = 5.0


def event(heard: Heard) -> dict[str, Any]:
    """One thing that was heard, for programs."""
    found: dict[str, Any] = {
        "event": heard.event,
        "farmer": heard.farmer.hex(),
        "storage_price_per_gib_hour": heard.storage_price_per_gib_hour,
        "download_price_per_gib": heard.download_price_per_gib,
    }
    if heard.event == "offer":
        found |= {
            "round": heard.round,
            "count": heard.count,
            "answer": "kept" if not heard.code else "countered" if heard.countered else "refused",
            "code": named(heard.code) if heard.code else None,
            "detail": heard.detail,
        }
    return found


def line(heard: Heard) -> str:
    """The same for people."""
    who = f"{heard.farmer.hex()[:16]}  {heard.storage_price_per_gib_hour:>14,}  {heard.download_price_per_gib:>14,}"
    if heard.event == "capacity":
        return f"{who}  has room"
    if not heard.code:
        return f"{who}  kept, for {plural(heard.count, 'contract')}"
    if heard.countered:
        return f"{who}  {named(heard.code)}: asked for less"
    return f"{who}  {named(heard.code)}: {heard.detail}"


def summary(results: list[Solicited]) -> dict[str, Any]:
    """What came of it."""
    prices = sorted(kept.prices.storage_price_per_gib_hour for one in results for kept in one.kept.values())
    refused: dict[str, int] = {}
    for one in results:
        for code, count in sorted(one.refused.items()):
            refused[named(code)] = refused.get(named(code), 0) + count
    return {
        "event": "summary",
        "solicitations": len(results),
        "publications": sum(one.published for one in results),
        "offers": sum(one.offers for one in results),
        "kept": len(prices),
        "refused": refused,
        "storage_price_lowest": prices[0] if prices else None,
        "storage_price_median": statistics.median_low(prices) if prices else None,
        "storage_price_highest": prices[-1] if prices else None,
        "seconds": round(sum(one.seconds for one in results), 3),
    }


async def watch(
    agent: LocalAgent, *, shard_bytes: int, count: int, offers: int, seconds: float, follow: bool, show: Any
) -> list[Solicited]:
    """Solicit once, or again and again until interrupted; what came of each."""
    market = agent.market
    if market is None:
        raise UserError("offers cannot be heard: the address under [node] is taken; stop the agent that uses it")
    market.watcher = show
    async with asyncio.timeout(NEIGHBOURS_FIRST_SECONDS):
        await market.pubsub.gossip()
    results: list[Solicited] = []
    gossip = asyncio.create_task(market.pubsub.chore.run())
    try:
        while True:
            results.append(await market.solicit(shard_bytes, count, offers_wanted=offers, seconds=seconds))
            if not follow:
                return results
            await asyncio.sleep(seconds)
    finally:
        gossip.cancel()
        await asyncio.gather(gossip, return_exceptions=True)


@click.command("market")
@click.option("--shard-size", default="1 MiB", show_default=True, help="Of each contract: a step from 16 KiB to 4 MiB.")
@click.option("--count", default=10, show_default=True, help="Contracts asked of each farmer, 1 to 256.")
@click.option("--offers", default=24, show_default=True, help="Farmers whose offers are heard, 1 to 64.")
@click.option("--seconds", default=15.0, show_default=True, help="How long offers are waited for, at most 120.")
@click.option("--follow", is_flag=True, help="Ask again and again until interrupted.")
@json_option
@pass_home
def market_command(
    home: Path, shard_size: str, count: int, offers: int, seconds: float, follow: bool, as_json: bool
) -> None:
    """Ask the open market for offers, and watch prices as they come.

    A draft of what this renter stores (length of contracts and price limits of its settings) is published to farmers
    that nobody named; those that want it call back with a price, and are answered as the agent would: kept, asked for
    less, or refused with a reason. No contract is made. Farmers that announce room meanwhile are shown too. What is
    learned stays in the table that uploads choose from. Prices are in smallest units: for a GiB and hour stored, and
    for a GiB sent. --json prints one object a line, a summary last. Exit status 7 when nobody made an offer.
    """
    from stook.assembly import open_agent
    from stook.config import parse_size
    from stook.contracts.market import MAX_ANSWER_MS, MAX_OFFERS
    from stook.contracts.messages import MAX_BATCH
    from stook.shards.geometry import LADDER

    shard_bytes = parse_size(shard_size)
    if shard_bytes not in LADDER:
        raise UserError(f"{shard_size!r} is no shard size: powers of two from 16 KiB to 4 MiB")
    if not (1 <= count <= MAX_BATCH and 1 <= offers <= MAX_OFFERS and 0 < seconds <= MAX_ANSWER_MS / 1000):
        raise UserError(f"1 to {MAX_BATCH} contracts, 1 to {MAX_OFFERS} offers, up to {MAX_ANSWER_MS // 1000} seconds")

    def show(heard: Heard) -> None:
        if as_json:
            emit(event(heard))
        else:
            say(line(heard))

    async def work() -> list[Solicited]:
        async with open_agent(home, passphrase=home_passphrase(home), market=True) as agent:
            return await watch(
                agent,
                shard_bytes=shard_bytes,
                count=count,
                offers=offers,
                seconds=seconds,
                follow=follow,
                show=show,
            )

    if not as_json and sys.stdout.isatty():
        warn(f"{'farmer':<16}  {'stored':>14}  {'sent':>14}")
    found = summary(run(work()))
    if as_json:
        emit(found)
    else:
        why = "".join(f"; {count} {code}" for code, count in found["refused"].items())
        warn(f"{plural(found['offers'], 'offer')} in {found['seconds']:.1f} s, {found['kept']} kept{why}.")
        if found["kept"]:
            low, middle, high = (found[f"storage_price_{word}"] for word in ("lowest", "median", "highest"))
            warn(f"Storage from {low:,} to {high:,}, half of the offers up to {middle:,}.")
    if not found["kept"]:
        raise NotEnoughError("no offer was kept: see that farmers are known (`stook farmers`) and what prices allow")
