"""`stook demo`: a network on this machine, from nothing to every byte back."""

from __future__ import annotations

import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stook.cli.demo_pay import credits
from stook.cli.output import emit, human_duration, human_size, on_terminal, say
from stook.cli.run import configure_logging, json_option, run
from stook.config import parse_size
from stook.errors import UserError

if TYPE_CHECKING:
    from stook.cli.demo_run import DemoPlan

_CAPACITY_FACTOR = 4
STORAGE_PRICE = 10**15
"""A thousandth of a credit for a GiB and hour."""
DOWNLOAD_PRICE = 10**16


def _parse_code(text: str) -> tuple[int, int]:
    from stook.shards.geometry import Policy

    policy = Policy.parse(text)
    return policy.k, policy.n


@click.command("demo")
@click.option("--farmers", default=12, show_default=True, help="How many farmer processes to start.")
@click.option("--kill", default=4, show_default=True, help="How many of them to kill with SIGKILL.")
@click.option(
    "--path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory to store. Default: the source of Python's own standard library.",
)
@click.option("--size", default="256 MiB", show_default=True, help="Size of the one file that is generated besides.")
@click.option(
    "--code", help="K/N: any K of N shards bring a segment back. Default: N = farmers - kill, K as kill allows."
)
@click.option(
    "--settlement",
    type=click.Choice(["ledger", "evm"]),
    default="ledger",
    show_default=True,
    help="How farmers are paid; evm starts a development node of its own (see `make anvil`).",
)
@click.option("--keep", is_flag=True, help="Leave the farmers' and the renter's directories behind.")
@click.option("--serve-s3", type=click.IntRange(0, 65_535), metavar="PORT", help="Serve S3 there instead; with --hold.")
@click.option("--hold", is_flag=True, help="With --serve-s3: keep farmers and gateway until interrupted.")
@json_option
def demo_command(
    farmers: int,
    kill: int,
    path: Path | None,
    size: str,
    code: str | None,
    settlement: str,
    keep: bool,
    serve_s3: int | None,
    hold: bool,
    as_json: bool,
) -> None:
    """A whole network on this machine: store a directory, kill farmers, repair, kill more, read every byte back.

    Starts real farmer processes on loopback, stores a directory and one generated file with them, waits until every
    segment has all its shards, lets every farmer prove what it holds, kills some with SIGKILL and reads everything
    back. Then audits name who is gone, repair makes the missing shards again at other farmers, as many farmers more are
    killed where the code allows it, and everything is read again and compared. Ends its processes and removes its
    files. Exit status 0 only if every byte came back, audits named the dead and nobody else, and repair made all
    segments whole that the farmers left have room for.

    With --json the last line is one JSON object; rates and CPU seconds there cover only the generated file, after
    start-up, all processes together, per GB of plain data.

    With --serve-s3 PORT --hold nothing is killed: the farmers and an S3 gateway before them stay until interrupted.
    Its keys come from STOOK_S3_ACCESS_KEY and STOOK_S3_SECRET_KEY, or are made and shown.
    """
    if hold is not (serve_s3 is not None):
        raise UserError("--serve-s3 PORT and --hold go together")
    from stook.cli.demo_picture import FarmerLine, Lines, LivePicture, Picture
    from stook.cli.demo_run import Demo, DemoPlan
    from stook.cli.local_network import LocalNetwork

    configure_logging("error")
    plan = DemoPlan.of(
        farmers=farmers,
        kill=kill,
        path=path or Path(sysconfig.get_path("stdlib")),
        size_bytes=parse_size(size),
        code=_parse_code(code) if code else None,
    )
    root = Path(tempfile.mkdtemp(prefix="stook-demo-"))
    capacity = max(1 << 30, _CAPACITY_FACTOR * (plan.size_bytes + (1 << 28)))
    chain = None
    try:
        if settlement == "evm":
            from stook.cli.demo_chain import DemoChain

            chain = DemoChain()
            chain.start()
        network = LocalNetwork(
            root,
            farmers=plan.farmers,
            capacity=str(capacity),
            storage_price_per_gib_hour=STORAGE_PRICE,
            download_price_per_gib=DOWNLOAD_PRICE,
            pay=chain.farmer_settings if chain is not None else None,
        )
        if serve_s3 is not None:
            from stook.cli.demo_s3 import hold_s3

            with network:
                run(hold_s3(plan, root, network, serve_s3, as_json=as_json))
            return
        picture: Picture
        if on_terminal() and not as_json:
            picture = LivePicture([FarmerLine(farmer.name) for farmer in network.farmers])
        else:
            picture = Lines()
        with network, picture:
            figures = run(Demo(plan, root, network, picture, chain).run())
    finally:
        if chain is not None:
            chain.close()
        if keep:
            say(f"Kept in {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
    result = figures.as_json(plan)
    if as_json:
        emit(result)
    else:
        _summary(result, plan)
    if not figures.ok:
        raise UserError("not all is as it should be: " + "; ".join(result["wrong"]))


def _summary(result: dict[str, Any], plan: DemoPlan) -> None:
    figures = {name: value for name, value in result.items() if isinstance(value, int | float)}
    say()
    say(
        f"Stored {figures['files']:,.0f} files, {human_size(figures['bytes'])}, with {figures['farmers']:.0f} farmers; "
        f"any {figures['k']:.0f} of {figures['n']:.0f} shards bring a segment back."
    )
    twice = " Then as many again." if plan.kills_twice else ""
    say(
        f"Killed {figures['killed']:.0f} of them without warning: audits named them, and repair made "
        f"{figures['repaired_shards']:,.0f} shards again, which left {figures['health_after_repair']:.0%} of all "
        f"segments whole.{twice}" + (" Every byte came back." if result["ok"] else "")
    )
    rows = (
        ("upload", "upload_mb_s", "upload_cpu_s_per_gb"),
        ("download", "download_mb_s", "download_cpu_s_per_gb"),
        ("download, farmers dead", "degraded_download_mb_s", "degraded_download_cpu_s_per_gb"),
    )
    for label, rate, cpu in rows:
        say(f"  {label:<24}{figures[rate]:>8.1f} MB/s   {figures[cpu]:>6.2f} CPU seconds per GB, all processes")
    stored, read = figures["tree_upload_ops_s"], figures["tree_download_ops_s"]
    say(
        f"  {'audits':<24}{figures['audits_passed']:>8.0f} shards proved, "
        f"{figures['audit_bytes_per_shard']:,.0f} bytes each, {figures['audits_failed']:.0f} lies"
    )
    say(f"  {'repair':<24}{human_duration(figures['repair_seconds']):>8}")
    say(f"  {'small files':<24}{stored:>8.0f} stored and {read:.0f} read a second")
    say(
        f"  {'payments':<24}{credits(result['paid_total']):>12} credits paid of {credits(result['owed_total'])} owed, "
        f"in {result['cheques']} cheques; "
        + ("all books agree to the unit" if result["ledger_balanced"] else "the books do not agree")
    )
    if "chain" in result:
        chain = result["chain"]
        say(
            f"  {'on the chain':<24}{credits(chain['redeemed']):>12} credits redeemed by {chain['redeemers']} farmers, "
            f"{chain['node']}"
        )
    say(
        f"  {'peak memory':<24}{figures['client_peak_rss_mib']:>8.0f} MiB here, "
        f"{figures['farmer_peak_rss_mib']:.0f} MiB at the largest farmer"
    )
    say(f"  {'all in all':<24}{human_duration(figures['seconds']):>8}")
