"""The payloads of the overlay's methods, with their bounds (`docs/protocol/overlay.md`)."""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta

from stook.codec import Record
from stook.identity.contact import SignedContact
from stook.ids import NodeIdField
from stook.overlay.records import SignedRecord

MAX_CONTACTS = 40
"""In one answer; twice k, so that the nearest k are among them though some of those named are gone."""
MAX_RECORDS_FOUND = 32
MAX_RECORDS_FOUND_BYTES = 256 * 1024
MAX_RECORDS_STORED = 16
MAX_DETAIL_CHARS = 200


class OverlayMethod(enum.StrEnum):
    """The overlay's methods."""

    FIND_NODE = "FIND_NODE"
    FIND_VALUE = "FIND_VALUE"
    STORE = "STORE"


Limit = Annotated[int, Meta(ge=1, le=MAX_CONTACTS)]
Contacts = Annotated[tuple[SignedContact, ...], Meta(max_length=MAX_CONTACTS)]


class FindNode(Record):
    """FIND_NODE request: who is near `target`?"""

    target: NodeIdField
    limit: Limit


class NodesReply(Record):
    """FIND_NODE reply, nearest first."""

    contacts: Contacts


class FindValue(Record):
    """FIND_VALUE request: what is kept under `key`, and who is near it?"""

    key: NodeIdField
    limit: Limit


class ValueReply(Record):
    """FIND_VALUE reply."""

    records: Annotated[tuple[SignedRecord, ...], Meta(max_length=MAX_RECORDS_FOUND)]
    contacts: Contacts


class Store(Record):
    """STORE request."""

    records: Annotated[tuple[SignedRecord, ...], Meta(min_length=1, max_length=MAX_RECORDS_STORED)]


class StoreAnswer(Record):
    """What became of one record: 0, or a reason code."""

    code: Annotated[int, Meta(ge=0, le=999)]
    detail: Annotated[str, Meta(max_length=MAX_DETAIL_CHARS)]


class StoreReply(Record):
    """STORE reply, in the order asked."""

    answers: Annotated[tuple[StoreAnswer, ...], Meta(max_length=MAX_RECORDS_STORED)]
