"""Stook from Python: buckets and objects in a few calls, async and sync.

::

    async with stook.api.open_store() as store:
        await store.make_bucket("photos", exist_ok=True)
        await store.put("photos", "2026/holiday.jpg", data)
        data = await store.get("photos", "2026/holiday.jpg")

    with stook.api.open_store_sync() as store:  # the same, from code that is not async
        store.put("photos", "a", b"hello")

What is put is durable and visible when the call returns, whole or not at all. Errors are those of `stook.errors`:
`NotFoundError`, `ConflictError`, `NotEnoughError` when too few farmers answer. `docs/python.md` has examples.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from stook.assembly import Renter, open_renter
from stook.config import default_home
from stook.errors import ConflictError, NotFoundError, StookError, UserError
from stook.renter.files import FileSink, FileSource
from stook.renter.landing import Body
from stook.renter.objects import NewObject, Objects
from stook.serving import open_objects
from stook.storage.renter_ports import Bucket
from stook.storage.s3_ports import Conditions, ObjectFacts, StoredObject, Version, Wanted, make_facts

T = TypeVar("T")
CLOSE_SECONDS = 120.0
"""How long closing waits for the shards beyond the durable ones."""
ERASE_SECONDS = 10.0
SAVE_SECONDS = 30.0
"""How long closing tries to save the catalog, so that the words alone bring everything back."""
_PAGE = 1000
_CHUNK = 256 << 10
"""Hashing less than this takes less time than handing it to a thread."""

Data = bytes | bytearray | memoryview | str | os.PathLike[str] | AsyncIterator[bytes]
"""What can be put: bytes, the path of a file, or an iterator of bytes."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What there is to know of an object without reading it."""

    bucket: str
    name: str
    size_bytes: int
    modified_ms: int
    etag: str
    """Changes with the content; the MD5 of it where it was put in one piece."""
    version_id: str
    """``null`` in a bucket that keeps no versions."""
    content_type: str = ""
    """Empty in listings."""
    metadata: Mapping[str, str] | None = None
    """None in listings."""


@dataclass(frozen=True, slots=True)
class Folder:
    """What the names below a delimiter have in common."""

    bucket: str
    name: str


class Store:
    """A renter's buckets and objects. Get one from `open_store`; use it on the loop it was opened on."""

    def __init__(self, renter: Renter, objects: Objects) -> None:
        self._renter = renter
        self._objects = objects

    # --- buckets

    async def buckets(self) -> list[str]:
        """The names of all buckets, in order."""
        return [each.bucket.name for each in await self._objects.offload(self._objects.store.buckets)]

    async def make_bucket(self, name: str, *, exist_ok: bool = False) -> None:
        """Make a bucket. Raises `ConflictError` when there is one, unless `exist_ok`; `UserError` for no name."""
        try:
            await self._renter.client.make_bucket(name)
        except ConflictError:
            if not exist_ok:
                raise

    async def remove_bucket(self, name: str) -> None:
        """Remove an empty one. Raises `NotFoundError`, or `ConflictError` while it holds objects."""
        await self._renter.client.remove_bucket(name)

    # --- in

    async def put(
        self,
        bucket: str,
        name: str,
        data: Data,
        *,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        only_new: bool = False,
        replaces: str = "",
    ) -> ObjectInfo:
        """Store an object, instead of what has its name; `data` may be bytes, a path, or an iterator of bytes.

        With `only_new` it must not exist yet, with `replaces` it must have this etag now: else `ConflictError`, decided
        when it is stored, whoever else writes at that moment. Raises `NotFoundError` without the bucket.
        """
        facts = make_facts(
            headers=(("content-type", content_type),) if content_type else (),
            metadata=tuple(sorted((metadata or {}).items())),
        )
        of = await self._bucket(bucket)
        async with self._opened(data) as (body, size):
            async with self._objects.land(of, name, body, size) as landed:
                conditions = Conditions(if_match=replaces, if_none_match="*" if only_new else "")
                new = NewObject(of, name, body.md5(), facts, conditions=conditions)
                version = await self._objects.commit(new, landed)
        await self._collect()
        return _info(bucket, version, facts)

    @asynccontextmanager
    async def _opened(self, data: Data) -> AsyncIterator[tuple[_Hashed, int | None]]:
        if isinstance(data, bytes | bytearray | memoryview):
            view = memoryview(data).cast("B")
            yield _Hashed(_Memory(view), self._objects), len(view)
        elif isinstance(data, str | os.PathLike):
            source = await self._objects.offload(lambda: FileSource(Path(data)))
            try:
                yield _Hashed(_File(source, self._objects), self._objects), source.size_bytes
            finally:
                await self._objects.offload(source.close)
        else:
            yield _Hashed(_Iterated(data), self._objects), None

    async def copy(self, bucket: str, name: str, to_bucket: str, to_name: str) -> ObjectInfo:
        """Another object of the same bytes, none of which moves. Raises `NotFoundError`."""
        source_bucket, to = await self._bucket(bucket), await self._bucket(to_bucket)
        found = await self._found(bucket, name)
        record = self._objects.open_record(source_bucket, found)
        facts = make_facts(found.facts.headers, found.facts.metadata, found.facts.checksum, found.facts.part_bytes)
        version = await self._objects.copy(
            NewObject(to, to_name, found.version.etag, facts, found.tags, mode=record.mode), record
        )
        return _info(to_bucket, version, facts)

    # --- out

    async def info(self, bucket: str, name: str) -> ObjectInfo:
        """What there is to know of an object. Raises `NotFoundError`."""
        found = await self._found(bucket, name)
        return _info(bucket, found.version, found.facts)

    async def get(self, bucket: str, name: str, *, begin: int = 0, end: int | None = None) -> bytes:
        """An object, or its bytes from `begin` up to `end`, of which only those are fetched. Raises `NotFoundError`."""
        parts = [part async for part in self.stream(bucket, name, begin=begin, end=end)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def stream(self, bucket: str, name: str, *, begin: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The same a piece at a time, so that memory does not grow with the object. Raises `NotFoundError`."""
        of, found = await self._bucket(bucket), await self._found(bucket, name)
        size = found.version.size_bytes
        first, stop = (max(0, size + begin) if begin < 0 else begin), size if end is None else min(end, size)
        if first >= stop:
            return
        async with self._objects.read(of, found, first, stop) as stream:
            async for part in stream:
                yield bytes(part)

    async def get_file(self, bucket: str, name: str, path: str | os.PathLike[str]) -> ObjectInfo:
        """An object into a file, which is there only when it is whole. Raises `NotFoundError`, `EnvironmentFault`."""
        info = await self.info(bucket, name)
        sink, at, offload = FileSink(Path(path)), 0, self._objects.offload
        await offload(lambda: sink.begin(info.size_bytes))
        try:
            async with contextlib.aclosing(self.stream(bucket, name)) as stream:  # type: ignore[type-var]
                async for part in stream:
                    await offload(lambda part=part, at=at: sink.write_at(at, memoryview(part)))  # type: ignore[misc]
                    at += len(part)
            if at != info.size_bytes:
                raise ConflictError(f"{bucket}/{name} was replaced while it was read")
            await offload(lambda: sink.commit(info.modified_ms))
        except BaseException:
            await offload(sink.abort)
            raise
        return info

    async def list(self, bucket: str, prefix: str = "", *, delimiter: str = "") -> AsyncIterator[ObjectInfo | Folder]:
        """Objects whose names begin with `prefix`, in order; with a delimiter, folders instead of what is below it."""
        store, after = self._objects.store, ""
        while True:
            page = await self._objects.offload(
                lambda after=after: store.list_names(  # type: ignore[misc]
                    bucket, prefix=prefix, delimiter=delimiter, after=after, limit=_PAGE
                )
            )
            found: list[ObjectInfo | Folder] = [_info(bucket, item) for item in page.items]
            found += [Folder(bucket, name) for name in page.prefixes]
            for each in sorted(found, key=lambda each: each.name.encode()):
                yield each
            if not page.truncated:
                return
            after = page.last_name

    # --- away

    async def remove(self, bucket: str, names: str | Iterable[str]) -> None:
        """Remove objects; names that nothing has are passed over. Raises `NotFoundError` without the bucket."""
        wanted = [Wanted(name) for name in ([names] if isinstance(names, str) else names)]
        store, now_ms = self._objects.store, self._objects.clock.now_ms()
        results = await self._objects.offload(lambda: store.delete(bucket, wanted, now_ms=now_ms, bypass=False))
        for result in results:
            if isinstance(result, StookError):
                raise result
        await self._collect()

    # --- inside

    async def _bucket(self, name: str) -> Bucket:
        return (await self._objects.offload(lambda: self._objects.store.bucket(name))).bucket

    async def _found(self, bucket: str, name: str) -> StoredObject:
        found = await self._objects.find(bucket, name)
        if not isinstance(found, StoredObject):
            raise NotFoundError(f"there is no {bucket}/{name}")
        return found

    async def _collect(self) -> None:
        with contextlib.suppress(StookError):  # the list of it is durable: another time
            await self._renter.client.collect_garbage()

    async def settle(self, seconds: float = CLOSE_SECONDS) -> None:
        """Wait until what was put has all its shards, at most so long, the catalog is saved, and farmers know what to
        erase. What could not be saved is saved by whatever opens this home next.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._renter.client.drain()
        saver = self._renter.client.saver
        if saver is not None:
            with contextlib.suppress(TimeoutError, StookError):
                async with asyncio.timeout(min(seconds, SAVE_SECONDS)):
                    if await saver.save_due() is not None:
                        await self._collect()
                        await self._renter.client.drain()
        with contextlib.suppress(TimeoutError, StookError):
            async with asyncio.timeout(ERASE_SECONDS):
                await self._renter.agent.caretaker.cancel_due()


def _info(bucket: str, version: Version, facts: ObjectFacts | None = None) -> ObjectInfo:
    return ObjectInfo(
        bucket=bucket,
        name=version.name,
        size_bytes=version.size_bytes,
        modified_ms=version.modified_ms,
        etag=version.etag,
        version_id=version.version_id,
        content_type="" if facts is None else dict(facts.headers).get("content-type", ""),
        metadata=None if facts is None else dict(facts.metadata),
    )


# ------------------------------------------------------------------------------------------------------------- bodies


class _Hashed:
    """A body whose MD5 is known at its end."""

    def __init__(self, body: Body, objects: Objects) -> None:
        self._body = body
        self._offload = objects.offload
        self._md5 = hashlib.md5(usedforsecurity=False)

    async def fill(self, buffer: memoryview) -> int:
        got = await self._body.fill(buffer)
        if got > _CHUNK:
            await self._offload(lambda: self._md5.update(buffer[:got]))
        else:
            self._md5.update(buffer[:got])
        return got

    def md5(self) -> str:
        return self._md5.hexdigest()


class _Memory:
    def __init__(self, data: memoryview) -> None:
        self._data = data

    async def fill(self, buffer: memoryview) -> int:
        part, self._data = self._data[: len(buffer)], self._data[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


class _File:
    def __init__(self, source: FileSource, objects: Objects) -> None:
        self._source = source
        self._objects = objects

    async def fill(self, buffer: memoryview) -> int:
        return await self._objects.offload(lambda: self._source.read_into(buffer))


class _Iterated:
    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self._parts = parts
        self._rest = memoryview(b"")

    async def fill(self, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer):
            if not self._rest:
                try:
                    self._rest = memoryview(await anext(self._parts)).cast("B")
                except StopAsyncIteration:
                    break
                continue
            part, self._rest = self._rest[: len(buffer) - filled], self._rest[len(buffer) - filled :]
            buffer[filled : filled + len(part)] = part
            filled += len(part)
        return filled


# ------------------------------------------------------------------------------------------------------------- opening


@asynccontextmanager
async def open_store(
    home: str | os.PathLike[str] | None = None, *, passphrase: str | None = None, refresh: bool = True
) -> AsyncIterator[Store]:
    """The renter in `home` (``$STOOK_HOME``, else ``~/.stook``), until the block ends.

    With `refresh` farmers are asked for news first, which whoever stores wants. Raises `ConfigError` without a home
    there, `PassphraseNeededError` when its keys are encrypted and no passphrase is given or in ``STOOK_PASSPHRASE``.
    """
    where = default_home() if home is None else Path(home)
    word = passphrase if passphrase is not None else os.environ.get("STOOK_PASSPHRASE")
    async with AsyncExitStack() as stack:
        renter = await stack.enter_async_context(open_renter(where, passphrase=word, refresh=refresh))
        objects = await stack.enter_async_context(open_objects(renter))
        store = Store(renter, objects)
        yield store
        await store.settle()


class SyncStore:
    """`Store` for code that is not async: the same calls, each waiting for its end. Safe from several threads."""

    def __init__(self, store: Store, run: _Runner) -> None:
        self._store = store
        self._run = run

    def buckets(self) -> list[str]:
        """See `Store.buckets`."""
        return self._run(self._store.buckets())

    def make_bucket(self, name: str, *, exist_ok: bool = False) -> None:
        """See `Store.make_bucket`."""
        self._run(self._store.make_bucket(name, exist_ok=exist_ok))

    def remove_bucket(self, name: str) -> None:
        """See `Store.remove_bucket`."""
        self._run(self._store.remove_bucket(name))

    def put(
        self,
        bucket: str,
        name: str,
        data: bytes | bytearray | memoryview | str | os.PathLike[str],
        *,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        only_new: bool = False,
        replaces: str = "",
    ) -> ObjectInfo:
        """See `Store.put`."""
        return self._run(
            self._store.put(
                bucket,
                name,
                data,
                content_type=content_type,
                metadata=metadata,
                only_new=only_new,
                replaces=replaces,
            )
        )

    def copy(self, bucket: str, name: str, to_bucket: str, to_name: str) -> ObjectInfo:
        """See `Store.copy`."""
        return self._run(self._store.copy(bucket, name, to_bucket, to_name))

    def info(self, bucket: str, name: str) -> ObjectInfo:
        """See `Store.info`."""
        return self._run(self._store.info(bucket, name))

    def get(self, bucket: str, name: str, *, begin: int = 0, end: int | None = None) -> bytes:
        """See `Store.get`."""
        return self._run(self._store.get(bucket, name, begin=begin, end=end))

    def get_file(self, bucket: str, name: str, path: str | os.PathLike[str]) -> ObjectInfo:
        """See `Store.get_file`."""
        return self._run(self._store.get_file(bucket, name, path))

    def list(self, bucket: str, prefix: str = "", *, delimiter: str = "") -> Iterator[ObjectInfo | Folder]:
        """See `Store.list`."""
        listing = self._store.list(bucket, prefix, delimiter=delimiter)
        while True:
            try:
                yield self._run(_next(listing))
            except _OverError:
                return

    def remove(self, bucket: str, names: str | Iterable[str]) -> None:
        """See `Store.remove`."""
        self._run(self._store.remove(bucket, names))


class _OverError(Exception):
    """A listing has no more: StopAsyncIteration itself passes through no future."""


async def _next(listing: AsyncIterator[T]) -> T:
    try:
        return await anext(listing)
    except StopAsyncIteration:
        raise _OverError from None


class _Runner:
    """Runs coroutines on a loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stook-loop", daemon=True)
        self._thread.start()

    def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        if threading.current_thread() is self._thread:
            work.close()
            raise UserError("a SyncStore is not for code that runs on its own loop: use open_store there")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def open_store_sync(
    home: str | os.PathLike[str] | None = None, *, passphrase: str | None = None, refresh: bool = True
) -> Iterator[SyncStore]:
    """`open_store` for code that is not async."""
    run = _Runner()
    try:
        opened = open_store(home, passphrase=passphrase, refresh=refresh)
        store = run(opened.__aenter__())
        try:
            yield SyncStore(store, run)
        except BaseException as error:
            if not run(opened.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            run(opened.__aexit__(None, None, None))
    finally:
        run.close()
