"""The yardstick beside end-to-end figures: the same bytes from a file, through a plain loopback connection, to a file.

No encryption, no code, no hash, one copy: what the machine's kernel asks for moving the bytes at all.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

HOST = "127.0.0.1"
PIECE = 1 << 20


def _receive(pipe: Pipe, path: str) -> None:
    with socket.create_server((HOST, 0)) as server:
        pipe.send(server.getsockname()[1])
        connection, _ = server.accept()
    buffer = memoryview(bytearray(PIECE))
    cpu = time.process_time()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with connection:
        while count := connection.recv_into(buffer):
            os.write(descriptor, buffer[:count])
        os.fdatasync(descriptor)
        os.close(descriptor)
        pipe.send(time.process_time() - cpu)
        connection.sendall(b"\x00")


def copy_through_loopback(source: Path, target: Path) -> dict[str, float]:
    """Copy a file; `mb_s` until the last byte is synced, `cpu_s_per_gb` of both ends together."""
    size = source.stat().st_size
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_receive, args=(there, str(target)))
    process.start()
    there.close()  # so that the other end's failing is the end of the pipe, not a wait without end
    with socket.create_connection((HOST, here.recv())) as connection, source.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(PIECE))
        wall, cpu = time.perf_counter(), time.process_time()
        while count := file.readinto(buffer):
            connection.sendall(buffer[:count])
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    both = cpu + here.recv()
    process.join()
    target.unlink()
    return {"mb_s": round(size / 1e6 / wall, 1), "cpu_s_per_gb": round(both / size * 1e9, 3)}
