"""`stook drill`: prove that what is stored comes back, by bringing it back."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stook.cli.certified import certificate_words, claim_words
from stook.cli.local_tree import shown
from stook.cli.output import emit, human_size, on_terminal, plural, say, warn
from stook.cli.renting import open_home
from stook.cli.run import json_option, pass_home, run, until_stopped
from stook.errors import NotEnoughError

if TYPE_CHECKING:
    from stook.assembly import Renter
    from stook.renter.certificate import SignedCertificate
    from stook.renter.drill import Drilled, DrillReport

_SHOWN = 10


def drill_fields(drilled: Drilled) -> dict[str, Any]:
    """One drill for programs."""
    outcome = drilled.outcome
    return {
        "segment": outcome.segment_id.hex(),
        "passed": outcome.passed,
        "at_ms": outcome.at_ms,
        "bytes": drilled.target.plain_bytes,
        "fetched_bytes": outcome.fetched_bytes,
        "shards_asked": outcome.asked,
        "shards_refused": outcome.refused,
        "failures_in_a_row": 0 if outcome.passed else drilled.target.failures + 1,
        "why": outcome.why or None,
        "refusals": {farmer.hex(): why for farmer, why in drilled.refusals.items()},
    }


def report_fields(report: DrillReport, certificates: dict[str, SignedCertificate]) -> dict[str, Any]:
    """A run for programs."""
    return {
        "ok": not report.failed and not report.offline,
        "drills": report.drills,
        "passed": report.passed,
        "proved_bytes": report.proved_bytes,
        "fetched_bytes": report.fetched_bytes,
        "complete": report.complete,
        "offline": report.offline,
        "failed": [drill_fields(drilled) for drilled in report.failed],
        "refusals": {farmer.hex(): why for farmer, why in report.refusals.items()},
        "unreadable_ppm": {name: signed.certificate.unreadable_ppm for name, signed in certificates.items()},
    }


class _Counter:
    """A line that grows while a person watches."""

    def __init__(self, *, quiet: bool) -> None:
        self._show = on_terminal() and not quiet
        self._drills = self._bytes = self._failed = 0

    def __call__(self, drilled: Drilled) -> None:
        self._drills += 1
        self._failed += not drilled.outcome.passed
        self._bytes += drilled.target.plain_bytes if drilled.outcome.passed else 0
        if self._show:
            text = f"{plural(self._drills, 'drill')}, {human_size(self._bytes)} proved, {self._failed:,} failed"
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)

    def end(self) -> None:
        """Leave the line to others."""
        if self._show and self._drills:
            click.echo("\r\x1b[K", nl=False, err=True)


def _print(report: DrillReport, certificates: dict[str, SignedCertificate]) -> None:
    if report.drills:
        say(
            f"{plural(report.drills, 'drill')}: {human_size(report.proved_bytes)} came back and are what was stored, "
            f"{human_size(report.fetched_bytes)} fetched."
        )
    elif report.complete:
        say("Nothing is stored at farmers, so there is nothing to drill.")
    for drilled in report.failed[:_SHOWN]:
        say(f"  FAILED  segment {drilled.outcome.segment_id.hex()}: {drilled.outcome.why}")
    if len(report.failed) > _SHOWN:
        say(f"  and {len(report.failed) - _SHOWN:,} more")
    for farmer, why in list(report.refusals.items())[:_SHOWN]:
        say(f"  farmer {farmer.hex()[:16]} did not give back what it holds: {why}")
    for name, signed in certificates.items():
        say(f"  {shown(name)}: {claim_words(signed.certificate)}")
    if report.offline:
        warn("No farmer answered at all, so nothing is said of what they hold: is this machine offline?")


async def _certify(renter: Renter, buckets: list[str]) -> dict[str, SignedCertificate]:
    """New certificates of those that have something at farmers."""
    driller = renter.client.driller
    return {name: await driller.certify(name, renter.key) for name in buckets if await driller.pool([name]).targets()}


async def _once(renter: Renter, buckets: tuple[str, ...], budget: int, *, as_json: bool) -> DrillReport:
    known = [bucket.name for bucket in await renter.client.buckets()]
    counter = _Counter(quiet=as_json)
    try:
        report = await renter.client.driller.run(budget, buckets=list(buckets) or None, on_drill=counter)
    finally:
        counter.end()
    certificates = await _certify(renter, list(buckets) or known) if report.drills else {}
    if as_json:
        emit(report_fields(report, certificates))
    else:
        _print(report, certificates)
    return report


async def _continuously(renter: Renter, budget: int, *, as_json: bool) -> None:
    def tell(drilled: Drilled) -> None:
        from stook.renter.drill_plan import REPORTED_AT

        if as_json:
            emit({"event": "drill"} | drill_fields(drilled))
        elif not drilled.outcome.passed and drilled.target.failures + 1 >= REPORTED_AT:
            say(f"segment {drilled.outcome.segment_id.hex()} does not come back: {drilled.outcome.why}")

    def certified(bucket: str, signed: SignedCertificate) -> None:
        if as_json:
            emit({"event": "certificate", "bucket": bucket, "unreadable_ppm": signed.certificate.unreadable_ppm})
        else:
            say(f"{shown(bucket)}: {certificate_words(signed.certificate)}")

    loop = renter.client.drill_loop(
        renter.key,
        budget,
        on_drill=tell,
        on_certificate=certified,
        on_error=lambda name, error: warn(f"stook: {name}: {error}"),
    )
    if not as_json:
        warn(f"Drilling {human_size(budget)} a day until it is interrupted.")
    loop.chore.trigger()
    tasks = [asyncio.create_task(loop.chore.run())]
    tasks += [asyncio.create_task(chore.run()) for chore in renter.agent.chores if chore.name == "refresh"]
    try:
        await until_stopped()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@click.command("drill")
@click.option("--bucket", "buckets", multiple=True, metavar="BUCKET", help="Only this one; may be given again.")
@click.option("--bytes", "size", metavar="SIZE", help="Fetch at most so much. Default: `drill_per_day` in config.toml.")
@click.option("--continuous", is_flag=True, help="Go on until interrupted, SIZE being what a day may take.")
@json_option
@pass_home
def drill_command(home: Path, buckets: tuple[str, ...], size: str | None, continuous: bool, as_json: bool) -> None:
    """Prove that stored objects come back, by bringing some back.

    Segments are drawn by lot, never drilled ones first, then the oldest; fetched from farmers that change each time;
    decoded, decrypted and compared with what the sealed records say. Nothing is written. Then a certificate is signed
    for each bucket: see `stook certificate`. Farmers that hold something and do not give it back are named, and lose
    standing.

    Exit code 7 when a segment does not come back, or nobody answers. With --continuous, for a machine that stays on,
    the day's bytes are spread over the day, failures are tried again later and later, and certificates come daily.

    \b
    stook drill --bytes "200 MiB" --bucket photos
    """
    from stook.config import load_settings, parse_size
    from stook.errors import UserError

    if continuous and buckets:
        raise UserError("--continuous drills all buckets: leave out --bucket")
    budget = parse_size(size if size is not None else load_settings(home).rent.drill_per_day)
    if budget < 1:
        raise UserError("drills without any bytes prove nothing: give --bytes more")

    async def work() -> bool:
        async with open_home(home, refresh=True) as renter:
            if continuous:
                await _continuously(renter, budget, as_json=as_json)
                return True
            report = await _once(renter, buckets, budget, as_json=as_json)
            return not report.failed and not report.offline

    if not run(work()):
        sys.exit(NotEnoughError.exit_code)
