"""A real Ethereum development node for demos and tests: anvil, from the npm package `@foundry-rs/anvil`.

Looked for in $STOOK_ANVIL, on the PATH, and under the Python environment, where ``make anvil`` puts it. It listens on
loopback, has a chain of its own, and is gone with the process that started it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from stook.cli.local_network import free_loopback_ports
from stook.errors import ConfigError, EnvironmentFault

START_DEADLINE_SECONDS = 30.0
GAS_MONEY = 10**20
"""Wei for each account that sends transactions."""


def find_anvil() -> Path | None:
    """The program, or None."""
    named = os.environ.get("STOOK_ANVIL") or shutil.which("anvil")
    if named:
        return Path(named)
    packages = Path(sys.prefix) / "anvil" / "node_modules" / "@foundry-rs"
    return next((each for each in sorted(packages.glob("anvil-*/bin/anvil*")) if os.access(each, os.X_OK)), None)


class DevNode:
    """One node; a context manager."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_loopback_ports(1)[0]}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DevNode:
        """Start it and wait until it answers. Raises `ConfigError` when there is no anvil, `EnvironmentFault`."""
        program = find_anvil()
        if program is None:
            raise ConfigError("no anvil is here: `make anvil` gets it with npm, or set STOOK_ANVIL to the program")
        port = self.url.rpartition(":")[2]
        self._process = subprocess.Popen(
            [str(program), "--host", "127.0.0.1", "--port", port, "--silent"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def version(self) -> str:
        """What it calls itself."""
        program = find_anvil()
        if program is None:
            return "none"
        text = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False, timeout=20)
        return (text.stdout.splitlines() or ["anvil"])[0]

    def _wait(self) -> None:
        import urllib.error
        import urllib.request

        deadline = time.monotonic() + START_DEADLINE_SECONDS
        body = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}'
        request = urllib.request.Request(self.url, body, {"content-type": "application/json"})
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise EnvironmentFault("anvil ended at once")
            try:
                with urllib.request.urlopen(request, timeout=2) as answer:
                    answer.read()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise EnvironmentFault("anvil did not answer in time")
