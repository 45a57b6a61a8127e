"""Every operation of S3: which request means it, what right it needs, and who answers it, if anybody does.

`docs/s3.md` is a table of this list; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from stook.gateway.s3 import buckets, configuration, listing, multipart, objects, policy
from stook.gateway.s3.errors import S3Error, not_implemented
from stook.gateway.s3.request import Answer, Gateway, Request
from stook.gateway.s3.sigv4 import Headers
from stook.gateway.s3.target import Target

Handler = Callable[[Gateway, Request], Awaitable[Answer]]

SERVICE, BUCKET, OBJECT = "service", "bucket", "object"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `marker` is the query parameter that tells it from others of its method and scope."""

    name: str
    scope: str
    method: str
    marker: str
    handler: Handler | None
    """None: not supported; answered with NotImplemented."""
    write: bool = False
    public: str = ""
    """The action of a bucket policy that lets everybody do it."""
    header: str = ""
    """A header that also has to be there."""
    slow: bool = False
    """May take longer than clients wait without a sign of life."""


def _op(name: str, scope: str, request: str, handler: Handler | None = None, **more: object) -> Operation:
    method, _, marker = request.partition(" ?")
    write = method in ("PUT", "POST", "DELETE")
    return Operation(name, scope, method, marker, handler, **{"write": write, **more})  # type: ignore[arg-type]


OPERATIONS: tuple[Operation, ...] = (
    _op("ListBuckets", SERVICE, "GET", buckets.list_buckets),
    # buckets
    _op("CreateBucket", BUCKET, "PUT", buckets.create_bucket),
    _op("HeadBucket", BUCKET, "HEAD", buckets.head_bucket, public=policy.LIST),
    _op("DeleteBucket", BUCKET, "DELETE", buckets.delete_bucket),
    _op("GetBucketLocation", BUCKET, "GET ?location", buckets.get_location, public=policy.LIST),
    _op("ListObjects", BUCKET, "GET", listing.list_objects, public=policy.LIST),
    _op("ListObjectsV2", BUCKET, "GET ?list-type", listing.list_objects_v2, public=policy.LIST),
    _op("ListObjectVersions", BUCKET, "GET ?versions", listing.list_versions),
    _op("ListMultipartUploads", BUCKET, "GET ?uploads", multipart.list_multiparts),
    _op("DeleteObjects", BUCKET, "POST ?delete", objects.delete_objects),
    _op("GetBucketVersioning", BUCKET, "GET ?versioning", configuration.get_versioning),
    _op("PutBucketVersioning", BUCKET, "PUT ?versioning", configuration.put_versioning),
    _op("GetBucketCors", BUCKET, "GET ?cors", configuration.get_cors),
    _op("PutBucketCors", BUCKET, "PUT ?cors", configuration.put_cors),
    _op("DeleteBucketCors", BUCKET, "DELETE ?cors", configuration.delete_cors),
    _op("GetBucketLifecycleConfiguration", BUCKET, "GET ?lifecycle", configuration.get_lifecycle),
    _op("PutBucketLifecycleConfiguration", BUCKET, "PUT ?lifecycle", configuration.put_lifecycle),
    _op("DeleteBucketLifecycle", BUCKET, "DELETE ?lifecycle", configuration.delete_lifecycle),
    _op("GetBucketPolicy", BUCKET, "GET ?policy", configuration.get_policy),
    _op("PutBucketPolicy", BUCKET, "PUT ?policy", configuration.put_policy),
    _op("DeleteBucketPolicy", BUCKET, "DELETE ?policy", configuration.delete_policy),
    _op("GetBucketPolicyStatus", BUCKET, "GET ?policyStatus", configuration.get_policy_status),
    _op("GetBucketTagging", BUCKET, "GET ?tagging", configuration.get_bucket_tagging),
    _op("PutBucketTagging", BUCKET, "PUT ?tagging", configuration.put_bucket_tagging),
    _op("DeleteBucketTagging", BUCKET, "DELETE ?tagging", configuration.delete_bucket_tagging),
    _op("GetObjectLockConfiguration", BUCKET, "GET ?object-lock", configuration.get_object_lock),
    _op("PutObjectLockConfiguration", BUCKET, "PUT ?object-lock", configuration.put_object_lock),
    _op("GetBucketAcl", BUCKET, "GET ?acl", configuration.get_acl),
    _op("PutBucketAcl", BUCKET, "PUT ?acl", configuration.put_acl),
    # objects
    _op("PutObject", OBJECT, "PUT", objects.put_object),
    _op("CopyObject", OBJECT, "PUT", objects.copy_object, header="x-amz-copy-source"),
    _op("GetObject", OBJECT, "GET", objects.get_object, public=policy.GET),
    _op("HeadObject", OBJECT, "HEAD", objects.head_object, public=policy.GET),
    _op("DeleteObject", OBJECT, "DELETE", objects.delete_object),
    _op("GetObjectAttributes", OBJECT, "GET ?attributes", objects.get_attributes),
    _op("GetObjectTagging", OBJECT, "GET ?tagging", configuration.get_tagging),
    _op("PutObjectTagging", OBJECT, "PUT ?tagging", configuration.put_tagging),
    _op("DeleteObjectTagging", OBJECT, "DELETE ?tagging", configuration.delete_tagging),
    _op("GetObjectRetention", OBJECT, "GET ?retention", configuration.get_retention),
    _op("PutObjectRetention", OBJECT, "PUT ?retention", configuration.put_retention),
    _op("GetObjectLegalHold", OBJECT, "GET ?legal-hold", configuration.get_legal_hold),
    _op("PutObjectLegalHold", OBJECT, "PUT ?legal-hold", configuration.put_legal_hold),
    _op("GetObjectAcl", OBJECT, "GET ?acl", configuration.get_acl),
    _op("PutObjectAcl", OBJECT, "PUT ?acl", configuration.put_acl),
    # uploads in parts
    _op("CreateMultipartUpload", OBJECT, "POST ?uploads", multipart.create_multipart),
    _op("UploadPart", OBJECT, "PUT ?uploadId", multipart.upload_part),
    _op("UploadPartCopy", OBJECT, "PUT ?uploadId", multipart.upload_part_copy, header="x-amz-copy-source", slow=True),
    _op("CompleteMultipartUpload", OBJECT, "POST ?uploadId", multipart.complete_multipart),
    _op("AbortMultipartUpload", OBJECT, "DELETE ?uploadId", multipart.abort_multipart),
    _op("ListParts", OBJECT, "GET ?uploadId", multipart.list_parts),
    # not supported
    _op("PostObject", BUCKET, "POST"),
    _op("SelectObjectContent", OBJECT, "POST ?select"),
    _op("RestoreObject", OBJECT, "POST ?restore"),
    _op("GetObjectTorrent", OBJECT, "GET ?torrent"),
    _op("RenameObject", OBJECT, "PUT ?renameObject"),
    _op("GetBucketEncryption", BUCKET, "GET ?encryption"),
    _op("PutBucketEncryption", BUCKET, "PUT ?encryption"),
    _op("DeleteBucketEncryption", BUCKET, "DELETE ?encryption"),
    _op("GetBucketWebsite", BUCKET, "GET ?website"),
    _op("PutBucketWebsite", BUCKET, "PUT ?website"),
    _op("DeleteBucketWebsite", BUCKET, "DELETE ?website"),
    _op("GetBucketReplication", BUCKET, "GET ?replication"),
    _op("PutBucketReplication", BUCKET, "PUT ?replication"),
    _op("DeleteBucketReplication", BUCKET, "DELETE ?replication"),
    _op("GetBucketLogging", BUCKET, "GET ?logging"),
    _op("PutBucketLogging", BUCKET, "PUT ?logging"),
    _op("GetBucketNotificationConfiguration", BUCKET, "GET ?notification"),
    _op("PutBucketNotificationConfiguration", BUCKET, "PUT ?notification"),
    _op("GetBucketAccelerateConfiguration", BUCKET, "GET ?accelerate"),
    _op("PutBucketAccelerateConfiguration", BUCKET, "PUT ?accelerate"),
    _op("GetBucketRequestPayment", BUCKET, "GET ?requestPayment"),
    _op("PutBucketRequestPayment", BUCKET, "PUT ?requestPayment"),
    _op("GetBucketOwnershipControls", BUCKET, "GET ?ownershipControls"),
    _op("PutBucketOwnershipControls", BUCKET, "PUT ?ownershipControls"),
    _op("DeleteBucketOwnershipControls", BUCKET, "DELETE ?ownershipControls"),
    _op("GetPublicAccessBlock", BUCKET, "GET ?publicAccessBlock"),
    _op("PutPublicAccessBlock", BUCKET, "PUT ?publicAccessBlock"),
    _op("DeletePublicAccessBlock", BUCKET, "DELETE ?publicAccessBlock"),
    _op("GetBucketAnalyticsConfiguration", BUCKET, "GET ?analytics"),
    _op("PutBucketAnalyticsConfiguration", BUCKET, "PUT ?analytics"),
    _op("DeleteBucketAnalyticsConfiguration", BUCKET, "DELETE ?analytics"),
    _op("GetBucketInventoryConfiguration", BUCKET, "GET ?inventory"),
    _op("PutBucketInventoryConfiguration", BUCKET, "PUT ?inventory"),
    _op("DeleteBucketInventoryConfiguration", BUCKET, "DELETE ?inventory"),
    _op("GetBucketMetricsConfiguration", BUCKET, "GET ?metrics"),
    _op("PutBucketMetricsConfiguration", BUCKET, "PUT ?metrics"),
    _op("DeleteBucketMetricsConfiguration", BUCKET, "DELETE ?metrics"),
    _op("GetBucketIntelligentTieringConfiguration", BUCKET, "GET ?intelligent-tiering"),
    _op("PutBucketIntelligentTieringConfiguration", BUCKET, "PUT ?intelligent-tiering"),
    _op("DeleteBucketIntelligentTieringConfiguration", BUCKET, "DELETE ?intelligent-tiering"),
    _op("CreateSession", BUCKET, "GET ?session"),
    _op("GetBucketMetadataConfiguration", BUCKET, "GET ?metadataConfiguration"),
    _op("CreateBucketMetadataConfiguration", BUCKET, "POST ?metadataConfiguration"),
    _op("GetBucketMetadataTableConfiguration", BUCKET, "GET ?metadataTable"),
    _op("CreateBucketMetadataTableConfiguration", BUCKET, "POST ?metadataTable"),
)

_BY_REQUEST: dict[tuple[str, str, str, str], Operation] = {
    (each.scope, each.method, each.marker, each.header): each for each in OPERATIONS
}
_MARKERS = frozenset(each.marker for each in OPERATIONS if each.marker)


def operation_of(method: str, target: Target, headers: Headers) -> Operation:
    """What a request means. Raises `S3Error` for what is nothing, or nothing we have."""
    scope = SERVICE if not target.bucket else BUCKET if not target.key else OBJECT
    present = [marker for marker in _MARKERS if target.has(marker)]
    if len(present) > 1 and "uploads" in present and "uploadId" in present:
        raise S3Error("InvalidArgument", "conflicting query parameters")
    for marker in sorted(present) or [""]:
        for header in ("x-amz-copy-source", ""):
            if header and headers.get(header) is None:
                continue
            found = _BY_REQUEST.get((scope, method, marker, header))
            if found is not None:
                if found.handler is None:
                    raise not_implemented(found.name)
                return found
    if present:
        raise S3Error("MethodNotAllowed", "the specified method is not allowed against this resource")
    if scope == SERVICE or method not in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        raise S3Error("MethodNotAllowed", "the specified method is not allowed against this resource")
    raise not_implemented(f"{method} here")
