"""Coverage-guided fuzzing of every target for a bounded number of inputs, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT / "tests" / "fuzz" / "fuzz_run.py"


def fuzz(folder: Path, *arguments: str, patience_seconds: int) -> str:
    """What the fuzzer printed; a finding fails with Python's traceback and the input that did it."""
    done = subprocess.run(
        [sys.executable, RUNNER, "--folder", folder, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=patience_seconds,
        check=False,
    )
    if done.returncode == 3:
        pytest.skip(f"NOT FUZZED: {done.stderr.strip()} (`make fuzz` installs it and says why it cannot)")
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-4_000:]
    return done.stdout


def test_every_target_for_some_hundred_inputs(tmp_path: Path) -> None:
    """The seed is fixed: what fails here fails again. Slow targets get fewer inputs, by their weight."""
    told = fuzz(tmp_path, "--runs", "600", "--seconds", "4", "--seed", "7", patience_seconds=300)
    assert "0 with findings" in told
    assert "NOT RUN" not in told


def test_the_fuzzer_does_find(tmp_path: Path) -> None:
    """A decoder with a hole behind two bytes that have to be guessed: coverage leads there, and the input is kept."""
    told = subprocess.run(
        [sys.executable, RUNNER, "--folder", tmp_path, "--canary", "--seed", "7", "--runs", "300000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if told.returncode == 3:
        pytest.skip(f"NOT FUZZED: {told.stderr.strip()}")
    assert told.returncode == 1, told.stdout + told.stderr
    (kept,) = (tmp_path / "findings" / "canary").iterdir()
    assert kept.read_bytes()[:2] == b"\xc1\x7e"
    assert "the canary fell" in told.stdout


@pytest.mark.soak
def test_every_target_for_long(tmp_path: Path) -> None:
    """About a quarter of an hour, another seed each time; the log says which inputs were found."""
    fuzz(tmp_path, "--runs", "200000", "--seconds", "20", patience_seconds=3600)
