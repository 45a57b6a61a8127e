"""`stook stat`: everything about one object."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stook.cli.local_tree import shown
from stook.cli.output import emit, human_size, human_time, plural, say
from stook.cli.proved import proof_fields, proved_words
from stook.cli.remote import REMOTE_OBJECT, RemoteName
from stook.cli.renting import open_home
from stook.cli.run import json_option, pass_home, run

if TYPE_CHECKING:
    from stook.renter.client import ObjectStat, SegmentStat

_HEALTH = ("unreadable", "endangered", "sound", "whole")
"""From worst to best."""
_MEANING = {
    "whole": "all shards are at farmers",
    "sound": "some shards are missing, not enough to matter; the agent fills them",
    "endangered": "few shards can still be lost: run `stook agent run`, or check the farmers",
    "unreadable": "too few shards: it cannot be read unless farmers come back",
}

_PROVEN = {
    "never": "never: `stook drill` would try",
    "failing": "the last drill could not bring all of it back",
}


def health(segment: SegmentStat) -> str:
    """One word for one segment, by its receipted shards."""
    if segment.stored < segment.k:
        return "unreadable"
    if segment.stored < segment.r:
        return "endangered"
    return "whole" if segment.stored >= segment.n else "sound"


def health_of(segments: tuple[SegmentStat, ...]) -> str:
    """That of the worst segment: an object needs them all."""
    return min((health(segment) for segment in segments), key=_HEALTH.index, default="whole")


def as_dictionary(stat: ObjectStat) -> dict[str, object]:
    """For programs."""
    return {
        "ok": True,
        "bucket": stat.bucket,
        "name": stat.name,
        "version": stat.version,
        "size_bytes": stat.size_bytes,
        "modified_ms": stat.modified_ms,
        "mode": f"{stat.mode:04o}",
        "content_hash": stat.content_hash.hex(),
        "health": health_of(stat.segments),
        "segments": [
            {
                "id": segment.segment_id.hex(),
                "k": segment.k,
                "r": segment.r,
                "n": segment.n,
                "stored": segment.stored,
                "health": health(segment),
            }
            for segment in stat.segments
        ],
    } | proof_fields(stat.proof)


def _print(stat: ObjectStat, *, long: bool) -> None:
    say(f"{shown(stat.bucket)}/{shown(stat.name)}")
    say(f"  size      {human_size(stat.size_bytes)} ({stat.size_bytes:,} bytes)")
    say(f"  modified  {human_time(stat.modified_ms)}, mode {stat.mode:04o}")
    say(f"  version   {stat.version}")
    say(f"  hash      {stat.content_hash.hex()}")
    if not stat.segments:
        say("  health    whole: it is empty, so there is nothing to keep at farmers")
        return
    word = health_of(stat.segments)
    say(f"  health    {word}: {_MEANING[word]}")
    say(f"  proven    {_PROVEN.get(proved := proved_words(stat.proof, empty=False), f'restorable {proved}')}")
    for (k, n, stored), count in sorted(Counter((s.k, s.n, s.stored) for s in stat.segments).items()):
        say(f"  segments  {count:,} with {stored} of {n} shards stored, any {k} of which bring it back")
    say(f"  shards    {plural(sum(segment.stored for segment in stat.segments), 'signed receipt')} held")
    if long:
        for segment in stat.segments:
            say(f"    {segment.segment_id.hex()}  {segment.stored:>3} of {segment.n}  {health(segment)}")


@click.command("stat")
@click.argument("remote", metavar="BUCKET/NAME", type=REMOTE_OBJECT)
@click.option("-l", "--long", is_flag=True, help="Every segment on a line of its own.")
@json_option
@pass_home
def stat_command(home: Path, remote: RemoteName, long: bool, as_json: bool) -> None:
    """Show everything about one object.

    Its size, time and mode, and how its segments stand. Stored shards are those whose farmer signed for them; nobody
    is asked again now. An object is as healthy as its worst segment: whole (all n shards), sound (at least r),
    endangered (below r), unreadable (below k). Small objects share a segment with others. Proven restorable is when a
    restore drill last brought every byte of it back.
    """

    async def work() -> None:
        async with open_home(home, refresh=False) as renter:
            stat = await renter.client.stat(remote.bucket, remote.name)
            if as_json:
                emit(as_dictionary(stat))
            else:
                _print(stat, long=long)

    run(work())
