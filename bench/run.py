"""Every benchmark of Stook alone, in its short form; one JSON object with all their results.

    python -m bench.run [--only floor ...] [--quick]

Each runs as a program of its own, one after the other, and leaves its JSON in `bench/results`. The comparison with
Tahoe-LAFS is not among them: `python -m bench.versus.tahoe`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

from bench.common import RESULTS, machine

BENCHMARKS = {
    "pipeline": ["--seconds", "0.3", "--busy"],
    "wire": ["--gigabytes", "0.5", "--runs", "3", "--messages", "10000"],
    "store": ["--megabytes", "128", "--contracts", "50000"],
    "audit": ["--shards", "10000", "--rounds", "10"],
    "catalog": ["--objects", "10000"],
    "payments": ["--days", "60"],
    "floor": ["--codes", "3/10,4/10", "--repeat", "3"],
    "end_to_end": ["--repeat", "1"],
}
QUICK = {
    "pipeline": ["--seconds", "0.02"],
    "wire": ["--gigabytes", "0.05", "--runs", "1", "--messages", "500"],
    "store": ["--megabytes", "32", "--contracts", "2000"],
    "audit": ["--shards", "500", "--large", "4", "--rounds", "2"],
    "catalog": ["--objects", "2000"],
    "payments": ["--farmers", "10", "--contracts", "500", "--days", "5"],
    "floor": ["--size", "32MiB", "--repeat", "1", "--seconds", "0.02"],
    "end_to_end": ["--short", "--codes", "4/10"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(BENCHMARKS), action="append")
    parser.add_argument("--quick", action="store_true", help="smallest sizes: does everything work?")
    options = parser.parse_args()
    results: dict[str, object] = {}
    failed = []
    for name, arguments in (QUICK if options.quick else BENCHMARKS).items():
        if options.only and name not in options.only:
            continue
        began = time.monotonic()
        print(f"{name} …", end=" ", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, "-m", f"bench.{name}", *arguments], stdout=subprocess.DEVNULL)
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        if done.returncode:
            failed.append(name)
        else:
            results[name] = json.loads((RESULTS / f"{name}.json").read_text())
    print(json.dumps({"machine": machine(), "failed": failed, "results": results}, indent=2))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
