"""Farmer processes and one long-running client process on loopback: what the end-to-end benchmarks measure."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.common import cpu_seconds, peak_rss_mib, reset_peak_rss
from stook.assembly import create_renter_home
from stook.cli.local_network import LocalNetwork
from stook.config import NodeSettings, RentSettings

DRAIN_BYTES = 1 << 20
STOP_DEADLINE_SECONDS = 15


class StookGrid:
    """`start` it, use it, `stop` it. Nothing is measured here; `client_pid` and `farmer_pids` say where to look."""

    def __init__(self, root: Path, *, farmers: int, code: str, capacity: str = "16 GiB") -> None:
        self._root = root
        self._code = code
        self.network = LocalNetwork(root, farmers=farmers, capacity=capacity)
        self._client: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the farmers, then the client; returns when it knows them all."""
        self.network.start()
        home = self._root / "renter"
        node = NodeSettings(seeds=self.network.seeds, max_nodes_per_network=0, log_level="error")
        create_renter_home(home, node, RentSettings(code=self._code, spread="farmers"))
        self._client = subprocess.Popen(
            [sys.executable, "-m", "bench.client_process", str(home), str(len(self.network.farmers))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._answer()

    def stop(self) -> None:
        """End every process that this grid started."""
        self.resume()
        if self._client is not None and self._client.stdin is not None and self._client.stdout is not None:
            self._client.stdin.close()
            try:
                self._client.wait(STOP_DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                self._client.kill()
                self._client.wait()
            self._client.stdout.close()
            self._client = None
        self.network.stop()

    def __enter__(self) -> StookGrid:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- processes ---------------------------------------------------------------------------------------------------

    @property
    def client_pid(self) -> int:
        """The client's process."""
        if self._client is None:
            raise RuntimeError("the client does not run")
        return self._client.pid

    @property
    def farmer_pids(self) -> list[int]:
        """The farmers' processes."""
        return [farmer.process.pid for farmer in self.network.farmers if farmer.process is not None]

    def cpu(self) -> tuple[float, float]:
        """CPU seconds so far of the client and of all farmers together."""
        return cpu_seconds([self.client_pid]), cpu_seconds(self.farmer_pids)

    def reset_peaks(self) -> None:
        """Let `peaks` begin anew."""
        for pid in (self.client_pid, *self.farmer_pids):
            reset_peak_rss(pid)

    def peaks(self) -> tuple[float, float]:
        """Peak resident memory in MiB of the client, and of the largest farmer."""
        return peak_rss_mib(self.client_pid), max(peak_rss_mib(pid) for pid in self.farmer_pids)

    def pause(self) -> None:
        """Stop every process where it stands, so that it takes nothing from another side's measurement."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        processes = [farmer.process for farmer in self.network.farmers]
        for process in (*processes, self._client):
            if process is not None and process.poll() is None:
                process.send_signal(number)

    # --- work --------------------------------------------------------------------------------------------------------

    def put(self, files: Sequence[tuple[str, Path]]) -> dict[str, Any]:
        """Store files under names; returns when every segment has its n receipted shards."""
        answer = self._ask(do="put", files=[(name, str(path), path.stat().st_size) for name, path in files])
        return _complete(answer)

    def get(self, names: Sequence[str], folder: Path | None = None) -> None:
        """Fetch objects into a folder, or nowhere."""
        self._ask(do="get", names=list(names), folder=str(folder) if folder else None)

    def put_through_socket(self, name: str, path: Path) -> dict[str, Any]:
        """As `put` of one file, whose bytes we send to the client through a plain loopback connection."""

        def send(connection: socket.socket) -> None:
            with path.open("rb") as file:
                connection.sendfile(file)

        size = path.stat().st_size
        return _complete(self._with_connection(send, do="put_socket", name=name, size_bytes=size))

    def get_through_socket(self, name: str) -> int:
        """As `get` of one object, whose bytes the client sends us through a plain loopback connection; their number."""
        total = 0

        def drain(connection: socket.socket) -> None:
            nonlocal total
            buffer = bytearray(DRAIN_BYTES)
            while count := connection.recv_into(buffer):
                total += count

        self._with_connection(drain, do="get_socket", name=name)
        return total

    def lose(self, count: int) -> None:
        """Let `count` farmers that hold shards have lost all they hold, from disk and in the agent's books."""
        lost = self._ask(do="lose", count=count)["farmers"]
        for farmer in self.network.farmers:
            if any(farmer.uri.endswith(node_id) for node_id in lost):
                for path in (farmer.home / "shards").rglob("*.shard"):
                    path.unlink()

    def repair(self) -> None:
        """Bring every segment back to n; returns when the last new shard is receipted."""
        answer = self._ask(do="repair")
        if answer["segments_below_n"]:
            raise RuntimeError(f"{answer['segments_below_n']} segments are below n after repair")

    def forget(self, names: Sequence[str]) -> None:
        """Remove objects and wait until the farmers have erased their shards."""
        answer = self._ask(do="forget", names=list(names))
        if answer["left"]:
            raise RuntimeError(f"{answer['left']} shards were not erased in time")

    def _with_connection(self, serve: Callable[[socket.socket], None], **request: Any) -> dict[str, Any]:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def accept() -> None:
                connection, _ = server.accept()
                with connection:
                    serve(connection)

            thread = threading.Thread(target=accept, daemon=True)
            thread.start()
            answer = self._ask(port=server.getsockname()[1], **request)
            thread.join()
        return answer

    def _ask(self, **request: Any) -> dict[str, Any]:
        if self._client is None or self._client.stdin is None:
            raise RuntimeError("the client does not run")
        self._client.stdin.write(json.dumps(request) + "\n")
        self._client.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        if self._client is None or self._client.stdout is None:
            raise RuntimeError("the client does not run")
        line = self._client.stdout.readline()
        if not line:
            raise RuntimeError("the client ended; its last words are above")
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise RuntimeError(answer["why"])
        return answer


def _complete(answer: dict[str, Any]) -> dict[str, Any]:
    if answer["segments_below_n"]:
        raise RuntimeError(f"{answer['segments_below_n']} segments have fewer shards than asked for")
    return answer
