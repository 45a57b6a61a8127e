"""What every benchmark shares: processes' CPU time, random files, medians with spread, JSON out."""

from __future__ import annotations

import filecmp
import json
import os
import platform
import signal
import socket
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
RESULTS = Path(__file__).parent / "results"


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system seconds of live processes, children not included (Linux)."""
    return sum(cpu_user_and_system(pids))


def cpu_user_and_system(pids: Iterable[int]) -> tuple[float, float]:
    """The same apart."""
    user = system = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user, system = user + int(fields[11]), system + int(fields[12])
    return user / TICKS, system / TICKS


def peak_rss_mib(pid: int) -> float:
    """Peak resident memory of a live process in MiB (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no VmHWM for {pid}")


def reset_peak_rss(pid: int) -> None:
    """Let `peak_rss_mib` of a live process of ours begin anew from what it holds now (Linux)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def disk_bytes(folder: Path) -> int:
    """What everything below a folder takes on its disk: allocated blocks, directories included."""
    total = folder.lstat().st_blocks
    for path, folders, names in os.walk(folder):
        total += sum(Path(path, name).lstat().st_blocks for name in (*folders, *names))
    return total * 512


def same_file(left: Path, right: Path) -> bool:
    """Whether two files hold the same bytes."""
    return right.exists() and filecmp.cmp(left, right, shallow=False)


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free just now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()


def write_random(path: Path, size_bytes: int) -> None:
    """A file of fresh random bytes, synced, so that no side gains from caches of an earlier one."""
    with path.open("wb") as file:
        left = size_bytes
        while left:
            piece = os.urandom(min(left, 1 << 22))
            file.write(piece)
            left -= len(piece)
        file.flush()
        os.fsync(file.fileno())


def spread(values: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {
        "min": round(min(values), 4),
        "median": round(statistics.median(values), 4),
        "max": round(max(values), 4),
    }


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    return {"cpus": os.cpu_count(), "machine": platform.machine(), "python": sys.version.split()[0]}


def end_in_order() -> None:
    """Let SIGTERM and SIGHUP unwind the program, so that it ends the processes it started, stopped ones too."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))


def report(name: str, result: Mapping[str, object]) -> None:
    """Print one JSON object and keep it under ``bench/results``."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"benchmark": name, "machine": machine(), **result}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
