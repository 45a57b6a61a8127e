"""Between the agent's values and the rows of `agent.db`, and the small statements several calls share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import Enum
from itertools import zip_longest
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, distinct, func, select, update

from stook.codec import decode, encode
from stook.contracts.contract import Contract
from stook.contracts.messages import Renew
from stook.contracts.receipt import SignedEraseReceipt, SignedStorageReceipt
from stook.errors import ConflictError, CorruptionError, MalformedError, NotFoundError, UserError
from stook.ids import ROOT_BYTES, ContractId, NodeId, SegmentId, ShardRoot
from stook.shards.geometry import Policy
from stook.storage.agent_tables import placements, renewals, segments
from stook.storage.database import chunks
from stook.storage.fading import Counter
from stook.storage.renter_ports import OutcomeKind, Placement, PlacementState, SegmentFacts

E = TypeVar("E", bound=Enum)
UNKNOWN_ROOT = bytes(ROOT_BYTES)
"""How a root that is not known stands in the `roots` column; no shard has it."""


def segment_row(facts: SegmentFacts) -> dict[str, Any]:
    """The row of a segment. Raises `ValueError` when its roots are not `total` in number."""
    if len(facts.roots) != facts.total:
        raise ValueError(f"segment {facts.segment_id.hex()} has {facts.total} indices and {len(facts.roots)} roots")
    return {
        "segment_id": facts.segment_id,
        "k": facts.policy.k,
        "r": facts.policy.r,
        "o": facts.policy.o,
        "n": facts.policy.n,
        "shard_bytes": facts.shard_bytes,
        "roots": join_roots(facts.roots),
        "created_ms": facts.created_ms,
        "released": False,
    }


def join_roots(roots: Sequence[ShardRoot]) -> bytes:
    """The `roots` column."""
    return b"".join(root or UNKNOWN_ROOT for root in roots)


def merge_roots(known: Sequence[ShardRoot], heard: Sequence[ShardRoot]) -> tuple[ShardRoot, ...]:
    """`known`, its gaps filled and its end lengthened from `heard`."""
    empty = ShardRoot(b"")
    return tuple(ours or theirs for ours, theirs in zip_longest(known, heard, fillvalue=empty))


def with_roots(facts: SegmentFacts, roots: tuple[ShardRoot, ...]) -> SegmentFacts:
    """The segment with these roots and as many indices."""
    return replace(facts, total=len(roots), roots=roots)


def read_facts(row: Row[Any]) -> SegmentFacts:
    """The segment of a row. Raises `CorruptionError` when its numbers make no policy."""
    pieces = [row.roots[start : start + ROOT_BYTES] for start in range(0, len(row.roots), ROOT_BYTES)]
    try:
        policy = Policy(row.k, row.r, row.o, row.n)
    except UserError as error:
        raise CorruptionError(f"segment {row.segment_id.hex()} is damaged: {error}") from error
    return SegmentFacts(
        segment_id=SegmentId(row.segment_id),
        policy=policy,
        total=len(pieces),
        shard_bytes=row.shard_bytes,
        roots=tuple(ShardRoot(b"" if piece == UNKNOWN_ROOT else piece) for piece in pieces),
        created_ms=row.created_ms,
    )


def placement_row(placement: Placement) -> dict[str, Any]:
    """The row of a new placement."""
    return {
        "contract_id": placement.contract_id,
        "segment_id": placement.segment_id,
        "shard_index": placement.index,
        "copy": placement.copy,
        "farmer": placement.farmer,
        "state": int(placement.state),
        "end_ms": placement.contract.terms.end_ms,
        "contract": encode(placement.contract),
        "receipt": None if placement.receipt is None else encode(placement.receipt),
        "erased": None if placement.erased is None else encode(placement.erased),
        "erased_ms": None if placement.erased is None else placement.erased.receipt.erased_at_ms,
        "stored_ms": placement.stored_ms,
        "proved_ms": placement.proved_ms,
        "audit_interval_ms": placement.contract.terms.audit.interval_ms,
        "audit_leaves": placement.contract.terms.audit.leaves_per_interval,
    }


def read_placement(row: Row[Any]) -> Placement:
    """The placement of a row. Raises `CorruptionError` when it does not decode."""
    try:
        contract = decode(Contract, row.contract)
        return Placement(
            segment_id=SegmentId(row.segment_id),
            index=row.shard_index,
            copy=row.copy,
            root=contract.terms.shard_root,
            farmer=NodeId(row.farmer),
            contract=contract,
            state=PlacementState(row.state),
            receipt=None if row.receipt is None else decode(SignedStorageReceipt, row.receipt),
            erased=None if row.erased is None else decode(SignedEraseReceipt, row.erased),
            stored_ms=row.stored_ms,
            proved_ms=row.proved_ms,
        )
    except (MalformedError, ValueError) as error:
        raise CorruptionError(f"the placement under contract {row.contract_id.hex()} is damaged: {error}") from error


def counter_row(farmer: NodeId, kind: OutcomeKind, counter: Counter) -> dict[str, Any]:
    """The row of a farmer's counter."""
    return {
        "farmer": farmer,
        "kind": int(kind),
        "successes": counter.successes,
        "failures": counter.failures,
        "value_sum": counter.value_sum,
        "value_weight": counter.value_weight,
        "failures_in_a_row": counter.failures_in_a_row,
        "last_ok_ms": counter.last_ok_ms,
        "last_ms": counter.last_ms,
    }


def to_member(kind: type[E], number: int) -> E:
    """The member of an enum that a column names. Raises `CorruptionError` when it names none."""
    try:
        return kind(number)
    except ValueError as error:
        raise CorruptionError(f"the agent's database is damaged: {error}") from None


def read_counter(row: Row[Any]) -> Counter:
    """The counter of a row."""
    return Counter(
        row.successes,
        row.failures,
        row.value_sum,
        row.value_weight,
        row.failures_in_a_row,
        row.last_ok_ms,
        row.last_ms,
    )


# ---------------------------------------------------------------------------------------------------- shared statements


def facts_of(connection: Connection, segment_ids: Iterable[SegmentId]) -> dict[SegmentId, SegmentFacts]:
    """Those of the segments that are known."""
    found = {}
    for some in chunks(segment_ids):
        for row in connection.execute(select(segments).where(segments.c.segment_id.in_(some))):
            found[SegmentId(row.segment_id)] = read_facts(row)
    return found


def contracts_of(connection: Connection, contract_ids: Iterable[ContractId]) -> dict[ContractId, Contract]:
    """Those of the contracts that are known."""
    table = placements.c
    found = {}
    for some in chunks(contract_ids):
        query = select(table.contract_id, table.contract).where(table.contract_id.in_(some))
        for contract_id, contract in connection.execute(query):
            found[ContractId(contract_id)] = decode(Contract, contract)
    return found


def require_contracts(connection: Connection, contract_ids: Sequence[ContractId]) -> None:
    """Raises `NotFoundError` unless all are known."""
    wanted = set(contract_ids)
    for some in chunks(contract_ids):
        query = select(placements.c.contract_id).where(placements.c.contract_id.in_(some))
        wanted.difference_update(ContractId(value) for value in connection.scalars(query))
    for missing in wanted:
        raise NotFoundError(f"no placement under contract {missing.hex()}")


def require_segments(connection: Connection, claims: Sequence[Placement], *, unreleased: bool) -> None:
    """Raises `NotFoundError` unless all segments are known, `ConflictError` on a released one with `unreleased`."""
    wanted = {each.segment_id for each in claims}
    released = set()
    for some in chunks(list(wanted)):
        query = select(segments.c.segment_id, segments.c.released).where(segments.c.segment_id.in_(some))
        for segment_id, is_released in connection.execute(query):
            wanted.discard(SegmentId(segment_id))
            if is_released:
                released.add(segment_id)
    for missing in wanted:
        raise NotFoundError(f"no segment {missing.hex()}")
    if unreleased and released:
        raise ConflictError(f"segment {released.pop().hex()} is released")


def set_roots(connection: Connection, segment_id: SegmentId, roots: Sequence[ShardRoot]) -> None:
    """Write a segment's roots."""
    statement = update(segments).where(segments.c.segment_id == segment_id)
    connection.execute(statement.values(roots=join_roots(roots)))


def replace_contracts(connection: Connection, contracts: Sequence[Contract]) -> None:
    """Keep those contracts that are later revisions of what is held; what was asked for about them is answered."""
    names = [each.contract_id for each in contracts]
    held = contracts_of(connection, names)
    for each in contracts:
        if each.terms.revision > held[each.contract_id].terms.revision:
            held[each.contract_id] = each
            statement = update(placements).where(placements.c.contract_id == each.contract_id)
            connection.execute(statement.values(contract=encode(each), end_ms=each.terms.end_ms))
    asked = renewals_of(connection, names)
    answered = [name for name, each in asked.items() if each.terms.revision <= held[name].terms.revision]
    for some in chunks(answered):
        connection.execute(delete(renewals).where(renewals.c.contract_id.in_(some)))


def renewals_of(connection: Connection, contract_ids: Iterable[ContractId]) -> dict[ContractId, Renew]:
    """What was asked for about these contracts and not answered."""
    found = {}
    for some in chunks(contract_ids):
        query = select(renewals.c.contract_id, renewals.c.request).where(renewals.c.contract_id.in_(some))
        for name, request in connection.execute(query):
            found[ContractId(name)] = decode(Renew, request)
    return found


def move(
    connection: Connection,
    which: ColumnElement[bool],
    states: Sequence[PlacementState],
    to: PlacementState,
) -> None:
    """Those placements that are in one of `states` go to `to`."""
    statement = update(placements).where(which, placements.c.state.in_(states))
    connection.execute(statement.values(state=int(to)))


def with_stored() -> tuple[Select[Any], ColumnElement[int]]:
    """Unreleased segments with the number of distinct indices STORED (column `stored`), and that column."""
    table = placements.c
    held = (
        select(table.segment_id, func.count(distinct(table.shard_index)).label("stored"))
        .where(table.state == PlacementState.STORED)
        .group_by(table.segment_id)
        .subquery()
    )
    stored = func.coalesce(held.c.stored, 0)
    query = (
        select(segments, stored.label("stored"))
        .outerjoin(held, held.c.segment_id == segments.c.segment_id)
        .where(segments.c.released.is_(False))
    )
    return query, stored
