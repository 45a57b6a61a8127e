"""The page about leaving says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from stook.audits.messages import AuditMethod
from stook.codec import Record
from stook.contracts import move
from stook.contracts.lifecycle import Event
from stook.contracts.messages import Method
from stook.contracts.move import MAX_ORDERS, MoveMethod
from stook.errors import ReasonCode

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "protocol/move.md").read_text()
FLAT = re.sub(r"\s+", " ", PAGE)


def test_the_method_has_a_section_and_a_row() -> None:
    assert re.findall(r"^## ([A-Z_]+)$", PAGE, re.M) == list(MoveMethod)
    assert re.findall(r"^\| ([A-Z_]+) \|", PAGE, re.M) == list(MoveMethod)
    (section,) = re.split(r"^## (?=[A-Z_]+$)", PAGE, flags=re.M)[1:]
    for word in ("Request", "Reply", "Again:", "Durable"):
        assert word in section, word


def test_every_message_is_shown_with_its_fields_in_order() -> None:
    shown = dict(re.findall(r"`(\w+) \[([\w, ]*)\]`", FLAT))
    defined = {
        name: ", ".join(kind.__struct_fields__)
        for name, kind in vars(move).items()
        if isinstance(kind, type) and issubclass(kind, Record) and kind.__module__ == move.__name__
    }
    assert shown == defined
    assert f"1 to {MAX_ORDERS} of `MoveOrder" in FLAT


def test_every_code_named_exists() -> None:
    words = set(re.findall(r"\b[A-Z][A-Z_]{3,}\b", PAGE)) - {*MoveMethod, *Method, *AuditMethod, *Event}
    assert words <= set(ReasonCode.__members__)


def test_every_page_named_exists() -> None:
    for page in re.findall(r"`((?:\.\./)?[\w/-]+\.md)`", PAGE):
        assert (DOCS / "protocol" / page).resolve().is_file(), page
