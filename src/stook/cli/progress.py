"""Progress of a transfer on a terminal: rate, what is accepted, what is durable. Silent when nobody watches."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from stook.cli.output import human_rate, human_size, on_terminal
from stook.renter.ports import Progress


class TransferLine:
    """One line that follows a transfer; pass it as the progress callback, inside ``with``."""

    def __init__(self, title: str, *, upload: bool, quiet: bool = False) -> None:
        self._title = title
        self._upload = upload
        self._began = time.monotonic()
        self._progress: Progress | None = None
        show = on_terminal() and not quiet
        self._live = (
            Live(get_renderable=self._draw, console=Console(stderr=True), refresh_per_second=5, transient=True)
            if show
            else None
        )

    def __call__(self, progress: Progress) -> None:
        """Take the newest state."""
        self._progress = progress

    @property
    def seconds(self) -> float:
        """Since the line was made."""
        return time.monotonic() - self._began

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def _draw(self) -> Text:
        progress = self._progress
        if progress is None:
            return Text(f"{self._title}: starting")
        done, total = progress.bytes_durable, progress.bytes_total
        text = f"{self._title}: {human_size(done)}"
        if total:
            text += f" of {human_size(total)} ({done / total:.0%})"
        if self._upload:
            text += f" durable, {human_size(progress.bytes_accepted)} accepted"
        text += f", {human_rate(done / max(self.seconds, 1e-6))}, {progress.shards_done} shards"
        return Text(text)
