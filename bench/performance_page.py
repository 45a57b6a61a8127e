"""Put the figures of `bench/results` into the marked blocks of `docs/performance.md`, so that none is typed by hand.

    python -m bench.performance_page

A block lies between ``<!-- figures: NAME -->`` and ``<!-- end -->``; everything between is rewritten. Blocks whose
results are not there are left as they are, and named.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.common import RESULTS
from bench.versus.ratios import brief, shown

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def taken_on(result: Mapping[str, Any]) -> str:
    """Where the figures come from."""
    machine = result["machine"]
    return f"\n*{machine['cpus']} CPUs, {machine['machine']}, Python {machine['python']}.*\n"


def versus(result: Mapping[str, Any]) -> str:
    """Both sides and their ratios."""
    rows, ratio_rows = [], []
    for job, ways in result["jobs"].items():
        for way, cell in ways.items():
            for who, figures in cell["contenders"].items():
                rows.append([job, way, who, shown(figures["mb_s"]), shown(figures["cpu_s_per_gb"])])
            for pair, ratio in cell["ratios"].items():
                ratio_rows.append([job, way, pair, shown(ratio["rate"]), shown(ratio["cpu"])])
    idle = ", ".join(f"{name} {100 * cores:.1f} %" for name, cores in result.get("idle_cores", {}).items())
    return (
        f"{result['code']}, {result['nodes']} nodes, {result['rounds']} rounds, Tahoe-LAFS {result['tahoe_version']}; "
        "median (min–max).\n\n"
        + markdown(["job", "way", "who", "MB/s", "CPU-s/GB"], rows)
        + "\n"
        + markdown(["job", "way", "ratio", "times as fast", "times less CPU"], ratio_rows)
        + (f"\nOf one core, idle: {idle}.\n" if idle else "")
        + taken_on(result)
    )


def floor(result: Mapping[str, Any]) -> str:
    """Every part, the sum, and what it is end to end."""
    text = ""
    for code, figures in result["codes"].items():
        for way in ("up", "down"):
            one = figures[way]
            rows = [[name, brief(value)] for name, value in one["parts"].items()]
            rows += [["**floor**", f"**{brief(one['floor'])}**"]]
            if one["by_choice"]:
                rows += [["by choice: the farmer checks what it reads", brief(one["by_choice"])]]
            rows += [["**end to end**", f"**{brief(one['end_to_end'])}** = {one['times_the_floor']:.2f} × floor"]]
            text += f"{code}, {way}, {figures['bytes'] >> 20} MiB:\n\n"
            text += markdown(["part", "CPU-s per GB of plain data"], rows) + "\n"
    return text.rstrip("\n") + "\n" + taken_on(result)


def end_to_end(result: Mapping[str, Any]) -> str:
    """One row per code, job and direction."""
    rows = []
    for code, jobs in result["codes"].items():
        for job, figures in jobs.items():
            if job == "small_files":
                continue
            for way in ("up", "down"):
                one = {name: value["median"] for name, value in figures[way].items()}
                rows.append(
                    [
                        code,
                        job,
                        way,
                        brief(one["mb_s"]),
                        brief(one["durable_mb_s"]) if "durable_mb_s" in one else "",
                        brief(one["client_cpu_s_per_gb"]),
                        brief(one["farmers_cpu_s_per_gb"]),
                        brief(one["kernel_cpu_s_per_gb"]),
                        brief(one["client_peak_mib"]),
                        brief(one["farmer_peak_mib"]),
                        brief(figures["yardstick"]["mb_s"]["median"]),
                    ]
                )
    header = ["code", "job", "way", "MB/s", "durable MB/s", "client CPU-s/GB", "farmers CPU-s/GB"]
    header += ["of both, kernel", "client peak MiB", "farmer peak MiB", "plain copy MB/s"]
    return markdown(header, rows) + taken_on(result)


def small_files(result: Mapping[str, Any]) -> str:
    """Files a second, and what they take on disk."""
    rows = []
    for code, jobs in result["codes"].items():
        if figures := jobs.get("small_files"):
            rows.append(
                [
                    code,
                    f"{figures['files']:,}",
                    brief(figures["up"]["files_per_s"]),
                    brief(figures["down"]["files_per_s"]),
                    f"{figures['stored_ratio']:.3f} × (n/k)",
                    f"{figures['shard_files_ratio']:.3f} × (n/k)",
                ]
            )
    header = ["code", "files", "put /s", "got /s", "everything on the farmers' disks", "shard files alone"]
    return markdown(header, rows) + taken_on(result)


def pipeline(result: Mapping[str, Any]) -> str:
    """CPU seconds per GB of plain data of every stage."""
    codes = result["codes"]
    stages = list(next(iter(codes.values()))["stages"])
    rows = [
        [stage.replace("_", " "), *(brief(figures["stages"][stage]["cpu_s_per_gb"]) for figures in codes.values())]
        for stage in stages
    ]
    return (
        f"Codec {result['codec']}; CPU-s per GB of plain data.\n\n"
        + markdown(["stage", *codes], rows)
        + taken_on(result)
    )


def wire(result: Mapping[str, Any]) -> str:
    """CPU seconds per GB at both ends of every road."""
    records = result["openssl_record_layer"]
    rows = [["OpenSSL alone, in memory", shown(records["seal_cpu_s_per_gb"]), shown(records["open_cpu_s_per_gb"]), ""]]
    for road in ("plain_blocking_sockets", "asyncio_tls", "wire_stream", "wire_shards_of_4_mib"):
        one = result[road]
        row = [road.replace("_", " "), shown(one["sender_cpu_s_per_gb"]), shown(one["receiver_cpu_s_per_gb"])]
        rows.append([*row, shown(one["mb_s"])])
    return markdown(["road", "sender CPU-s/GB", "receiver CPU-s/GB", "MB/s"], rows) + taken_on(result)


def audit(result: Mapping[str, Any]) -> str:
    """What an audited shard costs at both ends."""
    rows = []
    for kind in ("small", "large"):
        held = result[kind]
        for name in ("wide", "daily"):
            asked = held[name]
            one = {
                key: value["median"] for key, value in asked.items() if isinstance(value, dict) and "median" in value
            }
            rows.append(
                [
                    f"{held['shards']:,} of {held['size_bytes'] >> 10:,} KiB",
                    f"{one['units_per_round']:.0f} of {one['shards_per_round']:.0f}",
                    f"{one['farmer_cpu_us_per_shard']:,.0f}",
                    f"{one['auditor_cpu_us_per_shard']:,.0f}",
                    f"{one['audited_shards_per_s_and_farmer_core']:,.0f}",
                    f"{one['asked_bytes_per_shard']:,.0f} / {one['answered_bytes_per_shard']:,.0f}",
                    f"{one['farmer_read_bytes_per_shard']:,.0f}",
                    f"{asked['times_the_yardstick']:.1f}",
                ]
            )
    header = ["shards held", "units drawn, of shards", "farmer CPU-µs", "auditor CPU-µs", "a second and farmer core"]
    header += ["bytes asked / answered", "bytes the farmer read", "times the bare reading and hashing"]
    return f"Per audited shard; medians of {result['rounds']} rounds.\n\n" + markdown(header, rows) + taken_on(result)


BLOCKS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "versus_tahoe": ("versus_tahoe", versus),
    "versus_repair": ("versus_repair", versus),
    "floor": ("floor", floor),
    "end_to_end": ("end_to_end", end_to_end),
    "small_files": ("end_to_end", small_files),
    "pipeline": ("pipeline", pipeline),
    "wire": ("wire", wire),
    "audit": ("audit", audit),
}


def rewritten(page: str, results: Mapping[str, Mapping[str, Any]]) -> tuple[str, list[str]]:
    """The page with every block filled whose results are there, and the names of the others.

    Raises `KeyError` for a block that nobody knows to fill.
    """
    left: list[str] = []

    def fill(found: re.Match[str]) -> str:
        name = found[2]
        source, render = BLOCKS[name]
        if source not in results:
            left.append(name)
            return found[0]
        return f"{found[1]}\n{render(results[source])}\n{found[3]}"

    return BLOCK.sub(fill, page), left


def main() -> int:
    results = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    page, left = rewritten(PAGE.read_text(), results)
    PAGE.write_text(page)
    if left:
        print(f"no results for: {', '.join(left)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
