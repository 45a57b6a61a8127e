"""Which pages of which sites may ask from a browser. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from stook.gateway.s3.errors import S3Error
from stook.gateway.s3.xml import malformed, parse

MAX_RULES = 100
_METHODS = frozenset({"GET", "PUT", "POST", "DELETE", "HEAD"})


@dataclass(frozen=True, slots=True)
class CorsRule:
    """One rule of a bucket."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...]
    expose: tuple[str, ...]
    max_age_seconds: int | None


def parse_cors(data: bytes) -> tuple[CorsRule, ...]:
    """The rules of a document. Raises `S3Error`."""
    root = parse(data, "CORSConfiguration")
    rules = []
    for node in root.all("CORSRule"):
        origins = tuple(each.text for each in node.all("AllowedOrigin"))
        methods = tuple(each.text for each in node.all("AllowedMethod"))
        headers = tuple(each.text for each in node.all("AllowedHeader"))
        expose = tuple(each.text for each in node.all("ExposeHeader"))
        age = node.value("MaxAgeSeconds")
        if not origins or not methods or not _METHODS.issuperset(methods):
            raise malformed()
        if any(each.count("*") > 1 for each in (*origins, *headers)):
            raise S3Error("InvalidRequest", "an origin or header has at most one wildcard")
        if any(not _printable(each) for each in (*origins, *headers, *expose)):
            raise malformed()
        if age is not None and not (age.isascii() and age.isdigit() and len(age) < 10):
            raise malformed()
        rules.append(CorsRule(origins, methods, headers, expose, None if age is None else int(age)))
    if not 1 <= len(rules) <= MAX_RULES:
        raise malformed()
    return tuple(rules)


cors_of = lru_cache(maxsize=256)(parse_cors)
"""The same, remembered: pages ask often."""


def _printable(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _matches(pattern: str, text: str) -> bool:
    head, star, tail = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(head) + len(tail) and text.startswith(head) and text.endswith(tail)


def cors_headers(
    rules: tuple[CorsRule, ...], origin: str, method: str, asked: tuple[str, ...] = ()
) -> dict[str, str] | None:
    """What to answer a page of `origin`; None when no rule lets it. `asked` are headers it wants to send."""
    for rule in rules:
        origins = [each for each in rule.origins if _matches(each, origin)]
        if not origins or method not in rule.methods:
            continue
        if not all(any(_matches(each.lower(), name.lower()) for each in rule.headers) for name in asked):
            continue
        any_origin = "*" in origins
        headers = {
            "Access-Control-Allow-Origin": "*" if any_origin else origin,
            "Access-Control-Allow-Methods": ", ".join(rule.methods),
            "Vary": "Origin, Access-Control-Request-Headers, Access-Control-Request-Method",
        }
        if not any_origin:
            headers["Access-Control-Allow-Credentials"] = "true"
        if asked:
            headers["Access-Control-Allow-Headers"] = ", ".join(asked)
        if rule.expose:
            headers["Access-Control-Expose-Headers"] = ", ".join(rule.expose)
        if rule.max_age_seconds is not None:
            headers["Access-Control-Max-Age"] = str(rule.max_age_seconds)
        return headers
    return None
