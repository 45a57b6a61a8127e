"""Hosts of their own: network namespaces joined by one switch, with delay and loss on every host's line.

A namespace lives as long as the process that holds it, and a holder ends with its standard input. So nothing of it is
left behind, however the process that made them ends: no names under /var/run/netns, no interfaces, no processes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

SUBNET = "10.77.0"
BROADCAST = f"{SUBNET}.255"
MAX_HOSTS = 200
QUEUE_PACKETS = 100_000
CONGESTION_CONTROL = "/proc/sys/net/ipv4/tcp_congestion_control"


class NotPermittedError(Exception):
    """This machine or account cannot make such hosts; says why."""


@dataclass(frozen=True, slots=True)
class Line:
    """What lies between a host and the switch, one way: every packet a host sends is delayed, or lost."""

    delay_ms: float = 80.0
    loss_percent: float = 1.0


@dataclass(frozen=True, slots=True)
class Host:
    """One host: its address, and how to run a command there."""

    address: str
    prefix: tuple[str, ...]


class Hosts:
    """`count` hosts on one local network, from entering the block until leaving it. Raises `NotPermittedError`."""

    def __init__(self, count: int, line: Line) -> None:
        if not 1 <= count <= MAX_HOSTS:
            raise ValueError(f"1 to {MAX_HOSTS} hosts fit one local network")
        self._count = count
        self._line = line
        self._holders: list[subprocess.Popen[str]] = []
        self.hosts: list[Host] = []
        self.carrier = ""
        """What delays and loses: ``netem``, or ``frame pump`` where the kernel has none."""

    def __enter__(self) -> Hosts:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take everything down."""
        for holder in reversed(self._holders):
            for pipe in (holder.stdin, holder.stdout):
                if pipe is not None:
                    pipe.close()
        for holder in self._holders:
            try:
                holder.wait(5)
            except subprocess.TimeoutExpired:
                holder.kill()
                holder.wait()
        self._holders.clear()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        for tool in ("ip", "unshare", "nsenter"):
            if shutil.which(tool) is None:
                raise NotPermittedError(f"the command {tool} is missing")
        pids = [self._namespace() for _ in range(self._count)]
        self.hosts = [Host(f"{SUBNET}.{number}", _inside(pid)) for number, pid in enumerate(pids, 1)]
        if not self._netem(pids):
            self._pump(pids)
        for host in self.hosts:
            # What most machines come with, or its like, whatever this one has been tuned to.
            choice = f"echo cubic > {CONGESTION_CONTROL} || echo reno > {CONGESTION_CONTROL}"
            _do(*host.prefix, "sh", "-c", choice)
            _do(*host.prefix, "ip", "addr", "add", f"{host.address}/24", "brd", BROADCAST, "dev", "eth0")
            _do(*host.prefix, "ip", "link", "set", "eth0", "up")

    def _hold(self, *command: str) -> subprocess.Popen[str]:
        """Start a process that says ``ready`` and ends with its standard input."""
        holder = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._holders.append(holder)
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline().strip() != "ready":
            raise NotPermittedError(f"{command[0]}: {holder.stderr.read().strip()[-300:]}")
        holder.stderr.close()
        return holder

    def _namespace(self) -> int:
        return self._hold("unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec cat >/dev/null").pid

    def _netem(self, pids: Sequence[int]) -> bool:
        """Hosts on a bridge by veth pairs, each with netem on its own end; False when the kernel has no netem."""
        if shutil.which("tc") is None:
            return False
        hub = self._namespace()
        shape = ["netem", "delay", f"{self._line.delay_ms:g}ms", "loss", f"{self._line.loss_percent:g}%"]
        probe = subprocess.run(
            [*_inside(hub), "tc", "qdisc", "add", "dev", "lo", "root", *shape], capture_output=True, check=False
        )
        if probe.returncode:
            return False
        _do(*_inside(hub), "ip", "link", "add", "hub", "type", "bridge")
        _do(*_inside(hub), "ip", "link", "set", "hub", "up")
        for number, pid in enumerate(pids):
            port = f"port{number}"
            _do(*_inside(hub), "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
            _do(*_inside(hub), "ip", "link", "set", port, "master", "hub", "up")
            # A packet as the line sees it: netem would lose, or spare, a whole train of segments at once.
            _do(*_inside(pid), "ip", "link", "set", "eth0", "gso_max_segs", "1")
            limit = ("limit", str(QUEUE_PACKETS))
            _do(*_inside(pid), "tc", "qdisc", "add", "dev", "eth0", "root", *shape, *limit)
        self.carrier = "netem"
        return True

    def _pump(self, pids: Sequence[int]) -> None:
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            raise NotPermittedError("the kernel has no netem, and /dev/net/tun cannot be opened to stand in for it")
        line = (f"{self._line.delay_ms:g}", f"{self._line.loss_percent:g}")
        self._hold(sys.executable, "-m", "bench.netns.pump", *line, *(str(pid) for pid in pids))
        self.carrier = "frame pump"


def _inside(pid: int) -> tuple[str, ...]:
    return ("nsenter", f"--net=/proc/{pid}/ns/net", "--")


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotPermittedError(f"{' '.join(command)}: {done.stderr.strip()[-300:]}")
