"""A farmer killed between losing, declaring and noting: one declaration for each loss, and no note is forgotten."""

from __future__ import annotations

import multiprocessing
import random
from pathlib import Path

import pytest

import loss_crash
from stook.contracts.lifecycle import ContractState
from stook.ids import ContractId
from stook.storage.contract_store import SqliteContractStore

pytestmark = pytest.mark.system

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["loss_crash"])
Said = tuple[str, bytes, bytes]


def run_and_kill(directory: Path, seed: int, steps: int) -> list[Said]:
    """What a child said before it was killed, or all of it."""
    ours, theirs = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=loss_crash.live, args=(directory, seed, theirs))
    child.start()
    theirs.close()
    said: list[Said] = []
    try:
        while len(said) < steps:
            said.append(ours.recv())
        for _ in range(random.Random(seed).randrange(20_000)):
            pass
        child.kill()
        while True:
            said.append(ours.recv())
    except (EOFError, OSError):
        pass
    finally:
        child.kill()
        child.join()
        child.close()
        ours.close()
    return said


@pytest.mark.parametrize("seed", range(3))
def test_what_was_declared_or_noted_stays_so(tmp_path: Path, seed: int) -> None:
    print(f"seed {seed}")
    loss_crash.fill(tmp_path)
    dice = random.Random(seed)
    declared: dict[bytes, bytes] = {}
    noted: set[bytes] = set()
    for life in range(8):
        for what, contract_id, digest in run_and_kill(tmp_path, 100 * seed + life, dice.randrange(1, 12)):
            if what == "declared":
                assert declared.setdefault(contract_id, digest) == digest, "a loss was declared twice"
            elif what == "noted":
                noted.add(contract_id)
        with SqliteContractStore(tmp_path / "contracts.db") as contracts:
            for contract_id, digest in declared.items():
                held = contracts.get(ContractId(contract_id))
                loss = contracts.audits.loss(ContractId(contract_id))
                assert held is not None
                assert loss is not None
                assert held.state is ContractState.LOST
                assert loss.loss.digest == digest
            kept = contracts.audits.noted([ContractId(contract_id) for contract_id in declared])
            assert noted <= {one.loss.loss.contract_id for one in kept}
