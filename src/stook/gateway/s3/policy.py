"""Bucket policies, as far as we have them: reading by everybody. Pure.

A statement that we do not understand wholly is refused when it is put: a policy that is kept does what it says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from stook.gateway.s3.errors import S3Error, not_implemented

GET, LIST = "s3:GetObject", "s3:ListBucket"
_ACTIONS = frozenset({GET, LIST, "s3:GetObjectVersion", "s3:GetBucketLocation"})
MAX_BRACKETS = 1000
"""Objects and lists of one policy; a hundred statements need fewer."""
_FIELDS = frozenset({"Sid", "Effect", "Principal", "Action", "Resource"})


@dataclass(frozen=True, slots=True)
class Public:
    """What everybody may read: objects whose keys begin so (all with an empty one), and whether they may be listed."""

    prefixes: tuple[str, ...]
    exact: tuple[str, ...]
    listing: bool
    """Also whether the bucket's place may be asked for."""

    def allows(self, action: str, name: str) -> bool:
        """Whether an anonymous request may do it."""
        if action == LIST:
            return self.listing
        return action == GET and (name in self.exact or any(name.startswith(each) for each in self.prefixes))


def parse_policy(data: bytes, bucket: str) -> Public:
    """What a policy allows. Raises `S3Error` for what is none, and for what we do not have."""
    try:
        # Before decoding: how deep the decoder may go is a setting of the whole process, which libraries raise.
        if data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
            raise ValueError("too many brackets")
        document = json.loads(data.decode())
    except ValueError:
        raise S3Error("MalformedPolicy", "a policy is a JSON document") from None
    if not isinstance(document, dict) or document.get("Version") not in ("2012-10-17", "2008-10-17"):
        raise S3Error("MalformedPolicy", "a policy has the version 2012-10-17")
    statements = document.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not 1 <= len(statements) <= 100:
        raise S3Error("MalformedPolicy", "a policy has statements")
    prefixes: list[str] = []
    exact: list[str] = []
    listing = False
    for statement in statements:
        actions, resources = _statement(statement)
        for resource in resources:
            inside = resource.removeprefix(f"arn:aws:s3:::{bucket}")
            if inside == resource or (inside and not inside.startswith("/")):
                raise S3Error("MalformedPolicy", "policy has invalid resource")
            if not inside:
                listing = listing or LIST in actions
            elif GET in actions:
                pattern = inside[1:]
                if "*" in pattern[:-1] or "?" in pattern:
                    raise not_implemented("policies with wildcards but at the end of a resource")
                (prefixes if pattern.endswith("*") else exact).append(pattern.removesuffix("*"))
    return Public(tuple(prefixes), tuple(exact), listing)


policy_of = lru_cache(maxsize=256)(parse_policy)
"""The same, remembered: policies are asked for by every anonymous request."""


def _statement(statement: Any) -> tuple[set[str], list[str]]:
    if not isinstance(statement, dict):
        raise S3Error("MalformedPolicy", "a statement is an object")
    if not statement.keys() <= _FIELDS:
        raise not_implemented("policies with conditions, or with Not…: only reading by everybody")
    if statement.get("Effect") != "Allow" or statement.get("Principal") not in ("*", {"AWS": "*"}, {"AWS": ["*"]}):
        raise not_implemented("policies but those that allow everybody to read (keys have rights of their own)")
    actions, resources = _strings(statement, "Action"), _strings(statement, "Resource")
    wrong = [each for each in actions if each not in _ACTIONS]
    if wrong:
        raise not_implemented(f"policies for {wrong[0][:60]!r}: only reading by everybody")
    return set(actions), resources


def _strings(statement: dict[str, Any], name: str) -> list[str]:
    value = statement.get(name)
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(each, str) for each in values):
        raise S3Error("MalformedPolicy", f"a statement has its {name}")
    return values
