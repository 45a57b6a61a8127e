"""Access keys of the gateway, in SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, select, update

from stook.codec import decode, encode
from stook.storage.catalog_tables import access_keys
from stook.storage.database import Database, insert_rows
from stook.storage.s3_ports import MAX_FACT_BYTES, AccessKey, Right


class SqlKeys:
    """That part of `s3_ports.S3Store`."""

    _database: Database

    def add_key(self, key: AccessKey) -> None:
        """See the port."""
        with self._database.write() as connection:
            insert_rows(connection, access_keys, [_row(key)])

    def put_key(self, key: AccessKey) -> bool:
        """See the port."""
        here = access_keys.c.key_id == key.key_id
        with self._database.write() as connection:
            row = connection.execute(select(access_keys).where(here)).one_or_none()
            if row is None:
                insert_rows(connection, access_keys, [_row(key)])
            elif not row.revoked_ms:
                connection.execute(update(access_keys).where(here).values(_row(key) | {"rights": row.rights}))
            return row is None or not row.revoked_ms

    def key(self, key_id: str) -> AccessKey | None:
        """See the port."""
        with self._database.read() as connection:
            row = connection.execute(select(access_keys).where(access_keys.c.key_id == key_id)).one_or_none()
        return None if row is None else _read(row)

    def keys(self) -> list[AccessKey]:
        """See the port."""
        with self._database.read() as connection:
            return [_read(row) for row in connection.execute(select(access_keys).order_by(access_keys.c.key_id))]

    def revoke_key(self, key_id: str, now_ms: int) -> bool:
        """See the port."""
        which = (access_keys.c.key_id == key_id) & (access_keys.c.revoked_ms == 0)
        with self._database.write() as connection:
            return bool(connection.execute(update(access_keys).where(which).values(revoked_ms=now_ms)).rowcount)


def _row(key: AccessKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "sealed_secret": key.sealed_secret,
        "rights": encode(key.rights),
        "note": key.note,
        "created_ms": key.created_ms,
        "revoked_ms": key.revoked_ms,
    }


def _read(row: Row[Any]) -> AccessKey:
    rights: tuple[Right, ...] = decode(tuple[Right, ...], row.rights, max_bytes=MAX_FACT_BYTES)
    return AccessKey(row.key_id, row.sealed_secret, rights, row.note, row.created_ms, row.revoked_ms)
