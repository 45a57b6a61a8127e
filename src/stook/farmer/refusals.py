"""What a peer is told when something went wrong here: every exception of a handler has one code."""

from __future__ import annotations

from stook.contracts.messages import MAX_DETAIL_CHARS
from stook.errors import (
    ConflictError,
    CorruptionError,
    DeadlineError,
    EnvironmentFault,
    MalformedError,
    MisbehaviourError,
    NotFoundError,
    ReasonCode,
    RefusedError,
)


def refusal_of(error: Exception) -> RefusedError | None:
    """The refusal that `error` becomes; None for a lost line and for bugs.

    Texts about this machine stay here: paths and system messages are nobody else's business.
    """
    detail = str(error)[:MAX_DETAIL_CHARS]
    match error:
        case RefusedError():
            return error
        case MisbehaviourError():
            return RefusedError(error.code, detail)
        case MalformedError():
            return RefusedError(ReasonCode.MALFORMED, detail)
        case DeadlineError():
            return RefusedError(ReasonCode.TOO_SLOW, detail)
        case ConflictError():
            return RefusedError(ReasonCode.ALREADY_STORED, "this shard is stored, or being stored, already")
        case NotFoundError():
            return RefusedError(ReasonCode.SHARD_ABSENT, "the shard is not here")
        case CorruptionError():
            return RefusedError(ReasonCode.SHARD_LOST, "the shard is damaged here")
        case EnvironmentFault():
            return RefusedError(ReasonCode.DISK_LOW, "the farmer's disk takes no more")
        case _:
            return None
