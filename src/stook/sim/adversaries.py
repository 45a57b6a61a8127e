"""The cast: farmers that lie, break off, stall, refuse, forge and crawl.

What each is after, its bound, and what catches it is a table in `docs/simulator.md`. `replay` has one more farmer,
`hostile_renter` the other side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from typing import cast

from msgspec import structs
from typing_extensions import Buffer

from stook.codec import decode, encode
from stook.contracts.contract import Contract
from stook.contracts.messages import (
    Claim,
    ClaimAnswer,
    ClaimReply,
    Consign,
    ConsignReady,
    Method,
    Retrieve,
    RetrieveReady,
)
from stook.contracts.receipt import SignedStorageReceipt, StorageReceipt
from stook.errors import ReasonCode, RefusedError
from stook.farmer.settings import FarmerSettings
from stook.ids import ShardRoot, Signature
from stook.merkle import UNIT_BYTES, unit_count
from stook.sim.adversary import Adversary, Around, Role
from stook.storage.ports import ShardStore
from stook.wire.endpoint import Exchange, Handler
from stook.wire.limits import Limits

LEAF_BYTES = 32


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


# --- lies about bytes ------------------------------------------------------------------------------------------------


class _NeverChecks(Adversary):
    """Reads without checking, as whoever means to serve other bytes must."""

    def settings(self, honest: FarmerSettings) -> FarmerSettings:
        """Without `verify_reads`."""
        return replace(honest, transfers=replace(honest.transfers, verify_reads=False))


class ServesOtherBytes(_NeverChecks):
    """Gives back true leaf lists and, behind them, units with one byte changed."""

    def shards(self, honest: ShardStore) -> ShardStore:
        """A store that misreads."""
        adversary = self

        class Misreads(Around):
            def read_units(self, root: ShardRoot, first_unit: int, into: memoryview) -> int:
                got = honest.read_units(root, first_unit, into)
                into[adversary.role.dice.whole(0, max(0, got - 1))] ^= 0x55
                adversary.deeds += 1
                return got

        return cast(ShardStore, Misreads(honest))


class ServesOtherLeaves(_NeverChecks):
    """Puts an invented leaf list before the units."""

    def shards(self, honest: ShardStore) -> ShardStore:
        """A store full of inventions."""
        adversary = self

        class Invents(Around):
            def read_leaves(self, root: ShardRoot) -> bytes:
                adversary.deeds += 1
                return adversary.role.dice(len(honest.read_leaves(root)))

        return cast(ShardStore, Invents(honest))


class Forgets(Adversary):
    """Stores, signs, and has thrown the shard away when it is asked for."""

    def shards(self, honest: ShardStore) -> ShardStore:
        """A store that finds nothing to read."""
        adversary = self

        class Empty(Around):
            def read_leaves(self, root: ShardRoot) -> bytes:
                adversary.deeds += 1
                honest.erase(root)
                return honest.read_leaves(root)

        return cast(ShardStore, Empty(honest))


# --- breaks off, stalls, refuses -------------------------------------------------------------------------------------


class _CurtainError(Exception):
    """The adversary has sent what it wanted to send."""


class Truncates(Adversary):
    """Sends half of what was asked for, and then politely the end."""

    def handler(self, method: str, honest: Handler) -> Handler:
        """RETRIEVE through an exchange that closes half-way."""
        if method != Method.RETRIEVE:
            return honest
        adversary = self

        class Half(Around):
            leaves_sent = False

            async def send(self, data: Buffer) -> None:
                view = memoryview(data).cast("B")
                if not self.leaves_sent:
                    self.leaves_sent = True
                    await self._inner.send(view)
                    return
                await self._inner.send(view[: len(view) // 2])
                adversary.deeds += 1
                raise _CurtainError

        async def serve(exchange: Exchange, payload: bytes) -> None:
            try:
                await honest(cast(Exchange, Half(exchange)), payload)
            except _CurtainError:
                await exchange.finish()

        return serve


class Stalls(Adversary):
    """Says yes, and then neither reads nor sends. At CLAIM it does not even say yes."""

    def __init__(self, role: Role, methods: Collection[Method] = (Method.CONSIGN, Method.RETRIEVE)) -> None:
        super().__init__(role)
        self._methods = frozenset(methods)

    def handler(self, method: str, honest: Handler) -> Handler:
        """The methods named get their interim reply and nothing after it."""
        if method not in self._methods:
            return honest

        async def serve(exchange: Exchange, payload: bytes) -> None:
            self.deeds += 1
            if method == Method.CONSIGN:
                await exchange.reply(encode(ConsignReady(0, None)))
            elif method == Method.RETRIEVE:
                await exchange.reply(encode(RetrieveReady(decode(Retrieve, payload).grant.grant.end_byte)))
            await _for_ever()

        return serve


class HangsUp(Adversary):
    """Breaks the line in the middle of every transfer that comes in."""

    def handler(self, method: str, honest: Handler) -> Handler:
        """CONSIGN that ends in a reset of all of its connections."""
        if method != Method.CONSIGN:
            return honest

        async def serve(exchange: Exchange, payload: bytes) -> None:
            self.deeds += 1
            await exchange.reply(encode(ConsignReady(0, None)))
            await exchange.receive_into(memoryview(bytearray(LEAF_BYTES)))
            self.role.network.reset(self.role.host)

        return serve


class RefusesAfterAccepting(Adversary):
    """Signs every contract and then takes none of the shards."""

    def handler(self, method: str, honest: Handler) -> Handler:
        """CONSIGN that always refuses."""
        if method != Method.CONSIGN:
            return honest

        async def serve(exchange: Exchange, payload: bytes) -> None:
            self.deeds += 1
            raise RefusedError(ReasonCode.NO_SPACE, "we changed our mind")

        return serve


class HoldsHostage(Adversary):
    """Stores everything truly and gives nothing back."""

    def __init__(self, role: Role, code: ReasonCode = ReasonCode.GRANT_INVALID) -> None:
        super().__init__(role)
        self._code = code

    def handler(self, method: str, honest: Handler) -> Handler:
        """RETRIEVE that always refuses."""
        if method != Method.RETRIEVE:
            return honest

        async def serve(exchange: Exchange, payload: bytes) -> None:
            self.deeds += 1
            raise RefusedError(self._code, "pay first")

        return serve


class Slow(Adversary):
    """Honest, at a crawl."""

    def __init__(self, role: Role, bytes_per_second: int = 4_096) -> None:
        super().__init__(role)
        self._rate = bytes_per_second

    def limits(self, honest: Limits) -> Limits:
        """With its own low caps both ways."""
        return replace(
            honest,
            upload_bytes_per_second=self._rate,
            download_bytes_per_second=self._rate,
            low_speed_bytes_per_second=0,
        )


# --- false words -----------------------------------------------------------------------------------------------------


class ForgesReceipts(Adversary):
    """Takes the bytes, signs the receipt, stores nothing."""

    def handler(self, method: str, honest: Handler) -> Handler:
        """CONSIGN into nowhere."""
        if method != Method.CONSIGN:
            return honest

        async def serve(exchange: Exchange, payload: bytes) -> None:
            contract = decode(Consign, payload).contract
            await exchange.reply(encode(ConsignReady(0, None)))
            await swallow(exchange, contract)
            self.deeds += 1
            await exchange.reply(encode(self.receipt(contract)))

        return serve

    def receipt(self, contract: Contract) -> SignedStorageReceipt:
        """What it signs: a true receipt for a shard it does not have."""
        terms = contract.terms
        receipt = StorageReceipt(
            contract_id=contract.contract_id,
            shard_root=terms.shard_root,
            size_bytes=terms.shard_size_bytes,
            stored_at_ms=self.role.clock.now_ms(),
            farmer_key=terms.farmer_key,
        )
        return SignedStorageReceipt(receipt=receipt, signature=self.role.key.sign(receipt.digest))


class SignsNonsense(ForgesReceipts):
    """Takes the bytes and answers with a receipt whose signature is noise."""

    def receipt(self, contract: Contract) -> SignedStorageReceipt:
        """A receipt nobody signed."""
        return structs.replace(super().receipt(contract), signature=Signature(self.role.dice(64)))


class ReusesReceipts(ForgesReceipts):
    """Answers every CONSIGN after the first with the receipt of the first, which it truly signed."""

    def __init__(self, role: Role) -> None:
        super().__init__(role)
        self._first: SignedStorageReceipt | None = None

    def receipt(self, contract: Contract) -> SignedStorageReceipt:
        """Always the same one."""
        self._first = self._first or super().receipt(contract)
        return self._first


async def swallow(exchange: Exchange, contract: Contract) -> None:
    """Read a whole shard and its leaf list, and keep none of it."""
    left = unit_count(contract.terms.shard_size_bytes) * LEAF_BYTES + contract.terms.shard_size_bytes
    buffer = memoryview(bytearray(UNIT_BYTES))
    while left:
        piece = buffer[: min(left, len(buffer))]
        await exchange.receive_into(piece)
        left -= len(piece)


class Overcharges(Adversary):
    """Signs other terms than it was asked for: its price a thousandfold."""

    def handler(self, method: str, honest: Handler) -> Handler:
        """CLAIM answered with signatures over altered terms."""
        if method != Method.CLAIM:
            return honest

        async def serve(exchange: Exchange, payload: bytes) -> None:
            self.deeds += 1
            answers = []
            for terms in decode(Claim, payload).drafts:
                dear = structs.replace(terms, storage_price_per_gib_hour=1000 + 1000 * terms.storage_price_per_gib_hour)
                answers.append(ClaimAnswer(terms.contract_id, 0, "", self.role.key.sign(dear.digest)))
            await exchange.reply(encode(ClaimReply(tuple(answers))))

        return serve


class Babbles(Adversary):
    """Answers with bytes that mean nothing."""

    def __init__(self, role: Role, methods: Collection[Method] = (Method.CLAIM,)) -> None:
        super().__init__(role)
        self._methods = frozenset(methods)

    def handler(self, method: str, honest: Handler) -> Handler:
        """Noise, signed and addressed as it should be."""
        if method not in self._methods:
            return honest

        async def serve(exchange: Exchange, payload: bytes) -> None:
            self.deeds += 1
            await exchange.reply(self.role.dice(300))

        return serve
