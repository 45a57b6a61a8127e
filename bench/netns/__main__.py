"""The demo with every farmer, and the renter, on a host of its own behind a slow and lossy line.

    python -m bench.netns [--farmers 12 --kill 4 --size "16 MiB" --delay 80 --loss 1] [--json]

Needs root, or a kernel that lets a user make network namespaces. Exit status 77 says that this machine does not permit
it, with the reason on standard error. `make netns` runs it; figures are in docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.netns import yardstick
from bench.netns.hosts import Hosts, Line, NotPermittedError
from stook.cli.demo_picture import Lines
from stook.cli.demo_run import Demo, DemoPlan
from stook.cli.local_network import LocalNetwork, Place
from stook.cli.run import configure_logging
from stook.config import parse_size

NOT_PERMITTED = 77
FARMER_PORT = 7071
INSIDE = "STOOK_BENCH_NETNS_PLACES"
AS_ROOT_INSIDE = ("unshare", "--user", "--map-root-user")
USER_NAMESPACE = "STOOK_BENCH_NETNS_USER"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.netns", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--farmers", type=int, default=12)
    parser.add_argument("--kill", type=int, default=4)
    parser.add_argument("--size", default="32 MiB")
    parser.add_argument("--path", type=Path, default=Path(__file__).resolve().parents[2] / "src")
    parser.add_argument("--code", default="")
    parser.add_argument("--delay", type=float, default=80.0, help="milliseconds each way")
    parser.add_argument("--loss", type=float, default=1.0, help="percent of the packets each way")
    parser.add_argument("--lan", action="store_true", help="no seeds: everybody is found by beacons")
    parser.add_argument("--line-seconds", type=float, default=6.0, help="how long the line itself is measured; 0: not")
    parser.add_argument("--keep", action="store_true", help="leave the directories behind")
    return parser.parse_args()


def outside(given: argparse.Namespace) -> dict[str, Any]:
    """Make the hosts, run the story on the first of them, take the hosts down."""
    with Hosts(given.farmers + 1, Line(given.delay, given.loss)) as made:
        client, *farmers = made.hosts
        line = yardstick.measure(client, farmers[0], given.line_seconds) if given.line_seconds else {}
        places = [[host.address, FARMER_PORT, *host.prefix] for host in farmers]
        began = time.monotonic()
        told = subprocess.run(
            [*client.prefix, sys.executable, "-m", "bench.netns", *sys.argv[1:]],
            env={**os.environ, INSIDE: json.dumps({"client": client.address, "farmers": places})},
            stdout=subprocess.PIPE,
            check=False,
        )
        lines = told.stdout.splitlines()
        figures = json.loads(lines[-1]) if lines else {"ok": False}
        return {
            **figures,
            "carrier": made.carrier,
            "delay_ms": given.delay,
            "loss_percent": given.loss,
            **line,
            "seconds": round(time.monotonic() - began, 1),
        }


def inside(given: argparse.Namespace, client: str, places: list[Place]) -> dict[str, Any]:
    """The demo, told by one who is on a host himself."""
    configure_logging("error")
    code = tuple(int(part) for part in given.code.split("/")) if given.code else None
    plan = DemoPlan.of(
        farmers=given.farmers,
        kill=given.kill,
        path=given.path,
        size_bytes=parse_size(given.size),
        code=(code[0], code[1]) if code else None,
    )
    root = Path(tempfile.mkdtemp(prefix="stook-netns-"))
    picture = Lines()
    try:
        network = LocalNetwork(
            root, farmers=plan.farmers, capacity="4 GiB", places=places, lan=client if given.lan else ""
        )
        with network, picture:
            figures = asyncio.run(Demo(plan, root, network, picture).run())
    finally:
        if not given.keep:
            shutil.rmtree(root, ignore_errors=True)
    return figures.as_json(plan)


def skipped(why: str) -> int:
    print(f"SKIPPED: hosts of their own are not permitted here: {why}", file=sys.stderr)
    return NOT_PERMITTED


def main() -> int:
    given = arguments()
    if INSIDE in os.environ:
        told = json.loads(os.environ[INSIDE])
        places = [Place(host, port, tuple(prefix)) for host, port, *prefix in told["farmers"]]
        print(json.dumps(inside(given, told["client"], places)))
        return 0
    if shutil.which(AS_ROOT_INSIDE[0]) is None:
        return skipped(f"the command {AS_ROOT_INSIDE[0]} is missing")
    if os.geteuid() and USER_NAMESPACE not in os.environ:
        probe = subprocess.run([*AS_ROOT_INSIDE, "true"], capture_output=True, text=True, check=False)
        if probe.returncode:
            return skipped(f"not root, and {probe.stderr.strip()[-200:]}")
        os.environ[USER_NAMESPACE] = "1"
        os.execvp(AS_ROOT_INSIDE[0], [*AS_ROOT_INSIDE, sys.executable, "-m", "bench.netns", *sys.argv[1:]])
    try:
        figures = outside(given)
    except NotPermittedError as error:
        return skipped(str(error))
    print(json.dumps(figures))
    return 0 if figures["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
