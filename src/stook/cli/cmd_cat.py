"""`stook cat`: an object, or a range of it, to standard output."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from stook.cli.pipes import PipeSink
from stook.cli.remote import REMOTE_OBJECT, RemoteName
from stook.cli.renting import open_home, with_news
from stook.cli.run import json_option, pass_home, run
from stook.errors import UserError

_RANGE = re.compile(r"([0-9]{0,19}):([0-9]{0,19})\Z", re.ASCII)


def parse_range(text: str) -> tuple[int, int | None]:
    """First byte and the byte behind the last from ``A:B``; either may be left out. Raises `UserError`."""
    match = _RANGE.match(text)
    if match is None:
        raise UserError(f"{text[:60]!r} is no range: write A:B, for the bytes from A up to, not including, B")
    begin = int(match[1] or 0)
    end = int(match[2]) if match[2] else None
    if end is not None and end < begin:
        raise UserError(f"the range {text} ends before it begins")
    return begin, end


class _RangeType(click.ParamType[tuple[int, "int | None"]]):
    name = "range"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int | None]:
        try:
            return parse_range(str(value))
        except UserError as error:
            self.fail(str(error), param, ctx)


async def stream_to(home: Path, remote: RemoteName, descriptor: int, what: str, begin: int, end: int | None) -> int:
    """Write bytes of an object to a descriptor, in order; how many there were. Raises as `Client.stream`."""
    async with open_home(home, refresh=False) as renter:
        sink = PipeSink(descriptor, what)

        async def fetch() -> None:
            await renter.client.stream(remote.bucket, remote.name, sink, begin=begin, end=end)

        await with_news(renter.agent, fetch, may_repeat=lambda: not sink.written_bytes)
        return sink.written_bytes


@click.command("cat")
@click.argument("remote", metavar="BUCKET/NAME", type=REMOTE_OBJECT)
@click.option(
    "--range",
    "span",
    metavar="A:B",
    type=_RangeType(),
    help="Only the bytes from A up to, not including, B, counted from 0: 0:100 is the first hundred. A alone (A:) "
    "goes to the end, B alone (:B) begins at the first. Only the units that hold them are fetched.",
)
@json_option
@pass_home
def cat_command(home: Path, remote: RemoteName, span: tuple[int, int | None] | None, as_json: bool) -> None:
    """Write an object to standard output.

    In order, in bounded memory, and no byte before it is verified. A range that reaches beyond the end stops there;
    one that begins beyond it is an error. --json changes only how errors are told.
    """
    begin, end = span or (0, None)
    run(stream_to(home, remote, sys.stdout.fileno(), "standard output", begin, end))
