"""The door of this room: call nodes, serve calls, and know who is at the other end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from stook.clock import Clock, Entropy
from stook.codec import decode, encode
from stook.errors import (
    BugError,
    DeadlineError,
    EnvironmentFault,
    MalformedError,
    MisbehaviourError,
    ReasonCode,
    RefusedError,
    StookError,
    UnreachableError,
)
from stook.identity.contact import MAX_CONTACT_BYTES, Address, SignedContact
from stook.identity.keys import NodeKey
from stook.identity.membership import Gate
from stook.ids import NONCE_BYTES, NetworkId, NodeId, SessionNonce
from stook.wire.carrier import Carrier, Connection, Listener, Receiver
from stook.wire.events import Opened, RequestReceived
from stook.wire.exchange import Exchange
from stook.wire.hello import Party, Role
from stook.wire.limits import Limits
from stook.wire.link import PING, Link, NotLookedAtError
from stook.wire.pace import Pace
from stook.wire.pool import Pool
from stook.wire.session import Session

__all__ = ["Carrier", "Endpoint", "Exchange", "Handler", "Limits", "OnContact", "OnError", "Peer", "Reached"]

PROBE = "PROBE"
MAX_PING_BYTES = 64

Handler = Callable[[Exchange, bytes], Awaitable[None]]
"""Serves one method: gets the exchange and the request's payload. What it raises becomes a signed refusal."""
OnError = Callable[[str, Exception], None]
"""Told of exceptions that are nobody's answer: the method's name and the exception."""
OnSession = Callable[[NodeId, str], None]
OnContact = Callable[[SignedContact, "Reached | None"], None]
"""Told of the verified contact that a peer brought in its hello, and how we reached it; None when it called us."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to call, and where it may be found. Without addresses only a session it opened to us can reach it."""

    node_id: NodeId
    addresses: tuple[Address, ...] = ()

    @classmethod
    def of(cls, contact: SignedContact) -> Peer:
        """The peer that a contact describes."""
        return cls(contact.node_id, contact.contact.addresses)


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a session that we opened leads."""

    host: str
    """As dialled: a name or a literal."""
    port: int
    remote_host: str
    """As the network calls it: what the name stood for."""


class Endpoint:
    """One node's wire. Use it on one event loop; `close` it before the loop ends.

    One session per peer, dialled when first needed and closed when idle; calls go both ways over it, so that a node
    behind NAT can be called over the session it opened. What a handler raises becomes a signed refusal: `RefusedError`
    and `MisbehaviourError` with their code, any other exception as INTERNAL, told to `on_error`.
    """

    def __init__(
        self,
        *,
        key: NodeKey,
        network: NetworkId,
        clock: Clock,
        entropy: Entropy,
        carrier: Carrier,
        limits: Limits = Limits(),  # noqa: B008 - a frozen value
        puzzle_nonce: int = 0,
        gate: Gate | None = None,
        on_error: OnError | None = None,
        on_contact: OnContact | None = None,
    ) -> None:
        self.node_id: NodeId = key.node_id
        self.contact: SignedContact | None = None
        """Our own signed contact: sent in every hello and in answer to PROBE. Set it once the addresses are known."""
        self.clock = clock
        self.entropy = entropy
        self.limits = limits
        self.upload = Pace(limits.upload_bytes_per_second)
        self.download = Pace(limits.download_bytes_per_second)
        self._key = key
        self._network = network
        self._carrier = carrier
        self._puzzle_nonce = puzzle_nonce
        self._gate = gate
        self._on_error = on_error if on_error is not None else _report_to_loop
        self.on_contact = on_contact
        self.on_session: OnSession | None = None
        """Told of every session that opens, whoever opened it, with the host at its other end."""
        """May be set later, by whoever keeps contacts."""
        self._handlers: dict[str, Handler] = {PING: _serve_ping, PROBE: self._serve_probe}
        self._pool = Pool(limits, self._dial)
        self._listeners: list[Listener] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._all_gone: asyncio.Future[None] | None = None
        self._closing = False

    @property
    def connected_peers(self) -> tuple[NodeId, ...]:
        """The nodes that can be called without dialling."""
        return self._pool.peers()

    # --- serving -----------------------------------------------------------------------------------------------------

    def handle(self, method: str, handler: Handler) -> None:
        """Serve `method` (1 to 32 characters of ``A-Z 0-9 _``) with `handler`. PING and PROBE are served already."""
        self._handlers[method] = handler

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept connections; the host and port really bound. Raises `EnvironmentFault`."""
        listener = await self._carrier.listen(host, port, self._accept)
        self._listeners.append(listener)
        return listener.address

    # --- calling -----------------------------------------------------------------------------------------------------

    async def call(self, to: Peer, method: str, payload: bytes, *, deadline_seconds: float) -> bytes:
        """One request, one reply.

        Raises `RefusedError`, `UnreachableError`, `DeadlineError`, `MisbehaviourError` or `MalformedError`. A session
        that ends before the peer looked at the request is replaced, once.
        """
        async with self._deadline(method, to, deadline_seconds) as links:
            while True:
                exchange = await self._open(to, method, payload, alone=True, links=links)
                try:
                    return await exchange.next_reply()
                except NotLookedAtError:
                    if len(links) > 1:
                        raise
                finally:
                    exchange.leave()

    def exchange(
        self, to: Peer, method: str, payload: bytes, *, deadline_seconds: float
    ) -> AbstractAsyncContextManager[Exchange]:
        """Open an exchange; leaving the block before the peer said END resets it.

        The deadline covers the whole block; the errors are those of `call`.
        """
        return self._exchange(to, method, payload, deadline_seconds)

    @asynccontextmanager
    async def _exchange(
        self, to: Peer, method: str, payload: bytes, deadline_seconds: float
    ) -> AsyncIterator[Exchange]:
        async with self._deadline(method, to, deadline_seconds) as links:
            exchange = await self._open(to, method, payload, alone=False, links=links)
            try:
                yield exchange
            finally:
                exchange.leave()

    async def probe(self, host: str, port: int, *, deadline_seconds: float) -> SignedContact:
        """Ask whoever listens at an address for its contact, checked against the key that answered."""
        link: Link | None = None
        try:
            async with asyncio.timeout(deadline_seconds) as deadline:
                link = await self._connect(host, port, None)
                exchange = await link.open(PROBE, b"", alone=True)
                try:
                    answer = await exchange.next_reply()
                finally:
                    exchange.leave()
        except TimeoutError:
            if not deadline.expired():
                raise
            raise DeadlineError(f"{host}:{port} did not answer a PROBE in {deadline_seconds:g} s") from None
        finally:
            if link is not None:
                link.retire()
        signed = decode(SignedContact, answer, max_bytes=MAX_CONTACT_BYTES)
        peer = link.peer_id.hex()
        if not link.member_until_ms:
            raise MisbehaviourError(ReasonCode.NOT_A_MEMBER, "does not belong to this grid", peer=peer)
        if signed.node_id != link.peer_id or signed.contact.network != self._network:
            raise MisbehaviourError(ReasonCode.WRONG_IDENTITY, "PROBE answered with another node's contact", peer=peer)
        if not signed.verifies():
            raise MisbehaviourError(ReasonCode.BAD_SIGNATURE, "PROBE answered with an unsigned contact", peer=peer)
        return signed

    async def ping(self, to: Peer, *, deadline_seconds: float) -> float:
        """Seconds for one signed request and reply; the first one to a peer includes opening the session."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        payload = self.entropy(NONCE_BYTES)
        answer = await self.call(to, PING, payload, deadline_seconds=deadline_seconds)
        if answer != payload:
            raise MisbehaviourError(ReasonCode.UNBOUND_REPLY, "PING answered with other bytes", peer=to.node_id.hex())
        return loop.time() - begun

    async def close(self, *, grace_seconds: float = 5) -> None:
        """Accept nothing new, let exchanges under way finish for `grace_seconds`, then end every session."""
        self._closing = True
        for listener in self._listeners:
            await listener.close()
        self._listeners.clear()
        await self._pool.stop_dialling()
        for link in self._pool.links:
            if link.greeting:
                link.abort(UnreachableError("this node is shutting down"))
            else:
                link.retire()
        await self._wait_for_links(grace_seconds)
        for link in self._pool.links:
            link.abort(UnreachableError("this node is shutting down"))
        await self._wait_for_links(grace_seconds)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def has_session(self, peer: NodeId) -> bool:
        """Whether a call would use a session that is open, whoever opened it."""
        return self._pool.find(peer) is not None

    def dialled(self, peer: NodeId) -> tuple[str, int] | None:
        """Where we called this peer and found it, as long as a session from there is open."""
        return next((at for link in self._pool.links_with(peer) if (at := link.dialled) is not None), None)

    # --- what links tell ---------------------------------------------------------------------------------------------

    def link_opened(self, link: Link, opened: Opened) -> None:
        """A peer's hello was good."""
        if self._gate is not None:
            link.member_until_ms = self._gate.member_until_ms(
                opened.peer_id, opened.extension, now_ms=self.clock.now_ms()
            )
        if opened.addressed:
            self._pool.opened(link)
        if self.on_session is not None and link.member_until_ms:
            self.on_session(opened.peer_id, link.remote[0])
        if opened.contact is not None and self.on_contact is not None and link.member_until_ms:
            dialled = link.dialled
            self.on_contact(opened.contact, None if dialled is None else Reached(*dialled, link.remote[0]))

    def link_closed(self, link: Link) -> None:
        """A connection is gone."""
        self._pool.closed(link)
        if self._all_gone is not None and not self._pool.links and not self._all_gone.done():
            self._all_gone.set_result(None)

    def serve(self, link: Link, exchange: Exchange, request: RequestReceived) -> None:
        """A peer called."""
        link.request_bytes += len(request.payload)
        self.spawn(self._serve(link, exchange, request))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as a task that ends with this endpoint."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, link: Link, exchange: Exchange, request: RequestReceived) -> None:
        try:
            await self._handler_for(link, request)(exchange, request.payload)
        except Exception as error:
            self._refuse_for(exchange, error)
        finally:
            link.request_bytes -= len(request.payload)
            exchange.conclude()

    def _handler_for(self, link: Link, request: RequestReceived) -> Handler:
        if not link.session.addressed and request.method != PROBE:
            raise RefusedError(ReasonCode.UNADDRESSED_SESSION, "say whom you mean in the hello")
        self._check_member(link, request.method)
        if link.request_bytes > self.limits.max_request_bytes_per_session:
            raise RefusedError(ReasonCode.BUSY, "too many requests at once")
        handler = self._handlers.get(request.method)
        if handler is None:
            raise RefusedError(ReasonCode.UNKNOWN_METHOD, request.method)
        return handler

    def _check_member(self, link: Link, method: str) -> None:
        """Strangers get no farther in a private grid, and members no longer than their membership."""
        gate = self._gate
        if gate is not None and method not in gate.open_methods and link.member_until_ms <= self.clock.now_ms():
            raise RefusedError(ReasonCode.NOT_A_MEMBER, "this is a private grid: ask its owner for an invite")

    def _refuse_for(self, exchange: Exchange, error: Exception) -> None:
        """Turn what a handler raised into a refusal; tell `on_error` when the fault is ours."""
        if error is exchange.failure:
            return  # the peer left, or broke off: there is nobody to tell
        match error:
            case RefusedError():
                exchange.refuse_if_possible(error.code, error.detail, error.retry_after_ms)
            case MisbehaviourError():
                exchange.refuse_if_possible(error.code, str(error))
            case MalformedError():
                exchange.refuse_if_possible(ReasonCode.MALFORMED, str(error))
            case _:
                exchange.refuse_if_possible(ReasonCode.INTERNAL)
                if not isinstance(error, StookError) or isinstance(error, BugError | EnvironmentFault):
                    self._on_error(exchange.method, error)

    async def _serve_probe(self, exchange: Exchange, payload: bytes) -> None:
        if payload:
            raise MalformedError("PROBE carries nothing")
        if self.contact is None:
            raise RefusedError(ReasonCode.UNKNOWN_METHOD, "this node has no address to tell")
        await exchange.reply(encode(self.contact))

    # --- sessions ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _deadline(self, method: str, to: Peer, seconds: float) -> AsyncIterator[list[tuple[Link, float]]]:
        """Bound a block; a session on which nothing at all came for half of the wait or more is doubted.

        Not for all of it: the last bytes of an earlier exchange may still arrive on a line that has just broken.
        """
        loop = asyncio.get_running_loop()
        links: list[tuple[Link, float]] = []
        try:
            async with asyncio.timeout(seconds) as deadline:
                yield links
        except TimeoutError:
            if not deadline.expired():
                raise
            for link, asked_at in links:
                if loop.time() - max(asked_at, link.heard_at) >= seconds / 2:
                    link.doubt()
            raise DeadlineError(f"{method}: no end within {seconds:g} s", peer=to.node_id.hex()) from None

    async def _open(
        self, to: Peer, method: str, payload: bytes, *, alone: bool, links: list[tuple[Link, float]]
    ) -> Exchange:
        """Open an exchange with `to`, dialling if need be, and once more if the session ends before the request."""
        if to.node_id == self.node_id:
            raise UnreachableError("that is this node itself", peer=to.node_id.hex())
        while True:
            if self._closing:
                raise UnreachableError("this node is shutting down", peer=to.node_id.hex())
            link = await self._pool.reach(to.node_id, to.addresses)
            if self._gate is not None and link.member_until_ms <= self.clock.now_ms():
                raise MisbehaviourError(ReasonCode.NOT_A_MEMBER, "does not belong to this grid", peer=to.node_id.hex())
            try:
                exchange = await link.open(method, payload, alone=alone)
            except NotLookedAtError:
                if links:
                    raise
                links.append((link, float("inf")))
                continue
            links.append((link, asyncio.get_running_loop().time()))
            return exchange

    def _accept(self, connection: Connection) -> Receiver | None:
        if self._closing or not self._pool.has_room(incoming=True):
            return None
        return self._new_link(connection, Role.RESPONDER, None)

    async def _dial(self, host: str, port: int, expected: NodeId) -> Link:
        try:
            async with asyncio.timeout(self.limits.handshake_seconds) as deadline:
                return await self._connect(host, port, expected)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise UnreachableError(
                f"no hello from {host}:{port} within {self.limits.handshake_seconds:g} s", peer=expected.hex()
            ) from None

    async def _connect(self, host: str, port: int, expected: NodeId | None) -> Link:
        made: list[Link] = []

        def accept(connection: Connection) -> Receiver | None:
            if self._closing or not self._pool.has_room(incoming=False):
                return None
            made.append(self._new_link(connection, Role.INITIATOR, expected))
            made[0].dialled = (host, port)
            return made[0]

        try:
            await self._carrier.connect(host, port, accept)
            if not made:
                raise UnreachableError("too many sessions are open here")
            await made[0].greet()
        except BaseException:
            for link in made:
                link.abort(UnreachableError("the session was given up before it opened"))
            raise
        return made[0]

    def _new_link(self, connection: Connection, role: Role, expected: NodeId | None) -> Link:
        party = Party(
            key=self._key,
            network=self._network,
            puzzle_nonce=self._puzzle_nonce,
            max_exchanges=self.limits.max_exchanges_per_session,
            contact=self.contact,
            extension=b"" if self._gate is None else self._gate.shown,
            puzzle_bits_asked=self.limits.puzzle_bits,
        )
        session = Session(
            role=role,
            party=party,
            channel=connection.channel,
            nonce=SessionNonce(self.entropy(NONCE_BYTES)),
            expected=expected,
        )
        link = Link(self, connection, session)
        self._pool.add(link)
        return link

    async def _wait_for_links(self, seconds: float) -> None:
        if self._pool.links:
            self._all_gone = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._all_gone,), timeout=seconds)


async def _serve_ping(exchange: Exchange, payload: bytes) -> None:
    if len(payload) > MAX_PING_BYTES:
        raise MalformedError(f"PING carries at most {MAX_PING_BYTES} bytes")
    await exchange.reply(payload)


def _report_to_loop(method: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler(
        {"message": f"the handler of {method} failed", "exception": error}
    )
