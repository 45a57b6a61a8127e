"""The glossary's words exist in the code, each once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from code_names import resolve

TEXT = (Path(__file__).parents[2] / "docs/glossary.md").read_text()
ROWS = [row for row in re.findall(r"^\| ([^|]+) \| `([\w.]+)` \| ([^|]+) \|$", TEXT, re.M) if row[0] != "word"]


@pytest.mark.parametrize(("word", "code"), [row[:2] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_code_name_exists(word: str, code: str) -> None:
    assert resolve(f"stook.{code}") is not None, word


def test_every_row_was_read_and_no_word_stands_twice() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| word |")]
    assert len(lines) == len(ROWS) > 60
    words = [row[0] for row in ROWS]
    assert len(words) == len(set(words))
