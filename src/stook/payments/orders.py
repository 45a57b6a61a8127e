"""Bandwidth receipts: the running word of who fetches, and how far a farmer serves ahead of it. Pure.

One cumulative count for each price, signed beside the bytes and for many shards together; neither side can take more
than the written allowance (`docs/formats/bandwidth-receipt.md`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from msgspec import Meta

from stook.codec import Record, encode
from stook.hashing import Tag, tagged_hash
from stook.identity.keys import SigningKey
from stook.identity.keys import verify as verify_signature
from stook.ids import NetworkId, NetworkIdField, PublicKey, PublicKeyField, SignatureField, U63Field

ORDER_VERSION = 1
MAX_PRICES = 8
STEP_BYTES = 64 << 20
"""What a farmer serves ahead of the word of who fetches, besides an eighth of what was signed for."""
SIGN_EVERY_BYTES = 8 << 20
TOLERANCE = 8
DAY_MS = 24 * 3_600_000


class BandwidthOrder(Record):
    """The signed text. Field order is the format."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    payer_key: PublicKeyField
    payee_key: PublicKeyField
    price_per_gib: U63Field
    received_bytes: U63Field
    signed_at_ms: U63Field

    @property
    def digest(self) -> bytes:
        """What the payer signs."""
        return tagged_hash(Tag.BANDWIDTH_ORDER, encode(self))


class SignedOrder(Record):
    """An order with its payer's signature."""

    order: BandwidthOrder
    signature: SignatureField


OrdersField = Annotated[tuple[SignedOrder, ...], Meta(max_length=MAX_PRICES)]


def sign_order(
    key: SigningKey, network: NetworkId, payee: PublicKey, price_per_gib: int, received_bytes: int, now_ms: int
) -> SignedOrder:
    """The word that so many bytes came, in all and at this price."""
    order = BandwidthOrder(ORDER_VERSION, network, key.public_key, payee, price_per_gib, received_bytes, now_ms)
    return SignedOrder(order, key.sign(order.digest))


def is_order(signed: SignedOrder, network: NetworkId, payer: PublicKey, payee: PublicKey) -> bool:
    """Whether it is this payer's word to this payee. Never raises."""
    order = signed.order
    return (order.version, order.network, order.payer_key, order.payee_key) == (
        ORDER_VERSION,
        network,
        payer,
        payee,
    ) and verify_signature(payer, order.digest, signed.signature)


def newest(held: Iterable[SignedOrder], came: Iterable[SignedOrder]) -> tuple[SignedOrder, ...]:
    """For each price the higher order, in order of price. Raises `ValueError` for more prices than are counted."""
    best: dict[int, SignedOrder] = {}
    for signed in (*held, *came):
        known = best.get(signed.order.price_per_gib)
        if known is None or signed.order.received_bytes > known.order.received_bytes:
            best[signed.order.price_per_gib] = signed
    if len(best) > MAX_PRICES:
        raise ValueError(f"downloads at more than {MAX_PRICES} prices")
    return tuple(best[price] for price in sorted(best))


def counts(orders: Iterable[SignedOrder]) -> Mapping[int, int]:
    """Bytes signed for, by price."""
    return {signed.order.price_per_gib: signed.order.received_bytes for signed in orders}


def allowance_bytes(received_bytes: int, age_ms: int) -> int:
    """How far ahead of the word a farmer serves."""
    return STEP_BYTES + received_bytes // TOLERANCE + STEP_BYTES * (max(0, age_ms) // DAY_MS)


def may_serve(served_bytes: int, received_bytes: int, wanted_bytes: int, age_ms: int) -> bool:
    """Whether so many bytes more may be served on what was signed for."""
    return served_bytes + wanted_bytes - received_bytes <= allowance_bytes(received_bytes, age_ms)
