"""What can go wrong, who is to blame, and what to do about it.

::

    StookError
    ├── UserError              the person asked for something that cannot be; the text says what to do
    │   ├── ConfigError        a setting, a path or a key file is wrong
    │   ├── NotFoundError      no such bucket, object, contract or shard
    │   └── ConflictError      it exists already, or somebody else changed it
    ├── EnvironmentFault       this machine: disk full, permission denied, file damaged
    │   └── CorruptionError    bytes at rest are not the bytes that were stored
    ├── PeerError              the other node; carries its id
    │   ├── MalformedError     bytes that are no valid message (peer at fault, do not retry)
    │   ├── RefusedError       a signed refusal with a reason code (see `ReasonCode`)
    │   ├── MisbehaviourError  a valid message that breaks the protocol: bad signature, wrong hash
    │   ├── UnreachableError   no connection, or it broke
    │   └── DeadlineError      no answer in time, or slower than the low-speed limit
    ├── NotEnoughError         too few farmers or shards to do what was asked
    └── BugError               our own invariant broke; please report
"""

from __future__ import annotations

import enum


class ReasonCode(enum.IntEnum):
    """Why a request was refused: one coded set on the wire (`docs/protocol/reason-codes.md`).

    The hundreds digit says what kind: 1 message, 2 contract, 3 access, 4 capacity, 5 transfer, 6 state, 9 other.
    """

    MALFORMED = 100
    TOO_LARGE = 101
    WRONG_VERSION = 102
    WRONG_NETWORK = 103
    WRONG_RECIPIENT = 104
    WRONG_IDENTITY = 105
    CLOCK_SKEW = 106
    REPLAYED = 107
    BAD_SIGNATURE = 108
    WRONG_SESSION = 109
    WRONG_CHANNEL = 110
    UNKNOWN_METHOD = 111
    UNADDRESSED_SESSION = 112
    PUZZLE_UNSOLVED = 113
    UNBOUND_REPLY = 114
    UNKNOWN_EXCHANGE = 115
    TOO_MANY_EXCHANGES = 116
    CREDIT_EXCEEDED = 117
    STALE = 118
    TTL_TOO_HIGH = 120
    NOT_A_NEIGHBOUR = 121

    BAD_TERMS = 200
    PRICE_TOO_LOW = 201
    TOO_LONG = 202
    TOO_SHORT = 203
    UNKNOWN_CONTRACT = 204
    FIELD_NOT_RENEWABLE = 205
    WRONG_SETTLEMENT = 206
    CONTRACT_ENDED = 207
    CONSIGN_TOO_LATE = 208
    PRICE_TOO_HIGH = 209
    NOT_ASKED = 210
    NOT_CHOSEN = 211

    GRANT_INVALID = 300
    GRANT_WRONG_GRANTEE = 301
    GRANT_WRONG_SHARD = 302
    GRANT_WRONG_FARMER = 303
    GRANT_EXPIRED = 304
    GRANT_EXHAUSTED = 305
    GRANT_WRONG_OPERATION = 306
    GRANT_OUT_OF_RANGE = 307
    NOT_YOUR_CONTRACT = 308
    RENTER_NOT_ADMITTED = 309
    NOT_A_MEMBER = 310
    INVITE_UNKNOWN = 311
    INVITE_EXPIRED = 312
    INVITE_SPENT = 313
    PAYMENT_DUE = 314
    CHEQUE_INVALID = 315
    BATCH_OUT_OF_ORDER = 316

    NO_SPACE = 400
    RESERVED_TOO_MUCH = 401
    SHARD_SIZE_UNSUPPORTED = 402
    DISK_LOW = 403
    LEAVING = 404

    BUSY = 500
    HASH_MISMATCH = 501
    TOO_SLOW = 502
    TRUNCATED = 503
    CANCELLED = 504

    SHARD_ABSENT = 600
    SHARD_LOST = 601
    ALREADY_STORED = 602
    NOT_STORED_YET = 603
    NOT_LEAVING = 604

    SHUTTING_DOWN = 900
    INTERNAL = 901
    RATE_LIMITED = 902


def named(code: int) -> str:
    """The name of a code as it came over the wire; newer ones stay numbers."""
    return ReasonCode(code).name if code in ReasonCode.__members__.values() else f"reason {code}"


class StookError(Exception):
    """Root of everything this package raises on purpose. `exit_code` is the command line's exit status."""

    exit_code = 1
    retryable = False


class UserError(StookError):
    """The person asked for something that cannot be; the text says what to do instead."""

    exit_code = 2


class ConfigError(UserError):
    """A setting, a path or a key file is wrong."""


class NotFoundError(UserError):
    """There is no such bucket, object, contract or shard."""

    exit_code = 3


class ConflictError(UserError):
    """It exists already, or somebody else changed it meanwhile."""

    exit_code = 4


class EnvironmentFault(StookError):
    """This machine is at fault: a full disk, a forbidden file, a busy port."""

    exit_code = 5


class CorruptionError(EnvironmentFault):
    """Bytes at rest are not the bytes that were stored."""


class PeerError(StookError):
    """The other node is at fault. `peer` is its node id in hex, once known."""

    exit_code = 6

    def __init__(self, message: str, *, peer: str | None = None) -> None:
        super().__init__(message if peer is None else f"{message} (node {peer[:16]})")
        self.peer = peer


class MalformedError(PeerError):
    """Bytes that are no valid message."""


class RefusedError(PeerError):
    """The peer answered with a signed refusal."""

    def __init__(self, code: ReasonCode, detail: str = "", *, peer: str | None = None, retry_after_ms: int = 0) -> None:
        super().__init__(f"refused: {code.name}{': ' + detail if detail else ''}", peer=peer)
        self.code = code
        self.detail = detail
        self.retry_after_ms = retry_after_ms
        self.retryable = code in RETRYABLE


class MisbehaviourError(PeerError):
    """A well-formed message that breaks the protocol: a bad signature, a wrong hash, an unbound reply."""

    def __init__(self, code: ReasonCode, message: str, *, peer: str | None = None) -> None:
        super().__init__(f"{code.name}: {message}", peer=peer)
        self.code = code


class UnreachableError(PeerError):
    """No connection to the peer, or it broke."""

    retryable = True


class DeadlineError(PeerError):
    """No answer in time, or slower than the low-speed limit."""

    retryable = True


class NotEnoughError(StookError):
    """Too few farmers or shards to do what was asked. Trying later may help."""

    exit_code = 7
    retryable = True


class BugError(StookError):
    """An invariant of our own broke."""

    exit_code = 70


RETRYABLE = frozenset(
    {
        ReasonCode.CLOCK_SKEW,
        ReasonCode.BUSY,
        ReasonCode.SHUTTING_DOWN,
        ReasonCode.RATE_LIMITED,
        ReasonCode.TOO_SLOW,
        ReasonCode.TRUNCATED,
    }
)
