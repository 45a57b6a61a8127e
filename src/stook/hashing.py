"""Every hash names its purpose: BLAKE3, keyed by a tag from the one table below.

The key of a tag is ``BLAKE3("stook/1/" + tag)``; the tagged hash of `data` is ``BLAKE3(data, key)``. Two purposes can
therefore never share a digest, and a leaf can never be taken for a node (`docs/formats/hashes.md`).
"""

from __future__ import annotations

import enum

from blake3 import blake3
from typing_extensions import Buffer

DIGEST_BYTES = 32


class Tag(enum.Enum):
    """What a digest or a signature is for. Values are part of the format and never change."""

    LEAF = "merkle-leaf"
    NODE = "merkle-node"
    SHARD = "shard-root"
    ENVELOPE = "envelope"
    HELLO = "hello"
    CONTACT = "contact"
    ANNOUNCEMENT = "announcement"
    CONTRACT = "contract"
    RENEWAL = "renewal"
    GRANT = "grant"
    SPENDING = "grant-spending"
    RECEIPT = "receipt"
    ERASURE_RECEIPT = "erase-receipt"
    PLAINTEXT = "plaintext"
    CONTENT = "content"
    DHT_KEY = "dht-key"
    PUZZLE = "puzzle"
    STORED_RECORD = "stored-record"
    KEY_FILE = "key-file"
    SHARD_FILE = "shard-file"
    CONTRACT_RECORD = "contract-record"
    LOSS = "loss"
    LOSS_NOTE = "loss-note"
    HOLDING = "audit-holding"
    DRAW = "audit-draw"
    CHALLENGE = "audit-challenge"
    ANSWER = "audit-answer"
    ANSWER_BODY = "audit-answer-body"
    AUDIT_LINE = "audit-line"
    AUDIT_LINES = "audit-lines"
    AUDIT_RECEIPT = "audit-receipt"
    SALT = "salted-salt"
    PRE_LEAF = "salted-pre-leaf"
    SALTED_LEAF = "salted-leaf"
    SALTED_ROOT = "salted-root"
    CERTIFICATE = "restore-certificate"
    TOPIC = "topic"
    PUBLICATION = "publication"
    SOLICITATION = "solicitation"
    MEMBERSHIP = "membership"
    INVITE = "invite"
    INVITE_CODE = "invite-code"
    BEACON = "beacon"
    BANDWIDTH_ORDER = "bandwidth-order"
    PAY_BATCH = "pay-batch"
    PAY_AGREEMENT = "pay-agreement"
    RECOVERY_RECORD = "recovery-record"

    @property
    def key(self) -> bytes:
        """The 32-byte BLAKE3 key of this tag."""
        return _KEYS[self]


_KEYS = {tag: blake3(b"stook/1/" + tag.value.encode()).digest() for tag in Tag}


def tagged_hash(tag: Tag, data: Buffer) -> bytes:
    """The 32-byte digest of `data` for the purpose `tag`."""
    return blake3(data, key=_KEYS[tag]).digest()
