"""What the parts of an upload and a download cost alone, summed: the floor, beside the end-to-end figure.

    python -m bench.floor [--codes 3/10] [--size 256MiB] [--repeat 3] [--seconds 0.3]

The floor is what no program could go below that does the same work with the same libraries: each byte hashed,
encrypted, coded and masked once, each coded byte hashed twice (by who makes it and by who must not believe it), TLS at
both ends, the kernel's sockets at both ends, one write and one sync. Every part is measured alone in this run, in one
process, its buffers warm (`bench.pipeline`, `bench.wire`, `bench.store`). What is above it end to end is contracts,
signatures, databases, Python between the parts, threads waiting for each other, and caches that hold less than they do
when one part runs alone. `by_choice` is work that is ours to leave out. Figures are CPU seconds per GB of plain data.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import pipeline, store, wire
from bench.common import end_in_order, report, write_random
from bench.end_to_end import Job, measure_job, rounded, warm_up
from bench.stook_grid import StookGrid
from stook.config import parse_size
from stook.shards.erasure import load_codec
from stook.shards.geometry import Policy, largest_shape

SHARDS_WRITTEN = 32
SOCKET_BYTES = 1 << 29
SOURCE_BLOCK = 1 << 20


@dataclass(frozen=True)
class Parts:
    """CPU seconds per GB of what each part works on: plain bytes, or coded bytes."""

    plain: Mapping[str, float]
    coded: Mapping[str, float]


UP_PLAIN = ("read the file", "hash the plaintext", "encrypt and lay out", "encode")
UP_WHOLE_SEGMENT = ("mask", "hash into trees")
"""Measured over all n rows, so per GB of plain data already."""
UP_CODED = ("TLS, sending", "TLS, receiving", "sockets, both ends", "hash again at the farmer", "write and sync")
DOWN_CODED = ("read the shard", "TLS, sending", "TLS, receiving", "sockets, both ends", "hash at the reader")
DOWN_PLAIN = ("unmask and decrypt",)
DOWN_BY_CHOICE = ("hash at the farmer before sending",)


def floor_up(parts: Parts, k: int, n: int) -> dict[str, float]:
    """Every part of an upload, per GB of plain data: coded bytes are n/k times as many."""
    rows = {name: parts.plain[name] for name in (*UP_PLAIN, *UP_WHOLE_SEGMENT)}
    return rows | {name: parts.coded[name] * n / k for name in UP_CODED}


def floor_down(parts: Parts) -> dict[str, float]:
    """Every part of a download of k data shards, which together are as long as the plain data."""
    return {name: parts.coded[name] for name in DOWN_CODED} | {name: parts.plain[name] for name in DOWN_PLAIN}


def against(floor: Mapping[str, float], end_to_end: float, by_choice: float = 0.0) -> dict[str, Any]:
    """The sum, the figure end to end, and how many times the floor it is."""
    total = sum(floor.values())
    return {
        "parts": dict(floor),
        "floor": total,
        "by_choice": by_choice,
        "end_to_end": end_to_end,
        "times_the_floor": end_to_end / total,
    }


def measure_parts(k: int, n: int, seconds: float, folder: Path) -> Parts:
    """Every part alone."""
    shape = largest_shape(k, n)
    work = pipeline.stages(shape, load_codec())
    cost = {
        name: pipeline.timed(work[name], shape.capacity, seconds)["cpu_s_per_gb"]
        for name in ("plain_hash", "encrypt", "encode", "mask", "hash", "unseal_data_shards")
    }
    records = wire.record_layer(1)
    sender, receiver, _ = wire.measure(wire.plain_receiver, wire.plain_sender, SOCKET_BYTES)
    disk: dict[str, Any] = store.measure_shards(folder, shape.shard_bytes, SHARDS_WRITTEN)
    verify = disk["verify"]["cpu_s_per_gb"]
    return Parts(
        plain={
            "read the file": read_cost(folder),
            "hash the plaintext": cost["plain_hash"],
            "encrypt and lay out": cost["encrypt"],
            "encode": cost["encode"],
            "mask": cost["mask"],
            "hash into trees": cost["hash"],
            "unmask and decrypt": cost["unseal_data_shards"],
        },
        coded={
            "TLS, sending": records["seal_cpu_s_per_gb"]["median"],
            "TLS, receiving": records["open_cpu_s_per_gb"]["median"],
            "sockets, both ends": (sender + receiver) / SOCKET_BYTES * 1e9,
            "hash again at the farmer": verify,
            "hash at the reader": verify,
            "hash at the farmer before sending": verify,
            "write and sync": disk["bare_write_and_sync"]["cpu_s_per_gb"],
            "read the shard": disk["read"]["cpu_s_per_gb"],
        },
    )


def read_cost(folder: Path) -> float:
    """CPU seconds per GB of reading a file that the system has in memory."""
    path, buffer = folder / "source", memoryview(bytearray(SOURCE_BLOCK))
    write_random(path, 64 * SOURCE_BLOCK)

    def read() -> None:
        descriptor = os.open(path, os.O_RDONLY)
        while os.readv(descriptor, [buffer]):
            pass
        os.close(descriptor)

    cost = pipeline.timed(read, 64 * SOURCE_BLOCK, 0.2)["cpu_s_per_gb"]
    path.unlink()
    return cost


def measure_code(code: str, size_bytes: int, repeat: int, seconds: float, root: Path) -> dict[str, Any]:
    """Floor and end to end at one code."""
    policy = Policy.parse(code)
    alone = root / "alone"
    alone.mkdir()
    parts = measure_parts(policy.k, policy.n, seconds, alone)
    folder = root / "files"
    folder.mkdir()
    with StookGrid(root / "grid", farmers=policy.n, code=code) as grid:
        warm_up(grid, folder, size_bytes)
        job = measure_job(grid, folder, Job("floor", 1, size_bytes), repeat)
    cost = {
        way: job[way]["client_cpu_s_per_gb"]["median"] + job[way]["farmers_cpu_s_per_gb"]["median"]
        for way in ("up", "down")
    }
    choice = sum(parts.coded[name] for name in DOWN_BY_CHOICE)
    return {
        "bytes": size_bytes,
        "rounds": repeat,
        "up": against(floor_up(parts, policy.k, policy.n), cost["up"]),
        "down": against(floor_down(parts), cost["down"], choice),
        "end_to_end": job,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", default="3/10")
    parser.add_argument("--size", default="256 MiB")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each stage of the pipeline")
    parser.add_argument("--folder", type=Path, help="on the disk to use")
    options = parser.parse_args()
    end_in_order()
    result = {}
    for code in options.codes.split(","):
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="stook-bench-") as name:
            result[code] = measure_code(code, parse_size(options.size), options.repeat, options.seconds, Path(name))
    report("floor", {"codes": rounded(result)})


if __name__ == "__main__":
    main()
