"""One payer and one payee that owe each other trouble: the real paymaster and till over a line that loses and repeats.

Contracts, proofs and bytes are put in by hand, so that a history of weeks takes milliseconds; books, batches, orders,
cheques and signatures are real. For `pay_schedules` and the attacks on payments.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import structlog
from msgspec import structs

from stook.audits.containment import CLEAR, Containment, Silence
from stook.codec import decode, encode
from stook.contracts.contract import CONTRACT_VERSION, AuditStrategy, AuditTerms, Contract, Settlement, Terms
from stook.contracts.lifecycle import ContractState
from stook.contracts.negotiation import countersign, sign_offer
from stook.contracts.receipt import sign_erase_receipt
from stook.contracts.topics import criteria_of
from stook.contracts.verdict import Verdict
from stook.errors import MisbehaviourError, ReasonCode, RefusedError, UnreachableError
from stook.farmer.till import Till
from stook.identity.keys import NodeKey
from stook.ids import ContractId, NodeId, SegmentId, ShardRoot
from stook.payments.cheque import SignedCheque
from stook.payments.enforcement import CreditRules
from stook.payments.messages import Pay, PayMethod
from stook.payments.settlement import LedgerSettlement
from stook.renter.paymaster import Paymaster, PayRules
from stook.sim.dice import Dice
from stook.sim.factories import NETWORK, node_key
from stook.sim.loop import InlineOffload, VirtualClock
from stook.storage.agent_audit_ports import Dossier, HoldingTotals, KeptReceipt
from stook.storage.books import SqliteBooks
from stook.storage.memory import MemoryContractStore
from stook.storage.ports import HeldContract
from stook.storage.renter_ports import Placement, PlacementState
from stook.wire.endpoint import Exchange, Peer

MIB = 1 << 20
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SKEW_ALLOWED_MS = 5 * 60_000
STORAGE_PRICE = 10**15
DOWNLOAD_PRICE = 10**16


class KilledError(Exception):
    """A process ended here."""


class _Answer:
    """What a handler sees of an exchange."""

    def __init__(self, key: NodeKey) -> None:
        self.peer_key = key.public_key
        self.peer_id = key.node_id
        self.said = b""

    async def reply(self, payload: bytes) -> None:
        self.said = payload


@dataclass
class LossyLine:
    """The payer's endpoint: requests and replies get lost, come twice, or come again much later."""

    pair: Pair
    loss: float = 0.0
    repeat: float = 0.0
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    cheques: list[SignedCheque] = field(default_factory=list)
    """Every cheque that ever left the payer."""

    async def call(self, to: Peer, method: str, payload: bytes, *, deadline_seconds: float) -> bytes:
        """Ask the payee, if it is to be."""
        pair, dice = self.pair, self.pair.dice
        self.sent.append((method, payload))
        if method == PayMethod.PAY and (cheque := decode(Pay, payload).cheque) is not None:
            self.cheques.append(cheque)
        if abs(pair.payer_clock.skew_ms - pair.payee_clock.skew_ms) > SKEW_ALLOWED_MS:
            raise RefusedError(ReasonCode.CLOCK_SKEW, "the clocks differ")
        if dice.chance(self.loss) or not pair.payee_up:
            raise UnreachableError("lost on the way there")
        if dice.chance(self.repeat):
            earlier = self.sent[dice.whole(0, len(self.sent) - 1)]
            await self._ask(*earlier, quiet=True)
        said = await self._ask(method, payload)
        if dice.chance(self.repeat):
            await self._ask(method, payload, quiet=True)
        if dice.chance(self.loss):
            raise UnreachableError("lost on the way back")
        return said

    async def _ask(self, method: str, payload: bytes, *, quiet: bool = False) -> bytes:
        answer = _Answer(self.pair.payer_key)
        handler = {PayMethod.PAY: self.pair.till.pay, PayMethod.ORDER: self.pair.till.order}[PayMethod(method)]
        try:
            await handler(cast("Exchange", answer), payload)
        except KilledError:
            self.pair.start_payee()
            raise UnreachableError("the payee was killed") from None
        except MisbehaviourError as error:
            if not quiet:
                raise RefusedError(error.code, str(error)) from None
        except RefusedError:
            if not quiet:
                raise
        return answer.said


class DyingBooks(SqliteBooks):
    """Books whose process may be killed before or after any step is written down."""

    def __init__(self, dice: Dice, chance: float) -> None:
        super().__init__(":memory:")
        self._dice = dice
        self.chance = chance

    def post(self, *changes: Any) -> None:
        """Write, unless killed first; and perhaps be killed then."""
        if self._dice.chance(self.chance):
            raise KilledError
        super().post(*changes)
        if self._dice.chance(self.chance):
            raise KilledError


class _Store:
    """What the agent's store says to the paymaster."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair

    def totals(self) -> list[HoldingTotals]:
        return [HoldingTotals(self._pair.payee_key.node_id, 1, MIB, 0, 0, 0, ())]

    def placements_at(self, farmer: NodeId, after: bytes, limit: int) -> list[Placement]:
        return [one for one in self._pair.placements.values() if one.state is not PlacementState.ERASED]

    def placement(self, contract_id: ContractId) -> Placement | None:
        return self._pair.placements.get(contract_id)

    def receipts(self, farmer: NodeId | None, limit: int) -> list[KeptReceipt]:
        return self._pair.rounds[::-1][:limit]


class _Farmers:
    """What the agent knows of the one farmer."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair

    def dossier(self, farmer: NodeId) -> Dossier:
        return Dossier(farmer, silence=self._pair.silence)

    def peer(self, farmer: NodeId) -> Peer:
        return Peer(farmer)


class Pair:
    """Both sides, and what befalls them. Use inside `stook.sim.loop.run`; `close` it."""

    def __init__(
        self,
        dice: Dice,
        *,
        loss: float = 0.0,
        repeat: float = 0.0,
        deaths: float = 0.0,
        credit: CreditRules | None = None,
    ) -> None:
        self.dice = dice
        self.payer_key, self.payee_key = node_key(dice.child("payer")), node_key(dice.child("payee"))
        self.payer_clock, self.payee_clock = VirtualClock(), VirtualClock()
        self.payer_books = DyingBooks(dice.child("payer dies"), deaths)
        self.payee_books = DyingBooks(dice.child("payee dies"), deaths)
        self.contracts = MemoryContractStore()
        self.placements: dict[ContractId, Placement] = {}
        self.rounds: list[KeptReceipt] = []
        self.silence: Containment = CLEAR
        self.payee_up = True
        self.credit = credit
        self.line = LossyLine(self, loss, repeat)
        self.received_bytes = 0
        """Verified by the payer in all."""
        self.forgotten_bytes = 0
        """Of them, what a killed payer had not signed for."""
        self.paymaster = self._payer()
        self.start_payee()

    def close(self) -> None:
        """Let the books go."""
        self.payer_books.close()
        self.payee_books.close()

    # --- life --------------------------------------------------------------------------------------------------------

    def start_payer(self) -> None:
        """Bring the payer up on its books; what it had in memory is gone."""
        self.forgotten_bytes += self.paymaster.unsigned_bytes
        self.paymaster = self._payer()

    def _payer(self) -> Paymaster:
        return Paymaster(
            endpoint=self.line,
            key=self.payer_key,
            network=NETWORK,
            book=_Farmers(self),
            store=_Store(self),
            books=self.payer_books,
            settlement=LedgerSettlement(NETWORK),
            clock=self.payer_clock,
            offload=InlineOffload(),
            rules=PayRules(),
        )

    def start_payee(self) -> None:
        """Bring the payee up on its books."""
        self.payee_up = True
        self.till = Till(
            key=self.payee_key,
            network=NETWORK,
            contracts=self.contracts,
            books=self.payee_books,
            settlement=LedgerSettlement(NETWORK),
            clock=self.payee_clock,
            offload=InlineOffload(),
            log=structlog.wrap_logger(None, processors=[_nothing]),
            rules=self.credit,
        )

    async def pay(self) -> None:
        """One round of the paymaster; killed in it, it is started again."""
        try:
            await self.paymaster.pay_all()
        except BaseExceptionGroup as error:
            if error.split(KilledError)[1] is not None:
                raise
            self.start_payer()
        except KilledError:
            self.start_payer()

    def calm(self) -> None:
        """From now on nothing goes wrong."""
        self.line.loss = self.line.repeat = 0.0
        self.payer_books.chance = self.payee_books.chance = 0.0
        self.payer_clock.skew_ms = self.payee_clock.skew_ms = 0
        if not self.payee_up:
            self.start_payee()

    # --- what happens ------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """The true time."""
        return self.payer_clock.now_ms() - self.payer_clock.skew_ms

    def terms(self, number: int, *, days: int = 60, size_bytes: int = MIB, grace_days: int = 7) -> Terms:
        """Terms of one more contract that begins now."""
        now = self.now_ms()
        return Terms(
            version=CONTRACT_VERSION,
            network=NETWORK,
            renter_key=self.payer_key.public_key,
            renter_index=0,
            farmer_key=self.payee_key.public_key,
            farmer_index=0,
            shard_root=ShardRoot(number.to_bytes(32, "big")),
            shard_size_bytes=size_bytes,
            begin_ms=now,
            end_ms=now + days * DAY_MS,
            consign_by_ms=now + HOUR_MS,
            audit=AuditTerms(strategy=AuditStrategy.SAMPLED, interval_ms=DAY_MS, leaves_per_interval=4),
            storage_price_per_gib_hour=STORAGE_PRICE,
            download_price_per_gib=DOWNLOAD_PRICE,
            settlement=Settlement.LEDGER,
            payment_destination=b"",
            criteria=criteria_of(size_bytes, days * DAY_MS),
            absences=(),
            collateral=0,
            grace_ms=grace_days * DAY_MS,
            memo=b"",
            revision=0,
            origin=b"",
        )

    def store(self, terms: Terms) -> ContractId:
        """A shard is stored under these terms, and both know."""
        contract = countersign(terms, sign_offer(terms, self.payee_key), self.payer_key)
        self.contracts.put(HeldContract(contract, ContractState.ACTIVE))
        self._place(contract, PlacementState.STORED)
        return contract.contract_id

    def _place(self, contract: Contract, state: PlacementState, **facts: Any) -> None:
        self.placements[contract.contract_id] = Placement(
            segment_id=SegmentId(bytes(16)),
            index=0,
            copy=0,
            root=contract.terms.shard_root,
            farmer=self.payee_key.node_id,
            contract=contract,
            state=state,
            **facts,
        )

    def erase(self, name: ContractId) -> None:
        """The renter cancels, the farmer erases and signs."""
        held = self.contracts.get(name)
        if held is not None:
            terms = held.contract.terms
            receipt = sign_erase_receipt(terms, self.payee_key, terms.shard_size_bytes, self.payee_clock.now_ms())
            self.contracts.remove([name])
            self._place(held.contract, PlacementState.ERASED, erased=receipt)

    def lose(self, name: ContractId) -> None:
        """The farmer loses the shard, and says so."""
        held = self.contracts.get(name)
        if held is not None and held.state is ContractState.ACTIVE:
            self.contracts.put(HeldContract(held.contract, ContractState.LOST))
            self._place(held.contract, PlacementState.LOST)

    def renew(self, name: ContractId) -> None:
        """Both sign the next revision."""
        held = self.contracts.get(name)
        if held is not None and held.state is ContractState.ACTIVE:
            old, now = held.contract.terms, self.now_ms()
            if now >= old.end_ms:
                return
            terms = structs.replace(
                old,
                revision=old.revision + 1,
                origin=held.contract_id,
                begin_ms=max(now, old.begin_ms),
                end_ms=now + 60 * DAY_MS,
                criteria=criteria_of(old.shard_size_bytes, now + 60 * DAY_MS - max(now, old.begin_ms)),
                storage_price_per_gib_hour=old.storage_price_per_gib_hour + 10**14,
            )
            contract = countersign(terms, sign_offer(terms, self.payee_key), self.payer_key)
            self.contracts.put(HeldContract(contract, ContractState.ACTIVE))
            self._place(contract, PlacementState.STORED)

    def fetch(self, name: ContractId, size_bytes: int) -> bool:
        """The payer fetches so much; whether it was served."""
        held = self.contracts.get(name)
        if held is None or held.state is not ContractState.ACTIVE or not self.payee_up:
            return False
        try:
            self.till.reserve(held.contract.terms, size_bytes)
        except RefusedError:
            return False
        self.received_bytes += size_bytes
        self.paymaster.received(held.contract.terms, size_bytes)
        return True

    def judge(self, outcome: Verdict) -> None:
        """An audit came to this."""
        digest = self.dice(32)
        self.rounds.append(
            KeptReceipt(self.payee_key.node_id, digest, self.payer_clock.now_ms(), outcome, cast("Any", None))
        )
        if outcome is Verdict.SILENT:
            self.silence = replace(CLEAR, state=Silence.OFFLINE)
        else:
            self.silence = CLEAR

    async def replay(self, request: Pay) -> bytes:
        """Send the payee a request of one's own making, in the payer's name."""
        return await self.line.call(Peer(self.payee_key.node_id), PayMethod.PAY, encode(request), deadline_seconds=1)


def _nothing(_logger: Any, _name: str, _line: Any) -> Any:
    raise structlog.DropEvent
