"""What the line itself gives: round trips, and one plain TCP stream under each of the kernel's congestion controls.

python -m bench.netns.yardstick serve HOST | send HOST CONTROL SECONDS
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from typing import Any

from bench.netns.hosts import Host

PORT = 7070
PIECE_BYTES = 1 << 16
CONTROLS = ("cubic", "bbr")


def measure(here: Host, there: Host, seconds: float) -> dict[str, Any]:
    """``rtt_ms``, and ``tcp_cubic_mb_s``, ``tcp_bbr_mb_s`` (null where the kernel has it not) from here to there."""
    module = (sys.executable, "-m", "bench.netns.yardstick")
    server = subprocess.Popen([*there.prefix, *module, "serve", there.address], stdin=subprocess.PIPE, stdout=-1)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        figures: dict[str, Any] = {}
        for control in CONTROLS:
            command = [*here.prefix, *module, "send", there.address, control, str(seconds)]
            told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
            figures["rtt_ms"] = told["rtt_ms"]
            figures[f"tcp_{control}_mb_s"] = told["mb_s"]
        return figures
    finally:
        server.communicate()


def serve(host: str) -> None:
    """Take what comes, and say at the end how much it was and how long it took."""
    with socket.create_server((host, PORT)) as listener:
        print("ready", flush=True)
        for _ in CONTROLS:
            stream, _ = listener.accept()
            with stream:
                began, size = time.monotonic(), 0
                while piece := stream.recv(PIECE_BYTES):
                    size += len(piece)
                stream.sendall(json.dumps({"mb_s": round(size / 1e6 / (time.monotonic() - began), 3)}).encode())


def send(host: str, control: str, seconds: float) -> dict[str, Any]:
    began = time.monotonic()
    with socket.create_connection((host, PORT), timeout=120) as stream:
        rtt_ms = round((time.monotonic() - began) * 1000, 1)
        offered = True
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control.encode())
        except OSError:
            offered, seconds = False, 0.0
        while time.monotonic() - began < seconds:
            stream.sendall(bytes(PIECE_BYTES))
        stream.shutdown(socket.SHUT_WR)
        told = json.loads(stream.recv(4096))
    return {"rtt_ms": rtt_ms, "mb_s": told["mb_s"] if offered else None}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        print(json.dumps(send(sys.argv[2], sys.argv[3], float(sys.argv[4]))))
