"""Who asks, and may they: the signature first, then the key's rights, or the bucket's policy for everybody."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from stook.errors import NotFoundError
from stook.gateway.s3 import policy
from stook.gateway.s3.configuration import POLICY
from stook.gateway.s3.errors import S3Error
from stook.gateway.s3.operations import SERVICE, Operation
from stook.gateway.s3.request import Gateway
from stook.gateway.s3.sigv4 import (
    EMPTY_SHA256,
    SIGNED_CHUNKS,
    SIGNED_CHUNKS_TRAILER,
    UNSIGNED,
    UNSIGNED_CHUNKS_TRAILER,
    ChunkSigner,
    Claim,
    Headers,
    check_signature,
    check_time,
    claim_of,
    payload_hash_of,
)
from stook.gateway.s3.target import Target
from stook.storage.s3_ports import AccessKey

_NO_SECRET = "0" * 40


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asked, and what stands for the body in the signed text."""

    key: AccessKey | None
    payload_hash: str
    make_signer: Callable[[], ChunkSigner | None]


async def identify(gateway: Gateway, method: str, target: Target, headers: Headers, now_ms: int) -> Caller:
    """The key whose secret signed this very request; none for an anonymous one. Raises `S3Error`."""
    claim = claim_of(target, headers)
    if claim is None:
        claimed = headers.get("x-amz-content-sha256")
        framed = claimed == UNSIGNED_CHUNKS_TRAILER
        return Caller(None, UNSIGNED_CHUNKS_TRAILER if framed else UNSIGNED, lambda: None)
    payload_hash = payload_hash_of(headers, claim)
    found = await gateway.objects.secret_of(claim.key_id)
    check_time(claim, now_ms)
    if found is None:
        # The same work as for a key that exists, so that the time taken names none.
        hmac.digest(_NO_SECRET.encode(), EMPTY_SHA256.encode(), "sha256")
        raise S3Error("InvalidAccessKeyId", "the access key id you provided does not exist in our records")
    key, secret = found
    signing = check_signature(method, target, headers, claim, secret, payload_hash)
    return Caller(key, payload_hash, lambda: _signer(claim, signing, payload_hash))


def _signer(claim: Claim, key: bytes, payload_hash: str) -> ChunkSigner | None:
    if payload_hash not in (SIGNED_CHUNKS, SIGNED_CHUNKS_TRAILER):
        return None
    return ChunkSigner(key, claim.amz_date, claim.scope, claim.signature)


async def authorise(gateway: Gateway, operation: Operation, target: Target, key: AccessKey | None) -> None:
    """Raises `S3Error` unless this caller may do it. What is not theirs may as well not exist."""
    denied = S3Error("AccessDenied", "access denied")
    if key is not None:
        if operation.scope == SERVICE or key.may(target.bucket, write=operation.write):
            return
    elif operation.scope == SERVICE or not operation.public:
        raise denied
    if not operation.public:
        raise denied
    # A key without a right of its own may what everybody may.
    try:
        document = await gateway.setting(target.bucket, POLICY)
    except NotFoundError:
        raise denied from None
    if document is None or target.has("versionId"):
        raise denied
    if not policy.policy_of(document, target.bucket).allows(operation.public, target.key):
        raise denied
