"""The commands about money over books that are there."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from contract_samples import FARMER, NETWORK, NOW_MS, RENTER
from payment_samples import DRAWER, facts, held, order
from stook.assembly import BOOKS_FILE
from stook.cli.main import cli
from stook.config import FarmSettings, NodeSettings, RentSettings, write_settings
from stook.contracts.negotiation import DAY_MS
from stook.errors import NotFoundError, UserError
from stook.payments.account import Account
from stook.payments.posting import Known, acknowledged, deposit, draw_up, pay_up, take
from stook.storage.books import SqliteBooks


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    """A renter's and a farmer's home, after two batches and a cheque."""
    renter, farmer = tmp_path / "renter", tmp_path / "farmer"
    for home, section in ((renter, {"rent": RentSettings()}), (farmer, {"farm": FarmSettings()})):
        home.mkdir()
        write_settings(home, {"node": NodeSettings(), **section})
    one, two = held(1), held(2)
    with SqliteBooks(renter / BOOKS_FILE) as ours, SqliteBooks(farmer / BOOKS_FILE) as theirs:
        for day in (1, 2):
            now = NOW_MS + day * DAY_MS
            account = ours.account(FARMER.node_id) or Account(FARMER.public_key)
            known = facts(now, one, two, orders=(order(day << 30, now),), receipt=bytes([day] * 32))
            for change in draw_up(account, ours.open_spans(FARMER.node_id), known, NETWORK, RENTER):
                ours.post(change)
                payee = theirs.account(RENTER.node_id) or Account(RENTER.public_key)
                mine = {each.contract_id: each for each in (one, two)}
                signed, spans = change.batches[0].signed, theirs.open_spans(RENTER.node_id)
                theirs.post(take(payee, spans, signed, Known(mine, True, now), FARMER))
        account = ours.account(FARMER.node_id)
        paying = pay_up(account, DRAWER, RENTER, now)
        ours.post(paying)
        theirs.post(deposit(theirs.account(RENTER.node_id), paying.account.cheque, DRAWER, None, now).change)
        account = ours.account(FARMER.node_id)
        ours.post(acknowledged(account, account.drawn, now))
    return renter, farmer


def said(home: Path, *words: str) -> Result:
    result = CliRunner().invoke(cli, ["--home", str(home), *words])
    if result.exception is not None:
        raise result.exception
    return result


def test_the_ledger_and_why(homes: tuple[Path, Path]) -> None:
    for home in homes:
        assert "batch 1" in said(home, "ledger").output
        lines = [json.loads(text) for text in said(home, "ledger", "list", "--json").output.splitlines()]
        assert {line["kind"] for line in lines} >= {"storage", "download", "cheque"}
        for line in lines:
            why = json.loads(said(home, "ledger", "why", str(line["number"]), "--json").output)
            assert why["amount"] == line["amount"]
            if line["kind"] == "storage":
                assert why["adds_up"]
                assert len(why["contracts"]) == 2
                assert sum(int(part["amount"]) for part in why["contracts"]) == int(line["amount"])
            assert said(home, "ledger", "why", str(line["number"])).output
        found = json.loads(said(home, "ledger", "balances", "--json").output)
        assert found["balanced"]
    with pytest.raises(NotFoundError, match="no line"):
        said(homes[0], "ledger", "why", "999")


def test_statements_of_both_sides_reconcile(homes: tuple[Path, Path], tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.json"
    text = said(homes[1], "ledger", "statement", "--month", "2027-01", "--json").output
    theirs.write_text(text)
    partner = FARMER.node_id.hex()[:8]
    assert "same" in said(homes[0], "ledger", "reconcile", str(theirs), "--with", partner).output
    statement = json.loads(text)
    statement["lines"][0]["amount"] = "1"
    theirs.write_text(json.dumps(statement))
    with pytest.raises(UserError, match="differ"):
        said(homes[0], "ledger", "reconcile", str(theirs), "--with", partner)
    assert "2027" in said(homes[0], "ledger", "statement", "--month", "2027-01").output


def test_export(homes: tuple[Path, Path], tmp_path: Path) -> None:
    said(homes[0], "ledger", "export", str(tmp_path / "lines.csv"))
    with (tmp_path / "lines.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert sum(int(row["amount"]) for row in rows if row["kind"] == "download") == 2 * 10**15
    with pytest.raises(UserError, match="csv"):
        said(homes[0], "ledger", "export", str(tmp_path / "lines.txt"))
    parquet = pytest.importorskip("pyarrow.parquet")
    said(homes[0], "ledger", "export", str(tmp_path / "lines.parquet"))
    assert parquet.read_table(tmp_path / "lines.parquet").num_rows == 6


def test_pay_and_earnings(homes: tuple[Path, Path]) -> None:
    renter, farmer = homes
    status = json.loads(said(renter, "pay", "status", "--json").output)
    assert status["unpaid"] == "0"
    assert status["delivered"] == status["owed"]
    assert "owed" in said(renter, "pay", "status").output
    assert "cheque 1" in said(farmer, "pay", "cheques").output
    cheque = json.loads(said(farmer, "pay", "cheques", "--json").output)
    assert cheque["cumulative"] == status["owed"]
    earned = json.loads(said(farmer, "farm", "earnings", "--json").output)
    assert earned["earned"] == status["owed"] == earned["cheques_held"]
    assert "Why?" in said(farmer, "farm", "earnings").output
    assert int(json.loads(said(farmer, "ledger", "forecast", "--json").output)["total"]) >= 0
    with pytest.raises(UserError, match="ledger"):
        said(farmer, "pay", "cash")
    assert replace(Account(FARMER.public_key), owed=1).unpaid == 1
