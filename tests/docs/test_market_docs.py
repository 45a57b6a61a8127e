"""The pages about publish and subscribe and about the market say what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from stook.audits.messages import AuditMethod
from stook.codec import Record
from stook.contracts import market
from stook.contracts.market import MAX_ANSWER_MS, MAX_OFFERS, MAX_ROUNDS, QUOTE_LIFE_MS, MarketMethod
from stook.contracts.messages import MAX_BATCH, Method
from stook.contracts.topics import CAPACITY_PREFIX, CONTRACT_PREFIX
from stook.errors import ReasonCode
from stook.farmer.asking import Callers
from stook.farmer.settings import MarketSettings
from stook.overlay import publication
from stook.overlay.bloom import DEPTH, STANDARD
from stook.overlay.publication import MAX_CONTENTS_BYTES, MAX_PUBLISHERS, MAX_TTL, PUBLICATION_LIFE_MS, QuasarMethod
from stook.overlay.quasar import MAX_TOPICS, MINUTE_MS, PubSubTiming, QuasarRules
from stook.renter.bargain import Bargain
from stook.renter.market import LAST_PATIENCE, MAX_FARMERS, RINGS, MarketOptions

DOCS = Path(__file__).parents[2] / "docs"
QUASAR = (DOCS / "protocol/quasar.md").read_text()
MARKET = (DOCS / "protocol/market.md").read_text()
PUBLICATION = (DOCS / "formats/publication.md").read_text()
TRADE = (DOCS / "formats/market.md").read_text()


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize(("page", "methods"), [(QUASAR, QuasarMethod), (MARKET, MarketMethod)])
def test_every_method_has_a_section_and_a_row(page: str, methods: type[QuasarMethod] | type[MarketMethod]) -> None:
    assert re.findall(r"^\| ([A-Z_]+) \|", page, re.M) == list(methods)
    sections = re.split(r"^## ", page, flags=re.M)
    for method in methods:
        (section,) = [one for one in sections if one.startswith(f"{method}\n")]
        for word in ("Request", "Repl", "Again:", "Durable"):
            assert word in section, (method, word)


@pytest.mark.parametrize(("page", "module"), [(QUASAR, publication), (MARKET + TRADE, market)])
def test_every_message_is_shown_with_its_fields_in_order(page: str, module: ModuleType) -> None:
    shown = {name: fields for name, fields in re.findall(r"`(\w+) \[([\w, ]*)\]`", flat(page))}  # noqa: C416
    rows = re.findall(r"^\| (\d+) \| `(\w+)`", PUBLICATION + TRADE, re.M)
    for name, kind in vars(module).items():
        if isinstance(kind, type) and issubclass(kind, Record) and kind.__module__ == module.__name__:
            fields = list(kind.__struct_fields__)
            numbered = [(str(number), field) for number, field in enumerate(fields)]
            in_a_table = all(row in rows for row in numbered)
            signed = name == "SignedPublication" and "`[publication, signature]`" in PUBLICATION
            assert shown.get(name) == ", ".join(fields) or in_a_table or signed, name


@pytest.mark.parametrize("page", [QUASAR, MARKET, PUBLICATION, TRADE])
def test_every_code_named_exists(page: str) -> None:
    others = {"BLAKE", "FNV", "XOR", "ANY", "DIRECT", "TTL"}
    words = set(re.findall(r"\b[A-Z][A-Z_]{2,}\b", page))
    known = {*ReasonCode.__members__, *Method, *AuditMethod, *QuasarMethod, *MarketMethod, *others}
    assert words <= known, words - known


@pytest.mark.parametrize(
    "page", ["protocol/quasar.md", "protocol/market.md", "formats/publication.md", "formats/market.md"]
)
def test_every_page_and_vector_named_exists(page: str) -> None:
    text = (DOCS / page).read_text()
    for named in re.findall(r"`((?:\.\./)?[\w/-]+\.md)`", text):
        assert ((DOCS / page).parent / named).resolve().is_file(), named
    for named in re.findall(r"`(tests/vectors/data/[\w.-]+)`", text):
        assert (DOCS.parent / named).is_file(), named


def test_the_numbers_of_quasar() -> None:
    rules, timing, text = QuasarRules(), PubSubTiming(), flat(QUASAR)
    for said in (
        f"has {DEPTH} levels, each a Bloom filter of {STANDARD.bits:,} bits in which a topic sets {STANDARD.hashes}",
        f"A node asks {rules.links} contacts",
        f"takes up to {rules.max_neighbours} in all",
        f"no filter for {rules.filter_life_ms // MINUTE_MS} minutes",
        f"({timing.settle_seconds:g} seconds after the first change",
        f"again after {timing.refresh_ms // MINUTE_MS} minutes",
        f"at most {rules.fanout} of its neighbours",
        f"of more than {MAX_PUBLISHERS} the last {MAX_PUBLISHERS} are kept",
        f"to {timing.entries} nodes that it knows",
        f"no more than {rules.neighbour_per_minute} within a minute",
        f"`ttl` is at most {MAX_TTL}",
        f"within {PUBLICATION_LIFE_MS // MINUTE_MS} minutes of the receiver's clock",
        f"no more than {rules.originator_per_minute} within a minute",
        f"the neighbour sent {rules.updates_per_minute} within a minute",
        f"{rules.max_seen:,} within ten minutes",
        f"more bits than {MAX_TOPICS} topics set",
        f"levels of {STANDARD.size_bytes} bytes each",
    ):
        assert said in text, said
    assert f"0 to {MAX_TTL}" in PUBLICATION
    assert f"at most {MAX_CONTENTS_BYTES:,} bytes" in PUBLICATION


def test_the_numbers_of_the_market() -> None:
    options, settings, bargain, text = MarketOptions(), MarketSettings(), Bargain(), flat(MARKET)
    near, farther, farthest = RINGS
    for said in (
        f"at most {MAX_ROUNDS} rounds",
        f"every {options.every_seconds / 60:g} minutes, when fewer than {options.offers_wanted} farmers",
        f"fewer than {settings.max_talks} renters",
        f"every {settings.advertise_seconds / 60:g} minutes",
        f"or for {QUOTE_LIFE_MS // MINUTE_MS} minutes",
        f"no more for {Callers().rest_ms // MINUTE_MS} minutes",
        f"a host with {Callers().per_host} such addresses",
        f"has {QuasarRules().originator_per_minute} publications a minute",
        f"first bid is {bargain.opening_percent} % of the ceiling",
        f"with {near} hops at first",
        f"for {options.ring_seconds:g} seconds and there are too few, again with {farther}; then with {farthest}",
        f"no offer came for {LAST_PATIENCE * options.ring_seconds:g} seconds",
        f"({options.answer_seconds:g} seconds, at most {MAX_ANSWER_MS // 1000})",
        f"knows {MAX_FARMERS:,} farmers",
        f"the round, from 0 to {MAX_ROUNDS - 1}",
    ):
        assert said in text, said
    for prefix in (CONTRACT_PREFIX, CAPACITY_PREFIX):
        assert f"| `{prefix:02x}` " in MARKET
    assert f"1 to {MAX_OFFERS} |" in TRADE
    assert f"1 to {MAX_BATCH} |" in TRADE
    assert f"at most {2 * MAX_ANSWER_MS // 1000} seconds ahead" in TRADE
