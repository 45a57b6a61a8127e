"""`stook status`: is everything there, and how much may be lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stook.cli.catalogued import moment
from stook.cli.local_tree import shown
from stook.cli.output import emit, human_size, plural, say
from stook.cli.placing import shortage
from stook.cli.proved import bucket_fields, bucket_words
from stook.cli.renting import open_home
from stook.cli.run import json_option, pass_home, run
from stook.errors import NotEnoughError

NAMES_SHOWN = 10

if TYPE_CHECKING:
    from stook.assembly import Renter
    from stook.shards.geometry import Policy


def may_be_lost(policy: Policy, spread: str) -> str:
    """What a policy survives, in a sentence."""
    lost = policy.n - policy.k
    if not lost:
        return "No farmer may be lost: every shard is needed. More farmers make it safer."
    text = f"Any {policy.k} of a segment's {policy.n} shards bring it back, so {plural(lost, 'farmer')} may be lost."
    if spread == "strict":
        held = max(1, policy.k - 1)
        return text + f" No operator, network or failure domain holds more than {plural(held, 'shard')} of a segment."
    if spread == "domains":
        held = max(1, policy.k - 1)
        text += f" No operator or failure domain holds more than {plural(held, 'shard')} of a segment."
        return text + " Farmers on one line may be lost together: spread is set to domains."
    return text + " Farmers that share a machine or a line may be lost together: spread is set to farmers."


def reason(policy: Policy, code: str, farmers: int, domains: int, spread: str) -> str:
    """Why this policy is in force, in a sentence."""
    if not code:
        if spread == "farmers":
            return f"chosen for {plural(domains, 'farmer')} that answered lately"
        groups = "independent group" if domains == 1 else "independent groups"
        by = "operator, failure domain" if spread == "domains" else "operator, network, failure domain"
        return f"chosen for {plural(farmers, 'farmer')} in {domains:,} {groups} ({by})"
    short = "" if domains >= policy.n else f", for which {policy.n} independent farmers are needed and {domains} known"
    return f"set by `code` in config.toml{short}"


async def _policy(renter: Renter) -> dict[str, Any]:
    from stook.assembly import SystemClock
    from stook.renter.planner import Spread, independent_domains

    rent = renter.settings.rent
    candidates = renter.agent.candidates()
    domains = independent_domains(candidates, Spread(rent.spread))
    try:
        placement = await renter.agent.policy()
    except NotEnoughError as error:
        return {"policy": None, "why": str(error), "independent_farmers": domains}
    policy = placement.policy
    return {
        "policy": {"k": policy.k, "r": policy.r, "o": policy.o, "n": policy.n, "spares": placement.spares},
        "why": reason(policy, rent.code, len(candidates), domains, rent.spread),
        "may_be_lost": may_be_lost(policy, rent.spread),
        "independent_farmers": domains,
        "shortage": await shortage(renter.agent, rent, SystemClock().now_ms()) or None,
    }


async def gather(renter: Renter) -> dict[str, Any]:
    """Everything, for programs."""
    status = await renter.client.status()
    agent = status.agent
    return (
        {
            "ok": agent.segments_unreadable == 0 and status.segments_unknown == 0,
            "network": renter.settings.node.network,
            "buckets": {
                name: {"objects": totals.objects, "size_bytes": totals.size_bytes} | bucket_fields(status.proofs[name])
                for name, totals in status.buckets.items()
            },
            "objects": sum(totals.objects for totals in status.buckets.values()),
            "size_bytes": sum(totals.size_bytes for totals in status.buckets.values()),
            "segments": agent.segments,
            "segments_below_n": agent.segments_below_n,
            "segments_below_r": agent.segments_below_r,
            "segments_unreadable": agent.segments_unreadable,
            "segments_unknown": status.segments_unknown,
            "shards_stored": agent.shards_stored,
            "shards_claimed": agent.shards_claimed,
            "shards_to_cancel": agent.shards_to_cancel,
            "segments_proved": {
                "whole": agent.proved_whole,
                "below_n": agent.proved_below_n,
                "below_r": agent.proved_below_r,
                "below_k": agent.proved_below_k,
            },
            "repairs_waiting": agent.repairs_waiting,
            "audits_last_day": {
                "passed": agent.audits_passed,
                "failed": agent.audits_failed,
                "silent": agent.audits_silent,
            },
            "farmers_contained": agent.farmers_contained,
            "farmers_gone": agent.farmers_gone,
            "farmers_condemned": agent.farmers_condemned,
            "stored_bytes": agent.stored_bytes,
            "farmers_known": agent.farmers_known,
            "farmers_fresh": len(renter.agent.candidates()),
            "farmers_used": agent.farmers_used,
        }
        | await _saved(renter)
        | await _policy(renter)
    )


async def _saved(renter: Renter) -> dict[str, Any]:
    """How much of the catalog the 24 words would bring back."""
    saver = renter.client.saver
    if saver is None:
        return {}
    state, unsaved = await saver.state(), await saver.unsaved(NAMES_SHOWN)
    return ({"ok": False} if state.alarm else {}) | {
        "catalog": {
            "saved_ms": state.saved_ms,
            "epoch": state.epoch,
            "alarm": state.alarm,
            "unsaved_objects": unsaved.objects,
            "unsaved_bytes": unsaved.size_bytes,
            "unsaved_names": [f"{bucket}/{name}" for bucket, name in unsaved.names],
            "segments": len(await saver.segments()),
            "recoverable": not unsaved.pressing and bool(state.saved_ms),
        }
    }


def verdict(status: dict[str, Any]) -> str:
    """The one sentence to read."""
    if status["segments_unknown"]:
        lost = plural(status["segments_unknown"], "segment")
        return f"the agent knows nothing of {lost} of our objects: run `stook agent sync`, which asks the farmers"
    if status["segments"] and not status["objects"]:
        kept = plural(status["segments"], "segment")
        return f"farmers keep {kept} that no object here names: is this the catalog.db it was, or an upload under way?"
    if not status["segments"]:
        return "nothing is stored at farmers yet"
    if status["segments_unreadable"]:
        unreadable = plural(status["segments_unreadable"], "segment")
        return f"{unreadable} cannot be read unless farmers come back"
    if status["segments_below_r"]:
        return f"{plural(status['segments_below_r'], 'segment')} should be filled soon: run `stook agent run`"
    if status["segments_below_n"]:
        return "everything can be read; some shards are missing, `stook agent run` fills them"
    return "everything can be read, and every segment has all its shards"


def _print(status: dict[str, Any]) -> None:
    say(f"Renter in network {status['network']}: {verdict(status)}.")
    say(f"  objects    {status['objects']:,}, {human_size(status['size_bytes'])}")
    for name, totals in status["buckets"].items():
        say(f"             {plural(totals['objects'], 'object')}, {human_size(totals['size_bytes'])} in {shown(name)}")
        if totals["objects"]:
            say(f"               {bucket_words(totals)}")
    say(
        f"  segments   {status['segments']:,}: {status['segments_below_n']:,} below n, "
        f"{status['segments_below_r']:,} below r, {status['segments_unreadable']:,} unreadable"
    )
    _print_catalog(status["catalog"])
    size = human_size(status["stored_bytes"])
    say(f"  shards     {status['shards_stored']:,} stored, {size}; {status['shards_to_cancel']:,} to be erased")
    say(
        f"  farmers    {status['farmers_known']:,} known, {status['farmers_fresh']:,} heard of within a day"
        + (f"; {status['farmers_used']:,} with shards of ours" if status["shards_stored"] else "")
    )
    _print_audits(status)
    policy = status["policy"]
    if policy is None:
        say(f"  new data   cannot be stored: {status['why']}")
        return
    spares = f" and {plural(policy['spares'], 'spare')}" if policy["spares"] else ""
    say(f"  new data   {policy['k']} of {policy['n']}{spares}: {status['why']}")
    say(f"             durable at {policy['o']} receipts, refilled below {policy['r']}")
    say(f"             {status['may_be_lost']}")
    if status["shortage"]:
        say(f"             Just now there is no room for all of it: {status['shortage']}.")


def _print_catalog(catalog: dict[str, Any]) -> None:
    if catalog["alarm"]:
        say(f"  ALARM      {catalog['alarm']}")
    if catalog["recoverable"]:
        say(f"  catalog    saved {moment(catalog['saved_ms'])}: the 24 words bring back every name")
        return
    if not catalog["unsaved_objects"]:
        since = f" since {moment(catalog['saved_ms'])}" if catalog["saved_ms"] else ""
        say(f"  catalog    not saved{since}: `stook catalog save`")
        return
    count, size = plural(catalog["unsaved_objects"], "object"), human_size(catalog["unsaved_bytes"])
    names = ", ".join(shown(name) for name in catalog["unsaved_names"])
    more = ", …" if catalog["unsaved_objects"] > len(catalog["unsaved_names"]) else ""
    say(f"  catalog    {count}, {size}, durable and not recoverable yet: {names}{more}")
    say("             `stook catalog save` saves it now")


def _print_audits(status: dict[str, Any]) -> None:
    proved, audits = status["segments_proved"], status["audits_last_day"]
    if status["segments"]:
        say(
            f"  proved     {proved['whole']:,} segments whole, {proved['below_n']:,} below n, {proved['below_r']:,} "
            f"below r, {proved['below_k']:,} below k; {status['repairs_waiting']:,} to repair"
        )
    say(f"  audits     {audits['passed']:,} passed, {audits['failed']:,} failed, {audits['silent']:,} silent in a day")
    odd = [
        f"{status[f'farmers_{state}']:,} {words}"
        for state, words in (("contained", "silent"), ("gone", "gone"), ("condemned", "condemned"))
        if status[f"farmers_{state}"]
    ]
    if odd:
        say(f"             of the farmers {', '.join(odd)}: see `stook farmers`")


@click.command("status")
@json_option
@pass_home
def status_command(home: Path, as_json: bool) -> None:
    """Show what is stored, and how safely.

    And how new data will be stored, the policy: any k shards of a segment bring it back; below r it is refilled first;
    at o signed receipts an object exists; n shards are what it is filled up to. Stored are the shards whose farmers
    signed for them; proved are those that were signed for, or part of a passed audit, within four weeks, at farmers
    that are not silent. Farmers are asked for news, and whoever does not answer is passed over; proof is asked for by
    `stook agent run`. Under each bucket stands what restore drills (`stook drill`) proved: the oldest and the newest
    proof of an object, and how many have none.
    """

    async def work() -> None:
        async with open_home(home, refresh=True) as renter:
            status = await gather(renter)
            if as_json:
                emit(status)
            else:
                _print(status)

    run(work())
