"""One demo network with a gateway for all tests that want one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from s3_demo import S3Demo


@pytest.fixture(scope="session")
def s3_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Demo]:
    with S3Demo(tmp_path_factory.mktemp("s3") / "demo.log") as demo:
        yield demo
        log = demo.log()
    assert "request failed" not in log, log[-4000:]
