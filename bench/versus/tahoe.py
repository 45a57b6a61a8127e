"""Stook beside Tahoe-LAFS, interleaved on the same files: rates, CPU of all processes, ratios with spread.

    python -m bench.versus.tahoe [--rounds 5] [--code 3/10] [--sizes 256MiB,64MiB] [--files 100] [--short]

Tahoe-LAFS comes from PyPI into `.venv-tahoe` and runs as its documentation says: introducer, n storage nodes, a gateway
with the same k and n. Stook runs n farmers and a long-running client process. Start-up counts on neither side.

Contenders: `stook` reads the file itself and drops what it downloads, as its users do; `stook via socket` gets and
gives the bytes through a plain loopback connection, as Tahoe-LAFS's gateway does through HTTP; `tahoe` is Tahoe-LAFS as
it ships (HTTPS storage protocol); `tahoe foolscap` its older and faster road.

In each round every contender uploads and downloads the same fresh random files, in an order that changes by rounds.
Only one side's processes run at a time: the others are stopped (SIGSTOP). An upload counts until every one of the n
shards is stored, a download until the last byte is handed over. CPU seconds are those of all processes of a side, not
of this one, which plays the user.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from bench.common import end_in_order, report, same_file, write_random
from bench.end_to_end import Job, rounded
from bench.stook_grid import StookGrid
from bench.versus.ratios import Run, summarise, table
from bench.versus.tahoe_grid import VERSION, TahoeGrid, install
from bench.yardstick import copy_through_loopback
from stook.config import parse_size
from stook.shards.geometry import Policy

REPOSITORY = Path(__file__).parents[2]
MIB = 1 << 20
VIA_SOCKET = "stook via socket"
PAIRS = (
    ("stook", "tahoe"),
    ("stook", "tahoe foolscap"),
    (VIA_SOCKET, "tahoe"),
    (VIA_SOCKET, "tahoe foolscap"),
)


class Contender(Protocol):
    """One side, as this benchmark sees it. Its processes are stopped except between `resume` and `pause`."""

    def resume(self) -> None: ...
    def pause(self) -> None: ...
    def cpu_seconds(self) -> float: ...
    def upload(self, paths: Sequence[Path]) -> None: ...
    def download(self) -> None: ...
    def compare(self, paths: Sequence[Path], folder: Path) -> bool: ...
    def forget(self) -> None: ...


class Stook:
    """Through a `StookGrid` that may be shared with another contender."""

    def __init__(self, grid: StookGrid, *, through_socket: bool) -> None:
        self._grid = grid
        self._through_socket = through_socket
        self._names: list[str] = []
        self.resume, self.pause = grid.resume, grid.pause

    def cpu_seconds(self) -> float:
        return sum(self._grid.cpu())

    def upload(self, paths: Sequence[Path]) -> None:
        self._names = [path.name for path in paths]
        if self._through_socket:
            self._grid.put_through_socket(paths[0].name, paths[0])
        else:
            self._grid.put([(path.name, path) for path in paths])

    def download(self) -> None:
        if self._through_socket:
            self._grid.get_through_socket(self._names[0])
        else:
            self._grid.get(self._names)

    def compare(self, paths: Sequence[Path], folder: Path) -> bool:
        self._grid.get(self._names, folder)
        same = all(same_file(path, folder / path.name) for path in paths)
        for path in paths:
            (folder / path.name).unlink()
        return same

    def forget(self) -> None:
        self._grid.forget(self._names)


class Tahoe:
    """Through a `TahoeGrid`."""

    def __init__(self, grid: TahoeGrid, total: int, connections: int) -> None:
        self._grid = grid
        self._total = total
        self._connections = connections
        self._capabilities: list[str] = []
        self.resume, self.pause, self.cpu_seconds = grid.resume, grid.pause, grid.cpu_seconds
        self.forget = grid.forget

    def upload(self, paths: Sequence[Path]) -> None:
        self._capabilities = self._grid.put_many(paths, self._connections)

    def download(self) -> None:
        self._grid.get_many(self._capabilities, self._connections)

    def compare(self, paths: Sequence[Path], folder: Path) -> bool:
        if self._grid.shares_stored() != self._total * len(paths):
            raise RuntimeError("Tahoe-LAFS has not stored every share")
        pairs = zip(self._capabilities, paths, strict=True)
        return all(self._grid.matches(capability, path) for capability, path in pairs)


def timed(contender: Contender, work: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds, after the disk has come to rest."""
    os.sync()
    cpu, began = contender.cpu_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    return seconds, contender.cpu_seconds() - cpu


def warm_up(contender: Contender, path: Path) -> None:
    """A file in and out, not measured."""
    contender.upload([path])
    contender.download()
    contender.forget()


def one_turn(
    name: str, contender: Contender, job: Job, turn: int, paths: Sequence[Path], warm: Path, compare: bool
) -> list[Run]:
    """One contender's turn: woken, tried with 1 MiB, measured, tidied, put to sleep."""
    contender.resume()
    try:
        warm_up(contender, warm)
        up = timed(contender, lambda: contender.upload(paths))
        down = timed(contender, contender.download)
        if compare and not contender.compare(paths, warm.parent / "back"):
            raise AssertionError(f"{name} gave back other bytes than it was given ({job.name})")
        contender.forget()
    finally:
        contender.pause()
    return [Run(name, job.name, way, turn, job.total_bytes, *figures) for way, figures in (("up", up), ("down", down))]


def idle_cores(contenders: dict[str, Contender], seconds: float, warm: Path) -> dict[str, float]:
    """How much of a core each side takes while nobody asks it for anything, having been used once."""
    result = {}
    for name, contender in contenders.items():
        contender.resume()
        warm_up(contender, warm)
        cpu, began = contender.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        result[name] = (contender.cpu_seconds() - cpu) / (time.monotonic() - began)
        contender.pause()
    return result


def run_rounds(
    contenders: dict[str, Contender], jobs: Sequence[Job], rounds: int, root: Path
) -> tuple[list[Run], dict[str, list[float]]]:
    """All runs, and the yardstick's MB/s of each round by job."""
    (root / "back").mkdir()
    warm = root / "warm"
    runs: list[Run] = []
    yardstick: dict[str, list[float]] = {}
    for turn in range(rounds):
        for job in jobs:
            paths = [root / f"{turn}-{job.name.replace(' ', '-')}-{number}" for number in range(job.count)]
            for path in paths:
                write_random(path, job.size_bytes)
            # Many files come as files: there is nothing to tell the two ways of Stook apart.
            names = [name for name in contenders if job.count == 1 or name != VIA_SOCKET]
            names = names[turn % len(names) :] + names[: turn % len(names)]
            for name in names:
                write_random(warm, MIB)
                runs += one_turn(name, contenders[name], job, turn, paths, warm, compare=turn == 0)
                print(f"round {turn + 1}: {job.name}, {name}: " + progress(runs[-2:]), file=sys.stderr, flush=True)
            if job.count == 1:
                plain = copy_through_loopback(paths[0], root / "copy")
                yardstick.setdefault(job.name, []).append(plain["mb_s"])
            for path in paths:
                path.unlink()
    return runs, yardstick


def progress(runs: Sequence[Run]) -> str:
    """One line for who waits."""
    return ", ".join(f"{run.direction} {run.mb_s:.1f} MB/s {run.cpu_s_per_gb:.1f} CPU-s/GB" for run in runs)


def jobs_of(sizes: str, files: int) -> list[Job]:
    """Single files of the sizes, then many of 1 MiB."""
    single = [parse_size(text) for text in sizes.split(",") if text]
    result = [Job(f"{size / MIB:g} MiB", 1, size) for size in single]
    return [*result, Job(f"{files} x 1 MiB", files, MIB)] if files else result


def measure(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Start both sides, run the rounds, stop both sides."""
    policy = Policy.parse(options.code)
    nodes = options.nodes or policy.n
    command = install(REPOSITORY / ".venv-tahoe")
    wanted = options.only or ["stook", VIA_SOCKET, "tahoe", "tahoe foolscap"]
    stook = StookGrid(root / "stook", farmers=nodes, code=options.code)
    grids = {
        name: TahoeGrid(command, root / name, nodes=nodes, needed=policy.k, total=policy.n, foolscap=name != "tahoe")
        for name in ("tahoe", "tahoe foolscap")
        if name in wanted
    }
    contenders: dict[str, Contender] = {}
    try:
        if any(name.startswith("stook") for name in wanted):
            stook.start()
            stook.pause()
        for name in wanted:
            if name in grids:
                grids[name].start()
                grids[name].pause()
                contenders[name] = Tahoe(grids[name], policy.n, options.tahoe_connections)
            else:
                contenders[name] = Stook(stook, through_socket=name == VIA_SOCKET)
        files = root / "files"
        files.mkdir()
        jobs = jobs_of(options.sizes, options.files)
        # As long-running processes would be: whatever they keep for later is allocated and touched once.
        write_random(files / "warm", max(job.size_bytes for job in jobs))
        sides = {name: side for name, side in contenders.items() if name != VIA_SOCKET}
        idle = idle_cores(sides, options.idle_seconds, files / "warm")
        runs, yardstick = run_rounds(contenders, jobs, options.rounds, files)
    finally:
        for grid in grids.values():
            grid.stop()
        stook.stop()
    return {
        "tahoe_version": VERSION,
        "code": options.code,
        "nodes": nodes,
        "rounds": options.rounds,
        "idle_cores": idle,
        "yardstick_mb_s": yardstick,
        "jobs": summarise(runs, PAIRS),
        "runs": [asdict(run) for run in runs],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--code", default="3/10", help="K/N")
    parser.add_argument("--nodes", type=int, help="storage nodes and farmers; default: n")
    parser.add_argument("--sizes", default="256MiB,64MiB")
    parser.add_argument("--files", type=int, default=100, help="of 1 MiB, as one job; 0: none")
    parser.add_argument("--tahoe-connections", type=int, default=4, help="how many files Tahoe-LAFS is given at a time")
    parser.add_argument("--idle-seconds", type=float, default=5.0)
    parser.add_argument("--only", action="append", choices=["stook", VIA_SOCKET, "tahoe", "tahoe foolscap"])
    parser.add_argument("--short", action="store_true", help="one round of 16 MiB and 10 files: does it work?")
    parser.add_argument("--folder", type=Path, help="on the disk to use")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.sizes, options.files, options.idle_seconds = 1, "16MiB", 10, 2.0
    end_in_order()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="stook-versus-") as name:
        result = measure(options, Path(name))
    suffix = "" if options.code == "3/10" else "_" + options.code.replace("/", "_")
    report(f"versus_tahoe{suffix}", rounded(result))
    print("\n" + table(result["jobs"]))


if __name__ == "__main__":
    main()
