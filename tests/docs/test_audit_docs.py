"""The pages about audits say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stook.audits import challenge, evidence, holding, messages, proof, receipt, salted
from stook.audits.messages import AuditMethod
from stook.codec import Record
from stook.contracts import loss
from stook.contracts.contract import AuditStrategy
from stook.contracts.verdict import Verdict
from stook.errors import ReasonCode

DOCS = Path(__file__).parents[2] / "docs"
FORMAT = (DOCS / "formats/audit.md").read_text()
METHODS = (DOCS / "protocol/audits.md").read_text()

FLAT, FLAT_METHODS = (re.sub(r"\s+", " ", text) for text in (FORMAT, METHODS))
"""Without line breaks, for what a line may break."""


def table_after(words: str) -> list[tuple[int, str]]:
    """Rows ``| 3 | `name` | …`` of the first table after these words."""
    text = FORMAT[FORMAT.index(words) :]
    rows = text[text.index("| # |") :].split("\n\n")[0]
    return [(int(number), name) for number, name in re.findall(r"^\| (\d+) \| `(\w+)`", rows, re.M)]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("`SignedChallenge` is", challenge.Challenge),
        ("`SignedAnswer` is", proof.AnswerHead),
        ("`items` has one `Item`", proof.Item),
        ("`SignedBatchReceipt` is", receipt.BatchReceipt),
        ("`ReceiptFile` is", evidence.ReceiptFile),
    ],
)
def test_format_tables_list_the_fields_in_order(words: str, kind: type[Record]) -> None:
    assert table_after(words) == list(enumerate(kind.__struct_fields__))


@pytest.mark.parametrize(
    ("shown", "kind"),
    [
        ("[contract_id (32), shard_root (32), size_bytes (1 to 2^46), units, salted]", challenge.Ask),
        ("[index (0 to count − 1), count, root (32), salt (32)]", challenge.SaltedAsk),
        ("[challenge, signature]", challenge.SignedChallenge),
        ("[head, signature, items]", proof.SignedAnswer),
        ("[head, signature]", proof.SignedHead),
        ("[unit, path]", proof.UnitProof),
        ("[pre_leaf, path]", salted.SaltedProof),
        ("[loss, signature]", loss.SignedLoss),
        ("[contract_id (32), shard_root (32), declared_at_ms, farmer_key (33)]", loss.LossDeclaration),
        ("[note, signature]", loss.SignedLossNote),
        ("[loss (32), received_at_ms, auditor_key (33), asked (0 or 32)]", loss.LossNote),
        ("[loss, note]", loss.NotedLoss),
        ("[receipt, signature]", receipt.SignedBatchReceipt),
        ("[contract_id (32), shard_root (32), verdict, leaves]", receipt.ReceiptLine),
        ("[index, line, path]", receipt.LineProof),
    ],
)
def test_small_records_are_shown_with_their_fields(shown: str, kind: type[Record]) -> None:
    assert f"`{shown}`" in FLAT
    assert tuple(re.findall(r"\w+", re.sub(r" \([^)]*\)", "", shown))) == kind.__struct_fields__


def bound(what: str) -> str:
    (found,) = re.findall(rf"^\| {re.escape(what)} \| (.+) \|$", FORMAT, re.M)
    return found


def test_the_table_of_bounds() -> None:
    assert bound("shards asked about in a challenge") == f"1 to {challenge.MAX_ASKS}"
    assert bound("units asked for in a challenge") == f"1 to {holding.MAX_LEAVES}"
    assert bound("units asked for of one shard") == f"1 to {holding.MAX_LEAVES_PER_SHARD}"
    assert bound("units, or salted asks, on one page of the answer") == f"1 to {challenge.MAX_PAGE_WEIGHT}"
    assert bound("pages of a challenge") == f"at most {challenge.MAX_PAGES}"
    assert bound("encoded answer") == f"at most {proof.MAX_ANSWER_BYTES:,} bytes"
    assert bound("path of a unit") == f"at most {proof.MAX_PATH} hashes"
    assert bound("salts of one commitment") == f"1 to {challenge.MAX_SALTS:,}"
    assert bound("time to answer") == "1 ms to 1 hour"
    assert challenge.MAX_ANSWER_MS == 3_600_000
    assert bound("shards in a holding") == f"1 to 2^{holding.MAX_HELD.bit_length() - 1}"
    assert bound("lines of a receipt") == f"1 to {receipt.MAX_LINES:,}"
    assert bound("receipt file") == (
        f"at most {evidence.MAX_FILE_BYTES >> 20} MiB, its holding at most {evidence.MAX_HOLDING_BYTES >> 20} MiB"
    )
    assert f"when {holding.MAX_WORDS:,} words" in FLAT
    assert f"at most {salted.MAX_DEPTH})" in FLAT
    assert f"path at most {receipt.MAX_LINE_PATH} hashes" in FLAT


def test_numbers_of_verdicts_kinds_and_strategies() -> None:
    table = FORMAT[FORMAT.index("## Verdicts") : FORMAT.index("## Batch receipt")]
    rows = re.findall(r"^\| .+ \| ([A-Z]+) \| (\d) \|$", table, re.M)
    assert {(name, int(number)) for name, number in rows} == {(verdict.name, verdict.value) for verdict in Verdict}
    assert ", ".join(f"{kind.value} {kind.name}" for kind in proof.AnswerKind) in FLAT
    assert ", ".join(f"{strategy.value} {strategy.name}" for strategy in AuditStrategy) in FLAT


def test_every_method_has_a_section_and_a_row() -> None:
    assert re.findall(r"^## ([A-Z_]+)$", METHODS, re.M) == list(AuditMethod)
    assert re.findall(r"^\| ([A-Z_]+) \|", METHODS, re.M)[: len(AuditMethod)] == list(AuditMethod)
    for section in re.split(r"^## (?=[A-Z_]+$)", METHODS, flags=re.M)[1:]:
        for word in ("Request", "eply", "Again:", "Durable"):
            assert word in section, (section[:20], word)


def test_every_message_is_shown_with_its_fields_in_order() -> None:
    shown = dict(re.findall(r"`(\w+) \[([\w, ]*)\]`", FLAT_METHODS))
    defined = {
        name: ", ".join(kind.__struct_fields__)
        for name, kind in vars(messages).items()
        if isinstance(kind, type) and issubclass(kind, Record) and kind.__module__ == messages.__name__
    }
    assert shown == defined | {"Done": ""}


def test_every_code_and_page_named_exists() -> None:
    words = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", METHODS + FORMAT)) - set(AuditMethod)
    assert words <= set(ReasonCode.__members__)
    for text, folder in ((FORMAT, "formats"), (METHODS, "protocol")):
        for page in re.findall(r"`((?:\.\./)?[\w/-]+\.md)`", text):
            assert (DOCS / folder / page).resolve().is_file(), page


def test_the_vectors_are_there() -> None:
    assert {path.name for path in (DOCS.parent / "tests/vectors/data").glob("audit-*-v1.json")} == {
        "audit-draw-v1.json",
        "audit-round-v1.json",
        "audit-salted-v1.json",
    }
