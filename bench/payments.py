"""A year of daily rounds in one renter's books: how large, how fast, how soon explained.

Each day, for each farmer: read what is paid for, draw up the batch, sign it and a cheque, write both down durably, then
the acknowledgement. One ledger line for a batch, whatever the number of contracts; `why` expands it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench.common import report
from stook.contracts.contract import CONTRACT_VERSION, AuditStrategy, AuditTerms, Settlement, Terms
from stook.contracts.topics import criteria_of
from stook.identity.keys import NodeKey
from stook.ids import NetworkId, ShardRoot
from stook.payments.account import Account
from stook.payments.cheque import Drawer
from stook.payments.posting import Facts, Held, Standing, acknowledged, draw_up, pay_up
from stook.payments.statement import adds_up, explain, statement
from stook.storage.books import SqliteBooks

NETWORK = NetworkId("bench")
RENTER = NodeKey.from_secret(bytes([7]) * 32)
DAY_MS = 24 * 3_600_000
BEGIN_MS = 1_800_000_000_000
MIB = 1 << 20


def terms_of(farmer: NodeKey, number: int) -> Terms:
    return Terms(
        version=CONTRACT_VERSION,
        network=NETWORK,
        renter_key=RENTER.public_key,
        renter_index=0,
        farmer_key=farmer.public_key,
        farmer_index=0,
        shard_root=ShardRoot(number.to_bytes(32, "big")),
        shard_size_bytes=4 * MIB,
        begin_ms=BEGIN_MS,
        end_ms=BEGIN_MS + 400 * DAY_MS,
        consign_by_ms=BEGIN_MS + 3_600_000,
        audit=AuditTerms(strategy=AuditStrategy.SAMPLED, interval_ms=DAY_MS, leaves_per_interval=4),
        storage_price_per_gib_hour=10**12,
        download_price_per_gib=10**15,
        settlement=Settlement.LEDGER,
        payment_destination=b"",
        criteria=criteria_of(4 * MIB, 400 * DAY_MS),
        absences=(),
        collateral=0,
        grace_ms=7 * DAY_MS,
        memo=bytes(48),
        revision=0,
        origin=b"",
    )


class Year:
    def __init__(self, path: Path, farmers: int, contracts: int) -> None:
        self.books = SqliteBooks(path)
        self.path = path
        self.keys = [NodeKey.from_secret((1000 + n).to_bytes(32, "big")) for n in range(farmers)]
        each = contracts // farmers
        self.held = [
            [Held(terms_of(key, n * each + m), Standing.STORED) for m in range(each)] for n, key in enumerate(self.keys)
        ]
        self.drawers = [Drawer.ledger(NETWORK, RENTER.public_key, key.public_key) for key in self.keys]
        self.posting = 0.0
        self.lines = 0

    def round(self, day: int, receipts: random.Random) -> None:
        now = BEGIN_MS + day * DAY_MS
        for key, held, drawer in zip(self.keys, self.held, self.drawers, strict=True):
            account = self.books.account(key.node_id) or Account(key.public_key)
            spans = self.books.open_spans(key.node_id)
            known = Facts(held, frozenset(), (), receipts.randbytes(32), 0, b"", now)
            changes = draw_up(account, spans, known, NETWORK, RENTER)
            last = replace(changes[-1].account, version=account.version + len(changes))
            cheque = pay_up(last, drawer, RENTER, now)
            began = time.perf_counter()
            self.books.post(*changes, cheque)
            self.posting += time.perf_counter() - began
            account = self.books.account(key.node_id)
            done = acknowledged(account, account.drawn, now)
            began = time.perf_counter()
            self.books.post(done)
            self.posting += time.perf_counter() - began
            self.lines += 2
            self.lines += sum(len(change.lines) for change in changes)

    def size(self) -> int:
        return sum(part.stat().st_size for part in self.path.parent.glob(self.path.name + "*"))


def timed(work, times: int) -> float:
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--farmers", type=int, default=200)
    parser.add_argument("--contracts", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=365)
    options = parser.parse_args()
    dice = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="stook-bench-") as folder:
        year = Year(Path(folder, "books.db"), options.farmers, options.contracts)
        began = time.perf_counter()
        for day in range(1, options.days + 1):
            year.round(day, dice)
        seconds = time.perf_counter() - began
        books = year.books
        numbers = [line.number for line in books.lines(limit=-1)]

        def why() -> None:
            line = books.line(dice.choice(numbers))
            batch = books.batch(line.partner, line.seq).signed.batch
            parts = explain(batch, books.spans_at(line.partner, line.seq))
            assert adds_up(batch, parts)

        def month(partner) -> None:
            end = BEGIN_MS + options.days * DAY_MS
            begin = end - 30 * DAY_MS
            lines = books.lines(partner, from_ms=begin, to_ms=end)
            statement(books.balances(partner, begin), lines, begin, end)

        rounds = options.farmers * options.days
        result = {
            "farmers": options.farmers,
            "contracts": options.contracts,
            "days": options.days,
            "batches": rounds,
            "ledger_lines": len(numbers),
            "books_mib": round(year.size() / MIB, 1),
            "bytes_per_batch": round(year.size() / rounds),
            "rounds_per_second": round(rounds / seconds, 1),
            "lines_appended_per_second": round(year.lines / year.posting),
            "day_seconds": round(seconds / options.days, 3),
            "why_ms": round(1000 * timed(why, 50), 2),
            "statement_one_farmer_ms": round(1000 * timed(lambda: month(dice.choice(year.keys).node_id), 20), 2),
            "statement_all_ms": round(1000 * timed(lambda: month(None), 3), 1),
            "balanced": sum(books.balances().values()) == 0,
        }
        books.close()
    report("payments", result)


if __name__ == "__main__":
    main()
