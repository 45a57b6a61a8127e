"""The library, async and sync, against a real network."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s3_demo import S3Demo
from stook.api import Folder, ObjectInfo, open_store, open_store_sync
from stook.assembly import CATALOG_FILE
from stook.errors import ConflictError, NotFoundError, UserError
from stook.storage.catalog import SqlCatalog

pytestmark = pytest.mark.system


def test_objects_come_and_go(s3_demo: S3Demo, tmp_path: Path) -> None:
    async def work() -> None:
        big = os.urandom(9 << 20)
        (tmp_path / "film").write_bytes(big)
        async with open_store(s3_demo.home) as store:
            await store.make_bucket("library")
            await store.make_bucket("library", exist_ok=True)
            with pytest.raises(ConflictError):
                await store.make_bucket("library")
            info = await store.put("library", "a/small", b"hello", content_type="text/x", metadata={"who": "me"})
            assert (info.size_bytes, info.etag) == (5, hashlib.md5(b"hello").hexdigest())
            assert await store.get("library", "a/small") == b"hello"
            assert await store.get("library", "a/small", begin=1, end=3) == b"el"
            assert await store.get("library", "a/small", begin=-2) == b"lo"
            assert await store.get("library", "a/small", begin=9) == b""
            assert (await store.info("library", "a/small")).metadata == {"who": "me"}

            await store.put("library", "film", tmp_path / "film")
            await store.get_file("library", "film", tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == big

            async def parts() -> AsyncIterator[bytes]:
                for at in range(0, len(big), 1_000_000):
                    yield big[at : at + 1_000_000]

            await store.put("library", "streamed", parts())
            assert await store.get("library", "streamed", begin=5_000_000, end=5_000_100) == big[5_000_000:5_000_100]
            await store.put("library", "empty", b"")
            assert await store.get("library", "empty") == b""

            copied = await store.copy("library", "film", "library", "a/copy")
            assert copied.etag == hashlib.md5(big).hexdigest()
            listed = [each async for each in store.list("library", delimiter="/")]
            assert [(type(each), each.name) for each in listed] == [
                (Folder, "a/"),
                (ObjectInfo, "empty"),
                (ObjectInfo, "film"),
                (ObjectInfo, "streamed"),
            ]
            await store.remove("library", ["film", "streamed", "empty", "nothing"])
            assert [each.name async for each in store.list("library")] == ["a/copy", "a/small"]
            assert hashlib.md5(await store.get("library", "a/copy")).hexdigest() == copied.etag
            await store.remove("library", ["a/copy", "a/small"])
            await store.remove_bucket("library")
            with pytest.raises(NotFoundError):
                await store.get("library", "a/small")

    asyncio.run(work())


def test_a_body_that_breaks_leaves_nothing(s3_demo: S3Demo) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield os.urandom(3 << 20)
        raise OSError("the cable is out")

    async def work() -> None:
        async with open_store(s3_demo.home) as store:
            await store.make_bucket("broken")
            with pytest.raises(OSError, match="cable"):
                await store.put("broken", "half", broken())
            assert [each async for each in store.list("broken")] == []
            await store.remove_bucket("broken")

    asyncio.run(work())


def test_only_one_of_eight_creates(s3_demo: S3Demo) -> None:
    def create(number: int) -> bool:
        try:
            store.put("race", "lock", str(number).encode(), only_new=True)
        except ConflictError:
            return False
        return True

    with open_store_sync(s3_demo.home) as store:
        store.make_bucket("race")
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(create, range(8))) == 1
        first = store.info("race", "lock").etag
        store.put("race", "lock", b"next", replaces=first)
        with pytest.raises(ConflictError):
            store.put("race", "lock", b"late", replaces=first)
        assert store.get("race", "lock") == b"next"
        assert [each.name for each in store.list("race")] == ["lock"]
        assert "race" in store.buckets()
        store.remove("race", "lock")
        store.remove_bucket("race")


def test_a_sync_store_refuses_its_own_loop(s3_demo: S3Demo) -> None:
    with open_store_sync(s3_demo.home, refresh=False) as store:

        async def inside() -> list[str]:
            return store.buckets()

        with pytest.raises(UserError, match="open_store"):
            store._run(inside())


def test_closing_saves_the_catalog(s3_demo: S3Demo) -> None:
    with open_store_sync(s3_demo.home) as store:
        store.make_bucket("saved", exist_ok=True)
        store.put("saved", "x", os.urandom(9000))
        store.put("saved", "x", os.urandom(9000))
    catalog = SqlCatalog.open(s3_demo.home / CATALOG_FILE)
    try:
        assert catalog.journal.state().saved_ms
        assert catalog.journal.unsaved(9).pressing == 0
        assert catalog.garbage(9) == []
    finally:
        catalog.close()
