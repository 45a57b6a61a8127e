"""`stook farmers`: who is known, what they ask, and why some get nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stook.cli.local_tree import shown
from stook.cli.output import emit, human_duration, human_size, plural, say, warn
from stook.cli.placing import refusals, shortage
from stook.cli.renting import home_passphrase
from stook.cli.run import json_option, pass_home, run
from stook.errors import NotFoundError, UserError

if TYPE_CHECKING:
    from stook.audits.score import FarmerScore, Movement
    from stook.config import RentSettings
    from stook.contracts.announcement import Announcement
    from stook.ids import NodeId
    from stook.renter.agent import LocalAgent
    from stook.renter.farmer_record import FarmerRecord
    from stook.renter.standing import Standing
    from stook.storage.agent_audit_ports import Dossier


def scores(score: FarmerScore, now_ms: int) -> dict[str, float]:
    """The four scores by name: chances, and bytes per second."""
    from stook.audits.score import Trait

    return {trait.value: round(score.value(trait, now_ms), 4) for trait in Trait}


_STALE = "has not been heard of for a day"


@dataclass(frozen=True, slots=True)
class FarmerRow:
    """One farmer as listed."""

    node_id: str
    address: str
    announcement: Announcement
    standing: Standing
    weight: float
    dossier: Dossier
    now_ms: int
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
            "weight": round(self.weight, 4),
            **scores(self.dossier.score, self.now_ms),
            "silence": self.dossier.silence.state.value,
            "crime": self.dossier.score.crime.value if self.dossier.score.crime else None,
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
                dossier=agent.book.dossier(node_id),
                now_ms=now_ms,
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
    known = scores(row.dossier.score, row.now_ms)
    words = [f"{trait} {known[trait]:.0%}" for trait in ("audit", "availability", "retrieval")]
    words += [f"weight {row.weight:.0%}", f"heard of {human_duration(row.age_seconds)} ago"]
    if row.rests_seconds:
        words.append(f"failed lately, asked again in {human_duration(row.rests_seconds)}")
    say(f"    {'; '.join(words)}")
    if row.refused:
        say(f"    gets no shard now: it {row.refused}")


@click.group("farmers", invoke_without_command=True)
@json_option
@pass_home
@click.pass_context
def farmers_command(context: click.Context, home: Path, as_json: bool) -> None:
    """List the farmers known, or show one.

    Seeds and farmers are asked for news first. Prices are in smallest units, and 0 means nothing is asked. Three scores
    are chances: that the next audit passes, that the farmer is there, that it gives back what it was given; a newcomer
    has 75 % of each. Their product, less for slow farmers and for those that lately took no shards, is its weight when
    shards are placed. Room, prices, operator and failure domain are the farmer's own word. A farmer that would get no
    shard now is listed with the reason. --json prints one line for each.
    """
    if context.invoked_subcommand is not None:
        return
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


def the_farmer(agent: LocalAgent, prefix: str) -> NodeId:
    """The farmer whose id begins so. Raises `NotFoundError`, and `UserError` when there are several."""
    known = {*agent.book.farmers(), *(each.farmer for each in agent.book.dossiers())}
    found = sorted(node_id for node_id in known if node_id.hex().startswith(prefix.lower()))
    if not found:
        raise NotFoundError(f"no farmer with an id that begins with {prefix!r} is known: see `stook farmers`")
    if len(found) > 1:
        raise UserError(f"{len(found)} farmers have ids that begin with {prefix!r}: write more of it")
    return found[0]


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def facts_as_dictionary(facts: FarmerRecord, now_ms: int) -> dict[str, Any]:
    """For programs."""
    dossier, silence = facts.dossier, facts.dossier.silence
    return {
        "node_id": dossier.farmer.hex(),
        "scores": scores(dossier.score, now_ms),
        "crime": dossier.score.crime.value if dossier.score.crime else None,
        "condemned_ms": dossier.score.condemned_ms or None,
        "losses": round(dossier.score.losses.at(now_ms), 4),
        "rests": dossier.score.resting(now_ms),
        "silence": {
            "state": silence.state.value,
            "since_ms": silence.since_ms or None,
            "question_open": bool(silence.question),
            "attempts": silence.attempts,
            "mutes": silence.mutes,
            "silent_ms": silence.silent_ms,
            "asked_again_ms": silence.next_due_ms or None,
        },
        "next_round_ms": dossier.next_due_ms or None,
        "heard_ms": dossier.heard_ms or None,
        "shards": {state.name.lower(): count for state, count in sorted(facts.placements.items())},
        "shards_never_audited": facts.unaudited,
        "shards_declared_lost": facts.losses,
        "stored_bytes": facts.stored_bytes,
        "movements": [
            {
                "score": move.trait.value,
                "what": move.what,
                "first_ms": move.first_ms,
                "last_ms": move.last_ms,
                "times": move.times,
                "before": round(move.before, 6),
                "after": round(move.after, 6),
            }
            for move in facts.explanation.movements
        ],
        "rounds": [
            {
                "challenge": kept.challenge.hex(),
                "judged_ms": kept.judged_ms,
                "outcome": kept.outcome.name.lower(),
                "shards": len(kept.file.lines),
                "receipt_delivered": kept.sent,
            }
            for kept in facts.rounds
        ],
    }


def _movement(move: Movement) -> str:
    from stook.audits.score import Trait

    times = f", {move.times:,} times since {_when(move.first_ms)}" if move.times > 1 else ""
    if move.trait is Trait.SPEED:
        change = f"{human_size(round(move.before))}/s to {human_size(round(move.after))}/s"
    else:
        change = f"{move.before:.1%} to {move.after:.1%}"
    return f"  {_when(move.last_ms)}  {move.trait.value:<12} {change}: {move.what}{times}"


def _print_facts(facts: FarmerRecord, now_ms: int) -> None:
    from stook.audits.containment import Silence

    dossier, silence = facts.dossier, facts.dossier.silence
    known = scores(dossier.score, now_ms)
    chances = ", ".join(f"{trait} {known[trait]:.1%}" for trait in ("audit", "availability", "retrieval"))
    say(f"{dossier.farmer.hex()}  {chances}, speed {human_size(round(known['speed']))}/s")
    if dossier.score.crime is not None:
        say(f"  condemned since {_when(dossier.score.condemned_ms)}: {dossier.score.crime.value}")
    elif silence.state is not Silence.CLEAR:
        asked = f", asked {silence.attempts:,} times in vain" if silence.attempts else ""
        say(f"  {silence.state.value} since {_when(silence.since_ms)}{asked}")
    if dossier.score.resting(now_ms):
        say(f"  rests: it lost {dossier.score.losses.at(now_ms):.1f} holdings, faded")
    counts = ", ".join(f"{count:,} {state.name.lower()}" for state, count in sorted(facts.placements.items()))
    say(f"  shards: {counts or 'none'}; {human_size(facts.stored_bytes)}; {facts.unaudited:,} never audited")
    if facts.losses:
        say(f"  it declared {plural(facts.losses, 'shard')} lost")
    for kept in facts.rounds:
        say(f"  {_when(kept.judged_ms)}  round of {plural(len(kept.file.lines), 'shard')}: {kept.outcome.name.lower()}")
    say(
        "What moved its scores (in between they fade towards 75 %):"
        if facts.explanation.movements
        else "No score moved."
    )
    for move in facts.explanation.movements:
        say(_movement(move))


@farmers_command.command("show")
@click.argument("farmer")
@json_option
@pass_home
def show_command(home: Path, farmer: str, as_json: bool) -> None:
    """Show what is known of one FARMER, given by its id or the beginning of it, and what moved its scores.

    Its scores and why they are what they are, whether it is silent or condemned, the shards it holds, what it lost, and
    the latest audits. Like events that follow each other are one line. Times are UTC. Nobody is asked.
    """
    from stook.assembly import SystemClock, open_agent

    async def work() -> FarmerRecord:
        async with open_agent(home, passphrase=home_passphrase(home), refresh=False) as agent:
            return await agent.knows_of(the_farmer(agent, farmer))

    facts, now_ms = run(work()), SystemClock().now_ms()
    if as_json:
        emit(facts_as_dictionary(facts, now_ms))
    else:
        _print_facts(facts, now_ms)
