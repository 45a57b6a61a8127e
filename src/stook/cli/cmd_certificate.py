"""`stook certificate`: what restore drills proved, signed, to be shown to others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stook.cli.certified import certificate_fields, certificate_lines
from stook.cli.local_tree import shown
from stook.cli.output import emit, plural, say, warn
from stook.cli.renting import open_home
from stook.cli.run import json_option, pass_home, run
from stook.errors import NotFoundError, UserError

if TYPE_CHECKING:
    from stook.assembly import Renter
    from stook.renter.certificate import SignedCertificate

PATH = click.Path(dir_okay=False, path_type=Path)


@click.group("certificate")
def certificate_command() -> None:
    """Show, export and check restore certificates.

    A certificate says how much of a bucket restore drills (`stook drill`) brought back over a period, what failed, and
    what may be unreadable at most. It is signed by the owner and names the one before it, so that none can be left out
    or made up later. Anybody can check one without a home and without a network.
    """


async def _kept(renter: Renter, bucket: str, limit: int | None) -> list[SignedCertificate]:
    kept = await renter.client.driller.certificates(bucket, limit)
    if not kept:
        raise NotFoundError(f"there is no certificate of {shown(bucket)} yet: `stook drill --bucket {shown(bucket)}`")
    return kept


@certificate_command.command("show")
@click.argument("bucket", metavar="[BUCKET]", required=False)
@click.option("--all", "every", is_flag=True, help="All there are, not only the newest.")
@json_option
@pass_home
def show_command(home: Path, bucket: str | None, every: bool, as_json: bool) -> None:
    """Show the newest certificate of a bucket, or of each.

    --json prints one line for each.
    """

    async def work() -> None:
        async with open_home(home, refresh=False) as renter:
            names = [bucket] if bucket is not None else [each.name for each in await renter.client.buckets()]
            count = 0
            for name in names:
                if bucket is not None:
                    kept = await _kept(renter, name, None if every else 1)
                else:
                    kept = await renter.client.driller.certificates(name, None if every else 1)
                for signed in kept:
                    count += 1
                    if as_json:
                        emit({"bucket": name} | certificate_fields(signed.certificate))
                    else:
                        say(f"Restore certificate of {shown(name)}")
                        for line in certificate_lines(signed.certificate):
                            say(line)
            if not count and not as_json:
                warn("No certificate yet: `stook drill` makes them.")

    run(work())


@certificate_command.command("export")
@click.argument("bucket")
@click.argument("file", type=PATH)
@click.option("--all", "every", is_flag=True, help="The whole chain, not only the newest.")
@json_option
@pass_home
def export_command(home: Path, bucket: str, file: Path, every: bool, as_json: bool) -> None:
    """Write a bucket's newest certificate to FILE, for whoever wants to check it.

    It holds the bucket's random id and the owner's public key, no name and nothing that opens anything. A file holds
    the newest thousand at most. An existing FILE is not replaced.
    """
    from stook.codec import encode
    from stook.renter.certificate import FILE_VERSION, MAX_CHAIN, CertificateFile
    from stook.storage.durable import faults

    async def work() -> list[SignedCertificate]:
        async with open_home(home, refresh=False) as renter:
            return await _kept(renter, bucket, MAX_CHAIN if every else 1)

    kept = run(work())
    if file.exists():
        raise UserError(f"{file} exists already: remove it, or write to another file")
    with faults(f"cannot write {file}"), file.open("xb") as opened:
        opened.write(encode(CertificateFile(FILE_VERSION, tuple(kept))))
    if as_json:
        emit({"ok": True, "file": str(file), "certificates": len(kept)})
    else:
        say(f"{plural(len(kept), 'certificate')} of {shown(bucket)} in {file}.")


@certificate_command.command("verify")
@click.argument("what", metavar="FILE|BUCKET")
@json_option
@pass_home
def verify_command(home: Path, what: str, as_json: bool) -> None:
    """Check certificates: signatures, arithmetic, and that each follows the one before.

    Those in FILE, for which no home is needed; or, when there is no such file, all of one of our own buckets. Whether
    the owner's key is whose you think it is, and whether the owner drilled what it says, nobody can tell from them.
    Exit code 6 if one is wrong.
    """
    from stook.renter.certificate import verify_chain

    certificates = _read(Path(what)) if Path(what).is_file() else _own(home, what)
    verify_chain(certificates)
    if as_json:
        found = [certificate_fields(signed.certificate) for signed in certificates]
        emit({"ok": True, "certificates": found, "whole_chain": certificates[0].certificate.sequence == 1})
        return
    many = "holds" if len(certificates) == 1 else "hold, each following the one before; the newest"
    say(f"{plural(len(certificates), 'restore certificate')} {many}:")
    for line in certificate_lines(certificates[-1].certificate):
        say(line)


def _read(file: Path) -> Sequence[SignedCertificate]:
    from stook.codec import MAX_MESSAGE_BYTES
    from stook.renter.certificate import read_certificate_file
    from stook.storage.durable import faults

    with faults(f"cannot read {file}"), file.open("rb") as opened:
        data = opened.read(MAX_MESSAGE_BYTES + 1)
    return read_certificate_file(data).certificates


def _own(home: Path, bucket: str) -> Sequence[SignedCertificate]:
    from stook.config import CONFIG_NAME

    if not (home / CONFIG_NAME).exists():
        raise NotFoundError(f"there is no file {bucket}")

    async def work() -> list[SignedCertificate]:
        async with open_home(home, refresh=False) as renter:
            return await _kept(renter, bucket, None)

    return run(work())
