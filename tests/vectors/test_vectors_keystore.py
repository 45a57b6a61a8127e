"""Golden key files: what was written once must open for ever. Never delete a file in `data/`."""

import json
import os
from pathlib import Path

import pytest

from stook.codec import encode
from stook.identity.keystore import inspect_key_file, load_secrets

FILES = json.loads((Path(__file__).parent / "data" / "keystore-v1.json").read_text())["files"]


@pytest.mark.parametrize("vector", FILES, ids=lambda v: f"{v['content']}-{v['passphrase']}")
def test_key_files_open(vector, tmp_path):
    path = tmp_path / "keys"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(bytes.fromhex(vector["file"]))
    assert encode(load_secrets(path, passphrase=vector["passphrase"])).hex() == vector["secrets"]
    assert inspect_key_file(path).node_id.hex() == vector["node_id"]
