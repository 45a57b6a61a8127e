"""The payloads of the payment methods, with their bounds (`docs/protocol/payments.md`)."""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta

from stook.codec import Record
from stook.ids import U63Field
from stook.payments.batch import Agreement, SignedBatch
from stook.payments.cheque import SignedCheque, WideField
from stook.payments.orders import OrdersField

MAX_BATCHES = 8


class PayMethod(enum.StrEnum):
    """Names of the payment methods as they stand in the envelope."""

    PAY = "PAY"
    ORDER = "ORDER"


class Pay(Record):
    """PAY request: batches in order, and perhaps a cheque. Neither: how far are you?"""

    batches: Annotated[tuple[SignedBatch, ...], Meta(max_length=MAX_BATCHES)]
    cheque: SignedCheque | None


class PayReply(Record):
    """PAY reply: where the payee stands."""

    seq: U63Field
    agreements: Annotated[tuple[Agreement, ...], Meta(max_length=MAX_BATCHES)]
    """One for each batch of the request."""
    paid: WideField
    """What the cheque that it holds says."""
    last_batch: SignedBatch | None
    last_cheque: SignedCheque | None
    orders: OrdersField
    """The newest it holds from the caller."""


class Order(Record):
    """ORDER request: the newest signed for each price."""

    orders: OrdersField


class OrderReply(Record):
    """ORDER reply: the newest held for each price."""

    orders: OrdersField
