"""``stook://bucket/name`` for fsspec, and so for pandas, pyarrow, zarr, dask and everything that reads through it.

Only the ranges that are read are fetched, each verified. Install with ``pip install stook[fsspec]``; give the home with
``storage_options={"home": "…"}`` or ``STOOK_HOME``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

from fsspec.asyn import AsyncFileSystem, sync
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractBufferedFile

from stook.api import Folder, ObjectInfo, Store, open_store
from stook.errors import ConflictError, NotFoundError, UserError

BLOCK_BYTES = 8 << 20
_QUEUED = 2


class StookFileSystem(AsyncFileSystem):  # type: ignore[misc]
    """A renter's buckets as a file system: a bucket is the first part of a path, `/` in names makes folders."""

    protocol = "stook"
    root_marker = ""
    cachable = True

    def __init__(self, home: str | os.PathLike[str] | None = None, passphrase: str | None = None, **options: Any):
        """`home` is the renter's home; without one ``$STOOK_HOME``, else ``~/.stook``."""
        super().__init__(**options)
        self.home = None if home is None else os.fspath(home)
        self._passphrase = passphrase
        self._exits: AsyncExitStack | None = None
        self._opened: Store | None = None
        self._opening: asyncio.Lock | None = None
        if not self.asynchronous:
            weakref.finalize(self, _close, self.loop, holder := _Holder())
            self._holder: _Holder | None = holder
        else:
            self._holder = None

    async def _store(self) -> Store:
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._opened is None:
                exits = AsyncExitStack()
                self._opened = await exits.enter_async_context(open_store(self.home, passphrase=self._passphrase))
                self._exits = exits
                if self._holder is not None:
                    self._holder.exits = exits
        return self._opened

    async def _aclose(self) -> None:
        exits, self._exits, self._opened = self._exits, None, None
        if self._holder is not None:
            self._holder.exits = None
        if exits is not None:
            await exits.aclose()

    def close(self) -> None:
        """Wait until what was written has all its shards, and let go of the home; the next call opens it again."""
        sync(self.loop, self._aclose)

    @classmethod
    def split(cls, path: str) -> tuple[str, str]:
        """Bucket and name of a path."""
        bucket, _, name = cls._strip_protocol(path).partition("/")
        return bucket, name

    @classmethod
    def _object(cls, path: str) -> tuple[str, str]:
        bucket, name = cls.split(path)
        if not bucket or not name:
            raise IsADirectoryError(path)
        return bucket, name

    # --- looking

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        store = await self._store()
        bucket, name = self.split(path)
        if not name:
            if not bucket or bucket in await store.buckets():
                return _folder(bucket)
            raise FileNotFoundError(path)
        with contextlib.suppress(NotFoundError):
            return _file(await store.info(bucket, name))
        with contextlib.suppress(NotFoundError):
            async with contextlib.aclosing(store.list(bucket, name.rstrip("/") + "/")) as listing:  # type: ignore[type-var]
                async for _each in listing:
                    return _folder(f"{bucket}/{name.rstrip('/')}")
        raise FileNotFoundError(path)

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        store = await self._store()
        bucket, name = self.split(path)
        if not bucket:
            found = [_folder(each) for each in await store.buckets()]
            return found if detail else [each["name"] for each in found]
        prefix = name.rstrip("/") + "/" if name else ""
        try:
            listing = [each async for each in store.list(bucket, prefix, delimiter="/")]
        except NotFoundError:
            raise FileNotFoundError(path) from None
        found = [
            _folder(f"{bucket}/{each.name.rstrip('/')}") if isinstance(each, Folder) else _file(each)
            for each in listing
            if each.name != prefix
        ]
        if not found and name:
            info = await self._info(path)
            found = [info] if info["type"] == "file" else []
        return found if detail else [each["name"] for each in found]

    async def _find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **options: Any
    ) -> Any:
        if maxdepth is not None or withdirs or not self.split(path)[0]:
            return await super()._find(path, maxdepth=maxdepth, withdirs=withdirs, detail=detail, **options)
        store = await self._store()
        bucket, name = self.split(path)
        found: dict[str, dict[str, Any]] = {}
        try:
            with contextlib.suppress(NotFoundError):
                if name:
                    info = _file(await store.info(bucket, name))
                    found[info["name"]] = info
            async for each in store.list(bucket, name.rstrip("/") + "/" if name else ""):
                if isinstance(each, ObjectInfo):
                    found[f"{bucket}/{each.name}"] = _file(each)
        except NotFoundError:
            return {} if detail else []
        return found if detail else sorted(found)

    def created(self, path: str) -> datetime:
        """When it was stored."""
        return self.modified(path)

    def modified(self, path: str) -> datetime:
        """When it was stored."""
        moment: datetime = self.info(path)["LastModified"]
        return moment

    def ukey(self, path: str) -> str:
        """Changes with the content."""
        return str(self.info(path)["ETag"])

    def checksum(self, path: str) -> int:
        """Changes with the content."""
        return hash(self.ukey(path))

    # --- reading

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        store = await self._store()
        bucket, name = self._object(path)
        try:
            if (start is not None and start < 0) or (end is not None and end < 0):
                start, end, _step = slice(start, end).indices((await store.info(bucket, name)).size_bytes)
            return await store.get(bucket, name, begin=start or 0, end=end)
        except NotFoundError:
            raise FileNotFoundError(path) from None

    async def _get_file(self, rpath: str, lpath: str, callback: Any = DEFAULT_CALLBACK, **_: Any) -> None:
        store = await self._store()
        if (await self._info(rpath))["type"] == "directory":
            os.makedirs(lpath, exist_ok=True)
            return
        info = await store.get_file(*self._object(rpath), lpath)
        callback.set_size(info.size_bytes)
        callback.relative_update(info.size_bytes)

    # --- writing

    async def _pipe_file(self, path: str, value: Any, mode: str = "overwrite", **_: Any) -> None:
        store = await self._store()
        await _said(store.put(*self._object(path), value, only_new=mode == "create"), path)

    async def _put_file(
        self, lpath: str, rpath: str, mode: str = "overwrite", callback: Any = DEFAULT_CALLBACK, **_: Any
    ) -> None:
        if await asyncio.to_thread(os.path.isdir, lpath):
            return
        store = await self._store()
        info: ObjectInfo = await _said(
            store.put(*self._object(rpath), os.fspath(lpath), only_new=mode == "create"), rpath
        )
        callback.set_size(info.size_bytes)
        callback.relative_update(info.size_bytes)

    async def _cp_file(self, path1: str, path2: str, **_: Any) -> None:
        store = await self._store()
        if (await self._info(path1))["type"] == "file":
            await _said(store.copy(*self._object(path1), *self._object(path2)), path1)

    async def _rm_file(self, path: str, **_: Any) -> None:
        store = await self._store()
        await _said(store.remove(*self._object(path)), path)

    async def _rm(self, path: Any, recursive: bool = False, batch_size: int | None = None, **_: Any) -> None:
        store = await self._store()
        names: dict[str, list[str]] = {}
        for each in await self._expand_path(path, recursive=recursive):
            bucket, name = self.split(each)
            names.setdefault(bucket, [])
            if name:
                names[bucket].append(name)
        for bucket, some in names.items():
            for at in range(0, len(some), 1000):
                await _said(store.remove(bucket, some[at : at + 1000]), bucket)
        for each in [path] if isinstance(path, str) else path:
            bucket, name = self.split(each)
            if recursive and bucket and not name:
                await _said(store.remove_bucket(bucket), each)

    async def _mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """A bucket; folders inside one exist with what is in them."""
        bucket, name = self.split(path)
        if not name or create_parents:
            await _said((await self._store()).make_bucket(bucket, exist_ok=bool(name)), path)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        bucket, name = self.split(path)
        await _said((await self._store()).make_bucket(bucket, exist_ok=exist_ok or bool(name)), path)

    async def _rmdir(self, path: str) -> None:
        bucket, name = self.split(path)
        if not name:
            await _said((await self._store()).remove_bucket(bucket), path)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | str | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> StookFile:
        size = block_size if isinstance(block_size, int) else BLOCK_BYTES if "r" not in mode else "default"
        return StookFile(
            self,
            path,
            mode,
            block_size=size,
            autocommit=autocommit,
            cache_options=cache_options,
            **options,
        )


class _Holder:
    exits: AsyncExitStack | None = None


def _close(loop: asyncio.AbstractEventLoop, holder: _Holder) -> None:
    exits, holder.exits = holder.exits, None
    if exits is not None and loop.is_running():
        sync(loop, exits.aclose, timeout=150)


async def _said(work: Any, path: str) -> Any:
    """Our errors in the words of Python's file functions."""
    try:
        return await work
    except NotFoundError as error:
        raise FileNotFoundError(f"{path}: {error}") from error
    except ConflictError as error:
        raise FileExistsError(f"{path}: {error}") from error
    except UserError as error:
        raise ValueError(f"{path}: {error}") from error


def _folder(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}


def _file(info: ObjectInfo) -> dict[str, Any]:
    return {
        "name": f"{info.bucket}/{info.name}",
        "size": info.size_bytes,
        "type": "file",
        "ETag": info.etag,
        "LastModified": datetime.fromtimestamp(info.modified_ms / 1000, UTC),
        "version_id": info.version_id,
    }


class StookFile(AbstractBufferedFile):  # type: ignore[misc]
    """One open object. What is written becomes visible, whole, when the file is closed; discarded, it never was."""

    closed: bool

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Close it; what was written up to an exception is forgotten."""
        if kind is not None and self.writable() and not self.closed:
            self.discard()
            self.closed = True
        else:
            self.close()

    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start=start, end=end)
        return data

    # --- writing

    def _initiate_upload(self) -> None:
        self._blocks = sync(self.fs.loop, _Blocks.start, self.fs, self.path, self.mode)

    def _upload_chunk(self, final: bool = False) -> bool:
        data = self.buffer.getvalue()
        sync(self.fs.loop, self._blocks.give, data)
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self) -> None:
        """Make what was written visible."""
        sync(self.fs.loop, self._blocks.commit)

    def discard(self) -> None:
        """Forget what was written."""
        blocks = getattr(self, "_blocks", None)
        if blocks is not None:
            sync(self.fs.loop, blocks.discard)


class _Blocks:
    """An upload fed a block at a time."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED)
        self._task: asyncio.Task[ObjectInfo]

    @classmethod
    async def start(cls, fs: StookFileSystem, path: str, mode: str) -> _Blocks:
        blocks, store = cls(), await fs._store()
        bucket, name = fs._object(path)
        blocks._task = asyncio.create_task(store.put(bucket, name, blocks._parts(), only_new="x" in mode))
        blocks._path = path
        return blocks

    _path = ""

    async def _parts(self) -> Any:
        while (part := await self._queue.get()) is not None:
            yield part

    async def give(self, data: bytes) -> None:
        """Hand over a block; waits while too many are on their way."""
        for at in range(0, len(data), BLOCK_BYTES):
            await self._put(data[at : at + BLOCK_BYTES])

    async def _put(self, part: bytes | None) -> None:
        giving = asyncio.ensure_future(self._queue.put(part))
        await asyncio.wait([giving, self._task], return_when=asyncio.FIRST_COMPLETED)
        if not giving.done():  # the upload ended with an error: nobody takes blocks any more
            giving.cancel()
            await _said(self._task, self._path)

    async def commit(self) -> None:
        """No more blocks: wait until it is durable and visible."""
        await self._put(None)
        await _said(self._task, self._path)

    async def discard(self) -> None:
        """Give it up."""
        self._task.cancel()
        await asyncio.wait([self._task])
