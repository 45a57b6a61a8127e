"""Hosts of their own: the demo with delay and loss between farmers, skipped loudly where it is not permitted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.netns.__main__ import NOT_PERMITTED
from bench.netns.hosts import Hosts, Line, NotPermittedError

pytestmark = pytest.mark.system
TREE = str(Path(__file__).parents[2] / "docs" / "images")
LINE = ("--delay", "20", "--loss", "1", "--line-seconds", "0")
SMALL = ("--farmers", "4", "--kill", "1", "--size", "2 MiB", "--path", TREE, *LINE)


@pytest.mark.parametrize("entry", [(), pytest.param(("--lan",), marks=pytest.mark.soak)], ids=["one seed", "beacons"])
def test_the_demo_passes_over_slow_and_lossy_lines(entry: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "bench.netns", *SMALL, *entry]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if ran.returncode == NOT_PERMITTED:
        pytest.skip(ran.stderr.strip().splitlines()[-1])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    figures = json.loads(ran.stdout.splitlines()[-1])
    assert figures["ok"]
    assert figures["upload_mb_s"] > 0
    assert figures["download_mb_s"] > 0
    assert figures["discovery_seconds"] > 0


def test_nothing_is_left_behind_when_the_maker_is_killed() -> None:
    script = (
        "import sys, time\nfrom bench.netns.hosts import *\nwith Hosts(2, Line(5, 0)) as made:\n"
        " print(*(one.prefix[1] for one in made.hosts), flush=True)\n time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        assert maker.stderr is not None
        names = maker.stdout.readline().decode().split()
        maker.kill()
        why = maker.stderr.read().decode()
    if not names:
        pytest.skip(why.strip().splitlines()[-1])
    pids = [int(name.split("/")[2]) for name in names]
    for pid in pids:
        # Each holder ends with its standard input; waiting for it is waiting for the kernel.
        subprocess.run(["tail", f"--pid={pid}", "-f", "/dev/null"], timeout=30, check=True)


def test_an_error_inside_takes_the_hosts_down() -> None:
    made = Hosts(2, Line(5, 0))
    try:
        with made:
            raise KeyError
    except NotPermittedError as error:
        pytest.skip(str(error))
    except KeyError:
        assert made._holders == []
