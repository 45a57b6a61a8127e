"""An issuer's invites on disk: a file for each, and a second one, which can be made only once, for what ended it.

So of two that redeem one invite, or one that redeems and an issuer who takes it back, exactly one succeeds, whatever
processes they are in; and a kill at any moment leaves the file whole or not at all (`docs/formats/invite.md`).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from stook.clock import Entropy
from stook.codec import Record, decode, encode
from stook.errors import ConflictError, CorruptionError, MalformedError
from stook.identity.invite import KeptInvite, Redemption
from stook.storage.durable import faults, sync_directory, sync_file

MAX_INVITES = 4096
MAX_FILE_BYTES = 4096
_INVITE, _REDEMPTION, _FRESH = ".invite", ".redeemed", ".new"
_STALE_SECONDS = 3600.0
"""After so long a file that was never published belongs to a process that died."""
T = TypeVar("T", bound=Record)


class InviteStore:
    """The invites in one folder. Calls block; several processes may use it at once."""

    def __init__(self, folder: Path, entropy: Entropy) -> None:
        self._folder = folder
        self._entropy = entropy

    def add(self, invite: KeptInvite) -> None:
        """Remember an invite; durable when this returns. Raises `ConflictError` for a known id, or too many."""
        with faults(f"making {self._folder}"):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self._folder.parent)
        self._sweep()
        if len(self.all()) >= MAX_INVITES:
            raise ConflictError(f"{self._folder} holds {MAX_INVITES} invites: take some back or let them run out")
        if not self._publish(invite.invite_id, _INVITE, invite):
            raise ConflictError("there is an invite of this id already")

    def get(self, invite_id: bytes) -> KeptInvite | None:
        """The invite, used or not; None when there is none. Raises `CorruptionError`."""
        return self._read(invite_id, _INVITE, KeptInvite)

    def redemption(self, invite_id: bytes) -> Redemption | None:
        """What ended it; None while it is open. Raises `CorruptionError`."""
        return self._read(invite_id, _REDEMPTION, Redemption)

    def end(self, redemption: Redemption) -> bool:
        """Use an invite up, or take it back: durable when this returns True; False when that was done before."""
        return self._publish(redemption.invite_id, _REDEMPTION, redemption)

    def all(self) -> list[KeptInvite]:
        """Every invite, the newest first."""
        found = []
        with faults(f"reading {self._folder}"):
            names = [path.name for path in self._folder.glob(f"*{_INVITE}")] if self._folder.is_dir() else []
        for name in names:
            with suppress(ValueError):
                invite = self.get(bytes.fromhex(name.removesuffix(_INVITE)))
                if invite is not None:
                    found.append(invite)
        return sorted(found, key=lambda one: (-one.issued_ms, one.invite_id))

    def forget(self, invite_id: bytes) -> None:
        """Remove all of an invite; nothing happens when there is none."""
        with faults(f"removing from {self._folder}"):
            # The invite first: what ended it must not be gone while the invite could be used again.
            for suffix in (_INVITE, _REDEMPTION):
                with suppress(FileNotFoundError):
                    self._path(invite_id, suffix).unlink()
                    sync_directory(self._folder)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _path(self, invite_id: bytes, suffix: str) -> Path:
        return self._folder / f"{invite_id.hex()}{suffix}"

    def _read(self, invite_id: bytes, suffix: str, kind: type[T]) -> T | None:
        path = self._path(invite_id, suffix)
        with faults(f"reading {path}"):
            try:
                with path.open("rb") as file:
                    data = file.read(MAX_FILE_BYTES + 1)
            except FileNotFoundError:
                return None
        try:
            return decode(kind, data, max_bytes=MAX_FILE_BYTES)
        except MalformedError as error:
            raise CorruptionError(f"{path}: {error}") from error

    def _publish(self, invite_id: bytes, suffix: str, record: Record) -> bool:
        """Write beside, sync, then give it its name, which only one can have."""
        fresh = self._folder / f"{self._entropy(8).hex()}{_FRESH}"
        with faults(f"writing to {self._folder}"):
            try:
                with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                    file.write(encode(record))
                    file.flush()
                    sync_file(file.fileno())
                os.link(fresh, self._path(invite_id, suffix))
            except FileExistsError:
                return False
            finally:
                with suppress(FileNotFoundError):
                    fresh.unlink()
            sync_directory(self._folder)
        return True

    def _sweep(self) -> None:
        with faults(f"reading {self._folder}"):
            for path in self._folder.glob(f"*{_FRESH}"):
                with suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                        path.unlink()
