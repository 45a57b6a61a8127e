"""The pages about errors, hashes and messages say what the code does."""

import re
from pathlib import Path

import pytest

from stook.errors import RETRYABLE, ReasonCode
from stook.hashing import Tag
from stook.identity.contact import Address, Contact
from stook.identity.envelope import Envelope, Refusal
from stook.identity.keystore import KeyFileHeader

DOCS = Path(__file__).parents[2] / "docs"


def rows(page: str, pattern: str) -> list[tuple[str, ...]]:
    return re.findall(pattern, (DOCS / page).read_text(), re.M)


def test_the_table_of_reason_codes_is_the_enumeration():
    written = rows("protocol/reason-codes.md", r"^\| (\d+) \| ([A-Z_]+) \| \S.+ \| (yes|no)\b")
    assert [(int(number), name) for number, name, _ in written] == [(code.value, code.name) for code in ReasonCode]
    assert {name for _, name, again in written if again == "yes"} == {code.name for code in RETRYABLE}


def test_the_table_of_tags_is_the_enumeration():
    """A new tag needs a line in hashes.md."""
    assert rows("formats/hashes.md", r"^\| `([a-z-]+)` \|") == [tag.value for tag in Tag]


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        ("formats/envelope.md", Envelope),
        ("formats/contact.md", Contact),
        ("formats/keystore.md", KeyFileHeader),
    ],
)
def test_format_pages_name_every_field_in_order(page, kind):
    written = rows(page, r"^\| (\d+) \| `(\w+)`")
    assert written == [(str(number), name) for number, name in enumerate(kind.__struct_fields__)]


def test_small_records_are_described():
    assert rows("formats/contact.md", r"^\| `(\w+)` \|") == list(Address.__struct_fields__)
    text = (DOCS / "formats/envelope.md").read_text()
    assert f"`[{', '.join(Refusal.__struct_fields__)}]`" in text


@pytest.mark.parametrize("page", ["encoding", "hashes", "identity", "envelope", "contact", "keystore"])
def test_every_vector_file_that_a_page_names_exists(page):
    named = rows(f"formats/{page}.md", r"`(tests/vectors/data/[a-z0-9-]+\.json)`")
    assert named
    assert all((DOCS.parent / path).is_file() for path in named)
