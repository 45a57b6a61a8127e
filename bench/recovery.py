"""The laptop is lost: profile, catalog and keys deleted, 24 words typed, everything compared. Real processes.

``python -m bench.recovery 10 10000`` stores so many objects in three buckets over ten farmers, overwrites some, removes
some, deletes the home, runs `stook recover` with the words and one farmer, and compares every bucket, name, version and
content hash, then fetches and compares every byte. One line of JSON for each number.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.common import same_file
from stook.assembly import CATALOG_FILE, create_renter_home
from stook.cli.local_network import LocalNetwork
from stook.config import NodeSettings, RentSettings
from stook.storage.catalog import SqlCatalog

FARMERS = 10
BUCKETS = 3
LARGEST_BYTES = 2048
PER_FOLDER = 1000
Names = dict[tuple[str, str], tuple[int, int, bytes]]


def stook(home: Path, *words: str, feed: str = "") -> tuple[str, float, float]:
    """One command in a process of its own: its output, seconds, and peak resident MiB."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "stook.cli.main", "--home", str(home), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(feed)
    process.stdin.close()
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"stook {' '.join(words)} ended with {process.returncode}: {output[-500:]}")
    return output, time.monotonic() - begun, used.ru_maxrss / 1024


def make_tree(root: Path, objects: int, dice: random.Random) -> None:
    """Small files, so many to a folder."""
    for number in range(objects):
        folder = root / f"{number // PER_FOLDER:04}"
        if number % PER_FOLDER == 0:
            folder.mkdir(parents=True)
        (folder / f"file {number} é.txt").write_bytes(dice.randbytes(dice.randrange(1, LARGEST_BYTES)))


def files(root: Path) -> Iterator[Path]:
    """Every file below `root`."""
    for folder, _, names in os.walk(root):
        for name in names:
            yield Path(folder, name)


def names_in(home: Path) -> tuple[set[str], Names]:
    """Buckets, and version, size and content hash of every name."""
    catalog = SqlCatalog.open(home / CATALOG_FILE)
    found: Names = {}
    buckets = {bucket.name for bucket in catalog.buckets()}
    for bucket in buckets:
        after: str | None = ""
        while after is not None:
            page = catalog.list_objects(bucket, after=after, limit=10_000)
            found |= {(bucket, each.name): (each.version, each.size_bytes, each.content_hash) for each in page.objects}
            after = page.next_after
    catalog.close()
    return buckets, found


def measure(work: Path, objects: int, *, fetch: bool = True) -> dict[str, Any]:
    """One life: store, lose, recover, compare. Raises `RuntimeError` when anything is not as it was."""
    dice = random.Random(objects)
    network = LocalNetwork(work / "grid", farmers=FARMERS, capacity="8 GiB")
    network.start()
    try:
        home, trees = work / "home", [work / f"tree-{number}" for number in range(BUCKETS)]
        node = NodeSettings(seeds=network.seeds, max_nodes_per_network=0, log_level="error")
        words = create_renter_home(home, node, RentSettings(spread="farmers"))
        stook(home, "mb", *(tree.name for tree in trees), "empty")
        stored = 0.0
        for number, tree in enumerate(trees):
            make_tree(tree, objects // BUCKETS + (number < objects % BUCKETS), dice)
            stored += stook(home, "cp", "-r", str(tree), f"stook:{tree.name}", "--json")[1]
        changed = _change(home, trees[0], dice)
        buckets, before = names_in(home)
        status = json.loads(stook(home, "status", "--json")[0])
        saved = json.loads(stook(home, "catalog", "verify", "--json")[0])
        shutil.rmtree(home)
        out, seconds, peak = stook(home, "recover", "--seed", network.seeds[-1], "--json", feed=words)
        came = json.loads(out)
        if names_in(home) != (buckets, before):
            raise RuntimeError("names or versions are not as they were")
        if came["segments_missing"] or came["segments_unnamed"] or not status["catalog"]["recoverable"]:
            raise RuntimeError(f"something is missing: {came}")
        fetched, compared = _compare(home, trees, work / "back") if fetch else (0.0, 0)
        return {
            "objects": len(before),
            "buckets": len(buckets),
            "changed": changed,
            "farmers": FARMERS,
            "store_seconds": round(stored, 2),
            "catalog_rows": saved["rows"],
            "catalog_saved_bytes": saved["size_bytes"],
            "catalog_saves": saved["saves"],
            "recover_seconds": round(seconds, 2),
            "recover_peak_rss_mib": round(peak, 1),
            "contracts": came["contracts"],
            "fetch_all_seconds": round(fetched, 2),
            "files_compared": compared,
        }
    finally:
        network.stop()


def _change(home: Path, tree: Path, dice: random.Random) -> int:
    """Overwrite a few files and remove a few, here and there alike; how many."""
    some = sorted(files(tree))[:: max(1, len(list(files(tree))) // 5)][:5]
    for path in some[1:]:
        path.write_bytes(dice.randbytes(3000))
        stook(home, "put", str(path), f"{tree.name}/{path.relative_to(tree)}")
    some[0].unlink()
    stook(home, "rm", f"{tree.name}/{some[0].relative_to(tree)}")
    return len(some)


def _compare(home: Path, trees: list[Path], target: Path) -> tuple[float, int]:
    """Fetch everything and compare it byte by byte; seconds of fetching, and files."""
    seconds, count = 0.0, 0
    for tree in trees:
        back = target / tree.name
        seconds += stook(home, "cp", "-r", f"stook:{tree.name}", str(back), "--json")[1]
        for path in files(tree):
            if not same_file(path, back / path.relative_to(tree)):
                raise RuntimeError(f"{path} did not come back as it was")
            count += 1
        if sum(1 for _ in files(back)) != sum(1 for _ in files(tree)):
            raise RuntimeError(f"{tree.name} has files that were never stored")
        shutil.rmtree(back)
    return seconds, count


def main() -> None:
    """Measure for every number named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("objects", type=int, nargs="+")
    parser.add_argument("--work", type=Path, help="A folder on a disk with room; default: a temporary one.")
    parser.add_argument("--no-fetch", action="store_true", help="Compare names, versions and content hashes only.")
    arguments = parser.parse_args()
    for objects in arguments.objects:
        with tempfile.TemporaryDirectory(dir=arguments.work) as work:
            print(json.dumps(measure(Path(work), objects, fetch=not arguments.no_fetch)), flush=True)


if __name__ == "__main__":
    main()
