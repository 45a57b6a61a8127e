"""`stook serve`: what is stored, served to programs that know nothing of Stook."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import structlog

from stook.cli.cmd_agent import only_agent
from stook.cli.output import emit, say, warn
from stook.cli.renting import open_home
from stook.cli.run import json_option, pass_home, run, until_stopped
from stook.errors import ConflictError, UserError

if TYPE_CHECKING:
    from stook.assembly import Renter


@click.group("serve")
def serve_command() -> None:
    """Serve what is stored to other programs, from this machine, which holds the keys."""


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``. Raises `UserError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        raise UserError(f"--listen is HOST:PORT, such as 127.0.0.1:9000, not {text!r}")
    return host.strip("[]"), int(port)


@asynccontextmanager
async def chores_of(renter: Renter, home: Path) -> AsyncIterator[bool]:
    """Run the agent's chores for the length of a block, unless an agent does it; whether they are run here."""
    async with AsyncExitStack() as stack:
        try:
            stack.enter_context(only_agent(home))
        except ConflictError:
            yield False
            return
        await renter.agent.repairer.resume()
        chores = [asyncio.create_task(chore.run()) for chore in renter.agent.chores]
        try:
            yield True
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)


@serve_command.command("s3")
@click.option("--listen", default="127.0.0.1:9000", show_default=True, help="HOST:PORT to listen on; port 0: any.")
@click.option(
    "--domain",
    "domains",
    multiple=True,
    help="Host name under which buckets are host names too: BUCKET.DOMAIN. `localhost` always is one.",
)
@click.option("--region", default="us-east-1", show_default=True, help="What to call this place; any is accepted.")
@click.option("--max-requests", default=256, show_default=True, help="Requests at once; more are told to slow down.")
@click.option("--with-parent", is_flag=True, help="Stop when standard input closes.")
@json_option
@pass_home
def s3_command(
    home: Path,
    listen: str,
    domains: tuple[str, ...],
    region: str,
    max_requests: int,
    with_parent: bool,
    as_json: bool,
) -> None:
    """An S3 endpoint for AWS CLI, boto3, rclone, restic and their like, until interrupted.

    Make keys with `stook keys create`, or name them in the environment: STOOK_S3_ACCESS_KEY and STOOK_S3_SECRET_KEY,
    and a second pair STOOK_S3_ALT_ACCESS_KEY and STOOK_S3_ALT_SECRET_KEY. What is supported is listed in docs/s3.md.
    It speaks plain HTTP: listen on this machine alone, or put a proxy with TLS before it. Looks after what is stored
    as `stook agent run` does, unless that runs already.

    \b
    stook keys create
    stook serve s3
    aws --endpoint-url http://127.0.0.1:9000 s3 mb s3://photos
    """
    from stook.serving import keys_from_environment, serve_s3

    host, port = parse_listen(listen)
    log = structlog.get_logger("stook.s3")

    def on_error(what: str, error: BaseException) -> None:
        log.error("request failed", request=what, why=f"{type(error).__name__}: {error}", exc_info=error)

    async def work() -> None:
        async with open_home(home, refresh=True) as renter, chores_of(renter, home) as caring:
            serving_s3 = serve_s3(
                renter,
                host=host,
                port=port,
                domains=domains,
                region=region,
                max_connections=max_requests,
                on_error=on_error,
            )
            async with serving_s3 as serving:
                await keys_from_environment(serving.objects)
                url = f"http://{host}:{serving.port}"
                keys = [key for key in await serving.objects.offload(serving.objects.store.keys) if not key.revoked_ms]
                if as_json:
                    emit({"event": "ready", "url": url, "keys": [key.key_id for key in keys]})
                else:
                    say(f"S3 at {url}, until it is interrupted.")
                    if not keys:
                        warn("There is no access key yet: make one with `stook keys create`.")
                    if not caring:
                        warn("An agent looks after this home already.")
                    if host not in ("127.0.0.1", "::1", "localhost"):
                        warn("This is plain HTTP, and not only for this machine: put a proxy with TLS before it.")
                await until_stopped(with_parent=with_parent)

    run(work())
