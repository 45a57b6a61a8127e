"""`stook serve s3` as a process of its own before farmers of the test's, to be killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from s3_demo import ACCESS, SECRET


class GatewayProcess:
    """One gateway of one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it serves."""
        environment = {**os.environ, "STOOK_S3_ACCESS_KEY": ACCESS, "STOOK_S3_SECRET_KEY": SECRET}
        command = [sys.executable, "-m", "stook.cli.main", "--home", str(self.home)]
        command += ["serve", "s3", "--listen", "127.0.0.1:0", "--json", "--with-parent"]
        with (self.home / "gateway.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError((self.home / "gateway.log").read_text()[-3000:])
        self.url = json.loads(line)["url"]

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(60)
        finally:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def client(self) -> Any:
        """A boto3 client that tries everything once and does not wait long for the dead."""
        import boto3
        from botocore.config import Config

        config = Config(retries={"max_attempts": 1}, connect_timeout=5, read_timeout=40, max_pool_connections=32)
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=config,
        )
