"""S3's XML: read with every limit set before a byte is parsed, written without ceremony. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from xml.parsers import expat
from xml.sax.saxutils import escape

from stook.gateway.s3.errors import S3Error

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
MAX_DEPTH = 12
MAX_NODES = 100_000
LAST_TIME_MS = 253_402_300_799_999
"""The end of the year 9999, the last that can be written."""


@dataclass(eq=False, slots=True)
class Node:
    """One element: its name without namespace, its text, its children."""

    name: str
    text: str = ""
    children: list[Node] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)

    def all(self, name: str) -> Iterator[Node]:
        """Children of that name."""
        return (child for child in self.children if child.name == name)

    def one(self, name: str) -> Node | None:
        """The only child of that name, or None. Raises `S3Error` when there are several."""
        found = list(self.all(name))
        if len(found) > 1:
            raise malformed()
        return found[0] if found else None

    def value(self, name: str) -> str | None:
        """The text of the only child of that name, or None."""
        child = self.one(name)
        return None if child is None else child.text


def malformed() -> S3Error:
    """What clients are told of a document that is not what it should be."""
    return S3Error("MalformedXML", "the XML you provided was not well-formed or did not validate against our schema")


def parse(data: bytes, root: str) -> Node:
    """The element of a document, which must be called `root`. No doctype, no entities. Raises `S3Error`."""
    top = Node("")
    open_nodes, count = [top], 0
    texts: list[list[str]] = [[]]

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > MAX_NODES or len(open_nodes) > MAX_DEPTH:
            raise malformed()
        plain = {key.rpartition(" ")[2]: value for key, value in attributes.items()}
        node = Node(name.rpartition(" ")[2], attributes=plain)
        open_nodes[-1].children.append(node)
        open_nodes.append(node)
        texts.append([])

    def end(_name: str) -> None:
        open_nodes.pop().text = "".join(texts.pop())

    def refuse(*_: object) -> None:
        raise malformed()

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda text: texts[-1].append(text)
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError, UnicodeError):
        raise malformed() from None
    if len(top.children) != 1 or top.children[0].name != root:
        raise malformed()
    return top.children[0]


class Writer:
    """Builds a document. Text is escaped; characters that XML cannot carry become U+FFFD."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._parts = [f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} xmlns="{NAMESPACE}">']
        self._open: list[str] = []

    def text(self, name: str, value: object) -> Writer:
        """An element with text; none for None."""
        if value is not None:
            shown = "true" if value is True else "false" if value is False else str(value)
            self._parts.append(f"<{name}>{_clean(shown)}</{name}>")
        return self

    def begin(self, name: str, attributes: str = "") -> Writer:
        """Open an element."""
        self._parts.append(f"<{name}{attributes}>")
        self._open.append(name)
        return self

    def end(self) -> Writer:
        """Close the innermost one."""
        self._parts.append(f"</{self._open.pop()}>")
        return self

    def document(self) -> bytes:
        """All of it."""
        return ("".join(self._parts) + f"</{self._root}>").encode("utf-8", "replace")


def _clean(text: str) -> str:
    if not text.isprintable():
        text = "".join(char if _allowed(char) else "\ufffd" for char in text)
    return escape(text, {"\r": "&#13;"})


def _allowed(char: str) -> bool:
    code = ord(char)
    return code in (9, 10, 13) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000


def iso_time(at_ms: int) -> str:
    """A time as S3's documents say it; one that they cannot say is the last they can."""
    at_ms = min(at_ms, LAST_TIME_MS)
    moment = datetime.fromtimestamp(at_ms // 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"


def parse_time(text: str) -> int | None:
    """Milliseconds since 1970 of an ISO 8601 time, or None."""
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)
