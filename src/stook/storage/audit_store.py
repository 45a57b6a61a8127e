"""The part of `agent.db` that is about audits and repair: `agent_audit_ports.AuditStore` in SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    case,
    delete,
    distinct,
    func,
    or_,
    select,
    update,
)

from stook.audits.allowance import Allowance
from stook.audits.challenge import SignedChallenge
from stook.audits.evidence import MAX_FILE_BYTES, ReceiptFile
from stook.audits.score import DeclaredLoss, Entry
from stook.audits.score import update as updated
from stook.codec import decode, encode
from stook.contracts.contract import AuditStrategy, AuditTerms
from stook.contracts.loss import NotedLoss
from stook.contracts.verdict import Verdict
from stook.errors import ConflictError
from stook.ids import ContractId, NodeId, SegmentId
from stook.storage import agent_tables as tables
from stook.storage.agent_audit_ports import (
    Dossier,
    FarmerChange,
    FlightRow,
    HealthCounts,
    HoldingTotals,
    KeptReceipt,
    OpenChallenge,
)
from stook.storage.agent_rows import move, to_member
from stook.storage.audit_records import read_event, read_score, read_silence, write_event, write_score, write_silence
from stook.storage.database import Database, chunks, insert_rows, upsert
from stook.storage.dossiers import changed, joined, with_entries
from stook.storage.renter_ports import PlacementState

CLAIMED, STORED, CANCELLING, ERASED, LOST = PlacementState
_PLAIN = (int(Verdict.PASSED), int(Verdict.SILENT), int(Verdict.LOST))
"""Outcomes of rounds whose receipts may be forgotten."""


class SqlAuditStore:
    """`agent_audit_ports.AuditStore` over one database file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- farmers

    def dossiers(self) -> list[Dossier]:
        """See the port."""
        with self._database.read() as connection:
            query = select(tables.dossiers).order_by(tables.dossiers.c.farmer)
            return [_read_dossier(row) for row in connection.execute(query)]

    def dossier(self, farmer: NodeId) -> Dossier:
        """See the port."""
        with self._database.read() as connection:
            return _dossier_of(connection, farmer)

    def note_events(self, events: Sequence[tuple[NodeId, Entry]]) -> None:
        """See the port."""
        of: dict[NodeId, list[Entry]] = defaultdict(list)
        for farmer, entry in events:
            of[farmer].append(entry)
        with self._database.write() as connection:
            for farmer, entries in of.items():
                _save_dossier(connection, _with_entries(connection, _dossier_of(connection, farmer), entries))

    def history(self, farmer: NodeId) -> list[Entry]:
        """See the port."""
        table = tables.farmer_events.c
        query = select(table.at_ms, table.event).where(table.farmer == farmer).order_by(table.number)
        with self._database.read() as connection:
            return [Entry(at_ms, read_event(event)) for at_ms, event in connection.execute(query)]

    def fold_history(self, before_ms: int) -> int:
        """See the port."""
        table, folded = tables.farmer_events.c, 0
        with self._database.write() as connection:
            query = select(tables.farmer_events).where(table.at_ms < before_ms).order_by(table.number)
            old: dict[NodeId, list[Row[Any]]] = defaultdict(list)
            for row in connection.execute(query):
                old[NodeId(row.farmer)].append(row)
            for farmer, rows in old.items():
                dossier = _dossier_of(connection, farmer)
                base = dossier.base
                for row in rows:
                    base = updated(base, read_event(row.event), row.at_ms)
                _save_dossier(connection, replace(dossier, base=base))
                folded += len(rows)
            connection.execute(delete(tables.farmer_events).where(table.at_ms < before_ms))
        return folded

    # -- the auditor's steps

    def change(self, *changes: FarmerChange, allowances: Mapping[str, Allowance] | None = None) -> None:
        """See the port."""
        with self._database.write() as connection:
            for each in changes:
                _apply(connection, each)
            for name, allowance in (allowances or {}).items():
                row = {
                    "name": name.encode(),
                    "per_day": allowance.per_day,
                    "burst": allowance.burst,
                    "level": allowance.level.to_bytes(16, "big", signed=True),
                    "at_ms": allowance.at_ms,
                }
                connection.execute(upsert(connection, tables.allowances), [row])

    def totals(self) -> list[HoldingTotals]:
        """See the port."""
        table = tables.placements.c
        fresh = case((table.proved_ms == 0, 1), else_=0)
        size = tables.segments.c.shard_bytes
        query = (
            select(
                table.farmer,
                table.audit_interval_ms,
                func.count(),
                func.sum(size),
                func.sum(fresh),
                func.sum(fresh * size),
                func.min(case((table.proved_ms == 0, table.stored_ms))),
                func.sum(table.audit_leaves),
            )
            .join_from(tables.placements, tables.segments)
            .where(table.state == STORED)
            .group_by(table.farmer, table.audit_interval_ms)
            .order_by(table.farmer, table.audit_interval_ms)
        )
        found: dict[NodeId, HoldingTotals] = {}
        with self._database.read() as connection:
            for farmer, interval, shards, held, new, new_bytes, since, leaves in connection.execute(query):
                terms = (AuditTerms(AuditStrategy.SAMPLED, interval, leaves),)
                part = HoldingTotals(NodeId(farmer), shards, held, new, new_bytes, since or 0, terms)
                found[part.farmer] = joined(found[part.farmer], part) if part.farmer in found else part
        return list(found.values())

    def open_challenges(self) -> list[OpenChallenge]:
        """See the port."""
        with self._database.read() as connection:
            query = select(tables.open_challenges).order_by(tables.open_challenges.c.farmer)
            return [
                OpenChallenge(NodeId(row.farmer), decode(SignedChallenge, row.challenge), row.first)
                for row in connection.execute(query)
            ]

    def note_losses(self, farmer: NodeId, losses: Sequence[NotedLoss], at_ms: int) -> list[NotedLoss]:
        """See the port."""
        names = [each.loss.loss.contract_id for each in losses]
        table = tables.placements.c
        with self._database.write() as connection:
            kept = _losses_of(connection, names)
            fresh = {each.loss.loss.contract_id: each for each in losses if each.loss.loss.contract_id not in kept}
            rows = [{"contract_id": name, "farmer": farmer, "noted": encode(each)} for name, each in fresh.items()]
            insert_rows(connection, tables.noted_losses, rows)
            here = (table.farmer == farmer) & (table.state == STORED)
            holding = connection.execute(select(func.count()).where(here)).scalar_one()
            held = 0
            for some in chunks(fresh):
                query = select(func.count()).where(here & table.contract_id.in_(some))
                held += connection.execute(query).scalar_one()
                move(connection, (table.farmer == farmer) & table.contract_id.in_(some), [CLAIMED, STORED], LOST)
            if held:
                entry = Entry(at_ms, DeclaredLoss(held, holding))
                _save_dossier(connection, _with_entries(connection, _dossier_of(connection, farmer), [entry]))
        kept |= fresh
        return [kept[name] for name in names]

    def noted_losses(self, contract_ids: Iterable[ContractId]) -> Mapping[ContractId, NotedLoss]:
        """See the port."""
        with self._database.read() as connection:
            return _losses_of(connection, contract_ids)

    # -- receipts

    def receipts(self, farmer: NodeId | None, limit: int) -> list[KeptReceipt]:
        """See the port."""
        table = tables.audit_receipts.c
        query = select(tables.audit_receipts).order_by(table.judged_ms.desc(), table.challenge.desc()).limit(limit)
        if farmer is not None:
            query = query.where(table.farmer == farmer)
        return self._receipts(query)

    def unsent_receipts(self, farmer: NodeId, limit: int) -> list[KeptReceipt]:
        """See the port."""
        table = tables.audit_receipts.c
        query = select(tables.audit_receipts).where(table.farmer == farmer, table.sent.is_(False))
        return self._receipts(query.order_by(table.judged_ms, table.challenge).limit(limit))

    def _receipts(self, query: Select[Any]) -> list[KeptReceipt]:
        with self._database.read() as connection:
            return [
                KeptReceipt(
                    NodeId(row.farmer),
                    row.challenge,
                    row.judged_ms,
                    to_member(Verdict, row.outcome),
                    decode(ReceiptFile, row.file, max_bytes=MAX_FILE_BYTES),
                    row.sent,
                )
                for row in connection.execute(query)
            ]

    def forget_receipts(self, judged_before_ms: int) -> int:
        """See the port."""
        table = tables.audit_receipts.c
        statement = delete(tables.audit_receipts).where(table.judged_ms < judged_before_ms, table.outcome.in_(_PLAIN))
        with self._database.write() as connection:
            return connection.execute(statement).rowcount

    def rounds_since(self, since_ms: int) -> Mapping[Verdict, int]:
        """See the port."""
        table = tables.audit_receipts.c
        query = select(table.outcome, func.count()).where(table.judged_ms >= since_ms).group_by(table.outcome)
        with self._database.read() as connection:
            return {to_member(Verdict, outcome): count for outcome, count in connection.execute(query)}

    # -- allowances and outages

    def allowance(self, name: str) -> Allowance | None:
        """See the port."""
        query = select(tables.allowances).where(tables.allowances.c.name == name.encode())
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return (
            None
            if row is None
            else Allowance(row.per_day, row.burst, int.from_bytes(row.level, "big", signed=True), row.at_ms)
        )

    def outages(self) -> list[tuple[int, int]]:
        """See the port."""
        with self._database.read() as connection:
            query = select(tables.outages).order_by(tables.outages.c.begin_ms)
            return [(row.begin_ms, row.end_ms) for row in connection.execute(query)]

    def note_outage(self, begin_ms: int, end_ms: int) -> None:
        """See the port."""
        with self._database.write() as connection:
            row = {"begin_ms": begin_ms, "end_ms": end_ms}
            connection.execute(upsert(connection, tables.outages, newer="end_ms"), [row])

    # -- repair

    def begin_flights(self, flights: Sequence[FlightRow], stale_ms: int) -> bool:
        """See the port."""
        table = tables.flights.c
        with self._database.write() as connection:
            for each in flights:
                here = (table.segment_id == each.segment_id) & (table.shard_index == each.index)
                query = select(func.count()).where(here & (table.copy == each.copy) & (table.begun_ms >= stale_ms))
                if connection.execute(query).scalar_one():
                    return False
            rows = [
                {
                    "segment_id": each.segment_id,
                    "shard_index": each.index,
                    "copy": each.copy,
                    "begun_ms": each.begun_ms,
                    "owner": each.owner,
                }
                for each in flights
            ]
            if rows:
                connection.execute(upsert(connection, tables.flights), rows)
        return True

    def end_flights(self, flights: Sequence[FlightRow]) -> None:
        """See the port."""
        table = tables.flights.c
        with self._database.write() as connection:
            for each in flights:
                here = (table.segment_id == each.segment_id) & (table.shard_index == each.index)
                connection.execute(delete(tables.flights).where(here, table.copy == each.copy))

    def drop_flights(self, owner: bytes) -> int:
        """See the port."""
        with self._database.write() as connection:
            return connection.execute(delete(tables.flights).where(tables.flights.c.owner == owner)).rowcount

    def flights(self, segment_ids: Iterable[SegmentId]) -> Mapping[SegmentId, tuple[FlightRow, ...]]:
        """See the port."""
        table = tables.flights.c
        found: dict[SegmentId, list[FlightRow]] = defaultdict(list)
        with self._database.read() as connection:
            for some in chunks(segment_ids):
                query = select(tables.flights).where(table.segment_id.in_(some))
                for row in connection.execute(query.order_by(table.segment_id, table.shard_index, table.copy)):
                    flight = FlightRow(SegmentId(row.segment_id), row.shard_index, row.copy, row.begun_ms, row.owner)
                    found[flight.segment_id].append(flight)
        return {segment_id: tuple(each) for segment_id, each in found.items()}

    def segments_short(
        self,
        fresh_ms: int,
        doubtful: Collection[NodeId],
        copies: int,
        limit: int,
        after: bytes,
        lapsing_ms: int = 0,
    ) -> list[SegmentId]:
        """See the port."""
        counts = _proved(fresh_ms, doubtful, lapsing_ms)
        segment = tables.segments.c
        proved, ever = func.coalesce(counts.c.proved, 0), func.coalesce(counts.c.ever, 0)
        wanting = or_(proved < segment.r, (ever < segment.n) & (proved < segment.n))
        if copies > 1:
            few = func.coalesce(counts.c.shards, 0) < segment.n * copies
            wanting = or_(wanting, few, func.coalesce(counts.c.originals, 0) < segment.n)
        query = (
            select(segment.segment_id)
            .outerjoin(counts, counts.c.segment_id == segment.segment_id)
            .where(segment.released.is_(False), segment.segment_id > after, wanting)
            .order_by(segment.segment_id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [SegmentId(value) for value in connection.scalars(query)]

    def health(self, fresh_ms: int, doubtful: Collection[NodeId], lapsing_ms: int = 0) -> HealthCounts:
        """See the port."""
        counts = _proved(fresh_ms, doubtful, lapsing_ms)
        segment = tables.segments.c
        proved = func.coalesce(counts.c.proved, 0)

        def number(which: ColumnElement[bool]) -> ColumnElement[int]:
            return func.coalesce(func.sum(case((which, 1), else_=0)), 0)

        query = (
            select(
                number(proved >= segment.n),
                number((proved >= segment.r) & (proved < segment.n)),
                number((proved >= segment.k) & (proved < segment.r)),
                number(proved < segment.k),
            )
            .select_from(tables.segments)
            .outerjoin(counts, counts.c.segment_id == segment.segment_id)
            .where(segment.released.is_(False))
        )
        with self._database.read() as connection:
            return HealthCounts(*connection.execute(query).one())


def _proved(fresh_ms: int, doubtful: Collection[NodeId], lapsing_ms: int) -> Any:
    """Per segment: distinct indices proved, shards proved, and distinct indices that ever were stored."""
    table = tables.placements.c
    good = (table.state == STORED) & or_(table.stored_ms >= fresh_ms, table.proved_ms >= fresh_ms)
    good &= (table.stored_ms > 0) | (table.proved_ms > 0)
    good &= table.end_ms > lapsing_ms
    for some in chunks(sorted(doubtful)):
        good &= table.farmer.not_in(some)
    # An index and a copy as one number, for counting both together.
    shard = table.shard_index * 65536 + table.copy
    return (
        select(
            table.segment_id,
            func.count(distinct(case((good, table.shard_index)))).label("proved"),
            func.count(distinct(case((good, shard)))).label("shards"),
            func.count(distinct(case((good & (table.copy == 0), table.shard_index)))).label("originals"),
            func.count(
                distinct(case((or_(table.receipt.is_not(None), table.state.in_([STORED, LOST])), table.shard_index)))
            ).label("ever"),
        )
        .group_by(table.segment_id)
        .subquery()
    )


# ------------------------------------------------------------------------------------------------- rows and statements


def _read_dossier(row: Row[Any]) -> Dossier:
    return Dossier(
        NodeId(row.farmer),
        read_score(row.score),
        read_score(row.base),
        read_silence(row.silence),
        row.next_due_ms,
        row.first_due_ms,
        row.beat_ms,
        row.heard_ms,
        row.known_ms,
        row.leaving_by_ms,
    )


def _dossier_of(connection: Connection, farmer: NodeId) -> Dossier:
    row = connection.execute(select(tables.dossiers).where(tables.dossiers.c.farmer == farmer)).one_or_none()
    return Dossier(farmer) if row is None else _read_dossier(row)


def _save_dossier(connection: Connection, dossier: Dossier) -> None:
    row = {
        "farmer": dossier.farmer,
        "score": write_score(dossier.score),
        "base": write_score(dossier.base),
        "silence": write_silence(dossier.silence),
        "next_due_ms": dossier.next_due_ms,
        "first_due_ms": dossier.first_due_ms,
        "beat_ms": dossier.beat_ms,
        "heard_ms": dossier.heard_ms,
        "known_ms": dossier.known_ms,
        "leaving_by_ms": dossier.leaving_by_ms,
    }
    connection.execute(upsert(connection, tables.dossiers), [row])


def _with_entries(connection: Connection, dossier: Dossier, entries: Sequence[Entry]) -> Dossier:
    """The dossier after these events, which are added to the history."""
    rows = [{"farmer": dossier.farmer, "at_ms": each.at_ms, "event": write_event(each.event)} for each in entries]
    insert_rows(connection, tables.farmer_events, rows)
    return with_entries(dossier, entries)


def _apply(connection: Connection, change: FarmerChange) -> None:
    farmer, table = change.farmer, tables.placements.c
    if change.closed:
        connection.execute(delete(tables.open_challenges).where(tables.open_challenges.c.farmer == farmer))
    if change.opened is not None:
        _open(connection, change.opened)
    dossier = _dossier_of(connection, farmer)
    after = changed(_with_entries(connection, dossier, change.entries), change)
    if after != dossier:
        _save_dossier(connection, after)
    if change.receipt is not None:
        kept = change.receipt
        row = {
            "challenge": kept.challenge,
            "farmer": kept.farmer,
            "judged_ms": kept.judged_ms,
            "outcome": int(kept.outcome),
            "sent": kept.sent,
            "file": encode(kept.file),
        }
        connection.execute(upsert(connection, tables.audit_receipts), [row])
    for some in chunks(change.delivered):
        statement = update(tables.audit_receipts).where(tables.audit_receipts.c.challenge.in_(some))
        connection.execute(statement.values(sent=True))
    if change.proved is not None:
        here = (table.farmer == farmer) & (table.state == STORED) & (table.proved_ms < change.proved.at_ms)
        statement = update(tables.placements).values(proved_ms=change.proved.at_ms)
        if change.proved.contract_ids is None:
            connection.execute(statement.where(here, table.proved_ms > 0))
        else:
            for names in chunks(change.proved.contract_ids):
                connection.execute(statement.where(here, table.contract_id.in_(names)))
    if change.all_lost:
        move(connection, table.farmer == farmer, [STORED], LOST)
    if change.returned:
        declared = select(tables.noted_losses.c.contract_id).where(tables.noted_losses.c.farmer == farmer)
        back = (table.farmer == farmer) & (table.state == LOST) & table.contract_id.not_in(declared)
        connection.execute(update(tables.placements).where(back).values(state=int(STORED), stored_ms=0, proved_ms=0))


def _open(connection: Connection, opened: OpenChallenge) -> None:
    table = tables.placements.c
    states = [STORED, LOST, CANCELLING] if opened.signed.challenge.repeats else [STORED]
    names = [ask.contract_id for ask in opened.signed.challenge.asks]
    standing = 0
    for some in chunks(names):
        query = select(func.count()).where(
            table.contract_id.in_(some), table.farmer == opened.farmer, table.state.in_(states)
        )
        standing += connection.execute(query).scalar_one()
    if standing != len(names):
        raise ConflictError(f"{len(names) - standing} of the shards to ask about are not held any more")
    row = {"farmer": opened.farmer, "challenge": encode(opened.signed), "first": opened.first}
    connection.execute(upsert(connection, tables.open_challenges), [row])


def _losses_of(connection: Connection, contract_ids: Iterable[ContractId]) -> dict[ContractId, NotedLoss]:
    table = tables.noted_losses.c
    found = {}
    for some in chunks(contract_ids):
        query = select(table.contract_id, table.noted).where(table.contract_id.in_(some))
        for name, noted in connection.execute(query):
            found[ContractId(name)] = decode(NotedLoss, noted)
    return found
