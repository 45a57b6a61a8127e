"""The architecture page names code that exists and draws the layers that are enforced."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

import stook
from code_names import resolve

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/architecture.md").read_text()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(stook(?:\.\w+)+)`", TEXT))))
def test_the_code_name_exists(name: str) -> None:
    assert resolve(name) is not None


def test_the_layers_drawn_are_the_layers_enforced() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    enforced = contracts["importlinter:contract:layers"]["layers"].split()
    drawn = TEXT[TEXT.index("## Layers") :].split("```")[1].split()
    assert drawn == enforced


def test_every_room_has_a_row() -> None:
    rows = TEXT[TEXT.index("## Rooms") : TEXT.index("## Layers")]
    named = set(re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in rows.splitlines() if "|" in line)))
    source = Path(stook.__file__).parent
    rooms = {path.name.removesuffix(".py") for path in source.iterdir() if not path.name.startswith(("_", "py."))}
    assert named == rooms


@pytest.mark.parametrize("page", ["architecture.md", "glossary.md", "threat-model.md"])
def test_every_page_named_is_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    for named in re.findall(r"`((?:\w+/)?[\w-]+(?:\.md|/))`", text):
        assert (ROOT / "docs" / named).exists(), named
