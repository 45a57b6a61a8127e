"""A demo network with an S3 gateway, as a process: for system tests, client conformance and benchmarks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

ACCESS, SECRET = "TESTKEY1", "secret-secret-1"
ALT_ACCESS, ALT_SECRET = "ALTKEY1", "secret-secret-2"
STOP_SECONDS = 60


class S3Demo:
    """`stook demo --serve-s3 0 --hold` for the length of a block."""

    def __init__(self, log: Path, *, farmers: int = 5, kill: int = 1, code: str | None = None) -> None:
        self._log = log
        self._farmers = farmers
        self._kill = kill
        self._code = code
        self.url = ""
        self.home = Path()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> S3Demo:
        environment = {
            "STOOK_S3_ACCESS_KEY": ACCESS,
            "STOOK_S3_SECRET_KEY": SECRET,
            "STOOK_S3_ALT_ACCESS_KEY": ALT_ACCESS,
            "STOOK_S3_ALT_SECRET_KEY": ALT_SECRET,
        }
        command = [sys.executable, "-m", "stook.cli.main", "demo", "--serve-s3", "0", "--hold", "--json"]
        command += ["--farmers", str(self._farmers), "--kill", str(self._kill)]
        command += ["--code", self._code] if self._code else []
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, **environment}
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the demo did not come up: {self._log.read_text()[-2000:]}")
        event: dict[str, Any] = json.loads(line)
        self.url, self.home = event["url"], Path(event["home"])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_SECONDS)
        finally:
            self.process.kill()
            if self.process.stdout is not None:
                self.process.stdout.close()

    def log(self) -> str:
        """What it said on standard error."""
        return self._log.read_text()

    def client(self, access: str = ACCESS, secret: str = SECRET, **more: Any) -> Any:
        """A boto3 client that tries everything once."""
        import boto3
        from botocore.config import Config

        config = Config(retries={"max_attempts": 1}, max_pool_connections=32, **more)
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=access,
            aws_secret_access_key=secret,
            region_name="anywhere-1",
            config=config,
        )
