"""A network of farmer processes on this machine, for the demo, the benchmarks and the system tests.

They serve on loopback, or each at a place of its own: a network namespace with an address (`bench.netns`).

Every farmer is an ordinary `stook farm run` with a home of its own. It stops when its standard input closes, so that
none outlives the process that started it, however that one ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stook.errors import EnvironmentFault

if TYPE_CHECKING:
    from stook.config import PaySettings

START_DEADLINE_SECONDS = 120.0
STOP_DEADLINE_SECONDS = 15.0


def free_loopback_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a farmer serves, and what goes before its command line so that it runs there (``nsenter …``)."""

    host: str
    port: int
    prefix: tuple[str, ...] = ()


@dataclass
class FarmerProcess:
    """One farmer: its home, its contact URI, where it runs, and its process while it does."""

    name: str
    home: Path
    uri: str
    place: Place
    process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.poll() is None


class LocalNetwork:
    """Farmers on loopback, or at `places`. `start`, `kill` and `stop` them; the first one is everybody's seed."""

    def __init__(
        self,
        root: Path,
        *,
        farmers: int,
        capacity: str,
        log_level: str = "warning",
        places: Sequence[Place] | None = None,
        lan: str = "",
        storage_price_per_gib_hour: int = 0,
        download_price_per_gib: int = 0,
        pay: PaySettings | None = None,
    ) -> None:
        """With `lan`, the renter's interface, nobody has a seed: all find one another by beacons on the local link."""
        self._root = root
        self._capacity = capacity
        self._log_level = log_level
        self.lan = lan
        self._prices = (storage_price_per_gib_hour, download_price_per_gib)
        self._pay = pay
        self.farmers: list[FarmerProcess] = []
        if places is None:
            places = [Place("127.0.0.1", port) for port in free_loopback_ports(farmers)]
        for place in places[:farmers]:
            self._add(place, self.seeds)

    def add(self, seeds: tuple[str, ...]) -> FarmerProcess:
        """One more farmer, which enters by `seeds`; it does not run yet. See `start`."""
        return self._add(Place("127.0.0.1", free_loopback_ports(1)[0]), seeds)

    def _add(self, place: Place, seeds: tuple[str, ...]) -> FarmerProcess:
        from stook.assembly import create_farmer_home
        from stook.config import FarmSettings, NodeSettings

        name = f"farmer-{len(self.farmers) + 1:02d}"
        node = NodeSettings(
            listen=f"{place.host}:{place.port}",
            seeds=seeds,
            lan=place.host if self.lan else "",
            log_level=self._log_level,
            max_nodes_per_network=0,
        )
        farm = FarmSettings(
            capacity=self._capacity,
            min_free_disk="64 MiB",
            max_reserved_per_renter=self._capacity,
            operator=name,
            failure_domain=name,
            min_duration="1 min",
            storage_price_per_gib_hour=self._prices[0],
            download_price_per_gib=self._prices[1],
        )
        home = self._root / name
        self.farmers.append(FarmerProcess(name, home, create_farmer_home(home, node, farm, pay=self._pay), place))
        return self.farmers[-1]

    @property
    def seeds(self) -> tuple[str, ...]:
        """Contact URIs to enter the network by: one, or none where beacons do."""
        return (self.farmers[0].uri,) if self.farmers and not self.lan else ()

    def start(self, farmers: Sequence[FarmerProcess] | None = None) -> None:
        """Start every farmer, or those named, that does not run and wait until all serve.

        Raises `EnvironmentFault` with the end of its log when one does not come up.
        """
        waiting = [farmer for farmer in (self.farmers if farmers is None else farmers) if not farmer.alive]
        deadline = time.monotonic() + START_DEADLINE_SECONDS
        if self.farmers[0] in waiting:
            # The seed first, so that everybody else finds it up.
            self._spawn(waiting[0])
            self._await_ready(waiting.pop(0), deadline)
        for farmer in waiting:
            self._spawn(farmer)
        for farmer in waiting:
            self._await_ready(farmer, deadline)

    def kill(self, farmers: list[FarmerProcess]) -> None:
        """End processes at once, as a power cut would (SIGKILL)."""
        for farmer in farmers:
            if farmer.process is not None:
                farmer.process.send_signal(signal.SIGKILL)
        for farmer in farmers:
            self._reap(farmer)

    def stop(self) -> None:
        """Ask every farmer to stop and wait; whoever does not is killed."""
        for farmer in self.farmers:
            if farmer.process is not None and farmer.process.stdin is not None:
                farmer.process.stdin.close()
        deadline = time.monotonic() + STOP_DEADLINE_SECONDS
        for farmer in self.farmers:
            if farmer.process is not None:
                try:
                    farmer.process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    farmer.process.kill()
            self._reap(farmer)

    def __enter__(self) -> LocalNetwork:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _spawn(self, farmer: FarmerProcess) -> None:
        command = [*farmer.place.prefix, sys.executable, "-m", "stook.cli.main", "--home", str(farmer.home)]
        with (farmer.home / "farmer.log").open("ab") as log:
            farmer.process = subprocess.Popen(
                [*command, "farm", "run", "--json", "--with-parent"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Each in its own process group: Ctrl-C reaches the demo alone, which then stops them in order.
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def _await_ready(self, farmer: FarmerProcess, deadline: float) -> None:
        process = farmer.process
        if process is None or process.stdout is None:
            raise EnvironmentFault(f"{farmer.name} was not started")
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        line = process.stdout.readline() if ready else b""
        try:
            event = json.loads(line).get("event")
        except ValueError:
            event = None
        if event != "ready":
            log = (farmer.home / "farmer.log").read_text(errors="replace")[-2000:]
            self.stop()
            raise EnvironmentFault(f"{farmer.name} did not come up; the end of its log:\n{log}")

    def _reap(self, farmer: FarmerProcess) -> None:
        if farmer.process is None:
            return
        farmer.process.wait()
        for pipe in (farmer.process.stdin, farmer.process.stdout):
            if pipe is not None:
                pipe.close()
        farmer.process = None
