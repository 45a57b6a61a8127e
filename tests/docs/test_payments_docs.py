"""The pages of payments list the fields, kinds, numbers and reasons that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stook.errors import ReasonCode
from stook.payments import messages
from stook.payments.batch import MAX_CHANGES, Agreement, Batch, BatchKind, Closing, Opening, Reason
from stook.payments.cheque import Cheque, Fault
from stook.payments.enforcement import Step
from stook.payments.ledger import ENTRIES, Kind, Side
from stook.payments.messages import MAX_BATCHES, PayMethod
from stook.payments.orders import MAX_PRICES, SIGN_EVERY_BYTES, STEP_BYTES, TOLERANCE, BandwidthOrder

DOCS = Path(__file__).parents[2] / "docs"
MIB = 1 << 20


def page(name: str) -> str:
    return (DOCS / name).read_text()


def fields(text: str) -> list[tuple[int, str]]:
    return [(int(number), name) for number, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.M)]


@pytest.mark.parametrize(
    ("name", "kind"), [("formats/bandwidth-receipt.md", BandwidthOrder), ("formats/statement.md", Batch)]
)
def test_tables_list_the_fields_in_order(name: str, kind: type) -> None:
    assert fields(page(name)) == list(enumerate(kind.__struct_fields__))


def test_short_records_are_shown_with_their_fields() -> None:
    statement = page("formats/statement.md")
    assert f"`Agreement` is `[{', '.join(Agreement.__struct_fields__)}]`" in statement
    assert f"`[{', '.join(Opening.__struct_fields__)}]`" in statement
    assert f"`[{', '.join(Closing.__struct_fields__)}]`" in statement
    said = page("formats/cheque.md").replace("\n", " ")
    for name in Cheque.__struct_fields__:
        assert name in said


def test_messages_and_methods() -> None:
    text = page("protocol/payments.md")
    assert re.findall(r"^\| ([A-Z]+) \| a farmer", text, re.M) == list(PayMethod)
    for name in ("Pay", "PayReply", "Order", "OrderReply"):
        assert f"`{name} [{', '.join(getattr(messages, name).__struct_fields__)}]`" in text
    assert f"at most {MAX_BATCHES} batches" in text
    assert set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", text)) <= set(ReasonCode.__members__)
    assert [Step(word.lower()) for word in re.findall(r"^\| ([A-Z]+) \| (?:unpaid|older)", text, re.M)] == [
        Step.WARN,
        Step.STOP,
        Step.DROP,
    ]


def test_numbers() -> None:
    receipt = page("formats/bandwidth-receipt.md")
    assert f"≤ {STEP_BYTES // MIB} MiB + received / {TOLERANCE} + {STEP_BYTES // MIB} MiB" in receipt
    assert f"every {SIGN_EVERY_BYTES // MIB} MiB" in receipt
    assert f"at most {MAX_PRICES} prices" in receipt
    assert f"({STEP_BYTES // MIB} MiB)" in page("protocol/payments.md")
    assert f"≤ {MAX_CHANGES} of" in page("formats/statement.md")


def test_kinds_and_reasons() -> None:
    statement = page("formats/statement.md")
    assert ", ".join(f"{kind.value} {kind.name}" for kind in BatchKind) in statement
    assert ", ".join(f"{reason.value} {reason.name}" for reason in Reason) in statement
    rules = re.findall(r"^\| [^|]+ \| `(\w+)` \|$", page("formats/cheque.md"), re.M)
    assert rules == [fault.value for fault in Fault]


def test_the_chart_of_accounts() -> None:
    rows = re.findall(r"^\| (\w+) \| ([^|]*) \| ([^|]*) \|$", page("formats/ledger.md"), re.M)
    found = {}
    for kind, payer, payee in rows:
        if kind in set(Kind):
            for side, text in ((Side.PAYER, payer), (Side.PAYEE, payee)):
                names = re.findall(r"`([\w.]+)`", text)
                if names:
                    found[side, Kind(kind)] = tuple(names)
    assert found == {key: (debit.value, credit.value) for key, (debit, credit) in ENTRIES.items()}


def test_the_gas_table_is_within_what_the_test_allows() -> None:
    written = re.findall(r"\| ([\d,]+) \|$", page("payments-on-chain.md"), re.M)
    gas = [int(number.replace(",", "")) for number in written]
    assert len(gas) == 4
    allowed = (101_000, 63_500, 66_600, 29_000)
    assert all(number <= most for number, most in zip(gas, allowed, strict=True))
