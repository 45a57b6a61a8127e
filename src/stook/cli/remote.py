"""Remote names as people type them: ``bucket/name``, with ``stook:`` before them where local paths may stand too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import click

from stook.errors import UserError

SCHEME = "stook:"


@dataclass(frozen=True, slots=True)
class RemoteName:
    """A bucket and a name in it; an empty name means the whole bucket."""

    bucket: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``bucket/name``, ``bucket/`` or ``bucket``. Raises `UserError`."""
        bucket, _, name = text.removeprefix(SCHEME).partition("/")
        if not bucket:
            raise UserError(f"{text!r} names no bucket: write BUCKET/NAME")
        return cls(bucket, name)

    @classmethod
    def parse_object(cls, text: str) -> Self:
        """Read ``bucket/name``. Raises `UserError` without a name."""
        remote = cls.parse(text)
        if not remote.name:
            raise UserError(f"{text!r} names a bucket, not an object: write BUCKET/NAME")
        return remote

    def __str__(self) -> str:
        return f"{self.bucket}/{self.name}"


class RemoteType(click.ParamType[RemoteName]):
    """``BUCKET/NAME`` on the command line."""

    name = "bucket/name"

    def __init__(self, *, needs_name: bool) -> None:
        self._needs_name = needs_name

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> RemoteName:
        """Parse, turning `UserError` into a usage error."""
        if isinstance(value, RemoteName):
            return value
        try:
            return (RemoteName.parse_object if self._needs_name else RemoteName.parse)(str(value))
        except UserError as error:
            self.fail(str(error), param, ctx)


REMOTE_OBJECT = RemoteType(needs_name=True)
REMOTE = RemoteType(needs_name=False)
