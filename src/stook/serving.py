"""A renter's home served to others: the S3 gateway, its keys, and the chores that go with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import string
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from stook.assembly import Renter, SystemClock, system_entropy
from stook.chore import Chore
from stook.errors import EnvironmentFault, StookError, UserError
from stook.gateway.s3.janitor import Janitor
from stook.gateway.s3.request import Gateway
from stook.gateway.s3.server import S3Server
from stook.renter.objects import Objects
from stook.renter.saver import Saver
from stook.storage.s3_ports import AccessKey, Right

TIDY_SECONDS = 5.0
LIFECYCLE_SECONDS = 3600.0
DEFAULT_DOMAINS = ("localhost", "localhost.localdomain")
ENVIRONMENT_KEYS = (
    ("STOOK_S3_ACCESS_KEY", "STOOK_S3_SECRET_KEY"),
    ("STOOK_S3_ALT_ACCESS_KEY", "STOOK_S3_ALT_SECRET_KEY"),
)
_ALPHABET = string.ascii_letters + string.digits
OnError = Callable[[str, BaseException], None]


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made: the only moment its secret is shown."""

    key_id: str
    secret: str


@dataclass(frozen=True, slots=True)
class Serving:
    """A gateway that listens."""

    port: int
    server: S3Server
    objects: Objects
    chores: tuple[Chore, ...]


def random_text(count: int, alphabet: str = _ALPHABET) -> str:
    """So many unpredictable characters."""
    size, text = len(alphabet), ""
    while len(text) < count:
        # Bytes beyond the last whole multiple are passed over, so that no character is likelier than another.
        text += "".join(alphabet[byte % size] for byte in system_entropy(count) if byte < 256 - 256 % size)
    return text[:count]


@asynccontextmanager
async def open_objects(renter: Renter) -> AsyncIterator[Objects]:
    """The way in and out for streams of a renter that is open, until the block ends."""
    objects = renter.client.objects(renter.catalog.s3)
    await objects.open()
    try:
        yield objects
    finally:
        await objects.aclose()


@asynccontextmanager
async def serve_s3(
    renter: Renter,
    *,
    host: str,
    port: int,
    domains: Sequence[str] = (),
    region: str = "us-east-1",
    max_connections: int = 256,
    on_error: OnError,
) -> AsyncIterator[Serving]:
    """The gateway, until the block ends. Raises `EnvironmentFault` when it cannot listen there."""
    async with AsyncExitStack() as stack:
        saver = renter.client.saver
        if saver is not None:
            stack.push_async_callback(_save, renter, saver, on_error)
        objects = await stack.enter_async_context(open_objects(renter))
        tidy = Chore("tidy s3", TIDY_SECONDS, renter.client.collect_garbage, on_error)
        with contextlib.suppress(StookError):  # what a gateway that was killed left behind; the list of it is durable
            await tidy.step()
        janitor = Janitor(objects, on_error)
        gateway = Gateway(
            objects=objects,
            owner_id=renter.key.node_id.hex().ljust(64, "0"),
            region=region,
            domains=(*(each.lower() for each in domains), *DEFAULT_DOMAINS),
        )
        server = S3Server(gateway, max_connections=max_connections, on_error=on_error)
        try:
            bound = await server.start(host, port)
        except OSError as error:
            await server.stop()
            raise EnvironmentFault(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
        stack.push_async_callback(server.stop)
        lifecycle = Chore("lifecycle", LIFECYCLE_SECONDS, janitor.sweep, on_error)
        chores = (tidy, lifecycle, *([] if saver is None else [saver.chore(on_error)]))
        running = [asyncio.create_task(chore.run()) for chore in chores]
        try:
            yield Serving(bound, server, objects, chores)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def _save(renter: Renter, saver: Saver, on_error: OnError) -> None:
    """The last save, when everything that came in is committed; then what it set free is given up."""
    try:
        await saver.save_due()
        await renter.client.collect_garbage()
    except StookError as error:
        on_error("save", error)


# --------------------------------------------------------------------------------------------------------- access keys


async def create_key(objects: Objects, rights: Sequence[Right], note: str) -> NewKey:
    """A key with a random secret. Raises `UserError` without any right, or with a note that is too long."""
    if not rights or not all(right.read or right.write for right in rights):
        raise UserError("a key without rights is of no use: say --read or --write")
    if len(note) > 200:
        raise UserError("a note has at most 200 characters")
    made = NewKey("ST" + random_text(18, string.ascii_uppercase + "234567"), random_text(40))
    await _keep(objects, made, rights, note)
    return made


async def _keep(objects: Objects, made: NewKey, rights: Sequence[Right], note: str) -> bool:
    sealed = objects.seal_secret(made.key_id, made.secret)
    key = AccessKey(made.key_id, sealed, tuple(rights), note, SystemClock().now_ms())
    return await objects.offload(lambda: objects.store.put_key(key))


async def keys_from_environment(objects: Objects, environment: Mapping[str, str] | None = None) -> list[str]:
    """Make the keys that the environment names, with every right; their ids.

    One that is there keeps its rights and gets the secret given, a revoked one stays revoked. Raises `UserError`.
    """
    values = os.environ if environment is None else environment
    made = []
    for id_name, secret_name in ENVIRONMENT_KEYS:
        key_id, secret = values.get(id_name, ""), values.get(secret_name, "")
        if not key_id and not secret:
            continue
        if not (3 <= len(key_id) <= 128 and key_id.isascii() and key_id.isalnum()) or not 8 <= len(secret) <= 128:
            raise UserError(f"{id_name} has 3 to 128 letters and digits, {secret_name} 8 to 128 characters")
        if await _keep(objects, NewKey(key_id, secret), (Right("*", True, True),), f"from {id_name}"):
            made.append(key_id)
    return made
