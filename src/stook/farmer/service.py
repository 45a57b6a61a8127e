"""A farmer: handlers on an endpoint, chores, an orderly start and an orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog
from structlog.typing import FilteringBoundLogger

from stook.audits.messages import AuditMethod
from stook.chore import Chore
from stook.clock import Clock, Offload
from stook.contracts.announcement import SignedAnnouncement
from stook.contracts.messages import Method
from stook.contracts.move import MoveMethod
from stook.contracts.recovery import RecoveryMethod
from stook.errors import EnvironmentFault, ReasonCode, RefusedError
from stook.farmer.audit_desk import AuditDesk
from stook.farmer.gate import ShardGate
from stook.farmer.handlers import ContractDesk, NoticeDesk
from stook.farmer.herald import Herald
from stook.farmer.keepsakes import KeepsakeDesk, forget_strangers
from stook.farmer.lanes import Lanes
from stook.farmer.losses import Confessor, declare_missing
from stook.farmer.market import MarketStall
from stook.farmer.mover import Mover
from stook.farmer.parts import AnnouncementBook, Parts
from stook.farmer.reaper import evict, reap
from stook.farmer.recovery import RecoveryReport, recover
from stook.farmer.refusals import refusal_of
from stook.farmer.scrub import Scrub
from stook.farmer.settings import FarmerSettings
from stook.farmer.status import AuditStatus, ExitStatus, FarmerStatus, ScrubReport, Tally
from stook.farmer.till import Till
from stook.farmer.transfers import TransferDesk
from stook.identity.keys import NodeKey
from stook.ids import NetworkId
from stook.overlay.pubsub import Neighbourhood
from stook.payments.messages import PayMethod
from stook.payments.settlement import LedgerSettlement, Settlement
from stook.storage.books import Books
from stook.storage.ports import ContractStore, ShardStore
from stook.storage.record_shelf import MemoryRecordShelf, RecordShelf
from stook.wire.endpoint import Endpoint, Exchange, Handler, Peer

ANNOUNCE_AGAIN_SECONDS = 1.0
"""How soon a seed that was not told is tried again; doubled each time up to the usual interval."""


class Farmer:
    """Accepts what it can afford, holds it, hands it back. Use it on one event loop.

    The caller owns what it passes in: it listens, sets `endpoint.contact`, then calls `start`; at the end it calls
    `stop`, closes the endpoint, and closes the stores.
    """

    def __init__(
        self,
        *,
        key: NodeKey,
        network: NetworkId,
        endpoint: Endpoint,
        shards: ShardStore,
        contracts: ContractStore,
        book: AnnouncementBook,
        clock: Clock,
        offload: Offload,
        free_disk: Callable[[], int],
        settings: FarmerSettings,
        seeds: Sequence[Peer] = (),
        neighbourhood: Neighbourhood | None = None,
        books: Books | None = None,
        settlement: Settlement | None = None,
        chain: Offload | None = None,
        records: RecordShelf | None = None,
        log: FilteringBoundLogger | None = None,
    ) -> None:
        log = log if log is not None else structlog.get_logger("stook.farmer")
        till = None
        if books is not None:
            till = Till(
                key=key,
                network=network,
                contracts=contracts,
                books=books,
                settlement=settlement if settlement is not None else LedgerSettlement(network),
                clock=clock,
                offload=offload,
                log=log,
                rules=settings.credit,
                chain=chain,
            )
        self._parts = Parts(
            key=key,
            network=network,
            settings=settings,
            shards=shards,
            contracts=contracts,
            book=book,
            clock=clock,
            offload=offload,
            free_disk=free_disk,
            log=log,
            gate=ShardGate(),
            lanes=Lanes(settings.transfers),
            tally=Tally(),
            till=till,
            records=records if records is not None else MemoryRecordShelf(),
        )
        self._endpoint = endpoint
        self._accepting = False
        self._serving = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._started_ms = 0
        self._announce_again_seconds = ANNOUNCE_AGAIN_SECONDS
        self._tasks: list[asyncio.Task[None]] = []
        self._herald = Herald(self._parts, endpoint, seeds, lambda: self._accepting and not self._parts.leaving.by_ms)
        self._scrub = Scrub(self._parts)
        self._confessor = Confessor(self._parts, endpoint)
        self._mover = Mover(self._parts, endpoint, lambda: self.chores["move"].trigger())
        intervals = settings.chores
        self.chores: Mapping[str, Chore] = {
            "reaper": Chore("reaper", intervals.reap_seconds, self.reap, self._chore_failed),
            "scrub": Chore("scrub", intervals.scrub_seconds, self._scrub.step, self._chore_failed),
            "announce": Chore("announce", intervals.announce_seconds, self.announce, self._chore_failed),
            "declare": Chore("declare", intervals.declare_seconds, self.declare_losses, self._chore_failed),
            "move": Chore("move", intervals.move_seconds, self.move, self._chore_failed),
        }
        if till is not None:
            self.chores = {
                **self.chores,
                "collect": Chore("collect", intervals.collect_seconds, till.collect, self._chore_failed),
            }
        """By name, to pause and to step."""
        self._stall: MarketStall | None = None
        if settings.market is not None:
            self._stall = MarketStall(
                self._parts, endpoint, self._herald, settings.market, neighbourhood, self._chore_failed
            )
            self.chores = {**self.chores, **self._stall.chores}

    # --- beginning and end -------------------------------------------------------------------------------------------

    async def start(self) -> RecoveryReport:
        """Reconcile what a stop of any kind left behind, then serve, then tell the seeds.

        Raises `EnvironmentFault` when the shards are not where they should be (see `recovery.recover`).
        """
        parts = self._parts
        report = await parts.offload(
            lambda: recover(parts.shards, parts.contracts, farmer_key=parts.key.public_key, network=parts.network)
        )
        parts.lost.update(report.lost_ids)
        await parts.offload(lambda: declare_missing(parts, report.lost_ids))
        log = parts.log.warning if report.lost else parts.log.info
        log(
            "farmer recovered",
            updated=report.updated,
            lost=report.lost,
            erasures_finished=report.erasures_finished,
            swept_bytes=report.partial_bytes_swept,
        )
        await self._mover.look()
        if parts.till is not None:
            await parts.till.open()
        self._started_ms = parts.clock.now_ms()
        for method, handler in self._handlers().items():
            self._endpoint.handle(method, self._guarded(method, handler))
        self._accepting = True
        self._tasks = [asyncio.create_task(chore.run(), name=f"farmer-{name}") for name, chore in self.chores.items()]
        self.chores["announce"].trigger()
        if self._stall is not None:
            self.chores["gossip"].trigger()
        if parts.till is not None:
            self.chores["collect"].trigger()
        return report

    async def stop(self, *, grace_seconds: float = 10.0) -> bool:
        """Refuse new work with SHUTTING_DOWN and let requests under way finish; whether all did within the grace."""
        self._accepting = False
        if self._stall is not None:
            self._stall.pubsub.close()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(grace_seconds):
                await self._idle.wait()
        except TimeoutError:
            self._parts.log.warning("farmer stopped with requests under way", requests=self._serving)
            return False
        self._parts.log.info("farmer stopped")
        return True

    # --- serving -----------------------------------------------------------------------------------------------------

    def _handlers(self) -> dict[str, Handler]:
        stall = self._stall
        contracts, notices, transfers = (
            ContractDesk(self._parts, self._herald, None if stall is None else stall.desk),
            NoticeDesk(self._parts, self._herald),
            TransferDesk(self._parts),
        )
        audits = AuditDesk(self._parts)
        keepsakes = KeepsakeDesk(self._parts)
        return {
            Method.CLAIM: contracts.claim,
            Method.RENEW: contracts.renew,
            Method.CANCEL: contracts.cancel,
            Method.LIST_CONTRACTS: contracts.list_contracts,
            Method.CONSIGN: transfers.consign,
            Method.RETRIEVE: transfers.retrieve,
            Method.ANNOUNCE: notices.announce,
            Method.CONTACTS: notices.contacts,
            Method.CAPACITY: notices.capacity,
            AuditMethod.AUDIT: audits.audit,
            AuditMethod.AUDIT_RECEIPT: audits.receipt,
            AuditMethod.HEARTBEAT: audits.heartbeat,
            MoveMethod.MOVE: self._mover.move,
            **({} if stall is None else stall.pubsub.handlers()),
            **({PayMethod.PAY: till.pay, PayMethod.ORDER: till.order} if (till := self._parts.till) else {}),
            RecoveryMethod.LEAVE_RECORD: keepsakes.leave,
            RecoveryMethod.FIND_RECORD: keepsakes.find,
        }

    def _guarded(self, method: str, handler: Handler) -> Handler:
        async def serve(exchange: Exchange, payload: bytes) -> None:
            tally = self._parts.tally
            tally.requests[method] += 1
            self._serving += 1
            self._idle.clear()
            try:
                if not self._accepting:
                    raise RefusedError(ReasonCode.SHUTTING_DOWN, "this farmer is stopping")
                await handler(exchange, payload)
            except Exception as error:
                refusal = refusal_of(error)
                if refusal is None or (refusal is error and error is exchange.failure):
                    raise  # a bug, a lost line, or the peer's own refusal
                tally.refusals[refusal.code] += 1
                self._log_refusal(method, exchange, refusal, error)
                raise refusal from None
            finally:
                self._serving -= 1
                if not self._serving:
                    self._idle.set()

        return serve

    def _log_refusal(self, method: str, exchange: Exchange, refusal: RefusedError, error: Exception) -> None:
        facts = {"method": method, "peer": exchange.peer_id.hex(), "code": refusal.code.name}
        if isinstance(error, EnvironmentFault):
            self._parts.log.error("this machine failed", **facts, why=str(error))
        else:
            self._parts.log.info("refused", **facts, why=str(error))

    # --- chores ------------------------------------------------------------------------------------------------------

    async def reap(self) -> int:
        """Give up what is due now, and see whether the operator wants us to leave; how many contracts went."""
        await self._mover.look()
        await self._parts.offload(lambda: forget_strangers(self._parts, self._parts.clock.now_ms()))
        return await reap(self._parts) + await evict(self._parts)

    async def announce(self) -> int:
        """Tell the seeds now; how many took it. While one does not, the next try comes soon, then ever later."""
        told = await self._herald.tell_seeds()
        chore = self.chores["announce"]
        if told == self._herald.seed_count:
            self._announce_again_seconds = ANNOUNCE_AGAIN_SECONDS
        elif self._announce_again_seconds < chore.interval_seconds and self._tasks:
            asyncio.get_running_loop().call_later(self._announce_again_seconds, chore.trigger)
            self._announce_again_seconds *= 2
        return told

    async def declare_losses(self) -> int:
        """Call connected renters that have not noted their losses; how many losses were noted."""
        return await self._confessor.tell()

    async def move(self) -> int:
        """Carry out the orders of MOVE that are due; how many shards arrived."""
        return await self._mover.step()

    async def scrub_everything(self) -> ScrubReport:
        """One whole round of the integrity scrub now."""
        return await self._scrub.run_round()

    def _chore_failed(self, name: str, error: Exception) -> None:
        self._parts.log.error("chore failed", chore=name, why=str(error), exc_info=error)

    @property
    def till(self) -> Till | None:
        """The earning part, if it keeps books."""
        return self._parts.till

    # --- looking -----------------------------------------------------------------------------------------------------

    async def announcement(self) -> SignedAnnouncement:
        """What this farmer says of itself at this moment."""
        return await self._herald.signed()

    async def status(self) -> FarmerStatus:
        """A snapshot for people, for `--json`, and for tests."""
        parts, tally = self._parts, self._parts.tally
        totals = await parts.offload(parts.contracts.totals)
        view = await parts.offload(self._herald.view)
        losses = await parts.offload(parts.contracts.audits.loss_counts)
        moves = await parts.offload(parts.contracts.exits.move_counts)
        left = totals.reserved_count + totals.stored_count + len(parts.lost)
        return FarmerStatus(
            node_id=parts.key.node_id.hex(),
            network=parts.network,
            accepting=self._accepting,
            started_ms=self._started_ms,
            now_ms=parts.clock.now_ms(),
            allocated_bytes=view.limits.allocated_bytes,
            stored_bytes=view.stored_bytes,
            reserved_bytes=view.unfilled_bytes,
            available_bytes=view.available_bytes,
            free_disk_bytes=view.free_disk_bytes,
            contracts={"reserved": totals.reserved_count, "active": totals.stored_count, "lost": len(parts.lost)},
            peers_connected=len(self._endpoint.connected_peers),
            transfers_running=parts.lanes.running,
            transfers_waiting=parts.lanes.waiting,
            bytes_in=tally.bytes_in,
            bytes_out=tally.bytes_out,
            shards_in=tally.shards_in,
            shards_out=tally.shards_out,
            reaped=tally.reaped,
            audits=AuditStatus(
                pages_served=tally.audit_pages,
                units_proved=tally.units_proved,
                units_billed=tally.units_billed,
                receipts_kept=tally.receipts_kept,
                losses_declared=losses.declared,
                losses_noted=losses.noted,
            ),
            exit=ExitStatus(
                leaving_by_ms=parts.leaving.by_ms,
                contracts_left=left,
                bytes_left=view.promised_bytes,
                moves_waiting=moves.waiting,
                moves_done=moves.done,
                moves_failed=moves.failed,
                finished=bool(parts.leaving.by_ms) and not left,
            ),
            market=None if self._stall is None else self._stall.status(),
            requests=dict(tally.requests),
            refusals={code.name: count for code, count in sorted(tally.refusals.items())},
            announced_ms=tally.announced_ms,
            last_scrub=tally.last_scrub,
        )
