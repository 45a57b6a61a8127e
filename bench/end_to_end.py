"""Put and get against farmer processes on loopback: rates, CPU of client and farmers, memory, many small files.

    python -m bench.end_to_end [--codes 4/10,10/20,20/40] [--large 1GiB] [--small-files 20000] [--repeat 1] [--short]

Everything is as a user has it: TLS on, contracts, receipts, syncs, one process for each farmer, a long-running client
process. An upload ends when every segment has its n receipted shards (`mb_s`); it is *durable* a little earlier, at o
receipts (`durable_mb_s`). A download goes to a sink that drops the bytes. Sizes are of plain data, MB are 10^6 bytes.
Peaks are the processes' own, begun anew for each job. Every file is fresh random bytes, and one download of each job,
not timed, is compared byte by byte.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.common import cpu_user_and_system, disk_bytes, end_in_order, report, same_file, spread, write_random
from bench.stook_grid import StookGrid
from bench.yardstick import copy_through_loopback
from stook.config import parse_size
from stook.shards.geometry import Policy

MIB = 1 << 20
SMALL_SEED = 20
SMALL_BYTES = (1 << 10, 20 << 10)
WARM_BYTES = 256 * MIB
"""Enough for a client to have allocated all its buffers once."""
STORED_LIMIT = 1.3
"""How much of (n/k) x data the farmers' disks may hold at most."""


@dataclass(frozen=True)
class Job:
    """So many files of one size."""

    name: str
    count: int
    size_bytes: int

    @property
    def total_bytes(self) -> int:
        """All together."""
        return self.count * self.size_bytes


def jobs(large_bytes: int, many: int) -> list[Job]:
    """The three of every code."""
    return [
        Job(f"{many} x 1 MiB", many, MIB),
        Job("64 MiB", 1, 64 * MIB),
        Job(f"{large_bytes / MIB:g} MiB", 1, large_bytes),
    ]


def measured(grid: StookGrid, size_bytes: int, work: Callable[[], Any]) -> dict[str, float]:
    """One piece of work: seconds, MB/s of plain data, CPU seconds per GB, peaks. `kernel_…` is of both sides."""
    os.sync()
    grid.reset_peaks()
    pids = [grid.client_pid, *grid.farmer_pids]
    client, farmers = grid.cpu()
    _, kernel = cpu_user_and_system(pids)
    began = time.perf_counter()
    answer = work()
    seconds = time.perf_counter() - began
    client_after, farmers_after = grid.cpu()
    _, kernel_after = cpu_user_and_system(pids)
    client_peak, farmer_peak = grid.peaks()
    figures = {
        "seconds": seconds,
        "mb_s": size_bytes / 1e6 / seconds,
        "client_cpu_s_per_gb": (client_after - client) / size_bytes * 1e9,
        "farmers_cpu_s_per_gb": (farmers_after - farmers) / size_bytes * 1e9,
        "kernel_cpu_s_per_gb": (kernel_after - kernel) / size_bytes * 1e9,
        "client_peak_mib": client_peak,
        "farmer_peak_mib": farmer_peak,
    }
    if isinstance(answer, dict) and "durable_seconds" in answer:
        figures["durable_mb_s"] = size_bytes / 1e6 / answer["durable_seconds"]
    return figures


def over_rounds(rounds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Every figure with its spread."""
    return {name: spread([one[name] for one in rounds]) for name in rounds[0]}


def measure_job(grid: StookGrid, folder: Path, job: Job, repeat: int) -> dict[str, Any]:
    """Upload and download, `repeat` times with fresh files; the yardstick beside each."""
    up, down, yard = [], [], []
    for turn in range(repeat):
        files = [(f"{job.name}/{number}", folder / f"{number}") for number in range(job.count)]
        for _, path in files:
            write_random(path, job.size_bytes)
        names = [name for name, _ in files]
        yard.append(yardstick(folder, [path for _, path in files]))
        up.append(measured(grid, job.total_bytes, lambda files=files: grid.put(files)))  # type: ignore[misc]
        down.append(measured(grid, job.total_bytes, lambda names=names: grid.get(names)))  # type: ignore[misc]
        if turn == 0:
            compare(grid, files, folder / "back")
        grid.forget(names)
    return {
        "files": job.count,
        "bytes": job.total_bytes,
        "rounds": repeat,
        "up": over_rounds(up),
        "down": over_rounds(down),
        "yardstick": over_rounds(yard),
    }


def yardstick(folder: Path, paths: list[Path]) -> dict[str, float]:
    """The same bytes, as one file, copied plainly."""
    if len(paths) == 1:
        return copy_through_loopback(paths[0], folder / "copy")
    joined = folder / "joined"
    with joined.open("wb") as file:
        for path in paths:
            file.write(path.read_bytes())
    try:
        return copy_through_loopback(joined, folder / "copy")
    finally:
        joined.unlink()


def compare(grid: StookGrid, files: list[tuple[str, Path]], back: Path) -> None:
    """Fetch everything to disk. Raises `AssertionError` when a byte differs."""
    grid.get([name for name, _ in files], back)
    different = [name for name, path in files if not same_file(path, back / name)]
    shutil.rmtree(back)
    if different:
        raise AssertionError(f"{len(different)} files came back different: {different[:5]}")


def measure_small_files(grid: StookGrid, root: Path, folder: Path, count: int, policy: Policy) -> dict[str, Any]:
    """Many files of 1 to 20 KiB: files a second, and what they take on the farmers' disks."""
    dice = random.Random(SMALL_SEED)
    source = folder / "small"
    source.mkdir()
    files, total = [], 0
    for number in range(count):
        path = source / str(number)
        total += path.write_bytes(dice.randbytes(dice.randint(*SMALL_BYTES)))
        files.append((f"small/{number // 100:04}/{number}", path))
    homes = [farmer.home for farmer in grid.network.farmers]
    os.sync()
    before, shards_before = sum(map(disk_bytes, homes)), shard_bytes(homes)
    up = measured(grid, total, lambda: grid.put(files))
    os.sync()
    stored, shards = sum(map(disk_bytes, homes)) - before, shard_bytes(homes) - shards_before
    names = [name for name, _ in files]
    back = folder / "back"
    down = measured(grid, total, lambda: grid.get(names, back))
    different = [name for name, path in files if not same_file(path, back / name)]
    if different:
        raise AssertionError(f"{len(different)} small files came back different: {different[:5]}")
    expected = total * policy.n / policy.k
    return {
        "files": count,
        "bytes": total,
        "up": {"files_per_s": count / up["seconds"], **up},
        "down": {"files_per_s": count / down["seconds"], **down},
        "farmers_disk_bytes": stored,
        "farmers_shard_file_bytes": shards,
        "data_times_n_over_k": round(expected),
        "stored_ratio": round(stored / expected, 4),
        "shard_files_ratio": round(shards / expected, 4),
        "stored_limit": STORED_LIMIT,
        "within_limit": stored <= STORED_LIMIT * expected,
    }


def shard_bytes(homes: list[Path]) -> int:
    """Sizes of all shard files: what a farmer is paid to keep, and their own heads."""
    return sum(path.stat().st_size for home in homes for path in (home / "shards").rglob("*") if path.is_file())


def rounded(value: Any) -> Any:
    """The same with four digits behind the point."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def measure_code(code: str, chosen: list[Job], *, repeat: int, small_files: int, root: Path) -> dict[str, Any]:
    """All jobs at one code, on a network of n farmers of its own."""
    policy = Policy.parse(code)
    folder = root / "files"
    folder.mkdir()
    with StookGrid(root / "grid", farmers=policy.n, code=code) as grid:
        warm_up(grid, folder, min(WARM_BYTES, max(job.size_bytes for job in chosen)))
        result: dict[str, Any] = {job.name: measure_job(grid, folder, job, repeat) for job in chosen}
        if small_files:
            result["small_files"] = measure_small_files(grid, root, folder, small_files, policy)
    return result


def warm_up(grid: StookGrid, folder: Path, size_bytes: int) -> None:
    """Sessions opened, code loaded, buffers touched: what a long-running client has behind it."""
    path = folder / "warm"
    write_random(path, size_bytes)
    grid.put([("warm", path)])
    grid.get(["warm"])
    grid.forget(["warm"])
    path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", default="4/10,10/20,20/40")
    parser.add_argument("--large", default="1 GiB", help="size of the largest file")
    parser.add_argument("--many", type=int, default=200, help="files of 1 MiB")
    parser.add_argument("--small-files", type=int, default=20_000, help="of 1 to 20 KiB, at the first code; 0: none")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="64 MiB, 20 files, 500 small ones: does it work?")
    parser.add_argument("--folder", type=Path, help="on the disk to use")
    options = parser.parse_args()
    if options.short:
        options.large, options.many, options.small_files = "64 MiB", 20, 500
    end_in_order()
    chosen = jobs(parse_size(options.large), options.many)
    result: dict[str, Any] = {}
    for number, code in enumerate(options.codes.split(",")):
        small = 0 if number else options.small_files
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="stook-bench-") as name:
            result[code] = measure_code(code, chosen, repeat=options.repeat, small_files=small, root=Path(name))
    report("end_to_end", {"codes": rounded(result)})


if __name__ == "__main__":
    main()
