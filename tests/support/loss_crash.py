"""A farmer that finds losses and gets notes of them, in a process that will be killed."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from contract_samples import FARMER, NETWORK, NOW_MS, RENTER
from farm_samples import ManualClock, draft_for, parts, publish, root_of, shard_bytes
from stook.contracts.contract import Contract
from stook.contracts.lifecycle import ContractState
from stook.contracts.loss import note_loss
from stook.contracts.negotiation import countersign, sign_offer
from stook.farmer.losses import declare_lost, declare_missing, keep_notes
from stook.farmer.recovery import recover
from stook.merkle import UNIT_BYTES
from stook.storage.contract_store import SqliteContractStore
from stook.storage.ports import HeldContract
from stook.storage.shard_store import FileShardStore

DATA = [shard_bytes(UNIT_BYTES, seed) for seed in range(40)]


def contract_of(number: int) -> Contract:
    terms = draft_for(root_of(DATA[number]), len(DATA[number]))
    return countersign(terms, sign_offer(terms, FARMER), RENTER)


def fill(directory: Path) -> None:
    """Every shard stored."""
    with FileShardStore(directory) as shards, SqliteContractStore(directory / "contracts.db") as contracts:
        for number, data in enumerate(DATA):
            publish(shards, data, contract_of(number))
            contracts.put(HeldContract(contract_of(number), ContractState.ACTIVE))


def live(directory: Path, seed: int, pipe: Connection) -> None:
    """Start as a farmer does, then lose shards and take notes until killed; what is done is told."""
    dice = random.Random(seed)
    with FileShardStore(directory) as shards, SqliteContractStore(directory / "contracts.db") as contracts:
        farm = replace(parts(clock=ManualClock(NOW_MS + seed)), shards=shards, contracts=contracts)
        report = recover(shards, contracts, farmer_key=FARMER.public_key, network=NETWORK)
        declare_missing(farm, report.lost_ids)
        for contract_id in sorted(report.lost_ids):
            loss = contracts.audits.loss(contract_id)
            assert loss is not None
            pipe.send(("declared", contract_id, loss.loss.digest))
        for number in dice.sample(range(len(DATA)), len(DATA)):
            held = contracts.get(contract_of(number).contract_id)
            assert held is not None
            if held.state is ContractState.ACTIVE:
                asyncio.run(declare_lost(farm, held, "a test"))
            loss = contracts.audits.loss(held.contract_id)
            assert loss is not None
            pipe.send(("declared", held.contract_id, loss.loss.digest))
            if dice.random() < 0.5:
                note = note_loss(loss, RENTER, NOW_MS + seed)
                keep_notes(farm, RENTER.public_key, [note.note])
                pipe.send(("noted", held.contract_id, loss.loss.digest))
    pipe.send(("over", b"", b""))
