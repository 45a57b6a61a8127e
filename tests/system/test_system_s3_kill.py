"""kill -9 of the gateway in the middle of puts, completes and deletes: nothing half visible, nothing acknowledged lost,
and no farmer keeps what nobody refers to for longer than one clean-up.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from s3_gateway import GatewayProcess
from stook.assembly import AGENT_FILE, CATALOG_FILE, create_renter_home, farmer_status
from stook.cli.local_network import LocalNetwork
from stook.config import NodeSettings, RentSettings
from stook.storage.agent_store import SqlAgentStore
from stook.storage.catalog import SqlCatalog
from stook.storage.renter_ports import PlacementState

pytestmark = pytest.mark.system

BUCKET = "killed"
WRITERS = 6
PART = 5 << 20


@dataclass
class Story:
    """What one writer did: for each name what may be there now, by MD5; None for nothing."""

    dice: random.Random
    number: int
    allowed: dict[str, set[str | None]] = field(default_factory=dict)
    acknowledged: int = 0


def body_of(dice: random.Random) -> bytes:
    return dice.randbytes(dice.choice((10, 3000, 70_000, 1_500_000)))


def write(client: Any, story: Story, stop: threading.Event) -> None:
    """Puts, uploads in parts and deletes until the gateway dies."""
    while not stop.is_set():
        name = f"w{story.number}/{story.dice.randrange(5)}"
        before = story.allowed.get(name, {None})
        try:
            match story.dice.randrange(4):
                case 0:
                    story.allowed[name] = before | {None}
                    client.delete_object(Bucket=BUCKET, Key=name)
                    story.allowed[name] = {None}
                case 1:
                    parts = [story.dice.randbytes(PART), story.dice.randbytes(1000)]
                    whole = hashlib.md5(b"".join(parts)).hexdigest()
                    begun = client.create_multipart_upload(Bucket=BUCKET, Key=name)
                    upload = {"Bucket": BUCKET, "Key": name, "UploadId": begun["UploadId"]}
                    done = [
                        {"PartNumber": n, "ETag": client.upload_part(**upload, PartNumber=n, Body=part)["ETag"]}
                        for n, part in enumerate(parts, 1)
                    ]
                    story.allowed[name] = before | {whole}
                    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": done})
                    story.allowed[name] = {whole}
                case _:
                    body = body_of(story.dice)
                    digest = hashlib.md5(body).hexdigest()
                    story.allowed[name] = before | {digest}
                    client.put_object(Bucket=BUCKET, Key=name, Body=body)
                    story.allowed[name] = {digest}
        except (BotoCoreError, ClientError):
            return
        story.acknowledged += 1


def check(client: Any, stories: list[Story]) -> None:
    """Everything is as its writer may expect; from here on that is what is there."""
    listed = {each["Key"]: each["Size"] for each in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])}
    for story in stories:
        for name, allowed in story.allowed.items():
            found: str | None = None
            if name in listed:
                body = client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
                assert len(body) == listed.pop(name)
                found = hashlib.md5(body).hexdigest()
            assert found in allowed, (name, found, allowed)
            story.allowed[name] = {found}
    assert not listed, f"nobody wrote {sorted(listed)}"


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LocalNetwork]:
    with LocalNetwork(tmp_path, farmers=4, capacity="2 GiB", log_level="error") as network:
        network.start()
        yield network


def home_of(tmp_path: Path, network: LocalNetwork) -> Path:
    home = tmp_path / "renter"
    node = NodeSettings(seeds=network.seeds, max_nodes_per_network=0, log_level="error")
    create_renter_home(home, node, RentSettings(code="2/3/3/4", spread="farmers"))
    return home


def run_kills(tmp_path: Path, network: LocalNetwork, kills: int, seed: int) -> None:
    gateway = GatewayProcess(home_of(tmp_path, network))
    dice = random.Random(seed)
    stories = [Story(random.Random(dice.random()), number) for number in range(WRITERS)]
    gateway.start()
    gateway.client().create_bucket(Bucket=BUCKET)
    for _ in range(kills):
        stop = threading.Event()
        client = gateway.client()
        threads = [threading.Thread(target=write, args=(client, story, stop)) for story in stories]
        for thread in threads:
            thread.start()
        wanted = sum(story.acknowledged for story in stories) + dice.randint(0, 12)
        deadline = time.monotonic() + 60
        while sum(story.acknowledged for story in stories) < wanted and time.monotonic() < deadline:
            threads[0].join(0.01 * dice.random())
        gateway.kill()
        stop.set()
        for thread in threads:
            thread.join(60)
        gateway.start()
        check(gateway.client(), stories)
    abort_uploads(gateway.client())
    gateway.stop()
    gateway.start()  # one clean-up
    gateway.stop()
    check_garbage(gateway.home, network)


def abort_uploads(client: Any) -> None:
    for each in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
        client.abort_multipart_upload(Bucket=BUCKET, Key=each["Key"], UploadId=each["UploadId"])


def check_garbage(home: Path, network: LocalNetwork) -> None:
    """The catalog, the agent and the farmers agree on what there is."""
    for _ in range(3):  # a claim that was never used is only given up once its time is over: those are not stored
        subprocess.run(
            [sys.executable, "-m", "stook.cli.main", "--home", str(home), "agent", "run", "--once", "--json"],
            check=True,
            capture_output=True,
            timeout=120,
        )
    catalog, agent = SqlCatalog.open(home / CATALOG_FILE), SqlAgentStore.open(home / AGENT_FILE)
    try:
        assert catalog.garbage(10) == []
        assert catalog.stale_uploads(2**60, 10) == []
        kept = set(agent.segment_ids(2**60, b"", 10_000))
        saves = catalog.journal.segments() & kept
        assert set(catalog.segment_ids(b"", 10_000)) == kept - saves
        stored = agent.counts().placements.get(PlacementState.STORED, 0)
        cancelling = agent.counts().placements.get(PlacementState.CANCELLING, 0)
    finally:
        catalog.close()
        agent.close()

    async def shards() -> int:
        statuses = [await farmer_status(farmer.home) for farmer in network.farmers]
        return sum(status["contracts"]["active"] for status in statuses)

    assert cancelling == 0
    assert asyncio.run(shards()) == stored


def test_a_killed_gateway_loses_nothing_and_leaves_nothing(tmp_path: Path, network: LocalNetwork) -> None:
    run_kills(tmp_path, network, kills=2, seed=1)


@pytest.mark.soak
def test_a_gateway_killed_sixty_times(tmp_path: Path, network: LocalNetwork) -> None:
    run_kills(tmp_path, network, kills=60, seed=2)
