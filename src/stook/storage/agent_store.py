"""The agent's half in `agent.db`: segments, placements and what is known of farmers, in SQL.

No names and no content keys are here, so the file may live on a machine that its owner trusts to be awake, not to read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sqlalchemy import ColumnElement, LargeBinary, bindparam, case, delete, func, or_, select, update

from stook.codec import decode, encode
from stook.contracts.announcement import SignedAnnouncement
from stook.contracts.receipt import SignedEraseReceipt, SignedStorageReceipt
from stook.errors import NotFoundError
from stook.ids import ContractId, NodeId, SegmentId, ShardRoot
from stook.storage import agent_tables as tables
from stook.storage.agent_rows import (
    contracts_of,
    counter_row,
    facts_of,
    merge_roots,
    move,
    placement_row,
    read_counter,
    read_facts,
    read_placement,
    replace_contracts,
    require_contracts,
    require_segments,
    segment_row,
    set_roots,
    to_member,
    with_roots,
    with_stored,
)
from stook.storage.agent_upkeep import SqlUpkeepStore
from stook.storage.audit_store import SqlAuditStore
from stook.storage.database import Database, chunks, insert_rows, upsert
from stook.storage.fading import Counter
from stook.storage.renter_ports import (
    AgentCounts,
    FarmerStats,
    Outcome,
    OutcomeKind,
    Placement,
    PlacementState,
    SegmentFacts,
    Wanting,
    stored_when,
)

CLAIMED, STORED, CANCELLING, ERASED, LOST = PlacementState


class SqlAgentStore(SqlUpkeepStore, SqlAuditStore):
    """`renter_ports.AgentStore` over one database file."""

    @classmethod
    def open(cls, path: Path) -> SqlAgentStore:
        """The store in the file at `path`, made or migrated as needed. Raises as `Database` does."""
        return cls(Database(path, tables.AGENT_SCHEMA))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # -- segments

    def add_segments(self, segments: Sequence[SegmentFacts]) -> None:
        """See the port."""
        rows = [segment_row(each) for each in segments]
        with self._database.write() as connection:
            insert_rows(connection, tables.segments, rows)

    def append_roots(self, segment_id: SegmentId, roots: Sequence[ShardRoot]) -> SegmentFacts:
        """See the port."""
        with self._database.write() as connection:
            facts = facts_of(connection, [segment_id]).get(segment_id)
            if facts is None:
                raise NotFoundError(f"no segment {segment_id.hex()}")
            grown = with_roots(facts, (*facts.roots, *roots))
            set_roots(connection, segment_id, grown.roots)
        return grown

    def segment(self, segment_id: SegmentId) -> SegmentFacts | None:
        """See the port."""
        return self.segments([segment_id]).get(segment_id)

    def segments(self, segment_ids: Iterable[SegmentId]) -> Mapping[SegmentId, SegmentFacts]:
        """See the port."""
        with self._database.read() as connection:
            return facts_of(connection, segment_ids)

    def segment_ids(self, created_before_ms: int, after: bytes, limit: int) -> list[SegmentId]:
        """See the port."""
        query = (
            select(tables.segments.c.segment_id)
            .where(
                tables.segments.c.segment_id > after,
                tables.segments.c.created_ms < created_before_ms,
                tables.segments.c.released.is_(False),
            )
            .order_by(tables.segments.c.segment_id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [SegmentId(value) for value in connection.scalars(query)]

    def segments_wanting(self, limit: int, after: Wanting | None = None) -> list[Wanting]:
        """See the port."""
        query, stored = with_stored()
        margin = stored - tables.segments.c.k
        query = query.where(stored < tables.segments.c.n).order_by(margin, tables.segments.c.segment_id).limit(limit)
        if after is not None:
            same = (margin == after.margin) & (tables.segments.c.segment_id > after.facts.segment_id)
            query = query.where(or_(margin > after.margin, same))
        with self._database.read() as connection:
            return [Wanting(read_facts(row), row.stored) for row in connection.execute(query)]

    # -- placements

    def add_claims(self, placements: Sequence[Placement]) -> None:
        """See the port."""
        rows = [placement_row(each) for each in placements]
        with self._database.write() as connection:
            require_segments(connection, placements, unreleased=True)
            insert_rows(connection, tables.placements, rows)

    def record_receipts(self, receipts: Sequence[SignedStorageReceipt]) -> frozenset[ContractId]:
        """See the port."""
        table = tables.placements.c
        again = or_(table.state == LOST, table.stored_ms == 0)
        statement = (
            update(tables.placements)
            .where(table.contract_id == bindparam("of"))
            .values(
                receipt=bindparam("signed"),
                stored_ms=case((again, bindparam("when")), else_=table.stored_ms),
                proved_ms=case((again, 0), else_=table.proved_ms),
                state=case(
                    (table.state == CLAIMED, int(STORED)), (table.state == LOST, int(STORED)), else_=table.state
                ),
            )
        )
        names = [each.receipt.contract_id for each in receipts]
        void: set[ContractId] = set()
        with self._database.write() as connection:
            require_contracts(connection, names)
            contracts = contracts_of(connection, names)
            for each in receipts:
                name = each.receipt.contract_id
                row = {"of": name, "signed": encode(each), "when": stored_when(each, contracts[name])}
                connection.execute(statement, row)
            for some in chunks(each.receipt.contract_id for each in receipts):
                stayed = select(table.contract_id).where(table.contract_id.in_(some), table.state != STORED)
                void.update(ContractId(value) for value in connection.scalars(stayed))
        return frozenset(void)

    def placement(self, contract_id: ContractId) -> Placement | None:
        """See the port."""
        with self._database.read() as connection:
            row = connection.execute(
                select(tables.placements).where(tables.placements.c.contract_id == contract_id)
            ).one_or_none()
        return None if row is None else read_placement(row)

    def placements(self, segment_ids: Iterable[SegmentId]) -> Mapping[SegmentId, tuple[Placement, ...]]:
        """See the port."""
        found: dict[SegmentId, list[Placement]] = {}
        table = tables.placements.c
        with self._database.read() as connection:
            for some in chunks(segment_ids):
                found.update((segment_id, []) for segment_id in some)
                query = (
                    select(tables.placements)
                    .where(table.segment_id.in_(some), table.state != ERASED)
                    .order_by(table.shard_index, table.copy, table.contract_id)
                )
                for row in connection.execute(query):
                    found[SegmentId(row.segment_id)].append(read_placement(row))
        return {segment_id: tuple(each) for segment_id, each in found.items()}

    def placements_at(self, farmer: NodeId, after: bytes, limit: int) -> list[Placement]:
        """See the port."""
        return self._at(farmer, [CLAIMED, STORED, CANCELLING, LOST], after, limit)

    def stored_at(self, farmer: NodeId) -> list[Placement]:
        """See the port."""
        return self._at(farmer, [STORED], b"", -1)

    # -- the way out

    def release(self, segment_ids: Iterable[SegmentId]) -> None:
        """See the port."""
        with self._database.write() as connection:
            for some in chunks(segment_ids):
                connection.execute(
                    update(tables.segments).where(tables.segments.c.segment_id.in_(some)).values(released=True)
                )
                move(connection, tables.placements.c.segment_id.in_(some), [CLAIMED, STORED, LOST], CANCELLING)

    def cancel(self, contract_ids: Iterable[ContractId]) -> None:
        """See the port."""
        with self._database.write() as connection:
            for some in chunks(contract_ids):
                move(connection, tables.placements.c.contract_id.in_(some), [CLAIMED, LOST], CANCELLING)

    def mark_lost(self, contract_ids: Iterable[ContractId]) -> None:
        """See the port."""
        with self._database.write() as connection:
            for some in chunks(contract_ids):
                move(connection, tables.placements.c.contract_id.in_(some), [CLAIMED, STORED], LOST)

    def claimed(self, limit: int, after: bytes = b"") -> list[Placement]:
        """See the port."""
        table = tables.placements.c
        query = (
            select(tables.placements)
            .where(table.state == CLAIMED, table.contract_id > after)
            .order_by(table.contract_id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [read_placement(row) for row in connection.execute(query)]

    def farmers_to_cancel(self) -> Mapping[NodeId, int]:
        """See the port."""
        query = (
            select(tables.placements.c.farmer, func.count())
            .where(tables.placements.c.state == CANCELLING)
            .group_by(tables.placements.c.farmer)
        )
        with self._database.read() as connection:
            return {NodeId(farmer): count for farmer, count in connection.execute(query)}

    def cancelling(self, farmer: NodeId, limit: int, after: bytes = b"") -> list[Placement]:
        """See the port."""
        return self._at(farmer, [CANCELLING], after, limit)

    def record_erased(self, erasures: Sequence[tuple[ContractId, SignedEraseReceipt | None]], at_ms: int) -> None:
        """See the port."""
        table = tables.placements.c
        statement = (
            update(tables.placements)
            .where(table.contract_id == bindparam("of"))
            .values(
                state=int(ERASED),
                erased=func.coalesce(table.erased, bindparam("signed", type_=LargeBinary)),
                erased_ms=func.coalesce(table.erased_ms, at_ms),
            )
        )
        rows = [{"of": name, "signed": None if signed is None else encode(signed)} for name, signed in erasures]
        with self._database.write() as connection:
            if rows:
                connection.execute(statement, rows)

    def forget(self, before_ms: int) -> list[SegmentId]:
        """See the port."""
        table = tables.placements.c
        over = or_(
            (table.state == ERASED) & (table.erased_ms < before_ms),
            (table.state == CANCELLING) & (table.end_ms < before_ms),
        )
        empty = select(tables.segments.c.segment_id).where(
            tables.segments.c.released.is_(True),
            ~select(tables.placements).where(table.segment_id == tables.segments.c.segment_id).exists(),
        )
        with self._database.write() as connection:
            connection.execute(delete(tables.placements).where(over))
            kept = select(table.contract_id).where(table.state == STORED)
            connection.execute(delete(tables.renewals).where(tables.renewals.c.contract_id.not_in(kept)))
            gone = [SegmentId(value) for value in connection.scalars(empty)]
            for some in chunks(gone):
                connection.execute(delete(tables.segments).where(tables.segments.c.segment_id.in_(some)))
        return sorted(gone)

    def adopt(self, segments: Sequence[SegmentFacts], placements: Sequence[Placement]) -> int:
        """See the port."""
        with self._database.write() as connection:
            known = facts_of(connection, [each.segment_id for each in segments])
            fresh = {each.segment_id: each for each in segments if each.segment_id not in known}
            insert_rows(connection, tables.segments, [segment_row(each) for each in fresh.values()])
            known.update(fresh)
            for each in segments:
                ours = known[each.segment_id]
                merged = merge_roots(ours.roots, each.roots)
                if merged != ours.roots:
                    set_roots(connection, each.segment_id, merged)
                    known[each.segment_id] = with_roots(ours, merged)
            require_segments(connection, placements, unreleased=False)
            held = contracts_of(connection, [each.contract_id for each in placements])
            added = {each.contract_id: each for each in placements if each.contract_id not in held}
            insert_rows(connection, tables.placements, [placement_row(each) for each in added.values()])
            replace_contracts(connection, [each.contract for each in placements if each.contract_id in held])
        return len(added)

    # -- farmers

    def save_announcements(self, announcements: Sequence[SignedAnnouncement]) -> None:
        """See the port."""
        newest: dict[NodeId, SignedAnnouncement] = {}
        for each in announcements:
            farmer = each.announcement.contact.node_id
            if farmer not in newest or each.announcement.issued_ms > newest[farmer].announcement.issued_ms:
                newest[farmer] = each
        rows = [
            {"farmer": farmer, "issued_ms": each.announcement.issued_ms, "announcement": encode(each)}
            for farmer, each in newest.items()
        ]
        with self._database.write() as connection:
            if rows:
                connection.execute(upsert(connection, tables.announcements, newer="issued_ms"), rows)

    def announcements(self) -> list[SignedAnnouncement]:
        """See the port."""
        query = select(tables.announcements.c.announcement).order_by(tables.announcements.c.farmer)
        with self._database.read() as connection:
            return [decode(SignedAnnouncement, value) for value in connection.scalars(query)]

    def forget_farmers(self, issued_before_ms: int) -> frozenset[NodeId]:
        """See the port."""
        announced, placed = tables.announcements.c, tables.placements.c
        dealt_with = (
            select(placed.farmer).where(placed.farmer == announced.farmer, placed.state.in_(list(PlacementState))),
            *(
                select(table.c.farmer).where(table.c.farmer == announced.farmer)
                for table in (tables.dossiers, tables.farmer_counters)
            ),
        )
        old = select(announced.farmer).where(
            announced.issued_ms < issued_before_ms, *(~query.exists() for query in dealt_with)
        )
        with self._database.write() as connection:
            farmers = frozenset(NodeId(row) for row in connection.scalars(old))
            for some in chunks(farmers):
                connection.execute(delete(tables.announcements).where(announced.farmer.in_(some)))
            return farmers

    def note_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """See the port."""
        table = tables.farmer_counters.c
        with self._database.write() as connection:
            counters: dict[tuple[NodeId, OutcomeKind], Counter] = {}
            for some in chunks({each.farmer for each in outcomes}):
                for row in connection.execute(select(tables.farmer_counters).where(table.farmer.in_(some))):
                    counters[NodeId(row.farmer), to_member(OutcomeKind, row.kind)] = read_counter(row)
            touched = {}
            for each in outcomes:
                key = (each.farmer, each.kind)
                touched[key] = counters[key] = counters.get(key, Counter()).after(each)
            rows = [counter_row(farmer, kind, counter) for (farmer, kind), counter in touched.items()]
            if rows:
                connection.execute(upsert(connection, tables.farmer_counters), rows)

    def farmer_stats(self, now_ms: int) -> list[FarmerStats]:
        """See the port."""
        query = select(tables.farmer_counters).order_by(tables.farmer_counters.c.farmer, tables.farmer_counters.c.kind)
        with self._database.read() as connection:
            return [
                read_counter(row).stats(NodeId(row.farmer), to_member(OutcomeKind, row.kind), now_ms)
                for row in connection.execute(query)
            ]

    def counts(self) -> AgentCounts:
        """See the port."""
        listed, _ = with_stored()
        each = listed.subquery()

        def below(bound: str) -> ColumnElement[int]:
            return func.coalesce(func.sum(case((each.c.stored < each.c[bound], 1), else_=0)), 0)

        states = select(tables.placements.c.state, func.count()).group_by(tables.placements.c.state)
        size = select(func.coalesce(func.sum(tables.segments.c.shard_bytes), 0)).join_from(
            tables.placements, tables.segments
        )
        released = select(func.count()).select_from(tables.segments).where(tables.segments.c.released.is_(True))
        with self._database.read() as connection:
            row = connection.execute(select(func.count(), below("n"), below("r"), below("k")).select_from(each)).one()
            return AgentCounts(
                segments=row[0],
                released=connection.execute(released).scalar_one(),
                wanting=row[1],
                endangered=row[2],
                unreadable=row[3],
                placements={to_member(PlacementState, state): count for state, count in connection.execute(states)},
                stored_bytes=connection.execute(size.where(tables.placements.c.state == STORED)).scalar_one(),
                farmers=connection.execute(select(func.count()).select_from(tables.announcements)).scalar_one(),
            )

    def _at(self, farmer: NodeId, states: Sequence[PlacementState], after: bytes, limit: int) -> list[Placement]:
        table = tables.placements.c
        query = (
            select(tables.placements)
            .where(table.state.in_(states), table.farmer == farmer, table.contract_id > after)
            .order_by(table.contract_id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [read_placement(row) for row in connection.execute(query)]
