"""`stook farmers`: who is known, what they ask, and why some get nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stook.cli.local_tree import shown
from stook.cli.output import emit, human_duration, human_size, plural, say, warn
from stook.cli.placing import refusals, shortage
from stook.cli.renting import home_passphrase
from stook.cli.run import json_option, pass_home, run

if TYPE_CHECKING:
    from stook.config import RentSettings
    from stook.contracts.announcement import Announcement
    from stook.renter.agent import LocalAgent
    from stook.renter.standing import Standing

_STALE = "has not been heard of for a day"


@dataclass(frozen=True, slots=True)
class FarmerRow:
    """One farmer as listed."""

    node_id: str
    address: str
    announcement: Announcement
    standing: Standing
    weight: float
    age_seconds: float
    rests_seconds: float
    refused: str
    """Why it would get no shard now; empty when it would."""

    def as_dictionary(self) -> dict[str, Any]:
        """For programs."""
        offer = self.announcement
        return {
            "node_id": self.node_id,
            "address": self.address,
            "free_bytes": offer.free_bytes,
            "capacity_bytes": offer.capacity_bytes,
            "storage_price_per_gib_hour": offer.storage_price_per_gib_hour,
            "download_price_per_gib": offer.download_price_per_gib,
            "min_duration_ms": offer.min_duration_ms,
            "max_duration_ms": offer.max_duration_ms,
            "operator": offer.operator,
            "failure_domain": offer.failure_domain,
            "standing": round(self.weight, 4),
            "rests_seconds": round(self.rests_seconds, 1),
            "upload_bytes_per_second": round(self.standing.upload_speed),
            "download_bytes_per_second": round(self.standing.download_speed),
            "heard_seconds_ago": round(self.age_seconds, 1),
            "refused": self.refused or None,
        }


async def rows(agent: LocalAgent, rent: RentSettings, now_ms: int) -> list[FarmerRow]:
    """Every farmer known, by address."""
    refused = await refusals(agent, rent, now_ms)
    fresh = {candidate.node_id for candidate in agent.candidates()}
    found = []
    for node_id in agent.book.farmers():
        signed = agent.book.announcement(node_id)
        if signed is None:
            continue
        contact, standing = signed.announcement.contact.contact, agent.book.standing(node_id)
        address = contact.addresses[0]
        found.append(
            FarmerRow(
                node_id=node_id.hex(),
                address=f"{address.host}:{address.port}",
                announcement=signed.announcement,
                standing=standing,
                weight=agent.book.candidate(node_id).weight,
                age_seconds=max(0, now_ms - signed.announcement.issued_ms) / 1000,
                rests_seconds=max(0, standing.avoid_until_ms - now_ms) / 1000,
                refused=refused.get(node_id, "") if node_id in fresh else _STALE,
            )
        )
    return sorted(found, key=lambda row: (row.address, row.node_id))


def _print(row: FarmerRow) -> None:
    offer = row.announcement
    say(f"{row.node_id[:16]}  {row.address}  {human_size(offer.free_bytes)} free of {human_size(offer.capacity_bytes)}")
    who = [f"operator {shown(offer.operator)}" if offer.operator else "operator unknown"]
    if offer.failure_domain:
        who.append(f"failure domain {shown(offer.failure_domain)}")
    who.append(
        f"asks {offer.storage_price_per_gib_hour:,} per GiB and hour, {offer.download_price_per_gib:,} per GiB sent"
    )
    say(f"    {'; '.join(who)}")
    words = [f"standing {row.weight:.0%}", f"heard of {human_duration(row.age_seconds)} ago"]
    if row.rests_seconds:
        words.append(f"failed lately, asked again in {human_duration(row.rests_seconds)}")
    say(f"    {'; '.join(words)}")
    if row.refused:
        say(f"    gets no shard now: it {row.refused}")


@click.command("farmers")
@json_option
@pass_home
def farmers_command(home: Path, as_json: bool) -> None:
    """List the farmers known.

    Seeds and farmers are asked for news first. Prices are in smallest units, and 0 means nothing is asked. Standing is
    the share of dealings that went well, old ones fading: it weighs when shards are placed. Room, prices, operator and
    failure domain are the farmer's own word. A farmer that would get no shard now is listed with the reason. --json
    prints one line for each.
    """
    from stook.assembly import SystemClock, open_agent
    from stook.config import load_settings

    rent = load_settings(home).rent

    async def work() -> tuple[list[FarmerRow], str]:
        async with open_agent(home, passphrase=home_passphrase(home)) as agent:
            now_ms = SystemClock().now_ms()
            return await rows(agent, rent, now_ms), await shortage(agent, rent, now_ms)

    found, lack = run(work())
    for row in found:
        if as_json:
            emit(row.as_dictionary())
        else:
            _print(row)
    if as_json:
        return
    if not found:
        warn("No farmer is known: name one under `seeds` in config.toml, and see that it runs.")
        return
    fit = sum(not row.refused for row in found)
    warn(f"{plural(len(found), 'farmer')} known, {fit:,} of which could get a shard now.")
    if lack:
        warn(f"A new segment would not get all its shards: {lack}.")
