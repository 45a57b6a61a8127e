"""`stook keys`: access keys of the S3 gateway."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stook.cli.catalogued import save_before_end
from stook.cli.output import emit, human_time, say
from stook.cli.renting import open_home
from stook.cli.run import json_option, pass_home, run
from stook.errors import NotFoundError

if TYPE_CHECKING:
    from stook.storage.s3_ports import AccessKey, Right


@click.group("keys")
def keys_command() -> None:
    """Access keys of the S3 gateway. A running one knows of changes at once."""


def _words(rights: tuple[Right, ...]) -> str:
    said = []
    for right in rights:
        what = "reads and writes" if right.read and right.write else "reads" if right.read else "writes"
        said.append(f"{what} {'every bucket' if right.bucket == '*' else right.bucket}")
    return ", ".join(said)


@keys_command.command("create")
@click.option("--bucket", "buckets", multiple=True, help="Only for this bucket, which need not exist yet; repeatable.")
@click.option("--read", "read", is_flag=True, help="It may read and list. Without --read and --write: both.")
@click.option("--write", "write", is_flag=True, help="It may store, delete and configure.")
@click.option("--note", default="", help="What it is for, to be shown by `stook keys list`.")
@json_option
@pass_home
def create_command(home: Path, buckets: tuple[str, ...], read: bool, write: bool, note: str, as_json: bool) -> None:
    """Make a key. Its secret is shown this once and kept encrypted.

    \b
    stook keys create --bucket photos --read --note "the frame in the hall"
    """
    from stook.serving import create_key
    from stook.storage.s3_ports import Right

    both = not read and not write
    rights = tuple(Right(name, read or both, write or both) for name in buckets or ("*",))

    async def work() -> None:
        async with open_home(home, refresh=False) as renter:
            made = await create_key(renter.client.objects(renter.catalog.s3), rights, note)
            await save_before_end(renter, None)
        if as_json:
            emit({"ok": True, "access_key": made.key_id, "secret_key": made.secret})
            return
        say(f"Access key  {made.key_id}")
        say(f"Secret key  {made.secret}")
        say(f"It {_words(rights)}. The secret is not shown again.")

    run(work())


def _fields(key: AccessKey) -> dict[str, Any]:
    return {
        "access_key": key.key_id,
        "rights": [{"bucket": each.bucket, "read": each.read, "write": each.write} for each in key.rights],
        "note": key.note,
        "created_ms": key.created_ms,
        "revoked_ms": key.revoked_ms or None,
    }


@keys_command.command("list")
@json_option
@pass_home
def list_command(home: Path, as_json: bool) -> None:
    """Show all keys and what they may do; never their secrets."""

    async def work() -> list[AccessKey]:
        async with open_home(home, refresh=False) as renter:
            return await renter.client.objects(renter.catalog.s3).keys()

    keys = run(work())
    if as_json:
        emit({"ok": True, "keys": [_fields(key) for key in keys]})
        return
    if not keys:
        say("No keys yet: `stook keys create` makes one.")
    for key in keys:
        state = f"revoked {human_time(key.revoked_ms)}" if key.revoked_ms else _words(key.rights)
        note = f"  ({key.note})" if key.note else ""
        say(f"{key.key_id:<22}{human_time(key.created_ms)}  {state}{note}")


@keys_command.command("revoke")
@click.argument("access_key")
@json_option
@pass_home
def revoke_command(home: Path, access_key: str, as_json: bool) -> None:
    """Let a key open nothing any more, from this moment on. There is no way back: make another."""

    async def work() -> bool:
        async with open_home(home, refresh=False) as renter:
            revoked = await renter.client.objects(renter.catalog.s3).revoke(access_key)
            await save_before_end(renter, None)  # else it would be in force again in a catalog that is recovered
            return revoked

    if not run(work()):
        raise NotFoundError(f"there is no key {access_key} in force")
    if as_json:
        emit({"ok": True, "revoked": access_key})
    else:
        say(f"Revoked {access_key}.")
