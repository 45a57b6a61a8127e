"""`stook farm audits` and `stook farm exit`, over a farmer's home that answered audits."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_cli_commands import Stook, stook  # noqa: F401 - a fixture

from contract_samples import FARMER, NETWORK, NOW_MS, RENTER
from farm_samples import ManualClock, RecordingExchange, draft_for, parts, publish, root_of, shard_bytes
from stook.audits.challenge import Parties, SignedChallenge, draw_challenge
from stook.audits.evidence import Comparison, read_receipt_file, verify_receipt_file
from stook.audits.holding import HeldShard, Holding
from stook.audits.messages import Audit, AuditReceipt, AuditReply
from stook.audits.proof import Came
from stook.audits.receipt import settle
from stook.codec import encode
from stook.contracts.contract import Contract
from stook.contracts.lifecycle import ContractState
from stook.contracts.negotiation import countersign, sign_offer
from stook.farmer.audit_desk import AuditDesk
from stook.merkle import UNIT_BYTES
from stook.storage.contract_store import SqliteContractStore
from stook.storage.ports import HeldContract
from stook.storage.shard_store import FileShardStore

SHARDS = [shard_bytes(40 * UNIT_BYTES, 1), shard_bytes(40 * UNIT_BYTES, 2)]


def fill(home: Path, rounds: int = 2) -> list[Contract]:
    """Two shards, and rounds over both, the first of which got a receipt."""

    async def work() -> list[Contract]:
        terms = [draft_for(root_of(data), len(data)) for data in SHARDS]
        contracts = [countersign(one, sign_offer(one, FARMER), RENTER) for one in terms]
        with FileShardStore(home) as shards, SqliteContractStore(home / "contracts.db") as store:
            clock = ManualClock()
            desk = AuditDesk(replace(parts(clock=clock), shards=shards, contracts=store))
            for data, contract in zip(SHARDS, contracts, strict=True):
                publish(shards, data, contract)
                store.put(HeldContract(contract, ContractState.ACTIVE))
            for number in range(rounds):
                clock.at_ms += 1000
                signed = challenge(contracts, number, clock.at_ms)
                answers = {}
                for page in (0, 1):
                    exchange = RecordingExchange(RENTER)
                    await desk.audit(exchange, encode(Audit(signed, page, ())))  # type: ignore[arg-type]
                    answers[page] = Came(exchange.answer(AuditReply).answer, clock.at_ms)
                if number == 0:
                    settled = settle(signed.challenge, answers, {}, RENTER, clock.at_ms + 1)
                    exchange = RecordingExchange(RENTER)
                    await desk.receipt(exchange, encode(AuditReceipt(settled.signed, settled.lines)))  # type: ignore[arg-type]
        return contracts

    return asyncio.run(work())


def challenge(contracts: list[Contract], number: int, now_ms: int) -> SignedChallenge:
    holding = Holding(HeldShard(one.contract_id, one.terms.shard_root, one.terms.shard_size_bytes) for one in contracts)
    parties = Parties(NETWORK, RENTER.public_key, FARMER.public_key)
    nonce = bytes([number]) * 32
    return draw_challenge(holding, parties, RENTER, nonce=nonce, wanted=70, now_ms=now_ms, answer_within_ms=60_000)


@pytest.fixture
def home(stook: Stook, tmp_path: Path) -> Path:  # noqa: F811
    assert stook("farm", "init").code == 0
    return tmp_path / "home"


def test_rounds_are_listed_newest_first(stook: Stook, home: Path) -> None:  # noqa: F811
    assert "has not run yet" in stook("farm", "audits").err
    fill(home)
    ran = stook("farm", "audits", "--json")
    newest, first = (json.loads(line) for line in ran.out.splitlines())
    assert newest["verdicts"] is None
    assert newest["units"] == first["units"] == 70
    assert first["verdicts"]["passed"] == 2
    assert first["proved_bytes"] == 70 * UNIT_BYTES
    assert newest["asked_ms"] > first["asked_ms"] > NOW_MS
    assert newest["units_billed"] > first["units_billed"] > 0
    text = stook("farm", "audits").out
    assert "2 passed" in text
    assert "no receipt" in text
    assert len(stook("farm", "audits", "--limit", "1", "--json").out.splitlines()) == 1


def test_a_round_is_written_out_and_anybody_can_check_it(stook: Stook, home: Path, tmp_path: Path) -> None:  # noqa: F811
    fill(home)
    for line in stook("farm", "audits", "--json").out.splitlines():
        name = json.loads(line)["round"]
        file = tmp_path / name[:8]
        assert stook("farm", "audits", "--export", name[:12], "-o", str(file)).code == 0
        ran = stook("audit", "verify-receipt", str(file), "--json")
        assert ran.code == 0
        report = verify_receipt_file(read_receipt_file(file.read_bytes()))
        wanted = Comparison.UNCOMPARED if report.receipt is None else Comparison.AGREES
        assert {entry.comparison for entry in report.rejudged} == {wanted}
        assert all(entry.reason.endswith("units proved") for entry in report.rejudged)


def test_what_is_here_no_more_leaves_its_pages_out(stook: Stook, home: Path, tmp_path: Path) -> None:  # noqa: F811
    contracts = fill(home, 1)
    with FileShardStore(home) as shards:
        shards.erase(contracts[0].terms.shard_root)
        file = tmp_path / "file"  # beside a process that has the store open
        name = json.loads(stook("farm", "audits", "--json").out)["round"]
        assert stook("farm", "audits", "--export", name, "-o", str(file), "--json").code == 0
    shown = read_receipt_file(file.read_bytes())
    assert shown.receipt is not None
    assert len(shown.answers) < len(shown.receipt.receipt.answers) == 2
    report = verify_receipt_file(shown)
    assert report.sound
    assert Comparison.MISSING in {entry.comparison for entry in report.rejudged}
    again = stook("farm", "audits", "--export", name, "-o", str(file))
    assert again.code == 2
    assert "exists already" in again.err


def test_what_cannot_be_written_out(stook: Stook, home: Path, tmp_path: Path) -> None:  # noqa: F811
    fill(home)
    assert stook("farm", "audits", "--export", "ffff").code == 2
    assert stook("farm", "audits", "--export", "00112233", "-o", str(tmp_path / "f")).code == 3
    several = stook("farm", "audits", "--export", "", "-o", str(tmp_path / "f"))
    assert several.code == 2
    assert "more digits" in several.err


def test_a_farmer_leaves_and_stays(stook: Stook, home: Path) -> None:  # noqa: F811
    assert stook("farm", "exit").code == 3
    fill(home, 0)
    ran = stook("farm", "exit", "--within", "2 d", "--json")
    assert ran.code == 0
    with SqliteContractStore(home / "contracts.db") as store:
        assert store.exits.leaving_by_ms() == ran.json["leaving_by_ms"] > 0
    assert "stays" in stook("farm", "exit", "--cancel").out
    with SqliteContractStore(home / "contracts.db") as store:
        assert store.exits.leaving_by_ms() == 0
    assert "leaves by" in stook("farm", "exit").out
    assert stook("farm", "exit", "--within", "soon").code == 2
    assert stook("farm", "exit", "--within", "99999999 d").code == 2


def test_the_status_says_what_was_proved_and_what_is_left(
    stook: Stook,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert stook("farm", "init").code == 0
    audits = {"pages_served": 3, "units_proved": 60, "units_billed": 4, "receipts_kept": 2}
    losses = {"losses_declared": 2, "losses_noted": 1}
    leave = {"leaving_by_ms": NOW_MS, "contracts_left": 5, "bytes_left": 9, "finished": False}
    moves = {"moves_waiting": 3, "moves_done": 2, "moves_failed": 1}
    names = "allocated_bytes available_bytes stored_bytes reserved_bytes free_disk_bytes bytes_in bytes_out"
    status = {
        **dict.fromkeys(names.split(), 1),
        "node_id": "00" * 20,
        "network": "n",
        "now_ms": 2,
        "started_ms": 1,
        "accepting": True,
        "contracts": {"reserved": 1, "active": 1, "lost": 1},
        "refusals": {},
        "last_scrub": None,
        "audits": audits | losses,
        "exit": leave | moves,
    }

    async def answer(home: Path, *, passphrase: str | None = None) -> dict[str, object]:
        return status

    monkeypatch.setattr("stook.assembly.farmer_status", answer)
    text = stook("farm", "status").out
    assert "60 units proved on 3 pages" in text
    assert "2 declared, 1 noted" in text
    assert "5 contracts left; 2 brought, 3 to bring, 1 in vain" in text
    status["exit"] = leave | moves | {"finished": True}
    assert "nothing is left" in stook("farm", "status").out
    status["exit"] = leave | moves | {"leaving_by_ms": 0}
    assert "leaving" not in stook("farm", "status").out
