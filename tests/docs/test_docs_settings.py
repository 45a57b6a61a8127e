"""`docs/settings.md` names every setting with its default."""

import re
from pathlib import Path

import msgspec
import pytest

from stook.config import FarmSettings, NodeSettings, PaySettings, RentSettings, load_settings, render_settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
SECTIONS = {"node": NodeSettings(), "farm": FarmSettings(), "rent": RentSettings(), "pay": PaySettings()}
WORDS = {
    (): ("none", "everyone"),
    "": ("none", "chosen"),
    2**63 - 1: ("no limit",),
    False: ("`false`", "`0`"),
}


def _rows(section: str) -> dict[str, str]:
    text = PAGE.read_text().split(f"## `[{section}]`")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, re.MULTILINE))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_stands_on_the_page_with_its_default(section: str) -> None:
    defaults = {name: getattr(SECTIONS[section], name) for name in SECTIONS[section].__struct_fields__}
    rows = _rows(section)
    assert list(rows) == list(defaults)
    for name, default in defaults.items():
        written = f"`{str(default).lower() if isinstance(default, bool) else default}`"
        assert rows[name] in WORDS.get(default, (written,)), name


def test_a_rendered_file_reads_back_to_the_same_settings(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(render_settings(SECTIONS))
    settings = load_settings(tmp_path)
    assert {name: getattr(settings, name) for name in SECTIONS} == SECTIONS


def test_odd_texts_survive_rendering(tmp_path: Path) -> None:
    farm = msgspec.structs.replace(FarmSettings(), operator='a "quoted" \\ line\nbreak \u00e9\t')
    (tmp_path / "config.toml").write_text(render_settings({"farm": farm}), encoding="utf-8")
    assert load_settings(tmp_path).farm == farm
