"""Commits of many writers in one transaction: a sync of the disk costs the same for one object as for fifty."""

from __future__ import annotations

import asyncio

from stook.clock import Offload
from stook.errors import StookError
from stook.storage.s3_ports import ObjectDraft, S3Store, Version

_MOST = 256
"""Drafts of one transaction, so that nobody waits long for the others in it."""


class CommitDesk:
    """Collects what is to be committed while a transaction runs, and commits it in the next. On one event loop."""

    def __init__(self, store: S3Store, offload: Offload) -> None:
        self._store = store
        self._offload = offload
        self._drafts: list[tuple[ObjectDraft, asyncio.Future[Version]]] = []
        self._finished: list[bytes] = []
        self._unnoted: list[bytes] = []
        """Finished uploads whose transaction failed."""
        self._worker: asyncio.Task[None] | None = None

    async def commit(self, draft: ObjectDraft) -> Version:
        """The version that exists now. Raises as `S3Store.commit` says of one draft.

        A caller that is cancelled does not know whether it was committed, as one whose machine lost its power.
        """
        turn: asyncio.Future[Version] = asyncio.get_running_loop().create_future()
        self._drafts.append((draft, turn))
        self._wake()
        return await turn

    async def finish(self, upload_id: bytes) -> None:
        """An upload of the catalog's is over, soon: what keeps it from being noted leaves it to the next start."""
        self._finished.append(upload_id)
        self._wake()

    async def aclose(self) -> None:
        """Commit what waits."""
        while self._worker is not None:
            await asyncio.wait([self._worker])

    def _wake(self) -> None:
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._drafts or self._finished:
                some, self._drafts = self._drafts[:_MOST], self._drafts[_MOST:]
                over, self._finished, self._unnoted = self._finished + self._unnoted, [], []
                await self._commit(some, over)
        finally:
            self._worker = None

    async def _commit(self, some: list[tuple[ObjectDraft, asyncio.Future[Version]]], over: list[bytes]) -> None:
        drafts = [draft for draft, _ in some]
        results: list[Version | StookError]
        try:
            results = await self._offload(lambda: self._store.commit(drafts, over))
        except Exception as error:
            # Those uploads are over all the same: it is noted with the next commit, or at the next start.
            self._unnoted += over
            for _, turn in some:
                if not turn.done():
                    turn.set_exception(error)
            return
        for (_, turn), result in zip(some, results, strict=True):
            if turn.done():
                continue
            if isinstance(result, StookError):
                turn.set_exception(result)
            else:
                turn.set_result(result)
