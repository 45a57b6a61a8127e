"""What a bucket's lifecycle rules say is over. Pure: facts and a time in, decisions out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from stook.gateway.s3.errors import S3Error, not_implemented
from stook.gateway.s3.xml import Node, malformed, parse, parse_time
from stook.storage.s3_ports import Multipart, Pairs, Version, Wanted

MAX_RULES = 1000
DAY_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule that is in force."""

    prefix: str = ""
    tags: Pairs = ()
    over_bytes: int | None = None
    under_bytes: int | None = None
    expire_days: int | None = None
    expire_at_ms: int | None = None
    expire_lonely_markers: bool = False
    """Delete markers with no version behind them."""
    old_days: int | None = None
    """Versions go so long after another took their place."""
    keep_old: int = 0
    """But the newest so many old versions stay."""
    abort_days: int | None = None

    def covers(self, version: Version, tags: Pairs) -> bool:
        """Whether an object is what the rule is about."""
        if not version.name.startswith(self.prefix) or not set(self.tags) <= set(tags):
            return False
        if self.over_bytes is not None and version.size_bytes <= self.over_bytes:
            return False
        return self.under_bytes is None or version.size_bytes < self.under_bytes


def parse_rules(data: bytes) -> tuple[Rule, ...]:
    """The rules of a document that are enabled. Raises `S3Error`."""
    root = parse(data, "LifecycleConfiguration")
    nodes = list(root.all("Rule"))
    if not 1 <= len(nodes) <= MAX_RULES:
        raise malformed()
    rules = [(node.value("Status"), _rule(node)) for node in nodes]
    if any(status not in ("Enabled", "Disabled") for status, _ in rules):
        raise malformed()
    return tuple(rule for status, rule in rules if status == "Enabled")


def _rule(node: Node) -> Rule:
    if node.one("Transition") is not None or node.one("NoncurrentVersionTransition") is not None:
        raise not_implemented("transitions to other storage classes")
    prefix, tags, over, under = _filter(node)
    days = at_ms = None
    markers = False
    expiration = node.one("Expiration")
    if expiration is not None:
        days = _days(expiration.value("Days"))
        date = expiration.value("Date")
        at_ms = None if date is None else parse_time(date)
        markers = (expiration.value("ExpiredObjectDeleteMarker") or "").strip() == "true"
        if (date is not None and (at_ms is None or at_ms % DAY_MS)) or (days is not None) + (date is not None) > 1:
            raise malformed()
        if days is None and at_ms is None and expiration.value("ExpiredObjectDeleteMarker") is None:
            raise malformed()
    old = node.one("NoncurrentVersionExpiration")
    abort = node.one("AbortIncompleteMultipartUpload")
    if expiration is None and old is None and abort is None:
        raise malformed()
    if abort is not None and (tags or over is not None or under is not None):
        raise S3Error("InvalidRequest", "aborting uploads cannot be filtered by tags or sizes: they have none")
    return Rule(
        prefix=prefix,
        tags=tags,
        over_bytes=over,
        under_bytes=under,
        expire_days=days,
        expire_at_ms=at_ms,
        expire_lonely_markers=markers,
        old_days=None if old is None else _needed(old, "NoncurrentDays"),
        keep_old=0 if old is None else (_days(old.value("NewerNoncurrentVersions")) or 0),
        abort_days=None if abort is None else _needed(abort, "DaysAfterInitiation"),
    )


def _filter(node: Node) -> tuple[str, Pairs, int | None, int | None]:
    chosen = node.one("Filter")
    if chosen is None:
        return node.value("Prefix") or "", (), None, None
    inside = chosen.one("And") or chosen
    tags = tuple(sorted((tag.value("Key") or "", tag.value("Value") or "") for tag in inside.all("Tag")))
    over, under = inside.value("ObjectSizeGreaterThan"), inside.value("ObjectSizeLessThan")
    return inside.value("Prefix") or "", tags, _number(over), _number(under)


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.strip().isascii() and text.strip().isdigit() and len(text) < 16):
        raise malformed()
    return int(text)


def _days(text: str | None) -> int | None:
    number = _number(text)
    if number is not None and not 1 <= number <= 100_000:
        raise S3Error("InvalidArgument", "a number of days is positive")
    return number


def _needed(node: Node, name: str) -> int:
    days = _days(node.value(name))
    if days is None:
        raise malformed()
    return days


# ---------------------------------------------------------------------------------------------------------- decisions


def _due(since_ms: int, days: int, now_ms: int) -> bool:
    """Whether so many days are over, counted to the next midnight as S3 does."""
    return now_ms >= -(-(since_ms + days * DAY_MS) // DAY_MS) * DAY_MS


def expired(rules: Sequence[Rule], versions: Sequence[Version], tags: Pairs, now_ms: int) -> Iterator[Wanted]:
    """What of one name is to be deleted. `versions` are all it has, newest first; `tags` those of the current one."""
    latest = versions[0]
    if not latest.marker and any(_ends(rule, latest, tags, now_ms) for rule in rules):
        yield Wanted(latest.name, if_match=latest.etag)  # not one that took its place since we looked
    lonely = latest.marker and len(versions) == 1
    if lonely and any(_marker_goes(rule, latest, now_ms) for rule in rules):
        yield Wanted(latest.name, latest.version_id)
    for place, version in enumerate(versions[1:]):
        since_ms = versions[place].modified_ms  # when the next one took its place
        for rule in rules:
            if rule.old_days is None or rule.tags or place < rule.keep_old or not rule.covers(version, ()):
                continue
            if _due(since_ms, rule.old_days, now_ms):
                yield Wanted(version.name, version.version_id)
                break


def _ends(rule: Rule, latest: Version, tags: Pairs, now_ms: int) -> bool:
    if not rule.covers(latest, tags):
        return False
    by_days = rule.expire_days is not None and _due(latest.modified_ms, rule.expire_days, now_ms)
    return by_days or (rule.expire_at_ms is not None and now_ms >= rule.expire_at_ms)


def _marker_goes(rule: Rule, marker: Version, now_ms: int) -> bool:
    if not marker.name.startswith(rule.prefix) or rule.tags:
        return False
    by_days = rule.expire_days is not None and _due(marker.modified_ms, rule.expire_days, now_ms)
    return rule.expire_lonely_markers or by_days


def stale(rules: Sequence[Rule], uploads: Iterable[Multipart], now_ms: int) -> Iterator[Multipart]:
    """Uploads in parts that were begun too long ago."""
    for upload in uploads:
        mine = (rule.abort_days for rule in rules if upload.name.startswith(rule.prefix))
        if any(days is not None and _due(upload.started_ms, days, now_ms) for days in mine):
            yield upload
