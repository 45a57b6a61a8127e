"""What proving reads from the disk: of a shard of 4 MiB the units that were drawn, its leaf list, and heads."""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from contract_samples import FARMER, NETWORK, OTHER, RENTER
from farm_samples import ManualClock, RecordingExchange, draft_for, parts, publish, root_of, shard_bytes
from stook.audits.challenge import Parties, draw_challenge
from stook.audits.holding import HeldShard, Holding
from stook.audits.messages import Audit, AuditReply
from stook.audits.proof import AnswerKind
from stook.codec import encode
from stook.contracts.contract import Contract
from stook.contracts.grant import Operation, issue_grant
from stook.contracts.lifecycle import ContractState
from stook.contracts.negotiation import HOUR_MS, countersign, sign_offer
from stook.errors import EnvironmentFault
from stook.farmer.audit_desk import AuditDesk
from stook.farmer.parts import Parts
from stook.merkle import UNIT_BYTES
from stook.storage.contract_store import SqliteContractStore
from stook.storage.memory import MemoryContractStore, MemoryShardStore
from stook.storage.ports import HeldContract
from stook.storage.shard_store import FileShardStore

SIZE = 4 << 20
UNITS = 5
HEADS = 8192
"""For every time a file is opened its header is read; a header is 64 bytes."""


def stored(farm: Parts, size: int = SIZE) -> Contract:
    data = shard_bytes(size)
    terms = draft_for(root_of(data), size)
    contract = countersign(terms, sign_offer(terms, FARMER), RENTER)
    publish(farm.shards, data, contract)
    farm.contracts.put(HeldContract(contract, ContractState.ACTIVE))
    return contract


def request(contract: Contract, now_ms: int, auditor: Any = RENTER, grants: Any = ()) -> bytes:
    terms = contract.terms
    signed = draw_challenge(
        Holding([HeldShard(contract.contract_id, terms.shard_root, terms.shard_size_bytes)]),
        Parties(NETWORK, RENTER.public_key, FARMER.public_key),
        auditor,
        nonce=bytes(32),
        wanted=UNITS,
        now_ms=now_ms,
        answer_within_ms=60_000,
    )
    return encode(Audit(signed, 0, tuple(grants)))


def test_no_byte_beyond_the_drawn_units_and_the_leaf_list_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0
    pread, preadv = os.pread, os.preadv

    def counted(descriptor: int, size: int, at: int) -> bytes:
        nonlocal read
        data = pread(descriptor, size, at)
        read += len(data)
        return data

    def counted_into(descriptor: int, buffers: Any, at: int, *flags: int) -> int:
        nonlocal read
        size = preadv(descriptor, buffers, at, *flags)
        read += size
        return size

    with FileShardStore(tmp_path) as shards, SqliteContractStore(tmp_path / "contracts.db") as contracts:
        clock = ManualClock()
        farm = replace(parts(clock=clock), shards=shards, contracts=contracts)
        contract = stored(farm)
        exchange = RecordingExchange(RENTER)
        monkeypatch.setattr(os, "pread", counted)
        monkeypatch.setattr(os, "preadv", counted_into)
        asyncio.run(AuditDesk(farm).audit(exchange, request(contract, clock.at_ms)))  # type: ignore[arg-type]
    (item,) = exchange.answer(AuditReply).answer.items
    assert item.kind is AnswerKind.PROOF
    leaf_list = SIZE // UNIT_BYTES * 32
    assert UNITS * UNIT_BYTES + leaf_list <= read <= UNITS * UNIT_BYTES + leaf_list + HEADS


def test_contracts_are_looked_up_and_never_walked_over() -> None:
    class Lookups(MemoryContractStore):
        def all(self) -> Any:
            raise AssertionError("a walk over all contracts")

        owned_by = all

    clock = ManualClock()
    farm = replace(parts(clock=clock), contracts=Lookups())
    contract = stored(farm, 8 * UNIT_BYTES)
    exchange = RecordingExchange(RENTER)
    asyncio.run(AuditDesk(farm).audit(exchange, request(contract, clock.at_ms)))  # type: ignore[arg-type]
    assert exchange.replies


def test_a_disk_that_fails_refuses_the_page_declares_nothing_and_gives_the_budget_back() -> None:
    class Broken(MemoryShardStore):
        broken = True

        def read_units(self, root: Any, first_unit: int, into: memoryview) -> int:
            if self.broken:
                raise EnvironmentFault("input/output error")
            return super().read_units(root, first_unit, into)

    clock, shards = ManualClock(), Broken()
    farm = replace(parts(clock=clock), shards=shards)
    contract = stored(farm, 8 * UNIT_BYTES)
    grant = issue_grant(
        contract.terms,
        RENTER,
        grantee_key=OTHER.public_key,
        operation=Operation.AUDIT,
        expires_ms=clock.at_ms + HOUR_MS,
        serial=bytes(16),
        budget_bytes=UNITS * UNIT_BYTES,
    )
    asked = request(contract, clock.at_ms, OTHER, [grant])
    desk = AuditDesk(farm)
    with pytest.raises(EnvironmentFault):
        asyncio.run(desk.audit(RecordingExchange(OTHER), asked))  # type: ignore[arg-type]
    held = farm.contracts.get(contract.contract_id)
    assert held is not None
    assert held.state is ContractState.ACTIVE
    shards.broken = False
    exchange = RecordingExchange(OTHER)
    asyncio.run(desk.audit(exchange, asked))  # type: ignore[arg-type]
    assert exchange.answer(AuditReply).answer.items[0].kind is AnswerKind.PROOF


def test_a_bad_sector_is_one_shards_loss_and_no_others_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv = os.preadv
    with FileShardStore(tmp_path) as shards, SqliteContractStore(tmp_path / "contracts.db") as contracts:
        clock = ManualClock()
        farm = replace(parts(clock=clock), shards=shards, contracts=contracts)
        sound, spoiled = stored(farm, 4 * UNIT_BYTES), stored(farm, 8 * UNIT_BYTES)
        bad = os.stat(shards.path_of(spoiled.terms.shard_root)).st_ino

        def failing(descriptor: int, buffers: Any, at: int, *flags: int) -> int:
            if os.fstat(descriptor).st_ino == bad:
                raise OSError(errno.EIO, "Input/output error")
            return preadv(descriptor, buffers, at, *flags)

        monkeypatch.setattr(os, "preadv", failing)
        signed = draw_challenge(
            Holding(
                HeldShard(one.contract_id, one.terms.shard_root, one.terms.shard_size_bytes) for one in (sound, spoiled)
            ),
            Parties(NETWORK, RENTER.public_key, FARMER.public_key),
            RENTER,
            nonce=bytes(32),
            wanted=12,
            now_ms=clock.at_ms,
            answer_within_ms=60_000,
        )
        exchange = RecordingExchange(RENTER)
        asyncio.run(AuditDesk(farm).audit(exchange, encode(Audit(signed, 0, ()))))  # type: ignore[arg-type]
        kinds = {
            ask.contract_id: item.kind
            for ask, item in zip(signed.challenge.asks, exchange.answer(AuditReply).answer.items, strict=True)
        }
        assert kinds == {sound.contract_id: AnswerKind.PROOF, spoiled.contract_id: AnswerKind.LOST}
        assert contracts.audits.loss(spoiled.contract_id) is not None


def test_a_contract_that_changed_hands_while_the_page_waited_is_unknown() -> None:
    async def scene() -> None:
        clock = ManualClock()
        farm = parts(clock=clock)
        contract = stored(farm, 8 * UNIT_BYTES)
        theirs = structs.replace(contract.terms, renter_key=OTHER.public_key, revision=1, origin=contract.contract_id)
        steps = 0

        async def offload(work: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == 2:  # behind the judgement, before the reading
                moved = structs.replace(contract, terms=theirs)
                farm.contracts.put(HeldContract(moved, ContractState.ACTIVE))
            return work()

        exchange = RecordingExchange(RENTER)
        desk = AuditDesk(replace(farm, offload=offload))
        await desk.audit(exchange, request(contract, clock.at_ms))  # type: ignore[arg-type]
        assert exchange.answer(AuditReply).answer.items[0].kind is AnswerKind.UNKNOWN

    asyncio.run(scene())
