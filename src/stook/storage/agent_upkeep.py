"""The part of `agent.db` that is about renewing and giving up: `agent_upkeep_ports.UpkeepStore` in SQL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, func, literal, or_, select, update
from sqlalchemy.orm import aliased

from stook.codec import decode, encode
from stook.contracts.contract import Contract
from stook.contracts.messages import Renew
from stook.ids import ContractId, NodeId
from stook.storage import agent_tables as tables
from stook.storage.agent_rows import move, read_placement, renewals_of, replace_contracts, require_contracts
from stook.storage.audit_records import read_silence
from stook.storage.database import Database, chunks, upsert
from stook.storage.renter_ports import Placement, PlacementState

CLAIMED, STORED, CANCELLING, ERASED, LOST = PlacementState
_TABLE = tables.placements.c


class SqlUpkeepStore:
    """`agent_upkeep_ports.UpkeepStore` over one database file."""

    _database: Database

    # -- renewals

    def ending(self, before_ms: int, limit: int, after: Placement | None = None) -> list[Placement]:
        """See the port."""
        query = (
            select(tables.placements)
            .join(tables.segments)
            .where(_TABLE.state == STORED, _TABLE.end_ms < before_ms, tables.segments.c.released.is_(False))
            .order_by(_TABLE.end_ms, _TABLE.contract_id)
            .limit(limit)
        )
        if after is not None:
            end_ms = after.contract.terms.end_ms
            later = (_TABLE.end_ms == end_ms) & (_TABLE.contract_id > after.contract_id)
            query = query.where(or_(_TABLE.end_ms > end_ms, later))
        with self._database.read() as connection:
            return [read_placement(row) for row in connection.execute(query)]

    def renewals(self, contract_ids: Iterable[ContractId]) -> Mapping[ContractId, Renew]:
        """See the port."""
        with self._database.read() as connection:
            return renewals_of(connection, contract_ids)

    def ask_renewal(self, request: Renew) -> Renew | None:
        """See the port."""
        name = request.terms.contract_id
        with self._database.write() as connection:
            query = select(_TABLE.contract).where(_TABLE.contract_id == name, _TABLE.state == STORED)
            held = connection.execute(query).scalar_one_or_none()
            if held is None or decode(Contract, held).terms.revision + 1 != request.terms.revision:
                return None
            kept = renewals_of(connection, [name]).get(name)
            if kept is not None and kept.terms.revision == request.terms.revision:
                return kept
            row = {"contract_id": name, "request": encode(request)}
            connection.execute(upsert(connection, tables.renewals), [row])
        return request

    def drop_renewal(self, request: Renew) -> None:
        """See the port."""
        table = tables.renewals.c
        this = (table.contract_id == request.terms.contract_id) & (table.request == encode(request))
        with self._database.write() as connection:
            connection.execute(delete(tables.renewals).where(this))

    def renew(self, contracts: Sequence[Contract]) -> None:
        """See the port."""
        names = [each.contract_id for each in contracts]
        with self._database.write() as connection:
            require_contracts(connection, names)
            replace_contracts(connection, contracts)

    # -- giving up

    def cancel_stored(self, contract_ids: Iterable[ContractId]) -> None:
        """See the port."""
        with self._database.write() as connection:
            for some in chunks(contract_ids):
                move(connection, _TABLE.contract_id.in_(some), [CLAIMED, STORED, LOST], CANCELLING)

    def surplus(
        self, doubtful: Collection[NodeId], limit: int, lapsing_ms: int = 0, before_ms: int = 2**62
    ) -> list[ContractId]:
        """See the port."""
        with self._database.read() as connection:
            return _named(connection, _surplus(doubtful, lapsing_ms, before_ms).limit(limit))

    def cancel_surplus(self, lapsing_ms: int, limit: int, before_ms: int = 2**62) -> list[ContractId]:
        """See the port."""
        if not self.surplus((), 1, lapsing_ms, before_ms):  # the rule; then nobody need wait for a writer
            return []
        with self._database.write() as connection:
            names = _named(connection, _surplus(_doubtful(connection), lapsing_ms, before_ms).limit(limit))
            _give_up(connection, names)
        return names

    def cancel_moved(self, contract_ids: Iterable[ContractId], lapsing_ms: int) -> list[ContractId]:
        """See the port."""
        names = list(contract_ids)
        if not names:
            return []
        other = aliased(tables.placements).c
        moved: list[ContractId] = []
        with self._database.write() as connection:
            doubtful = set(_doubtful(connection))
            proved = _elsewhere(other).where(other.proved_ms > 0, other.end_ms > lapsing_ms)
            for some in chunks(sorted(doubtful)):
                proved = proved.where(other.farmer.not_in(some))
            for wanted in chunks(names):
                here = select(_TABLE.contract_id, _TABLE.farmer).where(_TABLE.contract_id.in_(wanted))
                rows = connection.execute(here.where(_TABLE.state == STORED, proved.exists()))
                moved += [ContractId(row.contract_id) for row in rows if row.farmer in doubtful]
            _give_up(connection, moved)
        return sorted(moved)

    def lost_and_replaced(self, limit: int) -> list[ContractId]:
        """See the port."""
        with self._database.read() as connection:
            return _named(connection, _lost_and_replaced().limit(limit))

    def cancel_replaced(self, limit: int) -> list[ContractId]:
        """See the port."""
        if not self.lost_and_replaced(1):
            return []
        with self._database.write() as connection:
            names = _named(connection, _lost_and_replaced().limit(limit))
            _give_up(connection, names)
        return names

    def expire(self, before_ms: int) -> int:
        """See the port."""
        over = _TABLE.state.in_([CLAIMED, STORED, LOST]) & (_TABLE.end_ms < before_ms)
        with self._database.read() as connection:
            if not connection.execute(select(func.count()).where(over)).scalar_one():
                return 0
        with self._database.write() as connection:
            statement = update(tables.placements).where(over).values(state=int(CANCELLING))
            return connection.execute(statement).rowcount


# ------------------------------------------------------------------------------------------------------- statements


def _named(connection: Connection, query: Select[Any]) -> list[ContractId]:
    return [ContractId(value) for value in connection.scalars(query)]


def _give_up(connection: Connection, names: Sequence[ContractId]) -> None:
    for some in chunks(names):
        move(connection, _TABLE.contract_id.in_(some), [CLAIMED, STORED, LOST], CANCELLING)


def _doubtful(connection: Connection) -> list[NodeId]:
    table = tables.dossiers.c
    rows = connection.execute(select(table.farmer, table.silence, table.leaving_by_ms))
    return [NodeId(row.farmer) for row in rows if row.leaving_by_ms or not read_silence(row.silence).may_be_given_more]


def _elsewhere(other: Any) -> Select[Any]:
    """Another placement of the same shard, with a receipt."""
    return select(literal(1)).where(
        other.segment_id == _TABLE.segment_id,
        other.shard_index == _TABLE.shard_index,
        other.copy == _TABLE.copy,
        other.contract_id != _TABLE.contract_id,
        other.state == STORED,
    )


def _surplus(doubtful: Collection[NodeId], lapsing_ms: int, before_ms: int) -> Select[Any]:
    other = aliased(tables.placements).c
    earlier: ColumnElement[bool] = or_(
        other.stored_ms < _TABLE.stored_ms,
        (other.stored_ms == _TABLE.stored_ms) & (other.contract_id < _TABLE.contract_id),
    )
    better = _elsewhere(other).where(other.proved_ms > _TABLE.stored_ms, other.end_ms > lapsing_ms, earlier)
    query = select(_TABLE.contract_id).where(_TABLE.state == STORED, _TABLE.stored_ms < before_ms)
    for some in chunks(sorted(doubtful)):
        better = better.where(other.farmer.not_in(some))
        query = query.where(_TABLE.farmer.not_in(some))
    return query.where(better.exists()).order_by(_TABLE.contract_id)


def _lost_and_replaced() -> Select[Any]:
    other = aliased(tables.placements).c
    return (
        select(_TABLE.contract_id)
        .join_from(tables.placements, tables.segments)
        .where(_TABLE.state == LOST, or_(tables.segments.c.released.is_(True), _elsewhere(other).exists()))
        .order_by(_TABLE.contract_id)
    )
