"""For scripts that run inside a client's own environment: no import of ours."""

from __future__ import annotations

import time
from collections.abc import Callable

STEPS: list[Callable[[], None]] = []


def step(act: Callable[[], None]) -> Callable[[], None]:
    """Register a step, called after its function."""
    STEPS.append(act)
    return act


def run_steps() -> None:
    """Run all in order; a line each."""
    for act in STEPS:
        name = act.__name__.replace("_", " ")
        began = time.monotonic()
        try:
            act()
        except Exception as error:
            why = f"{type(error).__name__}: {error}".replace("\n", " ").replace("\t", " ")
            print(f"FAIL\t{name}\t{time.monotonic() - began:.2f}\t{why}", flush=True)
        else:
            print(f"ok\t{name}\t{time.monotonic() - began:.2f}", flush=True)
