"""Run every client's steps against one demo network; one line a step, and a table at the end.

    python -m conformance.run [--only rclone] [--farmers 6] [--json results.json]

A client that cannot be installed is skipped loudly, and with --strict fails the run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from conformance.toolbox import MissingTool, Toolbox

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests/support"))

from s3_demo import ACCESS, ALT_ACCESS, ALT_SECRET, SECRET, S3Demo  # noqa: E402

STEP_SECONDS = 180


class StepFailed(Exception):
    """What a client said, at its end."""


@dataclass
class Bench:
    """What a client's steps work with."""

    client: str
    url: str
    work: Path
    results: list[dict[str, object]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        plain = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_", "RESTIC_"))
        }
        return plain | {
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            # Any name will do; in us-east-1 older clients presign with version 2 of the signature.
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_REGION": "eu-central-1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "STOOK_ALT_ACCESS": ALT_ACCESS,
            "STOOK_ALT_SECRET": ALT_SECRET,
            "HOME": str(self.work),
        }

    def step(self, name: str, act: Callable[[], None]) -> None:
        """Do one step and say how it went; a failure does not end the others."""
        began = time.monotonic()
        try:
            act()
            ok, why = True, ""
        except (StepFailed, AssertionError, OSError, subprocess.TimeoutExpired) as error:
            ok, why = False, f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - began
        self.note(name, ok, seconds, why)

    def note(self, name: str, ok: bool, seconds: float, why: str = "") -> None:
        self.results.append({"client": self.client, "step": name, "ok": ok, "seconds": round(seconds, 2), "why": why})
        print(f"{'ok  ' if ok else 'FAIL'}  {self.client:<8} {name:<48} {seconds:6.1f} s {why[-1500:]}", flush=True)

    def run(self, *command: object, env: dict[str, str] | None = None, text: bytes | None = None) -> bytes:
        """What a program wrote. Raises `StepFailed` when it fails."""
        done = subprocess.run(
            [str(part) for part in command],
            env=self.environment | (env or {}),
            input=text,
            capture_output=True,
            timeout=STEP_SECONDS,
            cwd=self.work,
            check=False,
        )
        if done.returncode:
            said = (done.stdout[-700:] + done.stderr[-1500:]).decode(errors="replace")
            raise StepFailed(f"{Path(str(command[0])).name} {command[1]} ended with {done.returncode}: {said}")
        return done.stdout

    def script(self, python: Path, name: str) -> None:
        """A Python client's own steps: it prints ``ok STEP SECONDS`` or ``FAIL STEP SECONDS WHY`` a line."""
        done = subprocess.run(
            [python, HERE / name], env=self.environment, capture_output=True, timeout=10 * STEP_SECONDS, check=False
        )
        for line in done.stdout.decode().splitlines():
            verdict, step, seconds, why = (line.split("\t") + [""] * 4)[:4]
            self.note(step, verdict == "ok", float(seconds), why)
        if done.returncode:
            self.note("script", False, 0.0, done.stderr.decode(errors="replace")[-2000:])


def tree(folder: Path) -> Path:
    """Files of many sizes with awkward names."""
    (folder / "deep/er").mkdir(parents=True)
    for number, size in enumerate((0, 1, 17, 4096, 65_537, 300_000, 1_048_577)):
        (folder / f"file {number} +ä&%.bin").write_bytes(os.urandom(size))
        (folder / f"deep/er/n{number}").write_bytes(os.urandom(size // 2))
    (folder / "large").write_bytes(os.urandom(23 << 20))
    return folder


def same(left: Path, right: Path) -> None:
    """Raises `AssertionError` unless both trees hold the same files."""
    names = {path.relative_to(left) for path in left.rglob("*") if path.is_file()}
    assert names == {path.relative_to(right) for path in right.rglob("*") if path.is_file()}, "other names came back"
    for name in names:
        assert (left / name).read_bytes() == (right / name).read_bytes(), f"{name} differs"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="a client; repeatable")
    parser.add_argument("--farmers", type=int, default=6)
    parser.add_argument("--tools", type=Path, default=HERE.parent / ".venv-conformance")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--strict", action="store_true")
    options = parser.parse_args()
    from conformance.clients import CLIENTS

    chosen = {name: run for name, run in CLIENTS.items() if not options.only or name in options.only}
    tools, results, skipped = Toolbox(options.tools), [], []
    with tempfile.TemporaryDirectory(prefix="stook-conformance-") as folder:
        with S3Demo(Path(folder) / "demo.log", farmers=options.farmers) as demo:
            for name, run in chosen.items():
                work = Path(folder) / name
                work.mkdir()
                bench = Bench(name, demo.url, work)
                try:
                    run(bench, tools)
                except MissingTool as error:
                    skipped.append(name)
                    print(f"SKIPPED {name}: {error}", flush=True)
                results += bench.results
        log = demo.log()
    failed = [each for each in results if not each["ok"]]
    if "request failed" in log:
        print(f"the gateway's log has errors:\n{log[-4000:]}")
        failed.append({"client": "gateway", "step": "log"})
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"results": results, "skipped": skipped}, indent=1))
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed or not results or (options.strict and skipped) else 0


if __name__ == "__main__":
    sys.exit(main())
