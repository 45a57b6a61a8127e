"""A farmer whose answers are genuine, signed, and old: replay below the handlers, where the bytes leave."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import cast

from typing_extensions import Buffer

from stook.codec import decode
from stook.contracts.messages import Method
from stook.errors import MalformedError
from stook.identity.envelope import Envelope, Kind
from stook.sim.adversary import Adversary, Around, Role
from stook.wire.carrier import Accept, Carrier, Connection, Listener, Receiver
from stook.wire.frames import HEADER_BYTES, FrameType, header, parse_header


class Replays(Adversary):
    """Answers with its first reply to the same method, byte for byte as it was signed then.

    It works under its own node's session, where the bytes leave: the envelope is genuine, only old.
    """

    def __init__(self, role: Role, methods: Collection[Method] = (Method.CLAIM, Method.CONSIGN)) -> None:
        super().__init__(role)
        self._methods = frozenset(str(method) for method in methods)
        self._first: dict[str, bytes] = {}

    def carrier(self, honest: Carrier) -> Carrier:
        """A carrier whose connections rewrite what leaves."""
        return _RewritingCarrier(honest, self._instead)

    def _instead(self, body: bytes) -> bytes:
        """The message that leaves in place of `body`."""
        try:
            envelope = decode(Envelope, body)
        except MalformedError:
            return body
        if envelope.kind is not Kind.REPLY or envelope.method not in self._methods:
            return body
        first = self._first.setdefault(envelope.method, body)
        self.deeds += first is not body
        return first


class _RewritingCarrier:
    def __init__(self, honest: Carrier, instead: Callable[[bytes], bytes]) -> None:
        self._honest = honest
        self._instead = instead

    async def connect(self, host: str, port: int, accept: Accept) -> Connection:
        return await self._honest.connect(host, port, self._bent(accept))

    async def listen(self, host: str, port: int, accept: Accept) -> Listener:
        return await self._honest.listen(host, port, self._bent(accept))

    def _bent(self, accept: Accept) -> Accept:
        def accept_bent(connection: Connection) -> Receiver | None:
            return accept(cast(Connection, _RewritingConnection(connection, self._instead)))

        return accept_bent


class _RewritingConnection(Around):
    """Parses its own node's frames on their way out and replaces the bodies of messages."""

    def __init__(self, inner: Connection, instead: Callable[[bytes], bytes]) -> None:
        super().__init__(inner)
        self._connection = inner
        self._instead = instead
        self._pending = bytearray()

    def write(self, pieces: Sequence[Buffer]) -> None:
        for piece in pieces:
            self._pending += memoryview(piece).cast("B")
        frames: list[bytes] = []
        while len(self._pending) >= HEADER_BYTES:
            frame, exchange_id, body_bytes = parse_header(memoryview(bytes(self._pending[:HEADER_BYTES])))
            end = HEADER_BYTES + body_bytes
            if len(self._pending) < end:
                break
            body = bytes(self._pending[HEADER_BYTES:end])
            del self._pending[:end]
            if frame is FrameType.MESSAGE:
                body = self._instead(body)
            frames.append(header(frame, exchange_id, len(body)) + body)
        if frames:
            self._connection.write(frames)
