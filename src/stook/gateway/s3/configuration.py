"""What a bucket is set to: versioning, CORS, lifecycle, policy, tags, object lock; and tags and locks of objects."""

from __future__ import annotations

import re
from functools import lru_cache

from stook.gateway.s3 import lifecycle, meta, policy
from stook.gateway.s3.cors import parse_cors
from stook.gateway.s3.errors import S3Error, not_implemented
from stook.gateway.s3.listing import owner
from stook.gateway.s3.request import Answer, Gateway, Request, xml_answer
from stook.gateway.s3.xml import Node, Writer, iso_time, malformed, parse, parse_time
from stook.storage.s3_ports import BucketFacts, Lock, MissingError, Pairs, Retention, StoredObject, Version, Versioning

CORS, LIFECYCLE, POLICY, TAGGING, LOCK = "cors", "lifecycle", "policy", "tagging", "lock"
DAY_MS = 24 * 3_600_000
MAX_LOCK_DAYS = 36_500
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}")
MAX_POLICY_BYTES = 20 << 10


async def _kept(
    gateway: Gateway, request: Request, kind: str, missing: str, content: str = "application/xml"
) -> Answer:
    value = await gateway.setting(request.bucket, kind)
    if value is None:
        raise S3Error(missing, "the bucket has no such configuration")
    return Answer(headers={"Content-Type": content}, body=value)


async def _forget(gateway: Gateway, request: Request, kind: str) -> Answer:
    await gateway.set_setting(request.bucket, kind, None)
    return Answer(204)


# --------------------------------------------------------------------------------------------------------- versioning


async def get_versioning(gateway: Gateway, request: Request) -> Answer:
    """GetBucketVersioning."""
    state = (await gateway.bucket(request)).versioning
    writer = Writer("VersioningConfiguration")
    if state is not Versioning.NEVER:
        writer.text("Status", "Enabled" if state is Versioning.ENABLED else "Suspended")
    return xml_answer(writer)


async def put_versioning(gateway: Gateway, request: Request) -> Answer:
    """PutBucketVersioning."""
    root, _ = await request.document("VersioningConfiguration")
    status = root.value("Status")
    if status not in ("Enabled", "Suspended"):
        raise malformed()
    if root.value("MfaDelete") == "Enabled":
        raise not_implemented("MFA delete")
    state = Versioning.ENABLED if status == "Enabled" else Versioning.SUSPENDED
    await gateway.objects.offload(lambda: gateway.objects.store.set_versioning(request.bucket, state))
    return Answer()


# ---------------------------------------------------------------------------------------------------------- documents


async def get_cors(gateway: Gateway, request: Request) -> Answer:
    """GetBucketCors."""
    return await _kept(gateway, request, CORS, "NoSuchCORSConfiguration")


async def put_cors(gateway: Gateway, request: Request) -> Answer:
    """PutBucketCors."""
    _, data = await request.document("CORSConfiguration")
    parse_cors(data)
    await gateway.set_setting(request.bucket, CORS, data)
    return Answer()


async def delete_cors(gateway: Gateway, request: Request) -> Answer:
    """DeleteBucketCors."""
    return await _forget(gateway, request, CORS)


async def get_lifecycle(gateway: Gateway, request: Request) -> Answer:
    """GetBucketLifecycleConfiguration."""
    return await _kept(gateway, request, LIFECYCLE, "NoSuchLifecycleConfiguration")


async def put_lifecycle(gateway: Gateway, request: Request) -> Answer:
    """PutBucketLifecycleConfiguration."""
    _, data = await request.document("LifecycleConfiguration")
    lifecycle.parse_rules(data)
    await gateway.set_setting(request.bucket, LIFECYCLE, data)
    return Answer()


async def delete_lifecycle(gateway: Gateway, request: Request) -> Answer:
    """DeleteBucketLifecycle."""
    return await _forget(gateway, request, LIFECYCLE)


async def get_policy(gateway: Gateway, request: Request) -> Answer:
    """GetBucketPolicy."""
    return await _kept(gateway, request, POLICY, "NoSuchBucketPolicy", "application/json")


async def put_policy(gateway: Gateway, request: Request) -> Answer:
    """PutBucketPolicy: public reading, and nothing else."""
    data = await request.body(MAX_POLICY_BYTES).whole(MAX_POLICY_BYTES)
    policy.parse_policy(data, request.bucket)
    await gateway.set_setting(request.bucket, POLICY, data)
    return Answer(204)


async def delete_policy(gateway: Gateway, request: Request) -> Answer:
    """DeleteBucketPolicy."""
    return await _forget(gateway, request, POLICY)


async def get_policy_status(gateway: Gateway, request: Request) -> Answer:
    """GetBucketPolicyStatus."""
    value = await gateway.setting(request.bucket, POLICY)
    if value is None:
        raise S3Error("NoSuchBucketPolicy", "the bucket has no policy")
    return xml_answer(Writer("PolicyStatus").text("IsPublic", True))


async def get_acl(gateway: Gateway, request: Request) -> Answer:
    """GetBucketAcl and GetObjectAcl: everything is its owner's alone (a policy makes a bucket public)."""
    if request.name:
        await _locked_object(gateway, request)
    else:
        await gateway.bucket(request)
    writer = Writer("AccessControlPolicy")
    owner(writer, gateway.owner_id)
    writer.begin("AccessControlList").begin("Grant")
    kind = ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser"'
    writer.begin("Grantee", kind).text("ID", gateway.owner_id).text("DisplayName", "owner").end()
    writer.text("Permission", "FULL_CONTROL").end().end()
    return xml_answer(writer)


async def put_acl(gateway: Gateway, request: Request) -> Answer:
    """PutBucketAcl and PutObjectAcl: ``private`` is accepted, for that is what everything is."""
    meta.check_ignored(request.headers)
    if request.name:
        await _locked_object(gateway, request)
    else:
        await gateway.bucket(request)
    if request.headers.get("x-amz-acl") is None:
        raise not_implemented("ACLs other than private")
    return Answer()


# --------------------------------------------------------------------------------------------------------------- tags


def _parse_tags(root: Node, most: int) -> Pairs:
    sets = root.one("TagSet")
    if sets is None:
        raise malformed()
    pairs = []
    for tag in sets.all("Tag"):
        key, value = tag.value("Key"), tag.value("Value")
        if key is None or value is None:
            raise malformed()
        pairs.append((key, value))
    return meta.checked_tags(pairs, most)


def _tagging(tags: Pairs) -> Writer:
    writer = Writer("Tagging").begin("TagSet")
    for key, value in tags:
        writer.begin("Tag").text("Key", key).text("Value", value).end()
    return writer.end()


async def get_bucket_tagging(gateway: Gateway, request: Request) -> Answer:
    """GetBucketTagging."""
    return await _kept(gateway, request, TAGGING, "NoSuchTagSet")


async def put_bucket_tagging(gateway: Gateway, request: Request) -> Answer:
    """PutBucketTagging."""
    root, _ = await request.document("Tagging")
    value = _tagging(_parse_tags(root, meta.MAX_BUCKET_TAGS)).document()
    await gateway.set_setting(request.bucket, TAGGING, value)
    return Answer(204)


async def delete_bucket_tagging(gateway: Gateway, request: Request) -> Answer:
    """DeleteBucketTagging."""
    return await _forget(gateway, request, TAGGING)


async def _locked_object(gateway: Gateway, request: Request) -> StoredObject:
    found = await gateway.objects.find(request.bucket, request.name, request.version_id)
    if found is None:
        raise S3Error("NoSuchVersion" if request.version_id else "NoSuchKey", "there is no such object")
    if isinstance(found, Version):
        raise S3Error("MethodNotAllowed" if request.version_id else "NoSuchKey", "it is a delete marker")
    return found


def _version_header(found: StoredObject | str) -> dict[str, str]:
    version_id = found if isinstance(found, str) else found.version.version_id
    return {} if version_id == "null" else {"x-amz-version-id": version_id}


async def get_tagging(gateway: Gateway, request: Request) -> Answer:
    """GetObjectTagging."""
    found = await _locked_object(gateway, request)
    return xml_answer(_tagging(found.tags), headers=_version_header(found))


async def put_tagging(gateway: Gateway, request: Request) -> Answer:
    """PutObjectTagging."""
    root, _ = await request.document("Tagging")
    return Answer(headers=await _set_tags(gateway, request, _parse_tags(root, meta.MAX_TAGS)))


async def delete_tagging(gateway: Gateway, request: Request) -> Answer:
    """DeleteObjectTagging."""
    return Answer(204, await _set_tags(gateway, request, ()))


async def _set_tags(gateway: Gateway, request: Request, tags: Pairs) -> dict[str, str]:
    version_id, store = request.version_id, gateway.objects.store
    try:
        version = await gateway.objects.offload(lambda: store.set_tags(request.bucket, request.name, version_id, tags))
    except MissingError as error:
        raise S3Error("NoSuchVersion" if version_id else "NoSuchKey", str(error)) from error
    return _version_header(version)


# -------------------------------------------------------------------------------------------------------- object lock


@lru_cache(maxsize=256)
def _parse_lock(data: bytes) -> tuple[Retention, int] | None:
    """Mode and length in milliseconds of a bucket's default retention. Raises `S3Error`."""
    root = parse(data, "ObjectLockConfiguration")
    if root.value("ObjectLockEnabled") != "Enabled":
        raise malformed()
    rule = root.one("Rule")
    if rule is None:
        return None
    default = rule.one("DefaultRetention")
    if default is None:
        raise malformed()
    days, years = default.value("Days"), default.value("Years")
    text = days if days is not None else years
    if text is None or (days is not None and years is not None) or not _WHOLE_NUMBER.fullmatch(text.strip()):
        raise malformed()
    length = int(text) * (1 if days is not None else 365)
    if not 1 <= length <= MAX_LOCK_DAYS:
        raise S3Error("InvalidArgument", "a default retention is between a day and a hundred years")
    return meta.retention_named(default.value("Mode")), length * DAY_MS


async def default_lock(gateway: Gateway, of: BucketFacts, now_ms: int) -> Lock:
    """What a new object of the bucket is locked with when nobody says otherwise."""
    if not of.lockable:
        return Lock()
    data = await gateway.setting(of.bucket.name, LOCK)
    default = None if data is None else _parse_lock(data)
    return Lock() if default is None else Lock(default[0], now_ms + default[1])


async def get_object_lock(gateway: Gateway, request: Request) -> Answer:
    """GetObjectLockConfiguration."""
    of = await gateway.bucket(request)
    if not of.lockable:
        raise S3Error("ObjectLockConfigurationNotFoundError", "the bucket has no object lock")
    data = await gateway.setting(request.bucket, LOCK)
    if data is not None:
        return Answer(headers={"Content-Type": "application/xml"}, body=data)
    return xml_answer(Writer("ObjectLockConfiguration").text("ObjectLockEnabled", "Enabled"))


async def put_object_lock(gateway: Gateway, request: Request) -> Answer:
    """PutObjectLockConfiguration: also allows object lock in a bucket that keeps versions."""
    _, data = await request.document("ObjectLockConfiguration")
    _parse_lock(data)
    if not (await gateway.bucket(request)).lockable:
        await gateway.objects.offload(lambda: gateway.objects.store.set_lockable(request.bucket))
    await gateway.set_setting(request.bucket, LOCK, data)
    return Answer()


def _bypass(request: Request) -> bool:
    return (request.headers.get("x-amz-bypass-governance-retention") or "").lower() == "true"


async def _lockable(gateway: Gateway, request: Request) -> None:
    if not (await gateway.bucket(request)).lockable:
        raise S3Error("InvalidRequest", "bucket is missing object lock configuration")


async def get_retention(gateway: Gateway, request: Request) -> Answer:
    """GetObjectRetention."""
    await _lockable(gateway, request)
    lock = (await _locked_object(gateway, request)).lock
    if lock.retention is Retention.NONE:
        raise S3Error("NoSuchObjectLockConfiguration", "the object has no retention")
    writer = Writer("Retention").text("Mode", lock.retention.name).text("RetainUntilDate", iso_time(lock.until_ms))
    return xml_answer(writer)


async def put_retention(gateway: Gateway, request: Request) -> Answer:
    """PutObjectRetention."""
    root, _ = await request.document("Retention")
    await _lockable(gateway, request)
    mode, until = root.value("Mode"), root.value("RetainUntilDate")
    if mode is None and until is None:
        wanted = (Retention.NONE, 0)
    elif mode is None or until is None:
        raise malformed()
    else:
        wanted = (meta.retention_named(mode), meta.future(parse_time(until), request.now_ms))
    return await _set_lock(gateway, request, retention=wanted)


async def get_legal_hold(gateway: Gateway, request: Request) -> Answer:
    """GetObjectLegalHold."""
    await _lockable(gateway, request)
    lock = (await _locked_object(gateway, request)).lock
    return xml_answer(Writer("LegalHold").text("Status", "ON" if lock.legal_hold else "OFF"))


async def put_legal_hold(gateway: Gateway, request: Request) -> Answer:
    """PutObjectLegalHold."""
    root, _ = await request.document("LegalHold")
    await _lockable(gateway, request)
    status = root.value("Status")
    if status not in ("ON", "OFF"):
        raise malformed()
    return await _set_lock(gateway, request, legal_hold=status == "ON")


async def _set_lock(
    gateway: Gateway,
    request: Request,
    *,
    retention: tuple[Retention, int] | None = None,
    legal_hold: bool | None = None,
) -> Answer:
    version_id, store = request.version_id, gateway.objects.store
    try:
        version = await gateway.objects.offload(
            lambda: store.set_lock(
                request.bucket,
                request.name,
                version_id,
                now_ms=request.now_ms,
                bypass=_bypass(request),
                retention=retention,
                legal_hold=legal_hold,
            )
        )
    except MissingError as error:
        raise S3Error("NoSuchVersion" if version_id else "NoSuchKey", str(error)) from error
    return Answer(headers=_version_header(version))
