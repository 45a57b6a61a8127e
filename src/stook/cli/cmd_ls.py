"""`stook ls`: buckets, or what is in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stook.cli.local_tree import shown
from stook.cli.output import emit, human_size, human_time, plural, say, warn
from stook.cli.proved import bucket_fields, proof_fields, proved_words
from stook.cli.remote import REMOTE, RemoteName
from stook.cli.renting import open_home
from stook.cli.run import json_option, pass_home, run
from stook.errors import NotFoundError

if TYPE_CHECKING:
    from stook.renter.client import Client
    from stook.storage.drill_ports import ObjectProof
    from stook.storage.renter_ports import ObjectSummary

_PAGE = 1000
_PROOF_WIDTH = 16


async def below(client: Client, remote: RemoteName) -> str:
    """The beginning of names that is meant: ``2026`` means what is in ``2026/``, when there is such a thing."""
    if not remote.name or remote.name.endswith("/"):
        return remote.name
    folder = remote.name + "/"
    page = await client.list_objects(remote.bucket, prefix=folder, limit=1)
    return folder if page.objects else remote.name


def object_line(summary: ObjectSummary, proof: ObjectProof | None = None, *, long: bool) -> str:
    """One object for people."""
    name = shown(summary.name)
    if not long:
        return name
    proven = proved_words(proof, empty=not summary.size_bytes)
    return f"{human_size(summary.size_bytes):>9}  {human_time(summary.modified_ms)}  {proven:<{_PROOF_WIDTH}}  {name}"


async def _list_buckets(client: Client, *, as_json: bool) -> None:
    status = await client.status()
    totals = status.buckets
    for name, total in totals.items():
        if as_json:
            sums = {"bucket": name, "objects": total.objects, "size_bytes": total.size_bytes}
            emit(sums | bucket_fields(status.proofs[name]))
        else:
            say(f"{human_size(total.size_bytes):>9}  {plural(total.objects, 'object'):>15}  {shown(name)}")
    if not totals and not as_json:
        warn("No bucket yet: `stook mb NAME` makes one.")


async def _list_objects(client: Client, remote: RemoteName, *, long: bool, recursive: bool, as_json: bool) -> int:
    prefix, after, count = await below(client, remote), "", 0
    if prefix != remote.name:
        # An object may be called as the folder is.
        same = (await client.list_objects(remote.bucket, prefix=remote.name, limit=1)).objects
        for summary in same:
            if summary.name == remote.name:
                count += 1
                proofs = await _proofs(client, remote.bucket, [summary], wanted=long or as_json)
                _print_object(summary, proofs, long=long, as_json=as_json)
    while True:
        page = await client.list_objects(
            remote.bucket, prefix=prefix, delimiter="" if recursive else "/", after=after, limit=_PAGE
        )
        proofs = await _proofs(client, remote.bucket, page.objects, wanted=long or as_json)
        items: list[ObjectSummary | str] = [*page.objects, *page.prefixes]
        for item in sorted(items, key=lambda item: _name(item).encode()):
            count += 1
            if not isinstance(item, str):
                _print_object(item, proofs, long=long, as_json=as_json)
            elif as_json:
                emit({"prefix": item})
            else:
                say(f"{'':>9}  {'':16}  {'':{_PROOF_WIDTH}}  {shown(item)}" if long else shown(item))
        if page.next_after is None:
            return count
        after = page.next_after


def _name(item: ObjectSummary | str) -> str:
    return item if isinstance(item, str) else item.name


async def _proofs(
    client: Client, bucket: str, summaries: Sequence[ObjectSummary], *, wanted: bool
) -> Mapping[str, ObjectProof]:
    return await client.proofs(bucket, [summary.name for summary in summaries]) if wanted else {}


def _print_object(summary: ObjectSummary, proofs: Mapping[str, ObjectProof], *, long: bool, as_json: bool) -> None:
    proof = proofs.get(summary.name)
    if as_json:
        emit(
            {
                "name": summary.name,
                "size_bytes": summary.size_bytes,
                "modified_ms": summary.modified_ms,
                "version": summary.version,
            }
            | proof_fields(proof)
        )
    else:
        say(object_line(summary, proof, long=long))


@click.command("ls")
@click.argument("remote", metavar="[BUCKET[/PREFIX]]", type=REMOTE, required=False)
@click.option("-l", "--long", is_flag=True, help="Sizes, dates, and last proven restorable, too.")
@click.option("-r", "--recursive", is_flag=True, help="Every object, not only the next level.")
@json_option
@pass_home
def ls_command(home: Path, remote: RemoteName | None, long: bool, recursive: bool, as_json: bool) -> None:
    """List buckets, or what is in one.

    Buckets come with their totals, names in byte order. PREFIX is a folder, as '/' in names makes them, or any
    beginning of names. Names come whole, as other commands take them; what cannot be printed is escaped. --json prints
    one line for each bucket, object and folder. Nothing is asked of farmers: the list is in the catalog, on this
    machine.

    With -l the third column says when a restore drill (`stook drill`) last brought every byte of the object back:
    never, when some of it was never drilled; failing, when the last try failed; - for an empty object.
    """

    async def work() -> None:
        async with open_home(home, refresh=False) as renter:
            if remote is None:
                await _list_buckets(renter.client, as_json=as_json)
                return
            count = await _list_objects(renter.client, remote, long=long, recursive=recursive, as_json=as_json)
            if not count and remote.name:
                raise NotFoundError(f"nothing in {remote.bucket} begins with {shown(remote.name)}")

    run(work())
