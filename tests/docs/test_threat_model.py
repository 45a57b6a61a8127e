"""The threat model names only codes and pages that exist, and says one of three things of each attempt."""

from __future__ import annotations

import re
from pathlib import Path

from stook.contracts.messages import Method
from stook.errors import ReasonCode

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "threat-model.md").read_text()


def test_every_attempt_has_one_of_three_answers() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]*) \| [^|]+ \|$", TEXT, re.M)
    answers = {answer for attempt, answer in rows if attempt != "attempt"}
    assert len(rows) > 30
    assert answers == {"cannot", "bounded", "open"}


def test_every_code_exists() -> None:
    words = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", TEXT)) | (set(re.findall(r"\b[A-Z]{5,}\b", TEXT)) - {"BLAKE"})
    assert words <= set(ReasonCode.__members__) | set(Method)


def test_every_grant_code_has_its_attempt() -> None:
    assert {code for code in ReasonCode.__members__ if code.startswith("GRANT_")} <= set(re.findall(r"GRANT_\w+", TEXT))


def test_every_page_named_is_there() -> None:
    for page in re.findall(r"`((?:decisions|protocol|formats)/[\w.-]+)`", TEXT):
        assert (DOCS / page).is_file(), page
