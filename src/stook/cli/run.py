"""What commands share: a loop to run on, a home, a passphrase, log lines on standard error."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
import structlog

from stook.config import load_settings
from stook.identity.keystore import PassphraseNeededError, inspect_key_file

T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
pass_home = click.pass_obj
LAN_HELP = "Find nodes on the link of the interface with this IPv4 address, without a seed; 0.0.0.0: the usual one."


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run one coroutine to its end; Ctrl-C cancels it and lets it clean up."""
    return asyncio.run(work)


async def until_stopped(*, with_parent: bool = False) -> None:
    """Wait for SIGTERM or SIGINT, and with a parent for the end of standard input."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if with_parent:
        loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(sys.stdin.fileno(), 64) else stop.set())
    try:
        await stop.wait()
    finally:
        if with_parent:
            loop.remove_reader(sys.stdin.fileno())


def configure_logging(level: str) -> None:
    """Structured log lines on standard error: readable on a terminal, JSON otherwise."""
    pretty = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def log_level(home: Path) -> str:
    """The level set in the home's settings."""
    return load_settings(home).node.log_level


def passphrase_for(key_file: Path) -> str | None:
    """The passphrase of an encrypted key file: ``STOOK_PASSPHRASE``, else asked for; None when it is not encrypted.

    Raises `PassphraseNeededError` when nobody is there to ask.
    """
    if not inspect_key_file(key_file).protection:
        return None
    given = os.environ.get("STOOK_PASSPHRASE")
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise PassphraseNeededError(f"{key_file} is encrypted: set STOOK_PASSPHRASE, or run this on a terminal")
    answer: str = click.prompt("Passphrase of your keys", hide_input=True, err=True)
    return answer


def new_passphrase(wanted: bool) -> str | None:
    """A new passphrase, asked for twice or taken from ``STOOK_PASSPHRASE``; None when none is wanted."""
    if not wanted:
        return None
    given = os.environ.get("STOOK_PASSPHRASE")
    if given is not None:
        return given
    answer: str = click.prompt("New passphrase for the key file", hide_input=True, confirmation_prompt=True, err=True)
    return answer
