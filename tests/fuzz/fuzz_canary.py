"""A target with a hole, to show that the fuzzer finds one. It is not in the registry."""

from __future__ import annotations

from fuzz_base import Target


def _body(data: bytes) -> None:
    if len(data) < 2:
        return
    if data[0] != 0xC1:
        return
    if data[1] == 0x7E:
        raise IndexError("the canary fell")


CANARY = Target("canary", _body, lambda: [b"", b"seed"], ())
