"""The overlay's pages say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs.plots import figures_of

from code_names import resolve
from stook.audits.confidence import eclipse_chance
from stook.codec import Record
from stook.errors import ReasonCode
from stook.overlay import messages, record_store, records, searcher, service
from stook.overlay.lookup import LookupRules
from stook.overlay.messages import OverlayMethod
from stook.overlay.records import RecordKind
from stook.overlay.routing_table import TableRules
from stook.sim.overlay import ECLIPSE_NODES, Setting, eclipse, overlay

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "protocol/overlay.md").read_text()
FORMAT = (DOCS / "formats/overlay-record.md").read_text()
FLAT, FLAT_FORMAT = (re.sub(r"\s+", " ", text) for text in (PAGE, FORMAT))


def test_every_method_has_a_section() -> None:
    assert re.findall(r"^## ([A-Z_]+)$", PAGE, re.M) == list(OverlayMethod)
    for section in re.split(r"^## (?=[A-Z_]+$)", PAGE, flags=re.M)[1:]:
        for word in ("Request", "Reply", "Again:", "Durable"):
            assert word in section, (section[:20], word)


def test_every_message_is_shown_with_its_fields_in_order() -> None:
    shown = dict(re.findall(r"`(\w+) \[([\w, ]*)\]`", FLAT))
    defined = {
        name: ", ".join(kind.__struct_fields__)
        for name, kind in vars(messages).items()
        if isinstance(kind, type) and issubclass(kind, Record) and kind.__module__ == messages.__name__
    }
    assert shown == defined


def test_the_record_is_shown_with_its_fields_in_order() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", FORMAT, re.M)
    assert [(int(number), name) for number, name in rows] == list(enumerate(records.OverlayRecord.__struct_fields__))
    assert f"`[{', '.join(records.BridgeEntry.__struct_fields__)}]`" in FORMAT
    assert f"`[{', '.join(records.SignedRecord.__struct_fields__)}]`" in FORMAT


def test_the_kinds() -> None:
    rows = re.findall(r"^\| ([A-Z]+) \| (\d) \| (.+?) \| .+? \| (\d+) (h|d) \| (one|many) \|$", FORMAT, re.M)
    assert {(name, int(number)) for name, number, *_ in rows} == {(kind.name, kind.value) for kind in RecordKind}
    for name, _, _, count, unit, publishers in rows:
        kind = RecordKind[name]
        assert kind.life_ms == int(count) * (records.HOUR_MS if unit == "h" else records.DAY_MS)
        assert kind.is_own == (publishers == "one")


def test_every_code_named_exists() -> None:
    words = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", PAGE + FORMAT)) - set(OverlayMethod)
    assert words <= set(ReasonCode.__members__)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(stook(?:\.\w+)+)`", PAGE))))
def test_the_code_name_exists(name: str) -> None:
    assert resolve(name) is not None


def test_the_numbers() -> None:
    table, lookup, limits = TableRules(), LookupRules(), record_store.StoreLimits()
    for words in (
        f"`k` is {lookup.k}, `alpha` {lookup.alpha}, disjoint paths {lookup.paths}",
        f"at most {table.bucket_size}, the one seen least recently",
        f"replacement cache of {table.cache_size} verified",
        f"holds the {table.sibling_count} verified contacts",
        f"within the last {table.trusted_ms // 1000} s",
        f"it goes after {table.failures_to_forget} times",
        f"at most {table.max_per_network_in_bucket} contacts are in a bucket, {table.max_per_network} in the table",
        f"and {table.max_per_network_among_siblings} among the siblings",
        f"above {searcher.MAX_TABLE_CONTACT_BYTES:,} encoded bytes",
        f"the nearest {lookup.width} that it may ask",
        f"asks at most {lookup.max_asked} nodes",
        f"no network more than {lookup.max_per_network} times",
        f"cut to the {messages.MAX_CONTACTS} contacts",
        f"at most {messages.MAX_RECORDS_FOUND} and at most {messages.MAX_RECORDS_FOUND_BYTES >> 10} KiB",
        f"`Store [records]`, 1 to {messages.MAX_RECORDS_STORED}",
        f"At most {limits.max_records:,} records and {limits.max_bytes >> 20} MiB; {limits.max_per_key} of one key; "
        f"{limits.max_per_publisher} of one publisher",
        f"together {record_store.FIND_ALLOWANCE.burst} at once and {record_store.FIND_ALLOWANCE.per_second} a second",
        f"STORE {record_store.STORE_ALLOWANCE.burst} at once and {record_store.STORE_ALLOWANCE.per_second} a second",
        f"up to {service.REMEMBERED_CONTACTS} contacts that it remembered",
        f"after {searcher.PATIENCE_SECONDS:.0f} seconds",
    ):
        assert words in FLAT, words
    assert f"bytes ≤ {records.MAX_BODY_BYTES:,}" in FORMAT
    assert f"at most {records.MAX_RECORD_BYTES:,} encoded bytes" in FLAT_FORMAT


def test_the_chores_with_their_intervals() -> None:
    shown = {
        name: float(count) * (60 if unit == "min" else 1)
        for name, count, unit in re.findall(r"^\| `(\w+)` \| (\d+) (s|min) \|", PAGE, re.M)
    }
    every = service.OverlayIntervals()
    assert shown == {name: getattr(every, name) for name in every.__dataclass_fields__}


# --- the measured page -----------------------------------------------------------------------------------------------


def test_what_was_measured_is_what_was_asked_for() -> None:
    figures = figures_of("overlay")
    assert [one["nodes"] for one in figures["growth"]] == [100, 300, 1_000, 3_000, 10_000]
    for one in figures["growth"]:
        assert one["dead"] == 0.2
        assert one["success"] >= 0.999, one
        assert one["exact_k"] >= 0.99, one
    found = {(one["kind"], one["hostile"], one["paths"]): one["success"] for one in figures["hostile"]}
    for kind, share, paths in found:
        assert found[kind, share, 4] >= found[kind, share, 1], (kind, share)
        assert paths in (1, 2, 4)
    assert found["friends", 0.5, 4] > found["friends", 0.5, 1]


def test_the_smallest_network_measured_again_gives_the_same() -> None:
    (smallest,) = [one for one in figures_of("overlay")["growth"] if one["nodes"] == 100]
    assert overlay(Setting(smallest["seed"], nodes=100, lookups=smallest["lookups"])) == smallest


@pytest.mark.parametrize("nodes", ECLIPSE_NODES)
def test_an_eclipse_costs_what_the_white_papers_formula_says(nodes: int) -> None:
    counted = eclipse(9, nodes, trials=400)
    for row in counted["keys"]:
        assert row["formula"] == eclipse_chance(row["keys"], nodes)
        for counts, chance in (
            (row["counted_as_the_formula_has_it"], row["formula"]),
            (row["counted_for_drawn_ids"], row["exact_for_drawn_ids"]),
        ):
            deviation = (chance * (1 - chance) / counted["trials"]) ** 0.5
            assert abs(counts - chance) <= 4 * deviation + 0.01, row
