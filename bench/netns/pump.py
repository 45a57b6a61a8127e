"""A switch with delay and loss, where the kernel has no netem.

    python -m bench.netns.pump DELAY_MS LOSS_PERCENT PID...

Makes a TAP device ``eth0`` in the network namespace of each process and carries frames between them: each is lost with
the given chance or arrives after the delay. Prints ``ready``; ends with its standard input, and the devices with it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
MAX_FRAME_BYTES = 65536
MAX_QUEUED_FRAMES = 100_000
BATCH = 128
"""Frames taken from one device before the others get their turn."""


def open_tap(pid: int, name: str) -> int:
    """A new TAP device in the network namespace of `pid`; this process is in that namespace afterwards."""
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(namespace)
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap


class Switch:
    """Learns who is where; floods what is for everybody or for somebody not heard of yet."""

    def __init__(self, taps: list[int], delay_seconds: float, loss: float, seed: int = 1) -> None:
        self._taps = taps
        self._delay = delay_seconds
        self._loss = loss
        self._dice = random.Random(seed)
        self._where: dict[bytes, int] = {}
        # One delay for all: what comes first leaves first, so one queue serves every link.
        self._queue: deque[tuple[float, tuple[int, ...], bytes]] = deque()

    def take(self, tap: int) -> None:
        """Read what waits on a device."""
        for _ in range(BATCH):
            try:
                frame = os.read(tap, MAX_FRAME_BYTES)
            except BlockingIOError:
                return
            self._where[frame[6:12]] = tap
            if self._dice.random() < self._loss or len(self._queue) >= MAX_QUEUED_FRAMES:
                continue
            known = self._where.get(frame[:6])
            targets = (known,) if known is not None else tuple(other for other in self._taps if other != tap)
            self._queue.append((time.monotonic() + self._delay, targets, frame))

    def deliver(self) -> float | None:
        """Write what is due; seconds until the next frame is, None when none waits."""
        queue, now = self._queue, time.monotonic()
        while queue and queue[0][0] <= now:
            _, targets, frame = queue.popleft()
            for tap in targets:
                try:
                    os.write(tap, frame)
                except OSError:
                    continue  # its end is down or full: lost, as on any line
        return queue[0][0] - now if queue else None


def main() -> None:
    delay_ms, loss_percent, *pids = sys.argv[1:]
    taps = [open_tap(int(pid), "eth0") for pid in pids]
    switch = Switch(taps, float(delay_ms) / 1000, float(loss_percent) / 100)
    poll = select.poll()
    for tap in taps:
        poll.register(tap, select.POLLIN)
    poll.register(0, select.POLLIN)
    print("ready", flush=True)
    wait: float | None = None
    while True:
        for source, _ in poll.poll(None if wait is None else wait * 1000):
            if source != 0:
                switch.take(source)
            elif not os.read(0, 64):
                return
        wait = switch.deliver()


if __name__ == "__main__":
    main()
