"""A sector that cannot be read, found while a shard is handed out or moved: its shard is lost, and declared as such."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from farm_network import Caller, Countryside, Farm
from farm_samples import shard_bytes
from stook.contracts.contract import Contract
from stook.contracts.lifecycle import ContractState
from stook.contracts.negotiation import DAY_MS
from stook.errors import ReasonCode, RefusedError
from stook.merkle import UNIT_BYTES
from stook.storage.exit_ports import MoveState
from stook.storage.shard_store import FileShardStore
from wire_samples import run_virtual

SIZE = 8 * UNIT_BYTES


class Disk:
    """Reads of some files fail from some byte on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.bad: dict[int, tuple[int, int]] = {}
        self.code = errno.EIO
        self.times = 1 << 30
        real_pread, real_preadv = os.pread, os.preadv

        def pread(descriptor: int, size: int, at: int) -> bytes:
            self._check(descriptor, size, at)
            return real_pread(descriptor, size, at)

        def preadv(descriptor: int, buffers: Any, at: int, *flags: int) -> int:
            self._check(descriptor, sum(map(len, buffers)), at)
            return real_preadv(descriptor, buffers, at, *flags)

        patch.setattr(os, "pread", pread)
        patch.setattr(os, "preadv", preadv)

    def spoil(self, path: Path, begin: int, end: int) -> None:
        self.bad[path.stat().st_ino] = begin, end

    def _check(self, descriptor: int, size: int, at: int) -> None:
        begin, end = self.bad.get(os.fstat(descriptor).st_ino, (0, 0))
        if at < end and begin < at + size and self.times > 0:
            self.times -= 1
            raise OSError(self.code, os.strerror(self.code))


Play = Callable[[Farm, Caller, Contract, Disk], Awaitable[None]]


def with_a_disk(folder: Path, patch: pytest.MonkeyPatch, play: Play) -> None:
    async def scene() -> None:
        with FileShardStore(folder) as shards:
            async with Countryside() as land:
                farm, renter = await land.farm(shards=shards), land.caller(1)
                contract = await renter.store(farm, shard_bytes(SIZE))
                await play(farm, renter, contract, Disk(patch))

    run_virtual(scene())


async def refusal(work: Awaitable[Any]) -> ReasonCode:
    with pytest.raises(RefusedError) as refused:
        await work
    return refused.value.code


@pytest.mark.parametrize("where", ["data", "head"])
def test_a_bad_sector_is_declared_when_it_is_handed_out(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(farm: Farm, renter: Caller, contract: Contract, disk: Disk) -> None:
        path = farm.shards.path_of(contract.terms.shard_root)
        middle = path.stat().st_size // 2
        disk.spoil(path, *((middle, middle + 512) if where == "data" else (100, 150)))
        assert await refusal(renter.fetch(farm, contract)) is ReasonCode.SHARD_LOST
        assert farm.contracts.get(contract.contract_id).state is ContractState.LOST
        (loss,) = (await renter.heartbeat(farm)).losses
        assert loss.loss.contract_id == contract.contract_id

    with_a_disk(tmp_path, monkeypatch, play)


@pytest.mark.parametrize(("code", "times"), [(errno.EIO, 1), (errno.EMFILE, 1 << 30)])
def test_a_moment_or_a_full_machine_is_no_loss(
    code: int, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cable that was loose once; and a disk that refuses for another reason than a bad sector."""

    async def play(farm: Farm, renter: Caller, contract: Contract, disk: Disk) -> None:
        path = farm.shards.path_of(contract.terms.shard_root)
        disk.code, disk.times = code, times
        disk.spoil(path, path.stat().st_size // 2, path.stat().st_size // 2 + 512)
        assert await refusal(renter.fetch(farm, contract)) is ReasonCode.DISK_LOW
        disk.bad.clear()
        assert await renter.fetch(farm, contract) == shard_bytes(SIZE)

    with_a_disk(tmp_path, monkeypatch, play)


def test_a_bad_sector_is_declared_when_it_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        with FileShardStore(tmp_path) as shards:
            async with Countryside() as land:
                old, new, renter = await land.farm(2, shards=shards), await land.farm(6), land.caller(1)
                old.farmer.chores["move"].pause()
                contract = await renter.store(old, shard_bytes(SIZE))
                old.contracts.exits.set_leaving(renter.clock.now_ms() + 30 * DAY_MS)
                await old.farmer.reap()
                order = renter.order(contract, await renter.agree(new, shard_bytes(SIZE)), new, by=old)
                await renter.move(old, order)
                disk = Disk(monkeypatch)
                path = shards.path_of(contract.terms.shard_root)
                disk.spoil(path, path.stat().st_size // 2, path.stat().st_size // 2 + 512)
                assert await old.farmer.move() == 0
                assert old.contracts.exits.move(contract.contract_id).state is MoveState.FAILED
                (answer,) = await renter.move(old, order)
                assert answer.code == ReasonCode.SHARD_LOST
                assert len((await renter.heartbeat(old)).losses) == 1

    run_virtual(scene())
