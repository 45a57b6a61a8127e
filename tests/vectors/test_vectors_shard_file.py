"""Golden vectors of the shard file: written byte for byte, and read back. Never delete a file in `data/`."""

import json
from pathlib import Path

import pytest
from blake3 import blake3

from stook.ids import ShardRoot
from stook.merkle import leaves_of
from stook.storage.shard_file import Layout, pack_header, pack_record
from stook.storage.shard_store import FileShardStore

FILES = json.loads((Path(__file__).parent / "data" / "shard-file-v1.json").read_text())["files"]


def data_of(size):
    return memoryview((bytes(range(251)) * (size // 251 + 1))[:size])


@pytest.mark.parametrize("vector", FILES, ids=lambda v: str(v["size_bytes"]))
def test_shard_files(vector, tmp_path):
    size, root = vector["size_bytes"], ShardRoot(bytes.fromhex(vector["root"]))
    contracts = [bytes.fromhex(contract) for contract in vector["contracts"]]
    layout = Layout.of(size)
    assert pack_header(root, size).hex() == vector["header"]
    assert (layout.data, layout.log) == (vector["data"], vector["log"])
    assert pack_record(root, contracts[0]).hex().startswith(vector["first_record"])

    with FileShardStore(tmp_path) as store:
        writer = store.open_writer(root, size, b"".join(leaves_of(data_of(size))))
        writer.write(data_of(size))
        writer.publish(contracts[0])
        for contract in contracts[1:]:
            store.append_contract(root, contract)
        path = store.path_of(root)
        assert path == tmp_path / "shards" / root.hex()[:2] / f"{root.hex()}.shard"
        content = path.read_bytes()
        assert (len(content), blake3(content).hexdigest()) == (vector["file_bytes"], vector["file_blake3"])
        assert store.find(root).contract == contracts[-1]
        assert store.bad_units(root) == []
