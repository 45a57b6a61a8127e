"""The journal of `catalog.db`: which rows changed, and what of them is saved where (`docs/formats/journal.md`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, false, func, insert, select, true, update

from stook.codec import decode, encode
from stook.errors import ConflictError
from stook.ids import SegmentId
from stook.storage.catalog_tables import CATALOG_SCHEMA, buckets, garbage, objects
from stook.storage.database import Database, upsert
from stook.storage.journal_ports import Draft, JournalState, Unsaved
from stook.storage.journal_records import (
    MAX_FRAME_BYTES,
    Block,
    PartRef,
    Point,
    SaveRef,
    absorbed,
    frame,
    next_sequence,
    points_to_keep,
    sequence_of,
)
from stook.storage.journal_tables import (
    journal_changes,
    journal_points,
    journal_saves,
    journal_state,
    journaled_tables,
    wanted_triggers,
)

SENDING, KEPT, GIVEN_UP = 1, 2, 3
"""States of a save; the numbers are the stored format."""
BOOKKEEPING = frozenset(
    {"segments", "uploads", "upload_segments", "garbage", "proofs", "drill_days", "certificates", "counters"}
)
"""Tables whose changes alone take nothing from anybody when they are lost."""
_BLOCK_ROWS = 256
_BLOCK_BYTES = 64 << 10
_Chain = tuple[int, ...]


class SqlJournal:
    """`journal_ports.Journal` over the catalog's database."""

    def __init__(self, database: Database) -> None:
        """Raises as `Database` does."""
        self._database = database
        self._watch()

    def _watch(self) -> None:
        """Have every change noted. What went unnoticed (a migration, an older program) is saved with a new base."""
        with self._database.read() as connection:
            if not _missing_triggers(connection):
                return
        with self._database.write() as connection:
            for statement in _missing_triggers(connection):
                connection.exec_driver_sql(statement)
            connection.execute(update(journal_state).values(whole=True))

    def state(self) -> JournalState:
        """See the port."""
        with self._database.read() as connection:
            row = _state(connection)
        return JournalState(row.writer, row.epoch, row.generation, row.saved, row.saved_ms, row.alarm, row.record)

    def unsaved(self, limit: int) -> Unsaved:
        """See the port."""
        changes = journal_changes.c
        with self._database.read() as connection:
            state = _state(connection)
            new = changes.generation > state.saved
            counted = select(changes.source, func.count()).where(new).group_by(changes.source)
            counts = {row[0]: int(row[1]) for row in connection.execute(counted)}
            query = select(func.count(), func.coalesce(func.sum(objects.c.size_bytes), 0)).select_from(objects)
            named = select(buckets.c.name.label("bucket"), objects.c.name).select_from(
                objects.join(buckets, buckets.c.number == objects.c.bucket)
            )
            if state.saved_ms == 0:  # nothing was ever saved, and what was there before the journal was is not noted
                counts = {table: _count(connection, table) for table in journaled_tables(connection)}
            else:
                fresh = objects.c.number.in_(select(changes.key1).where(new, changes.source == objects.name))
                query, named = query.where(fresh), named.where(fresh)
            count, size = connection.execute(query).one()
            waits = false() if state.saved_ms == 0 else true() if state.whole else _noted_after(state.saved)
            waiting = connection.scalar(select(func.count()).select_from(garbage).where(waits)) or 0
            names = connection.execute(named.order_by(objects.c.number).limit(limit)).all()
        return Unsaved(
            rows=sum(counts.values()),
            pressing=sum(rows for table, rows in counts.items() if table not in BOOKKEEPING),
            waiting=waiting,
            objects=count,
            size_bytes=size,
            names=tuple((row.bucket.decode(), row.name.decode()) for row in names),
        )

    # -- saving

    def begin(self) -> Draft:
        """See the port."""
        with self._database.write() as connection:
            state = _state(connection)
            if state.alarm:
                raise ConflictError(state.alarm)
            epoch, counter = next_sequence(state.epoch, state.counter)
            connection.execute(
                update(journal_state).values(epoch=epoch, counter=counter, generation=state.generation + 1)
            )
            saves = {save.sequence: save for save in _saves(connection, KEPT)}
            points = _points(connection)
            chain = () if state.whole or not points else _keep(connection, points[-1].chain, saves, state.frozen)
            sequence = sequence_of(epoch, counter)
            connection.execute(
                insert(journal_saves).values(sequence=sequence, state=SENDING, parts=encode(()), ref=b"")
            )
        return Draft(
            sequence=sequence,
            writer=state.writer,
            generation=state.generation,
            since=saves[chain[-1]].generation if chain else -1,
            chain=chain,
            saves=tuple(saves.values()),
            points=tuple(points),
            schema=CATALOG_SCHEMA.head,
        )

    @contextmanager
    def read(self, draft: Draft) -> Iterator[SqlReading]:
        """See the port."""
        with self._database.read() as connection:
            yield SqlReading(connection, draft.since)

    def add_part(self, sequence: int, part: PartRef) -> None:
        """See the port."""
        with self._database.write() as connection:
            here = journal_saves.c.sequence == sequence
            before = connection.execute(select(journal_saves.c.parts).where(here)).scalar_one()
            connection.execute(update(journal_saves).where(here).values(parts=encode((*_parts(before), part))))

    def finish(self, draft: Draft, save: SaveRef, record: bytes, now_ms: int, history_ms: int) -> None:
        """See the port."""
        with self._database.write() as connection:
            state = _state(connection)
            _keep_save(connection, save)
            _keep_point(connection, save.sequence, Point(save.saved_ms, (*draft.chain, save.sequence)))
            connection.execute(
                update(journal_state).values(
                    saved=max(state.saved, draft.generation),
                    saved_ms=now_ms,
                    record=record,
                    **({"whole": False, "frozen": 0} if draft.base else {}),
                )
            )
            _thin(connection, now_ms, history_ms)
            oldest = (*draft.chain, save.sequence)[0]
            base = next(each for each in _saves(connection, KEPT) if each.sequence == oldest)
            connection.execute(delete(journal_changes).where(journal_changes.c.generation <= base.generation))

    def to_release(self) -> Sequence[tuple[int, tuple[SegmentId, ...]]]:
        """See the port."""
        with self._database.read() as connection:
            query = select(journal_saves).where(journal_saves.c.state == GIVEN_UP)
            return [(row.sequence, _segments(row.parts)) for row in connection.execute(query)]

    def confirm_released(self, sequences: Iterable[int]) -> None:
        """See the port."""
        with self._database.write() as connection:
            for sequence in sequences:
                gone = (journal_saves.c.sequence == sequence) & (journal_saves.c.state == GIVEN_UP)
                connection.execute(delete(journal_saves).where(gone))

    # -- looking

    def saves(self) -> list[SaveRef]:
        """See the port."""
        with self._database.read() as connection:
            return _saves(connection, KEPT)

    def points(self) -> list[Point]:
        """See the port."""
        with self._database.read() as connection:
            return _points(connection)

    def segments(self) -> frozenset[SegmentId]:
        """See the port."""
        with self._database.read() as connection:
            lists = connection.scalars(select(journal_saves.c.parts)).all()
        return frozenset(segment_id for parts in lists for segment_id in _segments(parts))

    # -- who writes

    def sound(self, alarm: str) -> None:
        """See the port."""
        with self._database.write() as connection:
            connection.execute(update(journal_state).where(journal_state.c.alarm == "").values(alarm=alarm[:500]))

    def take_over(self, epoch: int) -> None:
        """See the port."""
        with self._database.write() as connection:
            if epoch <= _state(connection).epoch:
                raise ConflictError(f"epoch {epoch} is not after the present one")
            connection.execute(update(journal_state).values(epoch=epoch, counter=0, whole=True, alarm=""))

    def adopt(self, epoch: int, saves: Sequence[SaveRef], points: Sequence[Point], record: bytes, schema: str) -> None:
        """See the port."""
        last = saves[-1]
        with self._database.write() as connection:
            for save in saves:
                _keep_save(connection, save)
            for point in points:
                _keep_point(connection, point.chain[-1], point)
            connection.execute(delete(journal_changes))
            connection.execute(
                update(journal_state).values(
                    epoch=epoch,
                    counter=0,
                    generation=last.generation + 1,
                    saved=last.generation,
                    saved_ms=last.saved_ms,
                    # What changed before is noted nowhere here, so these saves cannot be taken in one by one.
                    frozen=last.sequence,
                    whole=schema != CATALOG_SCHEMA.head,
                    alarm="",
                    record=record,
                )
            )


class SqlReading:
    """`journal_ports.Reading`: the gone rows first, so that no two rows ever claim one name."""

    def __init__(self, connection: Connection, since: int) -> None:
        self._connection = connection
        self._since = since
        self.rows = 0

    def frames(self) -> Iterator[bytes]:
        """See the port."""
        tables = journaled_tables(self._connection)
        if self._since >= 0:
            for table, key in tables.items():
                yield from self._blocks(table, key, _gone_query(table, key), gone=True)
        for table, key in tables.items():
            columns = tuple(row[1] for row in self._connection.exec_driver_sql(f'PRAGMA table_info("{table}")'))
            yield from self._blocks(table, columns, _rows_query(table, columns, key, whole=self._since < 0), gone=False)

    def _blocks(self, table: str, columns: tuple[str, ...], query: str, *, gone: bool) -> Iterator[bytes]:
        parameters: tuple[Any, ...] = (table, self._since) if "?" in query else ()
        rows: list[tuple[Any, ...]] = []
        size = 0
        for row in self._connection.exec_driver_sql(query, parameters):
            values = tuple(row)
            rows.append(values)
            size += sum(len(value) if isinstance(value, bytes | str) else 9 for value in values)
            if len(rows) >= _BLOCK_ROWS or size >= _BLOCK_BYTES:
                yield frame(Block(table, columns, gone, tuple(rows)))
                self.rows += len(rows)
                rows, size = [], 0
        if rows:
            yield frame(Block(table, columns, gone, tuple(rows)))
            self.rows += len(rows)


def saved_garbage(connection: Connection) -> ColumnElement[bool] | None:
    """Which rows of `garbage` may be released, as a condition; None: not one.

    The saved catalog still names what became garbage after the save: whoever recovers that catalog needs those bytes.
    """
    state = _state(connection)
    if state.alarm:  # another device's catalog is the true one, perhaps, and what it names is not known here
        return None
    if state.saved_ms == 0:  # there is no saved catalog
        return true()
    if state.whole:  # some of what changed after the save is noted nowhere
        return None
    return ~_noted_after(state.saved)


def _noted_after(generation: int) -> ColumnElement[bool]:
    """Whether a row of `garbage` came after a generation."""
    noted = select(journal_changes.c.generation).where(
        journal_changes.c.source == garbage.name,
        journal_changes.c.key1 == garbage.c.segment,
        journal_changes.c.generation > generation,
    )
    return noted.exists()


# ---------------------------------------------------------------------------------------------------------- statements


def _changed(key: tuple[str, ...]) -> str:
    match = " AND ".join(f'c.key{at} IS t."{name}"' for at, name in enumerate(key, 1))
    return f"c.source = ? AND c.generation > ? AND {match}"


def _gone_query(table: str, key: tuple[str, ...]) -> str:
    keys = ", ".join(f"c.key{at}" for at in range(1, len(key) + 1))
    match = " AND ".join(f't."{name}" = c.key{at}' for at, name in enumerate(key, 1))
    return (
        f"SELECT {keys} FROM journal_changes c WHERE c.source = ? AND c.generation > ? "
        f'AND NOT EXISTS (SELECT 1 FROM "{table}" t WHERE {match})'
    )


def _rows_query(table: str, columns: tuple[str, ...], key: tuple[str, ...], *, whole: bool) -> str:
    shown = ", ".join(f't."{name}"' for name in columns)
    if whole:
        return f'SELECT {shown} FROM "{table}" t'
    match = " AND ".join(f't."{name}" = c.key{at}' for at, name in enumerate(key, 1))
    return (
        f'SELECT {shown} FROM journal_changes c CROSS JOIN "{table}" t ON {match} '
        "WHERE c.source = ? AND c.generation > ?"
    )


def _missing_triggers(connection: Connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    there = {row[0] for row in connection.exec_driver_sql(query)}
    return [statement for name, statement in wanted_triggers(connection).items() if name not in there]


def _state(connection: Connection) -> Any:
    return connection.execute(select(journal_state)).one()


def _count(connection: Connection, table: str) -> int:
    return int(connection.exec_driver_sql(f'SELECT count(*) FROM "{table}"').scalar_one())


def _saves(connection: Connection, state: int) -> list[SaveRef]:
    query = select(journal_saves.c.ref).where(journal_saves.c.state == state).order_by(journal_saves.c.sequence)
    return [decode(SaveRef, ref, max_bytes=MAX_FRAME_BYTES) for ref in connection.scalars(query)]


def _points(connection: Connection) -> list[Point]:
    query = select(journal_points.c.chain).order_by(journal_points.c.sequence)
    return [decode(Point, chain) for chain in connection.scalars(query)]


def _parts(ref: bytes) -> tuple[PartRef, ...]:
    return decode(tuple[PartRef, ...], ref, max_bytes=MAX_FRAME_BYTES)


def _segments(parts: bytes) -> tuple[SegmentId, ...]:
    return tuple(part.segment_id for part in _parts(parts))


def _keep_save(connection: Connection, save: SaveRef) -> None:
    row = {"sequence": save.sequence, "state": KEPT, "parts": encode(save.parts), "ref": encode(save)}
    connection.execute(upsert(connection, journal_saves), [row])


def _keep_point(connection: Connection, sequence: int, point: Point) -> None:
    row = {"sequence": sequence, "saved_ms": point.saved_ms, "chain": encode(point)}
    connection.execute(upsert(connection, journal_points), [row])


def _keep(connection: Connection, chain: _Chain, saves: dict[int, SaveRef], frozen: int) -> _Chain:
    """As much of the chain as a save of what changed since its end leaves standing."""
    last = saves[chain[-1]].generation
    query = select(func.count()).select_from(journal_changes).where(journal_changes.c.generation > last)
    changed = connection.scalar(query) or 0
    solid = tuple(
        sequence for sequence in chain if sequence <= frozen
    )  # all or none of these, whose changes are not noted
    rest = chain[len(solid) :]
    sizes = ([sum(saves[one].rows for one in solid)] if solid else []) + [saves[one].rows for one in rest]
    keep = absorbed(sizes, changed)
    if not solid:
        return chain[:keep]
    return () if keep == 0 else (*solid, *rest[: keep - 1])


def _thin(connection: Connection, now_ms: int, history_ms: int) -> None:
    """Forget points that are too close together or too old, and give up the saves that none of the others needs."""
    points = {point.chain[-1]: point for point in _points(connection)}
    keep = points_to_keep(((sequence, point.saved_ms) for sequence, point in points.items()), now_ms, history_ms)
    needed = {one for sequence in keep for one in points[sequence].chain}
    newest = max(points)
    gone = [sequence for sequence in points if sequence not in keep]
    for sequence in gone:
        connection.execute(delete(journal_points).where(journal_points.c.sequence == sequence))
    for sequence in connection.scalars(select(journal_saves.c.sequence)).all():
        # One under way that is older than what was accepted just now was interrupted: nothing will name it again.
        if sequence not in needed and sequence < newest:
            here = journal_saves.c.sequence == sequence
            connection.execute(update(journal_saves).where(here).values(state=GIVEN_UP))
