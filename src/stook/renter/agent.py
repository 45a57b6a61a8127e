"""The half of a renter without content keys: it makes contracts, knows who holds what, and keeps segments whole.

`LocalAgent` fulfils `ports.Agent`. Its background work is in `auditor`, `repairer`, `renewer`, `mover`, `caretaker`
(cancel and forget) and `roster` (find farmers); each loop is a `Chore` that assembly runs and tests step.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakValueDictionary

from stook.audits.containment import Silence
from stook.chore import Chore
from stook.clock import Clock, Entropy, Offload
from stook.contracts.contract import Contract
from stook.contracts.contract import Settlement as Kind
from stook.contracts.grant import Operation, SignedGrant, issue_grant
from stook.contracts.market import Prices
from stook.contracts.receipt import SignedStorageReceipt, verify_storage_receipt
from stook.contracts.verdict import Verdict
from stook.errors import EnvironmentFault, MisbehaviourError, NotEnoughError, ReasonCode
from stook.identity.keys import NodeKey
from stook.ids import ContractId, NetworkId, NodeId, PublicKey, SegmentId
from stook.overlay.pubsub import Neighbourhood
from stook.payments.settlement import LedgerSettlement, Settlement
from stook.renter.answers import Answer
from stook.renter.audit_rules import AuditRules
from stook.renter.auditor import Auditor
from stook.renter.bargain import Bargain
from stook.renter.book import FarmerBook
from stook.renter.caretaker import Caretaker, CareTiming
from stook.renter.claims import ClaimDesk, ClaimTiming
from stook.renter.drafts import DAY_MS, HOUR_MS, DraftRules
from stook.renter.durability_facts import farmer_facts, held_segments
from stook.renter.farmer_record import FarmerRecord, record_of
from stook.renter.market import Market, MarketOptions
from stook.renter.mover import Mover
from stook.renter.outlook import FarmerFacts, HeldSegment
from stook.renter.paymaster import Paymaster, PayRules
from stook.renter.planner import Candidate, Spread, independent_domains, shards_taken
from stook.renter.ports import AgentStatus, Allotment, Dealing, Located, Order, Placed, PlacementPolicy, Ticket
from stook.renter.recovery import recover_placements
from stook.renter.renewer import Renewer
from stook.renter.repair_plan import RULES
from stook.renter.repairer import CLIENT, Repairer, RepairSettings
from stook.renter.roster import Neighbours, Roster, Sample
from stook.renter.slots import SlotPool
from stook.shards.erasure import Codec
from stook.shards.geometry import Policy
from stook.shards.mask import segment_mask_key
from stook.storage.books import Books
from stook.storage.renter_ports import (
    AgentStore,
    Outcome,
    OutcomeKind,
    Placement,
    PlacementState,
    SegmentFacts,
)
from stook.wire.endpoint import Endpoint, Peer

_REMEMBERED_CLAIMS = 65_536
_FOR_EVER_MS = 2**62
_RETRIEVE_BUDGET_FACTOR = 4
"""A grant to fetch allows a few resumes and overlapping ranges of one shard."""

FEW_FARMERS = 3
"""With fewer nothing can be coded, so a command waits for the overlay to name more."""


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """How an agent places. Without a `policy` the default for the farmers known is used."""

    policy: Policy | None = None
    spares: int = 1
    spread: Spread = Spread.STRICT
    contract_duration_ms: int = 90 * 24 * HOUR_MS
    consign_within_ms: int = HOUR_MS
    grant_life_ms: int = HOUR_MS
    max_storage_price_per_gib_hour: int = 2**63 - 1
    max_download_price_per_gib: int = 2**63 - 1
    renter_index: int = 0
    memory_budget_bytes: int = 64 << 20
    claims: ClaimTiming = field(default_factory=ClaimTiming)
    care: CareTiming = field(default_factory=CareTiming)
    audits: AuditRules = field(default_factory=AuditRules)
    repair: RepairSettings = field(default_factory=RepairSettings)
    market: MarketOptions | None = None
    """None: farmers are found by seeds alone. Else the endpoint has to listen, and to say where."""
    pay: PayRules = field(default_factory=PayRules)

    @property
    def lapsing_within_ms(self) -> int:
        """A contract nearer to its end than this was asked to be renewed often, and in vain: its shard is replaced."""
        return self.care.renewed_before_ms(self.contract_duration_ms) // 4


def _silent(name: str, error: Exception) -> None:
    """Chores report nowhere unless assembly says where."""


class LocalAgent:
    """An agent in this process. `open` it before use and `aclose` it at the end; the endpoint stays the caller's."""

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        key: NodeKey,
        network: NetworkId,
        mask_root: bytes,
        store: AgentStore,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
        codec: Codec,
        seeds: Sequence[Peer] = (),
        farmers: Sequence[Peer] = (),
        sample: Sample | None = None,
        neighbours: Neighbours = tuple,
        options: AgentOptions = AgentOptions(),
        neighbourhood: Neighbourhood | None = None,
        on_error: Callable[[str, Exception], None] = _silent,
        books: Books | None = None,
        settlement: Settlement | None = None,
        chain: Offload | None = None,
    ) -> None:
        self._key = key
        self._mask_root = mask_root
        self._network = network
        self._endpoint = endpoint
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._offload = offload
        self._options = options
        self._on_error = on_error
        self.rules = DraftRules(
            network=network,
            renter_key=key.public_key,
            renter_index=options.renter_index,
            duration_ms=options.contract_duration_ms,
            consign_within_ms=options.consign_within_ms,
            max_storage_price_per_gib_hour=options.max_storage_price_per_gib_hour,
            max_download_price_per_gib=options.max_download_price_per_gib,
            settlement=settlement.kind if settlement is not None else Kind.LEDGER,
        )
        self.book = FarmerBook(store, network, clock, offload)
        self.roster = Roster(self.book, endpoint, clock, seeds, farmers, sample, neighbours)
        self._desk = ClaimDesk(
            endpoint=endpoint,
            key=key,
            mask_root=mask_root,
            book=self.book,
            rules=self.rules,
            spread=options.spread,
            clock=clock,
            entropy=entropy,
            timing=options.claims,
            thrift=0.0 if options.market is None else options.market.thrift,
        )
        self._claimed: OrderedDict[ContractId, Contract] = OrderedDict()
        self._fresh: set[SegmentId] = set()
        self._placing: WeakValueDictionary[SegmentId, asyncio.Lock] = WeakValueDictionary()
        self.caretaker = Caretaker(
            agent=self,
            endpoint=endpoint,
            book=self.book,
            store=store,
            clock=clock,
            offload=offload,
            timing=options.care,
            lapsing_within_ms=options.lapsing_within_ms,
        )
        self.renewer = Renewer(
            endpoint=endpoint,
            key=key,
            book=self.book,
            rules=self.rules,
            store=store,
            clock=clock,
            offload=offload,
            timing=options.care,
        )
        self.slots = SlotPool(options.memory_budget_bytes)
        """Memory for segments; a client in the same process may share it."""
        self.repairer = Repairer(
            agent=self,
            endpoint=endpoint,
            key=key,
            book=self.book,
            store=store,
            clock=clock,
            offload=offload,
            codec=codec,
            settings=options.repair,
            slots=self.slots,
            lapsing_within_ms=options.lapsing_within_ms,
        )
        self.auditor = Auditor(
            endpoint=endpoint,
            key=key,
            network=network,
            book=self.book,
            store=store,
            clock=clock,
            entropy=entropy,
            offload=offload,
            rules=options.audits,
        )
        self.auditor.serve()
        self.mover = Mover(
            agent=self,
            endpoint=endpoint,
            book=self.book,
            store=store,
            clock=clock,
            offload=offload,
            leaving=self.book.leaving,
            lapsing_within_ms=options.lapsing_within_ms,
        )
        self.paymaster: Paymaster | None = None
        """None: this agent keeps no books and pays nobody."""
        if books is not None:
            self.paymaster = Paymaster(
                endpoint=endpoint,
                key=key,
                network=network,
                book=self.book,
                store=store,
                books=books,
                settlement=settlement if settlement is not None else LedgerSettlement(network),
                clock=clock,
                offload=offload,
                rules=options.pay,
                chain=chain,
                on_error=on_error,
            )
        care = options.care
        self.chores: tuple[Chore, ...] = (
            Chore("refresh", care.refresh_seconds, self.look_around, on_error),
            Chore("cancel", care.cancel_seconds, self.caretaker.cancel_due, on_error),
            Chore("audit", options.audits.step_seconds, self.auditor.audit_due, on_error),
            Chore("repair", care.repair_seconds, self.repairer.repair_due, on_error),
            Chore("move", care.move_seconds, self.mover.move_due, on_error),
            Chore("renew", care.renew_seconds, self.renewer.renew_due, on_error),
            Chore("tidy", care.tidy_seconds, self.tidy, on_error),
        )
        self.market: Market | None = None
        if options.market is not None:
            limits = Prices(self.rules.max_storage_price_per_gib_hour, self.rules.max_download_price_per_gib)
            self.market = Market(
                endpoint=endpoint,
                key=key,
                network=network,
                clock=clock,
                book=self.book,
                rules=self.rules,
                strategy=options.market.strategy or Bargain(limits, spread=options.spread),
                options=options.market,
                neighbourhood=neighbourhood,
                on_error=on_error,
            )
            self.chores = (*self.chores, *self.market.chores)
        if self.paymaster is not None:
            self.chores += (Chore("pay", options.pay.step_seconds, self.paymaster.pay_due, on_error),)

    # --- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read what earlier runs learned. No network call."""
        await self.book.load()
        if self.market is not None:
            self.market.serve()

    async def aclose(self) -> None:
        """Write what was learned; when that fails it is only reported, for what was done before is done."""
        if self.market is not None:
            self.market.pubsub.close()
        try:
            if self.paymaster is not None:
                await self.paymaster.aclose()
            await self.book.flush()
        except EnvironmentFault as error:
            self._on_error("farewell", error)

    async def refresh(self) -> int:
        """Ask seeds and farmers for news, and write down what was learned; the number of farmers known."""
        await self.roster.refresh()
        await self.book.flush()
        await self.book.reload()
        return len(self.book)

    async def discover(self) -> int:
        """Look for farmers in the overlay, and write down what was learned; the number of farmers known."""
        await self.roster.discover()
        await self.book.flush()
        return len(self.book)

    async def discover_if_needed(self) -> None:
        """The same, only when next to nobody is known: otherwise nobody should wait for it."""
        if len(self.book.candidates()) < FEW_FARMERS:
            await self.discover()

    async def look_around(self) -> int:
        """Ask seeds and farmers for news, then look for others in the overlay; the number of farmers known."""
        await self.refresh()
        return await self.discover()

    async def tidy(self) -> int:
        """Forget what has been over for long; how many segments went."""
        await self.auditor.tidy()
        await self.book.forget()
        return await self.caretaker.tidy()

    async def sync(self) -> int:
        """Rebuild the database from what all known farmers hold for us; the number of placements added."""
        return await recover_placements(
            endpoint=self._endpoint,
            key=self._key,
            network=self._network,
            mask_root=self._mask_root,
            book=self.book,
            store=self._store,
            offload=self._offload,
            policy=self._options.policy,
            spares=self._options.spares,
        )

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that it speaks over."""
        return self._endpoint

    async def meet(self, peers: Sequence[Peer]) -> None:
        """Ask nodes that somebody named for their announcements and whom they know; the silent are passed over."""
        await Roster(self.book, self._endpoint, self._clock, peers, ()).refresh()

    async def all_segments(self, page: int) -> AsyncIterator[Sequence[SegmentId]]:
        """The ids of all segments that are not released, in order, page by page."""
        after = b""
        while found := await self._offload(partial(self._store.segment_ids, _FOR_EVER_MS, after, page)):
            yield found
            after = found[-1]

    async def holders(self) -> list[Peer]:
        """The farmers that hold something of ours."""
        totals = await self._offload(self._store.totals)
        return [self.book.peer(each.farmer) for each in totals]

    def candidates(self) -> list[Candidate]:
        """Everyone who announced itself lately, as placement sees them."""
        return self.book.candidates()

    async def knows_of(self, farmer: NodeId) -> FarmerRecord:
        """Everything kept about one farmer, and what moved its scores."""
        return await self._offload(lambda: record_of(self._store, farmer))

    # --- placing -----------------------------------------------------------------------------------------------------

    async def policy(self) -> PlacementPolicy:
        """The configured policy, or the default for the independent farmers known; spares only where farmers allow."""
        candidates = self.candidates()
        policy = self._options.policy
        if policy is None:
            domains = independent_domains(candidates, self._options.spread)
            if domains == 0:
                raise NotEnoughError("no farmer is known yet: name a seed or a farmer in the settings")
            policy = Policy.default(domains)
        room = max(0, len(candidates) - policy.n)
        spares = min(self._options.spares, room, 255 - policy.n)
        return PlacementPolicy(policy, spares, shards_taken(candidates, policy.n))

    async def allot(self, count: int) -> list[Allotment]:
        """Random ids and their mask keys."""
        return await self.allot_named([SegmentId(self._entropy(16)) for _ in range(count)])

    async def allot_named(self, segment_ids: Sequence[SegmentId]) -> list[Allotment]:
        """See `ports.Agent.allot_named`."""
        self._fresh.update(segment_ids)
        return [Allotment(each, segment_mask_key(self._mask_root, each)) for each in segment_ids]

    async def place(self, orders: Sequence[Order], grantee: PublicKey) -> list[Placed]:
        """See `ports.Agent.place`. What binds us is stored before a ticket leaves this method."""
        async with self._alone_with(order.facts.segment_id for order in orders):
            return await self._place(orders, grantee)

    @asynccontextmanager
    async def _alone_with(self, segment_ids: Iterable[SegmentId]) -> AsyncIterator[None]:
        """Two that place shards of one segment at once would not see each other's farmers, and choose the same."""
        async with AsyncExitStack() as stack:
            for segment_id in sorted(set(segment_ids)):  # in one order, so that no two wait for each other
                lock = self._placing.get(segment_id)
                if lock is None:
                    lock = self._placing[segment_id] = asyncio.Lock()
                await stack.enter_async_context(lock)
            yield

    async def _place(self, orders: Sequence[Order], grantee: PublicKey) -> list[Placed]:
        known = [order.facts.segment_id for order in orders if order.facts.segment_id not in self._fresh]
        before = await self._offload(lambda: self._store.placements(known)) if known else {}
        now = self._clock.now_ms()
        flights = await self._offload(lambda: self._store.flights(known)) if known else {}
        answers = [
            Answer.of(order, before.get(order.facts.segment_id, ()), flights.get(order.facts.segment_id, ()), now)
            for order in orders
        ]
        await self.abandon([name for answer in answers for name in answer.superfluous])
        claimed = await self._desk.claim([(answer.remaining, answer.holders) for answer in answers])
        placements = [
            Placement(
                segment_id=order.facts.segment_id,
                index=won.index,
                copy=order.copy,
                root=won.contract.terms.shard_root,
                farmer=won.farmer,
                contract=won.contract,
            )
            for order, (wins, _) in zip(orders, claimed, strict=True)
            for won in wins
        ]
        await self._offload(lambda: self._keep([order.facts for order in orders], placements))
        for order, (wins, _) in zip(orders, claimed, strict=True):
            if wins:
                self._fresh.discard(order.facts.segment_id)
        for placement in placements:
            self._remember(placement.contract)
        return [
            Placed(
                held=answer.held,
                tickets=tuple(
                    self._ticket(
                        answer.order.facts.segment_id,
                        index,
                        answer.order.copy,
                        farmer,
                        contract,
                        grantee,
                        Operation.CONSIGN,
                    )
                    for index, farmer, contract in answer.reused
                    + [(won.index, won.farmer, won.contract) for won in wins]
                ),
                shortage=shortage,
            )
            for answer, (wins, shortage) in zip(answers, claimed, strict=True)
        ]

    def _keep(self, segments: Sequence[SegmentFacts], placements: Sequence[Placement]) -> None:
        placed = {placement.segment_id for placement in placements}
        new = [facts for facts in segments if facts.segment_id in placed and facts.segment_id in self._fresh]
        unsure = [facts for facts in segments if facts.segment_id in placed and facts.segment_id not in self._fresh]
        have = self._store.segments(facts.segment_id for facts in unsure) if unsure else {}
        new += [facts for facts in unsure if facts.segment_id not in have]
        if new:
            self._store.add_segments(new)
        if placements:
            self._store.add_claims(placements)

    def _remember(self, contract: Contract) -> None:
        self._claimed[contract.contract_id] = contract
        if len(self._claimed) > _REMEMBERED_CLAIMS:
            self._claimed.popitem(last=False)

    def _ticket(
        self,
        segment_id: SegmentId,
        index: int,
        copy: int,
        farmer: NodeId,
        contract: Contract,
        grantee: PublicKey,
        operation: Operation,
    ) -> Ticket:
        return Ticket(
            segment_id=segment_id,
            index=index,
            copy=copy,
            peer=self.book.peer(farmer),
            contract=contract,
            grant=self._grant(contract, grantee, operation),
        )

    def _grant(self, contract: Contract, grantee: PublicKey, operation: Operation) -> SignedGrant:
        size = contract.terms.shard_size_bytes
        return issue_grant(
            contract.terms,
            self._key,
            grantee_key=grantee,
            operation=operation,
            expires_ms=self._clock.now_ms() + self._options.grant_life_ms,
            serial=self._entropy(16),
            budget_bytes=size if operation is Operation.CONSIGN else _RETRIEVE_BUDGET_FACTOR * size,
        )

    async def confirm(self, receipts: Sequence[SignedStorageReceipt]) -> frozenset[ContractId]:
        """See `ports.Agent.confirm`."""
        for signed in receipts:
            contract_id = signed.receipt.contract_id
            contract = self._claimed.get(contract_id)
            if contract is None:
                placement = await self._offload(partial(self._store.placement, contract_id))
                if placement is None:
                    raise MisbehaviourError(ReasonCode.UNKNOWN_CONTRACT, "a receipt for a contract we did not make")
                contract = placement.contract
            verify_storage_receipt(signed, contract)
        void = await self._offload(lambda: self._store.record_receipts(receipts)) if receipts else frozenset()
        for signed in receipts:
            self._claimed.pop(signed.receipt.contract_id, None)
        return void

    async def abandon(self, contract_ids: Sequence[ContractId]) -> None:
        """See `ports.Agent.abandon`."""
        if contract_ids:
            await self._offload(lambda: self._store.cancel(contract_ids))
            for contract_id in contract_ids:
                self._claimed.pop(contract_id, None)

    # --- finding and giving up ---------------------------------------------------------------------------------------

    async def locate(self, segment_ids: Iterable[SegmentId], grantee: PublicKey) -> Mapping[SegmentId, Located]:
        """See `ports.Agent.locate`. Of two farmers with one index, the one in better standing."""
        wanted = list(dict.fromkeys(segment_ids))
        facts, placements = await self._offload(lambda: (self._store.segments(wanted), self._store.placements(wanted)))
        now = self._clock.now_ms()
        located = {}
        for segment_id, fact in facts.items():
            best: dict[int, Placement] = {}
            for placement in placements.get(segment_id, ()):
                standing = placement.state is PlacementState.STORED and placement.contract.terms.end_ms > now
                # A client knows the roots of copy 0 alone; other copies are for repair.
                if standing and placement.copy == 0:
                    rival = best.get(placement.index)
                    if rival is None or self._rank(placement.farmer, now) > self._rank(rival.farmer, now):
                        best[placement.index] = placement
            located[segment_id] = self.fetchable(fact, [best[index] for index in sorted(best)], grantee)
        return located

    def fetchable(self, facts: SegmentFacts, placements: Sequence[Placement], grantee: PublicKey) -> Located:
        """See `repairer.Hand`."""
        now = self._clock.now_ms()
        return Located(
            facts=facts,
            mask_key=segment_mask_key(self._mask_root, facts.segment_id),
            tickets=tuple(
                self._ticket(
                    facts.segment_id,
                    placement.index,
                    placement.copy,
                    placement.farmer,
                    placement.contract,
                    grantee,
                    Operation.RETRIEVE,
                )
                for placement in placements
            ),
            speeds={
                placement.farmer: speed
                for placement in placements
                if (speed := self._speed(placement.farmer, now)) != 0.0
            },
        )

    def _rank(self, farmer: NodeId, now_ms: int) -> tuple[bool, float]:
        standing = self.book.standing(farmer)
        return standing.avoid_until_ms <= now_ms, self.book.candidate(farmer).weight

    def _speed(self, farmer: NodeId, now_ms: int) -> float:
        standing = self.book.standing(farmer)
        return -1.0 if standing.avoid_until_ms > now_ms else standing.download_speed

    async def known(self, segment_ids: Sequence[SegmentId]) -> frozenset[SegmentId]:
        """See `ports.Agent.known`."""
        return frozenset(await self._offload(lambda: self._store.segments(segment_ids)))

    async def release(self, segment_ids: Sequence[SegmentId]) -> None:
        """See `ports.Agent.release`."""
        if segment_ids:
            await self._offload(lambda: self._store.release(segment_ids))
            self._fresh.difference_update(segment_ids)

    def note(self, dealings: Iterable[Dealing]) -> None:
        """See `ports.Agent.note`."""
        now = self._clock.now_ms()
        for dealing in dealings:
            kind = OutcomeKind.CONSIGN if dealing.upload else OutcomeKind.RETRIEVE
            speed = dealing.size_bytes / dealing.seconds if dealing.ok and dealing.seconds > 0 else 0.0
            self.book.note(Outcome(dealing.farmer, kind, dealing.ok, speed, now))
            if dealing.ok and dealing.terms is not None and self.paymaster is not None:
                self.paymaster.received(dealing.terms, dealing.size_bytes)
            if dealing.ok and not dealing.upload:
                self.book.sent(dealing.farmer, dealing.size_bytes, dealing.seconds)

    async def settle(self) -> None:
        """See `ports.Agent.settle`."""
        await self.repairer.repair_all(CLIENT)
        await self.caretaker.cancel_due()

    async def farmer_facts(self) -> Mapping[NodeId, FarmerFacts]:
        """See `ports.DurabilityFacts`."""
        return await farmer_facts(self._store, self.book, self._clock, self._offload)

    async def holdings(self, segment_ids: Iterable[SegmentId]) -> Mapping[SegmentId, HeldSegment]:
        """See `ports.DurabilityFacts`."""
        return await held_segments(self._store, self._clock, self._offload, segment_ids)

    async def status(self) -> AgentStatus:
        """See `ports.Agent.status`."""
        counts = await self._offload(self._store.counts)
        now, dossiers = self._clock.now_ms(), self.book.dossiers()
        doubtful = {each.farmer for each in dossiers if each.silence.state is not Silence.CLEAR}
        health = await self._offload(lambda: self._store.health(now - RULES.fresh_ms, doubtful, now))
        rounds = await self._offload(lambda: self._store.rounds_since(now - DAY_MS))
        states = Counter(each.silence.state for each in dossiers)
        return AgentStatus(
            segments=counts.segments,
            segments_below_n=counts.wanting,
            segments_below_r=counts.endangered,
            segments_unreadable=counts.unreadable,
            shards_stored=counts.placements.get(PlacementState.STORED, 0),
            shards_claimed=counts.placements.get(PlacementState.CLAIMED, 0),
            shards_to_cancel=counts.placements.get(PlacementState.CANCELLING, 0),
            stored_bytes=counts.stored_bytes,
            farmers_known=len(self.book),
            farmers_used=counts.farmers,
            audits_passed=rounds.get(Verdict.PASSED, 0) + rounds.get(Verdict.LOST, 0),
            audits_failed=rounds.get(Verdict.FAILED, 0) + rounds.get(Verdict.MALFORMED, 0),
            audits_silent=rounds.get(Verdict.SILENT, 0),
            proved_whole=health.whole,
            proved_below_n=health.below_n,
            proved_below_r=health.below_r,
            proved_below_k=health.below_k,
            farmers_contained=states[Silence.CONTAINED] + states[Silence.OFFLINE],
            farmers_gone=states[Silence.GONE],
            farmers_condemned=states[Silence.CONDEMNED],
        )
