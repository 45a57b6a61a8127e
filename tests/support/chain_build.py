"""Compiles the contracts of settlement EVM: ``python tests/support/chain_build.py`` writes `artifacts.json`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CHAIN = Path(__file__).parents[2] / "src" / "stook" / "payments" / "chain"
ARTIFACTS = CHAIN / "artifacts.json"
NAMES = ("Chequebook", "TestToken")


def compiled() -> str:
    """The text of `artifacts.json`, made from the sources by the compiler that is installed."""
    from importlib.metadata import version

    found: dict[str, object] = {"compiler": f"vyper {version('vyper')}"}
    for name in NAMES:
        source = CHAIN / f"{name}.vy"
        formats = "abi,bytecode,bytecode_runtime"
        command = [sys.executable, "-m", "vyper.cli.vyper_compile", "-f", formats, source.name]
        lines = subprocess.run(command, check=True, capture_output=True, text=True, cwd=CHAIN).stdout.split("\n")
        found[name] = {"abi": json.loads(lines[0]), "bytecode": lines[1], "runtime": lines[2]}
    return json.dumps(found, separators=(",", ":"), sort_keys=True) + "\n"


if __name__ == "__main__":
    ARTIFACTS.write_text(compiled())
