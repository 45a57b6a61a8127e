"""The examples of `docs/python.md` run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from s3_demo import S3Demo

pytestmark = pytest.mark.system

PAGE = (Path(__file__).parents[2] / "docs/python.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


def test_every_example_runs(s3_demo: S3Demo) -> None:
    said = []
    for example in EXAMPLES:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", example],
            env={**os.environ, "STOOK_HOME": str(s3_demo.home)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        said.append(done.stdout)
    assert said == [
        "b'Dear diary'\nb'Dear'\n2026/first.txt 10\n",
        "somebody was faster\n",
        "['diary/2026', 'diary/notes.csv']\nb'day,mood'\n",
    ]
