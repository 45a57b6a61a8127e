"""The table of `docs/s3.md` is the list of operations in the code."""

from __future__ import annotations

import re
from pathlib import Path

from stook.gateway.s3.errors import STATUS_OF
from stook.gateway.s3.operations import OPERATIONS, Operation

TEXT = (Path(__file__).parents[2] / "docs/s3.md").read_text()


def row(operation: Operation) -> str:
    where = {"service": "/", "bucket": "/bucket", "object": "/bucket/key"}[operation.scope]
    marker = f"?{operation.marker}" if operation.marker else ""
    header = f" with {operation.header}" if operation.header else ""
    right = "" if operation.handler is None else "write" if operation.write else "read"
    public = ", or everybody by policy" if operation.public else ""
    yes = "yes" if operation.handler else "no"
    return f"| {operation.name} | `{operation.method} {where}{marker}`{header} | {yes} | {right}{public} |"


def test_the_table_is_what_the_gateway_does() -> None:
    table = TEXT[TEXT.index("## Operations") :]
    assert re.findall(r"^\| [A-Z]\w+ \|.*$", table, re.M) == [row(each) for each in OPERATIONS]


def test_no_operation_comes_twice() -> None:
    names = [each.name for each in OPERATIONS]
    assert len(set(names)) == len(names)
    requests = [(each.scope, each.method, each.marker, each.header) for each in OPERATIONS]
    assert len(set(requests)) == len(requests)


def test_every_error_raised_has_a_status() -> None:
    source = Path(__file__).parents[2] / "src/stook/gateway/s3"
    raised = {code for path in source.glob("*.py") for code in re.findall(r'S3Error\(\s*"(\w+)"', path.read_text())}
    assert raised <= STATUS_OF.keys(), raised - STATUS_OF.keys()
