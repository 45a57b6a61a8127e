"""What a node allows on its wire; every read has a bound and every wait an end (`docs/protocol/wire.md`)."""

from __future__ import annotations

from dataclasses import dataclass

from stook.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one endpoint. The defaults suit a home node; raises `ConfigError` when a value makes no sense."""

    max_sessions: int = 256
    """Sessions of all peers together, handshakes included; beyond it an idle one is closed or the newcomer refused."""
    max_handshakes: int = 32
    """Incoming connections without a valid hello yet; beyond it the oldest goes, of the host that has most."""
    max_sessions_per_peer: int = 4
    """Sessions one node id may hold with us."""
    max_exchanges_per_session: int = 64
    """Exchanges a peer may have open on one session; told to the peer in the hello."""
    max_request_bytes_per_session: int = 8 * 1024 * 1024
    """Request payloads in the hands of handlers, per session; requests beyond it are refused BUSY."""
    max_backlog_bytes: int = 16 * 1024 * 1024
    """Bytes written that the peer does not read; beyond it the session is closed."""
    handshake_seconds: float = 10.0
    """From the first byte of a connection to a valid hello, TLS included."""
    idle_seconds: float = 120.0
    """A session without exchanges is closed after so long."""
    low_speed_bytes_per_second: int = 1024
    """Raw bytes slower than this, over `low_speed_seconds`, end the exchange TOO_SLOW."""
    low_speed_seconds: float = 30.0
    """The window over which speed is judged."""
    upload_bytes_per_second: int = 0
    """Cap on raw bytes sent, all sessions together; 0 is none."""
    download_bytes_per_second: int = 0
    """Cap on raw bytes received, all sessions together; 0 is none."""
    puzzle_bits: int = 0
    """Difficulty of the node id puzzle asked of peers; 0 is none."""

    def __post_init__(self) -> None:
        counts = (
            self.max_sessions,
            self.max_handshakes,
            self.max_sessions_per_peer,
            self.max_exchanges_per_session,
            self.max_request_bytes_per_session,
            self.max_backlog_bytes,
        )
        if min(counts) < 1 or self.max_exchanges_per_session > 65535:
            raise ConfigError("wire limits are at least 1, and at most 65535 exchanges fit a session")
        if min(self.handshake_seconds, self.idle_seconds, self.low_speed_seconds) <= 0:
            raise ConfigError("wire deadlines are longer than 0 seconds")
        if min(self.low_speed_bytes_per_second, self.upload_bytes_per_second, self.download_bytes_per_second) < 0:
            raise ConfigError("wire speeds are 0 (no limit) or more bytes a second")
        if not 0 <= self.puzzle_bits <= 64:
            raise ConfigError("the node id puzzle has 0 to 64 bits")
