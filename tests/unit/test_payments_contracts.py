"""The compiled contracts in the package are those of the sources beside them."""

from __future__ import annotations

import pytest

import chain_build


def test_the_artifacts_are_what_the_compiler_makes_of_the_sources() -> None:
    pytest.importorskip("vyper")
    assert chain_build.ARTIFACTS.read_text() == chain_build.compiled(), "run: make contracts"
