"""Seals and opens the envelopes of one session. Pure."""

from __future__ import annotations

from stook.identity.envelope import Envelope, Kind, ReplayWindow, Sealed, open_envelope, seal
from stook.ids import MessageId, NodeId, SessionNonce
from stook.wire.hello import Party


class SessionSigner:
    """Both ends' names and nonces, known once the hellos are exchanged, and the messages seen since."""

    __slots__ = ("_nonce", "_party", "_peer_id", "_peer_nonce", "_replay")

    def __init__(
        self, party: Party, nonce: SessionNonce, peer_id: NodeId, peer_nonce: SessionNonce, replay: ReplayWindow
    ) -> None:
        self._party = party
        self._nonce = nonce
        self._peer_id = peer_id
        self._peer_nonce = peer_nonce
        self._replay = replay

    def seal(
        self, kind: Kind, method: str, payload: bytes, *, reply_to: bytes, now_ms: int, message_id: MessageId
    ) -> Sealed:
        """Sign one message to the peer. Raises `ValueError` for a bad method name or a payload above 1 MiB."""
        return seal(
            key=self._party.key,
            network=self._party.network,
            kind=kind,
            method=method,
            message_id=message_id,
            session=self._peer_nonce,
            recipient=self._peer_id,
            sent_at_ms=now_ms,
            payload=payload,
            reply_to=reply_to,
        )

    def open(self, body: bytes, now_ms: int) -> Envelope:
        """The peer's message after every check (`stook.identity.envelope.open_envelope`)."""
        return open_envelope(
            body,
            network=self._party.network,
            me=self._party.key.node_id,
            session=self._nonce,
            claimed_sender=self._peer_id,
            now_ms=now_ms,
            replay=self._replay,
        )
