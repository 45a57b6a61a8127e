"""A Tahoe-LAFS grid of its own on loopback: introducer, storage nodes, gateway, in a virtual environment of their own.

The release comes from PyPI and runs as its documentation says; ``foolscap`` switches both halves to the older protocol.
"""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.common import cpu_seconds, free_ports

VERSION = "1.20.0"
START_DEADLINE_SECONDS = 120
BLOCK_BYTES = 1 << 20
CREATORS = 2
"""How many nodes are made at a time: each takes a second or two of a core."""


def install(directory: Path) -> Path:
    """A virtual environment with the pinned release; its ``tahoe`` command."""
    command = directory / "bin" / "tahoe"
    if not command.exists():
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        pip = [str(directory / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"tahoe-lafs=={VERSION}"], check=True)
    return command


class TahoeGrid:
    """Start with `start`, end with `stop`; `put` and `get` speak to the gateway's web API."""

    def __init__(self, command: Path, root: Path, *, nodes: int, needed: int, total: int, foolscap: bool) -> None:
        self._command = str(command)
        self._root = root
        self._nodes = nodes
        self._code = (needed, total)
        self._foolscap = foolscap
        self._processes: list[subprocess.Popen[bytes]] = []
        self._web_port = 0

    def start(self) -> None:
        """Create and start every node; returns when the gateway sees all storage nodes."""
        self._root.mkdir(parents=True)
        ports = free_ports(self._nodes + 2)
        self._web_port = ports[-1]
        self._create("create-introducer", "introducer", ports[0])
        self._run("introducer")
        furl_file = self._root / "introducer" / "private" / "introducer.furl"
        self._wait(lambda: furl_file.exists(), "the introducer")
        furl = furl_file.read_text().strip()
        names = [f"storage{number}" for number in range(self._nodes)]

        def create(name: str, port: int) -> None:
            self._create("create-node", name, port, f"--introducer={furl}", "--webport=none")
            self._set_protocol(name)

        with ThreadPoolExecutor(CREATORS) as pool:
            list(pool.map(create, names, ports[1:-1]))
        for name in names:
            self._run(name)
        needed, total = self._code
        self._tahoe(
            "create-client",
            f"--introducer={furl}",
            f"--webport=tcp:{self._web_port}:interface=127.0.0.1",
            f"--shares-needed={needed}",
            f"--shares-happy={total}",
            f"--shares-total={total}",
            str(self._root / "gateway"),
        )
        self._set_protocol("gateway")
        self._run("gateway")
        self._wait(self._all_connected, "the gateway to meet its storage nodes")

    def put(self, path: Path) -> str:
        """Upload a file as it would be by ``curl -T``; the capability it returns."""
        connection = self._connection()
        with path.open("rb") as file:
            connection.request("PUT", "/uri", body=file, headers={"Content-Length": str(path.stat().st_size)})
            return self._answer(connection).decode()

    def get(self, capability: str, buffer: bytearray) -> int:
        """Download everything into a small reused buffer; the number of bytes."""
        connection = self._connection()
        connection.request("GET", f"/uri/{capability}")
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"Tahoe-LAFS answered {response.status}: {response.read(500)!r}")
        total = 0
        while count := response.readinto(buffer):
            total += count
        connection.close()
        return total

    def put_many(self, paths: Sequence[Path], connections: int) -> list[str]:
        """Upload files over several connections at a time; their capabilities."""
        with ThreadPoolExecutor(connections) as pool:
            return list(pool.map(self.put, paths))

    def get_many(self, capabilities: Sequence[str], connections: int) -> int:
        """Download everything over several connections at a time; the number of bytes."""
        with ThreadPoolExecutor(connections) as pool:
            return sum(pool.map(lambda capability: self.get(capability, bytearray(BLOCK_BYTES)), capabilities))

    def matches(self, capability: str, path: Path) -> bool:
        """Download a file and compare it with one on disk."""
        connection = self._connection()
        connection.request("GET", f"/uri/{capability}")
        response = connection.getresponse()
        same = response.status == 200
        with path.open("rb") as file:
            while block := response.read(BLOCK_BYTES):
                same = same and file.read(len(block)) == block
            same = same and not file.read(1)
        connection.close()
        return same

    def forget(self) -> None:
        """Remove every share from the nodes' disks: there is no other way but to let leases run out."""
        for number in range(self._nodes):
            shares = self._root / f"storage{number}" / "storage" / "shares"
            for folder in shares.iterdir():
                if folder.name != "incoming":
                    shutil.rmtree(folder)

    def lose(self, count: int) -> None:
        """Take the shares of everything stored from the disks of `count` nodes that have any."""
        lost = 0
        for number in range(self._nodes):
            shares = self._root / f"storage{number}" / "storage" / "shares"
            mine = [folder for folder in shares.iterdir() if folder.name != "incoming"]
            if mine and lost < count:
                lost += 1
                for folder in mine:
                    shutil.rmtree(folder)

    def repair(self, capability: str) -> None:
        """Check, without reading shares, and repair, as ``tahoe check --repair`` does."""
        connection = self._connection()
        connection.request("POST", f"/uri/{capability}?t=check&repair=true&output=JSON")
        answer = json.loads(self._answer(connection))
        if not answer["repair-successful"]:
            raise RuntimeError(f"Tahoe-LAFS could not repair: {answer!r:.500}")

    def shares_stored(self) -> int:
        """Complete shares on the nodes' disks."""
        stored = 0
        for number in range(self._nodes):
            shares = self._root / f"storage{number}" / "storage" / "shares"
            stored += sum(
                path.is_file() for folder in shares.iterdir() if folder.name != "incoming" for path in folder.rglob("*")
            )
        return stored

    def pause(self) -> None:
        """Stop every process where it stands, so that an idle grid takes nothing from the other side."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on; returns when the gateway sees all storage nodes."""
        self._signal(signal.SIGCONT)
        self._wait(self._all_connected, "the gateway to meet its storage nodes again")

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def cpu_seconds(self) -> float:
        """CPU seconds of all its processes so far."""
        return cpu_seconds(process.pid for process in self._processes)

    def stop(self) -> None:
        """End every process this grid started."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._web_port, timeout=600, blocksize=BLOCK_BYTES)

    def _answer(self, connection: http.client.HTTPConnection) -> bytes:
        response = connection.getresponse()
        body = response.read()
        connection.close()
        if response.status not in (200, 201):
            raise RuntimeError(f"Tahoe-LAFS answered {response.status}: {body[:500]!r}")
        return body

    def _all_connected(self) -> bool:
        try:
            connection = self._connection()
            connection.request("GET", "/?t=json")
            servers = json.loads(self._answer(connection))["servers"]
        except OSError:
            return False
        return sum(server["connection_status"].lower().startswith("connected") for server in servers) >= self._nodes

    def _tahoe(self, *arguments: str) -> None:
        subprocess.run([self._command, *arguments], check=True, stdout=subprocess.DEVNULL)

    def _create(self, kind: str, name: str, port: int, *more: str) -> None:
        where = (f"--port=tcp:{port}:interface=127.0.0.1", f"--location=tcp:127.0.0.1:{port}")
        self._tahoe(kind, *where, *more, str(self._root / name))

    def _set_protocol(self, name: str) -> None:
        if not self._foolscap:
            return
        path = self._root / name / "tahoe.cfg"
        text = path.read_text()
        for section in ("[client]", "[storage]"):
            text = text.replace(section, f"{section}\nforce_foolscap = true")
        path.write_text(text)

    def _run(self, name: str) -> None:
        log = (self._root / f"{name}.log").open("wb")
        command = [self._command, "run", str(self._root / name)]
        # A node ends when its standard input closes, so that none outlives this process, however that ends.
        self._processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log))
        log.close()

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_DEADLINE_SECONDS
        while not ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"gave up waiting for {what}; logs are in {self._root}")
            time.sleep(0.1)
