"""Repair beside Tahoe-LAFS: one file, three of ten shares lost, until all ten are there again.

    python -m bench.versus.repair [--rounds 3] [--code 3/10] [--lost 3] [--size 256MiB]

Both sides have as many nodes as shards and as many more as are lost, and know already what is lost: Tahoe-LAFS's shares
are taken from its disks and its own check, which is part of what it is asked for, finds that without reading any;
Stook's are written down as lost, as audits would, and taken from its disks too. Measured is the wall clock and the CPU
of all processes from the order to repair until the last new share is stored. Rates are per byte of the plain file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.common import end_in_order, report, same_file, write_random
from bench.end_to_end import rounded
from bench.stook_grid import StookGrid
from bench.versus.ratios import Run, summarise, table
from bench.versus.tahoe import MIB, REPOSITORY, Contender, timed
from bench.versus.tahoe_grid import VERSION, TahoeGrid, install
from stook.config import parse_size
from stook.shards.geometry import Policy

WAY = "repair"
PAIRS = (("stook", "tahoe"), ("stook", "tahoe foolscap"))


class Stook:
    """Through a `StookGrid`."""

    def __init__(self, grid: StookGrid) -> None:
        self._grid = grid
        self._name = ""
        self.resume, self.pause = grid.resume, grid.pause

    def cpu_seconds(self) -> float:
        return sum(self._grid.cpu())

    def upload(self, paths: Sequence[Path]) -> None:
        self._name = paths[0].name
        self._grid.put([(path.name, path) for path in paths])

    def lose(self, count: int) -> None:
        """Give up the shards at `count` farmers."""
        self._grid.lose(count)

    def repair(self) -> None:
        self._grid.repair()

    def compare(self, paths: Sequence[Path], folder: Path) -> bool:
        self._grid.get([self._name], folder)
        same = same_file(paths[0], folder / self._name)
        (folder / self._name).unlink()
        return same

    def forget(self) -> None:
        self._grid.forget([self._name])


class Tahoe:
    """Through a `TahoeGrid`."""

    def __init__(self, grid: TahoeGrid, total: int) -> None:
        self._grid = grid
        self._total = total
        self._capability = ""
        self.resume, self.pause, self.cpu_seconds = grid.resume, grid.pause, grid.cpu_seconds
        self.forget = grid.forget

    def upload(self, paths: Sequence[Path]) -> None:
        self._capability = self._grid.put(paths[0])

    def lose(self, count: int) -> None:
        self._grid.lose(count)

    def repair(self) -> None:
        self._grid.repair(self._capability)
        if self._grid.shares_stored() < self._total:
            raise RuntimeError(f"only {self._grid.shares_stored()} of {self._total} shares after repair")

    def compare(self, paths: Sequence[Path], folder: Path) -> bool:
        return self._grid.matches(self._capability, paths[0])


def one_turn(name: str, side: Any, turn: int, path: Path, warm: Path, lost: int) -> Run:
    """Stored, partly lost, repaired and compared; only the repair is measured, after one that is not."""
    contender: Contender = side
    side.resume()
    try:
        for file in (warm, path):
            side.upload([file])
            side.lose(lost)
            seconds, cpu = timed(contender, side.repair)
            if not side.compare([file], path.parent / "back"):
                raise AssertionError(f"{name} gave back other bytes after repair")
            side.forget()
    finally:
        side.pause()
    size = path.stat().st_size
    run = Run(name, f"{size / MIB:g} MiB", WAY, turn, size, seconds, cpu)
    print(f"round {turn + 1}: {name}: {run.mb_s:.1f} MB/s {run.cpu_s_per_gb:.1f} CPU-s/GB", file=sys.stderr, flush=True)
    return run


def measure(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Start both sides, run the rounds, stop both sides."""
    policy = Policy.parse(options.code)
    nodes, size = policy.n + options.lost, parse_size(options.size)
    command = install(REPOSITORY / ".venv-tahoe")
    names = options.only or ["stook", "tahoe", "tahoe foolscap"]
    # Repair begins below n, as Tahoe-LAFS is asked to, and not below a threshold.
    stook = StookGrid(root / "stook", farmers=nodes, code=f"{policy.k}/{policy.n}/{policy.n}/{policy.n}")
    grids = {
        name: TahoeGrid(command, root / name, nodes=nodes, needed=policy.k, total=policy.n, foolscap=name != "tahoe")
        for name in names
        if name != "stook"
    }
    sides: dict[str, Stook | Tahoe] = {}
    files = root / "files"
    (files / "back").mkdir(parents=True)
    runs: list[Run] = []
    try:
        if "stook" in names:
            stook.start()
            stook.pause()
            sides["stook"] = Stook(stook)
        for name, grid in grids.items():
            grid.start()
            grid.pause()
            sides[name] = Tahoe(grid, policy.n)
        for turn in range(options.rounds):
            warm, path = files / "warm", files / f"file-{turn}"
            write_random(warm, size // 4)
            write_random(path, size)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                runs.append(one_turn(name, sides[name], turn, path, warm, options.lost))
            path.unlink()
    finally:
        for grid in grids.values():
            grid.stop()
        stook.stop()
    return {
        "tahoe_version": VERSION,
        "code": options.code,
        "nodes": nodes,
        "lost": options.lost,
        "rounds": options.rounds,
        "jobs": summarise(runs, PAIRS),
        "runs": [asdict(run) for run in runs],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--code", default="3/10", help="K/N")
    parser.add_argument("--lost", type=int, default=3, help="shards lost of each segment, and spare nodes")
    parser.add_argument("--size", default="256MiB")
    parser.add_argument("--only", action="append", choices=["stook", "tahoe", "tahoe foolscap"])
    parser.add_argument("--short", action="store_true", help="one round of 16 MiB: does it work?")
    parser.add_argument("--folder", type=Path, help="on the disk to use")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.size = 1, "16MiB"
    end_in_order()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="stook-versus-") as name:
        result = measure(options, Path(name))
    report("versus_repair", rounded(result))
    print("\n" + table(result["jobs"]))


if __name__ == "__main__":
    main()
