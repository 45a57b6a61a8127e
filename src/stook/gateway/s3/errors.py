"""What S3 clients are told when something does not work: a code they know, and a sentence."""

from __future__ import annotations

from stook.errors import (
    ConflictError,
    CorruptionError,
    EnvironmentFault,
    NotEnoughError,
    NotFoundError,
    PeerError,
    StookError,
    UserError,
)
from stook.storage.s3_ports import BucketStateError, ConditionFailedError, LockedError, MissingError

STATUS_OF: dict[str, int] = {
    "AccessDenied": 403,
    "AuthorizationHeaderMalformed": 400,
    "AuthorizationQueryParametersError": 400,
    "BadDigest": 400,
    "BucketAlreadyExists": 409,
    "BucketAlreadyOwnedByYou": 409,
    "BucketNotEmpty": 409,
    "ConditionalRequestConflict": 409,
    "EntityTooLarge": 400,
    "EntityTooSmall": 400,
    "IncompleteBody": 400,
    "InternalError": 500,
    "InvalidAccessKeyId": 403,
    "InvalidArgument": 400,
    "InvalidBucketName": 400,
    "InvalidBucketState": 409,
    "InvalidDigest": 400,
    "InvalidPart": 400,
    "InvalidPartOrder": 400,
    "InvalidRange": 416,
    "InvalidRequest": 400,
    "InvalidTag": 400,
    "InvalidURI": 400,
    "KeyTooLongError": 400,
    "MalformedACLError": 400,
    "MalformedPolicy": 400,
    "MalformedXML": 400,
    "MetadataTooLarge": 400,
    "MethodNotAllowed": 405,
    "MissingContentLength": 411,
    "NoSuchBucket": 404,
    "NoSuchBucketPolicy": 404,
    "NoSuchCORSConfiguration": 404,
    "NoSuchKey": 404,
    "NoSuchLifecycleConfiguration": 404,
    "NoSuchObjectLockConfiguration": 404,
    "NoSuchTagSet": 404,
    "NoSuchUpload": 404,
    "NoSuchVersion": 404,
    "NotImplemented": 501,
    "ObjectLockConfigurationNotFoundError": 404,
    "PreconditionFailed": 412,
    "RequestTimeTooSkewed": 403,
    "RequestTimeout": 400,
    "SignatureDoesNotMatch": 403,
    "SlowDown": 503,
    "XAmzContentSHA256Mismatch": 400,
}


class S3Error(Exception):
    """An answer that is an error. `code` is one of `STATUS_OF`."""

    def __init__(
        self, code: str, message: str, *, headers: dict[str, str] | None = None, condition: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUS_OF[code]
        self.message = message
        self.headers = headers or {}
        self.condition = condition
        """The header whose condition did not hold."""


def not_implemented(what: str) -> S3Error:
    """For what S3 has and we have not."""
    return S3Error("NotImplemented", f"Stook has no {what}: docs/s3.md lists what there is")


def s3_error(error: StookError, *, missing: str = "NoSuchKey") -> S3Error:
    """Our own errors in S3's terms. `missing` is what a `NotFoundError` means where it was raised."""
    if isinstance(error, ConditionFailedError):
        return S3Error("PreconditionFailed", str(error), condition=error.condition)
    if isinstance(error, MissingError):
        return S3Error(missing, str(error))
    if isinstance(error, LockedError):
        return S3Error("AccessDenied", str(error))
    if isinstance(error, BucketStateError):
        return S3Error("InvalidBucketState", str(error))
    if isinstance(error, NotFoundError):
        return S3Error("NoSuchBucket" if "bucket" in str(error) else missing, str(error))
    if isinstance(error, ConflictError):
        return S3Error("ConditionalRequestConflict", str(error))
    if isinstance(error, NotEnoughError | PeerError):
        # Clients try again after 503; a 500 or a closed connection makes some of them give up half way.
        return S3Error("SlowDown", f"too few farmers answer just now: {error}")
    if isinstance(error, CorruptionError):
        return S3Error("InternalError", "what is stored cannot be read; the gateway's log says more")
    if isinstance(error, EnvironmentFault):
        return S3Error("SlowDown", "the gateway's machine cannot do this now; its log says more")
    if isinstance(error, UserError):
        return S3Error("InvalidArgument", str(error))
    return S3Error("InternalError", "a bug of ours; the gateway's log says more")
