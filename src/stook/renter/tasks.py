"""A task group whose error is the error, not a group of one."""

from __future__ import annotations

import asyncio
from types import TracebackType

from stook.errors import StookError


class Tasks(asyncio.TaskGroup):
    """Like `asyncio.TaskGroup`, but leaving it raises the first error of its tasks bare, ours before others'.

    Callers above sort errors by type (`stook.errors`); an exception group would hide it.
    """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for every task; one that fails cancels the others."""
        try:
            await super().__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        item = pending.pop(0)
        if isinstance(item, BaseExceptionGroup):
            pending[:0] = item.exceptions
        else:
            leaves.append(item)
    return next((leaf for leaf in leaves if isinstance(leaf, StookError)), leaves[0])
