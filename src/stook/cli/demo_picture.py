"""What a person sees of the demo: farmers filling up, rates, and in the end what happened, in words."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stook.cli.output import human_rate, human_size

REFRESH_PER_SECOND = 4


@dataclass
class FarmerLine:
    """One farmer as the picture shows it."""

    name: str
    shards: int = 0
    alive: bool = True


@dataclass
class Moment:
    """What is being done just now."""

    title: str = ""
    began: float = 0.0
    total_bytes: int = 0
    accepted_bytes: int = 0
    done_bytes: int = 0
    shards: int = 0
    share: float | None = None


class Picture(Protocol):
    """Told of everything that happens; draws it, or not."""

    def begin(self, title: str, total_bytes: int = 0) -> None:
        """A new step begins."""
        ...

    def advance(self, *, accepted: int, done: int, farmer_shards: Mapping[str, int]) -> None:
        """The step went on: bytes so far, and shards moved in this step by farmer name."""
        ...

    def share(self, done: float) -> None:
        """So much of a step that is not about bytes is done, 0 to 1."""
        ...

    def end(self, said: str) -> None:
        """The step is over; what came of it, in words."""
        ...

    def dead(self, names: list[str]) -> None:
        """These farmers were killed."""
        ...

    def __enter__(self) -> Picture: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Lines:
    """One line when a step begins and one when it ends, on standard error: for logs and pipes."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def begin(self, title: str, total_bytes: int = 0) -> None:
        """Print the title."""
        if not self._quiet:
            print(f"· {title}", file=sys.stderr, flush=True)  # noqa: T201

    def advance(self, *, accepted: int, done: int, farmer_shards: Mapping[str, int]) -> None:
        """Say nothing."""

    def share(self, done: float) -> None:
        """Say nothing."""

    def end(self, said: str) -> None:
        """Print what came of it."""
        if not self._quiet:
            print(f"  {said}", file=sys.stderr, flush=True)  # noqa: T201

    def dead(self, names: list[str]) -> None:
        """Say nothing: the step's words tell."""

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


@dataclass
class LivePicture:
    """A picture that moves, for a terminal."""

    farmers: list[FarmerLine]
    _moment: Moment = field(default_factory=Moment)
    _before: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Live(
            get_renderable=self._draw, console=self._console, refresh_per_second=REFRESH_PER_SECOND, transient=True
        )

    def __enter__(self) -> LivePicture:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def begin(self, title: str, total_bytes: int = 0) -> None:
        """Show the new step under the farmers."""
        self._before = {farmer.name: farmer.shards for farmer in self.farmers}
        self._moment = Moment(title, time.monotonic(), total_bytes)

    def advance(self, *, accepted: int, done: int, farmer_shards: Mapping[str, int]) -> None:
        """Move the bars."""
        self._moment.accepted_bytes, self._moment.done_bytes = accepted, done
        self._moment.shards = sum(farmer_shards.values())
        for farmer in self.farmers:
            farmer.shards = self._before.get(farmer.name, 0) + farmer_shards.get(farmer.name, 0)

    def share(self, done: float) -> None:
        """Say it in percent."""
        self._moment.share = done

    def end(self, said: str) -> None:
        """Leave a line above the picture."""
        self._console.print(Text.assemble(("✓ ", "green"), (self._moment.title, "bold"), f"  {said}"))

    def dead(self, names: list[str]) -> None:
        """Cross them out."""
        for farmer in self.farmers:
            if farmer.name in names:
                farmer.alive = False

    def _draw(self) -> Group:
        most = max((farmer.shards for farmer in self.farmers), default=1) or 1
        table = Table(box=None, show_header=False, pad_edge=False)
        for farmer in self.farmers:
            name = Text(farmer.name, style="" if farmer.alive else "red strike")
            bar = ProgressBar(total=most, completed=farmer.shards, width=36, style="grey30", complete_style="cyan")
            count = f"{farmer.shards:>6} shards moved" if farmer.alive else "     killed with SIGKILL"
            table.add_row(name, bar, count)
        moment = self._moment
        seconds = max(1e-6, time.monotonic() - moment.began)
        line = Text.assemble(("⏳ ", "yellow"), (moment.title, "bold"))
        if moment.share is not None:
            line.append(f"  {moment.share:.0%}")
        if moment.total_bytes:
            line.append(f"  {human_size(moment.done_bytes)} of {human_size(moment.total_bytes)}")
            if moment.accepted_bytes > moment.done_bytes:
                line.append(f" durable, {human_size(moment.accepted_bytes)} accepted")
            line.append(f"  {human_rate(moment.done_bytes / seconds)}  {moment.shards} shards")
        return Group(table, line)
