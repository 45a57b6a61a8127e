"""Words and numbers for people, JSON for programs; the one place that prints."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import click

_SIZE_NAMES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def human_size(size_bytes: float) -> str:
    """``1.5 MiB``: binary units, three figures at most."""
    value, unit = float(size_bytes), 0
    while value >= 1023.5 and unit < len(_SIZE_NAMES) - 1:
        value /= 1024
        unit += 1
    digits = 0 if unit == 0 or value >= 99.95 else 1
    return f"{value:.{digits}f} {_SIZE_NAMES[unit]}"


def human_rate(bytes_per_second: float) -> str:
    """``12.3 MB/s``: decimal, as networks are sold."""
    return f"{bytes_per_second / 1e6:.1f} MB/s"


def human_duration(seconds: float) -> str:
    """``3 min 20 s``, ``12.4 s``, ``2 d 4 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    for unit, name, below, below_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name} {int(seconds % unit // below)} {below_name}"
    raise AssertionError("unreachable")


def human_time(ms: int) -> str:
    """Local time to the minute."""
    return datetime.fromtimestamp(ms / 1000, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def plural(count: int, noun: str) -> str:
    """``1 farmer``, ``2 farmers``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def say(text: str = "") -> None:
    """A line for people, on standard output."""
    click.echo(text)


def warn(text: str) -> None:
    """A line for people, on standard error."""
    click.echo(text, err=True)


def emit(value: Any) -> None:
    """One JSON value on one line of standard output."""
    click.echo(json.dumps(value, ensure_ascii=False))


def on_terminal() -> bool:
    """Whether a person watches standard error."""
    return sys.stderr.isatty()
