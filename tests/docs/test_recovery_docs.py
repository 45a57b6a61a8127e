"""The pages about saving and recovering the catalog say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stook.codec import Record
from stook.contracts import recovery
from stook.contracts.messages import Method
from stook.contracts.recovery import MAX_RECORD_BYTES, MAX_SEALED_BYTES, RecoveryBody, RecoveryMethod
from stook.errors import ReasonCode
from stook.farmer import keepsakes
from stook.renter.client import INLINE_BYTES
from stook.renter.journal_seal import RecoveryContent
from stook.shards.pointer import MAX_INLINE_BYTES, InlineRecord
from stook.storage.catalog_tables import CATALOG_SCHEMA, catalog_metadata
from stook.storage.journal_records import MAX_COUNTER, MAX_EPOCH, Block, PartHead, PartRef, Point, SaveHead, SaveRef
from stook.storage.journal_tables import OWN_TABLES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "protocol/recovery.md").read_text()
JOURNAL = (DOCS / "formats/journal.md").read_text()
RECORD = (DOCS / "formats/recovery-record.md").read_text()
CATALOG = (DOCS / "formats/catalog.md").read_text()
FLAT = re.sub(r"\s+", " ", PAGE)


def test_every_method_has_a_section_and_a_row() -> None:
    assert re.findall(r"^## ([A-Z_]+)$", PAGE, re.M) == list(RecoveryMethod)
    assert re.findall(r"^\| ([A-Z_]+) \|", PAGE, re.M) == list(RecoveryMethod)
    sections = re.split(r"^## (?=[A-Z_]+$)", PAGE, flags=re.M)[1:]
    for section in sections:
        for word in ("Request", "Reply", "Again:", "Durable"):
            assert word in section, word


def test_every_message_is_shown_with_its_fields_in_order() -> None:
    shown = dict(re.findall(r"`(\w+) \[([\w, ]*)\]`", FLAT))
    messages = {"LeaveRecord", "FindRecord", "RecordReply"}
    defined = {
        name: ", ".join(kind.__struct_fields__)
        for name, kind in vars(recovery).items()
        if name in messages and isinstance(kind, type) and issubclass(kind, Record)
    }
    assert shown == defined


def test_every_code_named_exists() -> None:
    words = set(re.findall(r"\b[A-Z][A-Z_]{4,}\b", PAGE)) - {*RecoveryMethod, *Method}
    assert words <= set(ReasonCode.__members__)


def rows(page: str, head: str) -> list[str]:
    table = page[page.index(f"| {head} |") :].split("\n\n")[0]
    return [name for row in re.findall(r"^\| ([\w, ]+) \|", table, re.M)[1:] for name in row.split(", ")]


@pytest.mark.parametrize(
    ("page", "head", "kind"),
    [
        (JOURNAL, "`Block`", Block),
        (JOURNAL, "`PartHead`", PartHead),
        (JOURNAL, "`SaveHead`", SaveHead),
        (RECORD, "body", RecoveryBody),
    ],
)
def test_tables_of_fields(page: str, head: str, kind: type[Record]) -> None:
    found = rows(page.replace(f"| {head} | type | |", f"| {head} | type | |\n| head | | |"), head)
    assert tuple(found[-len(kind.__struct_fields__) :]) == kind.__struct_fields__


def test_fields_in_the_text() -> None:
    def inside(name: str) -> str:
        return re.sub(r"\s+", " ", JOURNAL).split(f"`{name}` is (")[1].split(")")[0]

    assert [each.split()[0] for each in inside("PartRef").split(", ")] == list(PartRef.__struct_fields__)
    assert inside("SaveRef").startswith("sequence, saved_ms, generation, base, rows, array of `PartRef`")
    assert SaveRef.__struct_fields__ == ("sequence", "saved_ms", "generation", "base", "rows", "parts")
    assert Point.__struct_fields__ == ("saved_ms", "chain")
    named = re.findall(r"^\| (\w+) \|", RECORD[RECORD.index("| field | type") :].split("\n\n")[0], re.M)
    assert tuple(named[1:]) == RecoveryContent.__struct_fields__
    record = (DOCS / "formats/record.md").read_text()
    assert f"bytes 1–{MAX_INLINE_BYTES:,}" in record
    assert InlineRecord.__struct_fields__ == ("version", "data", "modified_ns", "mode", "metadata")


def test_numbers() -> None:
    assert f"at most {MAX_RECORD_BYTES:,} bytes" in RECORD.lower()
    assert f"≤ {MAX_SEALED_BYTES:,}" in RECORD
    assert f"at most {MAX_EPOCH:,}, counters at most" in re.sub(r"\s+", " ", JOURNAL)
    assert MAX_COUNTER == 2**28 - 1
    assert f"up to {INLINE_BYTES >> 10} KiB" in FLAT
    assert keepsakes.KEEP_MS == 90 * 24 * 3_600_000
    assert keepsakes.MAX_PER_RENTER == 4


def test_the_journals_own_tables_are_on_the_catalogs_page() -> None:
    assert f"this page describes `{CATALOG_SCHEMA.head}`" in CATALOG
    for name in OWN_TABLES - {"alembic_version"}:
        assert f"| `{name}` |" in CATALOG
        section = CATALOG[CATALOG.index(f"| `{name}` |") :]
        for column in catalog_metadata.tables[name].c:
            assert f"`{column.name}`" in section, column
