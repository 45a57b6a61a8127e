"""Every decoder, and every judge of what was decoded, against bytes made to hurt: the fuzz targets under Hypothesis.

The targets are those of `make fuzz` (`tests/fuzz`, `docs/testing.md`). Here they get a few dozen spoiled samples each,
and the memory they take is measured: ``per_byte * n + constant`` for n bytes, as each target states.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fuzz_registry
import stook
from fuzz_base import BOMBS, TARGETS, Edit, Target, spoil
from fuzz_registry import FINDINGS, findings
from fuzz_samples import encoded_samples, record_types, samples
from stook.codec import decode, encode

EXAMPLES = 25
"""Spoiled samples of a plain decoder; slower targets get fewer, by their weight."""

EDITS = st.lists(st.tuples(st.sampled_from(Edit), st.integers(0, 65535), st.binary(max_size=8)), min_size=1, max_size=4)
EVERY = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())


def feed(target: Target, data: bytes) -> None:
    """Run the target and measure the most it held at once; what it keeps from its first run on does not count."""
    data = data[: target.max_bytes]
    if target.memory is None:
        target.run(data)
        return
    allowed = target.memory.per_byte * len(data) + target.memory.constant
    tracemalloc.start()
    try:
        target.run(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= allowed, f"{peak} bytes for {len(data)}, {allowed} are allowed"


def warm(target: Target) -> list[bytes]:
    """The seeds, after the target has run once, so that what it keeps for ever is there already."""
    seeds = list(target.seeds())
    target.run(seeds[0])
    return seeds


@EVERY
def test_good_bytes_and_kept_findings(target: Target) -> None:
    for seed in warm(target):
        feed(target, seed)
    for path in findings(target):
        feed(target, path.read_bytes())
    feed(target, b"")


@EVERY
def test_bytes_cut_off_or_followed_by_claims_of_a_gigabyte(target: Target) -> None:
    """A cut, and each thing not to be believed, at places spread over each sample."""
    for seed in warm(target)[: max(3, 60 // target.weight)]:
        places = max(1, 40 // target.weight)
        for at in range(0, len(seed), max(1, len(seed) // places)):
            feed(target, seed[:at])
            for bomb in BOMBS if target.weight == 1 else (BOMBS[at % len(BOMBS)],):
                feed(target, seed[:at] + bomb + seed[at + 1 :])


@EVERY
def test_spoiled_bytes(target: Target) -> None:
    seeds = warm(target)

    @settings(
        max_examples=max(5, EXAMPLES // target.weight),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(seeds) | st.binary(max_size=200), EDITS)
    def run(data: bytes, edits: list[tuple[Edit, int, bytes]]) -> None:
        for edit, at, patch in edits:
            data = spoil(data, edit, at, patch)
        feed(target, data)

    run()


# --- nothing is forgotten --------------------------------------------------------------------------------------------


def test_every_record_type_has_samples_that_decode() -> None:
    """A new record type is fuzzed without anyone remembering; this fails when no valid value of it could be made."""
    kinds = record_types()
    assert len(kinds) > 45
    for kind in kinds:
        assert [decode(kind, data) for data in encoded_samples(kind)] == list(samples(kind)), kind
        assert encode(samples(kind)[-1]) in encoded_samples(kind)
        name = f"record.{kind.__module__.removeprefix('stook.')}.{kind.__name__}"
        assert name in TARGETS, f"{name} has no target"


READS = re.compile(r"(parse|decode|decrypt|open|read|load|inspect|verify|check|unpack|split|require)(_|$)|chain_of")
"""Names of functions that take what others made."""
NEEDS_NONE = {
    "assembly.check_farmer_home": "looks for files and leaves their content to targets of their own",
    "api.open_store_sync": "opens a home",
    "assembly.load_agent_keys": "load_secrets, which has a target",
    "assembly.load_owner": "load_secrets, which has a target",
    "assembly.open_books": "databases are read through SQL, their blobs by record targets",
    "codec.decode": "every record target",
    "config.parse_settings": "what load_settings does with a file's text, which has a target",
    "contracts.recovery.verify_record": "compares fields and a signature of a record, which has a target",
    "shards.pointer.decode_object": "chooses between two record targets; within Vault.open_object, which has one",
    "storage.journal_records.open_frame": "every record target; tests/vectors/test_vectors_journal.py cuts the frames",
    "shards.rebuild.check_shard": "hashes; tests/conformance/test_shards_seal.py flips every kind of byte",
    "shards.rebuild.check_units": "hashes; tests/conformance/test_shards_seal.py flips every kind of byte",
    "shards.erasure.decode_matrix": "takes numbers that the caller checked; tests/conformance/test_shards_codec.py",
    "shards.erasure.load_codec": "chooses a library",
    "storage.shard_writer.open_partial": "believes nothing but hashes; tests/unit/test_storage_shard_store_files.py",
}
OUTSIDE = ("sim", "cli", "storage.memory", "storage.catalog", "storage.agent", "storage.database", "storage.durable")
"""The simulator and the command line read nothing of strangers; the databases are read through SQL, their blobs by
targets (`storage.database_rows`, `renter.vault`)."""


def readers() -> list[str]:
    """Public functions of the package, and functions of its public classes, that are named like readers."""
    found = []
    root = Path(stook.__path__[0])
    for path in sorted(root.rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        if module.startswith(OUTSIDE):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and READS.match(node.name):
                found.append(f"{module}.{node.name}")
    return found


def test_every_function_that_reads_what_others_wrote_is_covered() -> None:
    covered = {name.removeprefix("stook.") for target in TARGETS.values() for name in target.covers}
    missing = [name for name in readers() if name not in covered and name not in NEEDS_NONE]
    assert not missing, f"no fuzz target covers {missing}: write one in tests/fuzz, or say in NEEDS_NONE why not"


def test_what_targets_say_they_cover_exists() -> None:
    for target in TARGETS.values():
        for name in target.covers:
            parts = name.split(".")
            for cut in range(len(parts), 0, -1):
                try:
                    found: object = importlib.import_module(".".join(parts[:cut]))
                except ModuleNotFoundError:
                    continue
                for part in parts[cut:]:
                    found = getattr(found, part)
                assert inspect.isfunction(found) or inspect.ismethod(found), name
                break


def test_findings_belong_to_targets() -> None:
    if FINDINGS.exists():
        assert {path.name for path in FINDINGS.iterdir()} <= set(TARGETS)
    here = {path.stem for path in FINDINGS.parent.glob("fuzz_*.py")}
    helpers = {"fuzz_base", "fuzz_canary", "fuzz_registry", "fuzz_run", "fuzz_samples"}
    assert {room.__name__ for room in fuzz_registry.rooms} == here - helpers, "a file of targets is not registered"
