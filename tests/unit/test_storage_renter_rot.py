"""A value changed inside a sound database (SQLite keeps no sums of its pages) is damage of this machine's file."""

import sqlite3

import pytest

import contract_samples as samples
from stook.errors import CorruptionError
from stook.ids import SegmentId
from stook.shards.geometry import Policy
from stook.storage.agent_store import SqlAgentStore
from stook.storage.catalog import SqlCatalog
from stook.storage.renter_ports import Bucket, Outcome, OutcomeKind, Placement, PlacementState, SegmentFacts

SEGMENT = SegmentId(b"s" * 16)


def rot(path, statement):
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "read"),
    [
        ("UPDATE announcements SET announcement = x'00'", lambda store: store.announcements()),
        ("UPDATE placements SET contract = x'92'", lambda store: store.renew([samples.contract()])),
        ("UPDATE placements SET contract = x'92'", lambda store: store.placements([SEGMENT])),
        ("UPDATE placements SET state = 77", lambda store: store.counts()),
        ("UPDATE segments SET k = 300", lambda store: store.segment(SEGMENT)),
        ("UPDATE farmer_counters SET kind = 77", lambda store: store.farmer_stats(10)),
    ],
)
def test_in_the_agents_database(tmp_path, statement, read):
    path = tmp_path / "agent.db"
    store = SqlAgentStore.open(path)
    farmer = samples.FARMER.node_id
    store.add_segments([SegmentFacts(SEGMENT, Policy(1, 1, 1, 2), 2, 16384, (samples.ROOT,) * 2, 0)])
    store.add_claims([Placement(SEGMENT, 0, 0, samples.ROOT, farmer, samples.contract(), PlacementState.CLAIMED)])
    store.save_announcements([samples.signed_announcement()])
    store.note_outcomes([Outcome(farmer, OutcomeKind.CLAIM, True, 1.0, 5)])
    read(store)
    rot(path, statement)
    with pytest.raises(CorruptionError, match="damaged"):
        read(store)
    store.close()


def test_in_the_catalog(tmp_path):
    path = tmp_path / "catalog.db"
    store = SqlCatalog.open(path)
    store.create_bucket(Bucket("b", b"i" * 16, bytes(32), 0))
    rot(path, "UPDATE buckets SET name = x'ff'")
    with pytest.raises(CorruptionError, match="damaged"):
        store.buckets()
    store.close()
