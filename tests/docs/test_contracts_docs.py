"""The documents about contracts say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stook.assembly import STATUS_METHOD
from stook.audits.messages import AuditMethod
from stook.codec import Record
from stook.contracts import announcement, contract, grant, messages, negotiation, receipt, renewal, topics
from stook.contracts.lifecycle import STEPS, ContractState, Event
from stook.contracts.messages import Method
from stook.contracts.move import MoveMethod
from stook.contracts.recovery import RecoveryMethod
from stook.errors import ReasonCode
from stook.overlay.messages import OverlayMethod
from stook.wire.endpoint import PING, PROBE

DOCS = Path(__file__).parents[2] / "docs"
METHODS = (DOCS / "protocol/methods.md").read_text()
LIFE = (DOCS / "protocol/contracts.md").read_text()


def field_rows(text: str) -> list[tuple[int, str]]:
    """Rows ``| 3 | `name` | …`` of the first table of a format page."""
    return [(int(number), name) for number, name in re.findall(r"^\| (\d+) \| `(\w+)`", text, re.M)]


def test_the_diagram_is_the_table() -> None:
    drawn = {
        (ContractState(state), Event(event)): ContractState(after)
        for state, after, event in re.findall(r"^    (\w+) --> (\w+): (\w+)$", LIFE, re.M)
    }
    assert drawn == STEPS
    assert "[*] --> draft" in LIFE
    over = {ContractState(state) for state in re.findall(r"^    (\w+) --> \[\*\]$", LIFE, re.M)}
    assert over == {state for state in ContractState if not any(step[0] is state for step in STEPS)}


def test_every_state_and_event_is_explained() -> None:
    explained = re.findall(r"^\| (\w+) \|", LIFE, re.M)
    assert [name for name in explained if name not in ("state", "event")] == [*ContractState, *Event]


def test_every_method_has_a_section_and_a_row() -> None:
    sections = re.findall(r"^## (\w+)$", METHODS, re.M)
    assert sections == [*Method, STATUS_METHOD]
    rows = re.findall(r"^\| ([A-Z_]+) \|", METHODS, re.M)
    assert rows == [PING, PROBE, *Method, STATUS_METHOD]


def test_every_section_says_what_happens_again_and_what_is_durable() -> None:
    for section in re.split(r"^## ", METHODS, flags=re.M)[1:]:
        for word in ("Request", "Repl", "Again:", "Durable"):
            assert word in section or (word == "Repl" and "reply" in section), (section[:20], word)


def test_every_message_is_shown_with_its_fields_in_order() -> None:
    shown = dict(re.findall(r"`(\w+) \[([\w, ]*)\]`", METHODS))
    defined = {
        name: ", ".join(kind.__struct_fields__)
        for name, kind in vars(messages).items()
        if isinstance(kind, type) and issubclass(kind, Record) and kind.__module__ == messages.__name__
    }
    assert shown == defined


@pytest.mark.parametrize(
    "page",
    [
        "protocol/methods.md",
        "protocol/contracts.md",
        *(f"formats/{n}.md" for n in ("contract", "grant", "receipt", "announcement")),
    ],
)
def test_every_code_named_exists(page: str) -> None:
    text = (DOCS / page).read_text()
    states = {word.upper() for word in (*ContractState, *Event)}
    others = {
        PING,
        PROBE,
        STATUS_METHOD,
        "JSON",
        "UTF",
        "TLS",
        "LEDGER",
        "EVM",
        "SAMPLED",
        "SALTED",
        "AUDIT",
        "PAY",
        "ORDER",
        "SIP",
        "FIRST",
        "UTC",
    }
    words = (
        set(re.findall(r"\b[A-Z][A-Z_]{2,}\b", text))
        - states
        - others
        - set(Method)
        - set(AuditMethod)
        - set(MoveMethod)
        - set(OverlayMethod)
        - set(RecoveryMethod)
    )
    assert words <= set(ReasonCode.__members__)


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        ("contract", contract.Terms),
        ("grant", grant.Grant),
        ("receipt", receipt.StorageReceipt),
        ("announcement", announcement.Announcement),
    ],
)
def test_format_pages_list_the_fields_in_order(page: str, kind: type[Record]) -> None:
    rows = field_rows((DOCS / f"formats/{page}.md").read_text())
    assert rows == list(enumerate(kind.__struct_fields__))


def test_the_second_receipt_is_in_its_column() -> None:
    text = (DOCS / "formats/receipt.md").read_text()
    assert tuple(re.findall(r"^\| \d+ \| `\w+` \| `(\w+)`", text, re.M)) == receipt.EraseReceipt.__struct_fields__


def test_the_contract_page_names_every_renewable_field() -> None:
    text = (DOCS / "formats/contract.md").read_text()
    table = text[text.index("| may change | when |") : text.index("Any other difference")]
    assert set(re.findall(r"`(\w+)`", table)) >= renewal.RENEWABLE | renewal.WITH_OWNER


def test_numbers_in_the_pages_are_those_of_the_code() -> None:
    text = (DOCS / "formats/contract.md").read_text()
    assert f"at most {negotiation.MAX_GRACE_MS // negotiation.DAY_MS} days" in text
    assert f"is at most {negotiation.MAX_AUDIT_LEAVES}," in text
    assert f"at least {negotiation.MIN_AUDIT_INTERVAL_MS:,}" in text
    assert f"more\nthan {contract.MAX_CONTRACT_BYTES:,} bytes" in text
    mib, day = topics.MIB, topics.DAY_MS
    low, medium = topics.BOUNDARIES[topics.Criterion.SIZE]
    assert f"| {low // mib} MiB | {medium // mib} MiB |" in text
    low, medium = topics.BOUNDARIES[topics.Criterion.DURATION]
    assert f"| {low // day} days | {medium // day} days |" in text
    low, medium = topics.BOUNDARIES[topics.Criterion.SPEED]
    assert f"| {low:,} bit/s | {medium:,} bit/s |" in text
    grants = (DOCS / "formats/grant.md").read_text()
    assert f"at most {grant.MAX_CHAIN} grants" in grants
    assert f"bytes ≤ {grant.MAX_PARENT_BYTES:,}" in grants
    assert f"1 to {messages.MAX_BATCH} `Terms`" in METHODS
    assert f"1 to {messages.MAX_ANNOUNCEMENTS}. Reply `ContactsReply" in METHODS
    assert f"up to {messages.MAX_DETAIL_CHARS} characters" in METHODS
