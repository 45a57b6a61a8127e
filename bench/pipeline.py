"""What each stage of the shard pipeline costs, in one process, beside a plain memory copy timed in the same run.

    python -m bench.pipeline [--seconds 0.5] [--codec auto|numpy] [--busy]

Per code and stage: `cpu_s_per_gb` (process CPU seconds per 10^9 bytes of *plain* data, best of the repetitions),
`mb_s` (plain data, wall clock) and `share_of_copy` (its rate as a share of the copy's). Stages run over a whole segment
each, so their sum is a little above what `seal` takes, which keeps a group of stripes in the cache between stages.
`--busy` adds `seal_beside_loop`: the same seal in a worker thread while another does 1 MiB AES-GCM calls and some
Python work, as an event loop under TLS would.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.common import report
from stook.hashing import Tag
from stook.merkle import UNIT_BYTES, leaf_hash, shard_root
from stook.shards.arena import Scratch, ShardArena, group_stripes
from stook.shards.cipher import segment_cipher
from stook.shards.erasure import Codec, NumpyCodec, encode_matrix, load_codec
from stook.shards.geometry import SegmentShape, largest_shape, stripe_groups
from stook.shards.mask import shard_mask
from stook.shards.pipeline import SealedSegment, seal, unseal
from stook.shards.rebuild import rebuild

CODES = [(3, 10), (4, 10), (10, 20), (20, 40)]
KEY, MASK_KEY = bytes(range(32)), bytes(range(32, 64))
PYTHON_STEPS = 500
"""About 25 us of pure Python between two TLS-like calls."""


def timed(work: Callable[[], object], size_bytes: int, seconds: float) -> dict[str, float]:
    """Best of the repetitions that fit in `seconds`, at least three."""
    work()
    best_cpu = best_wall = float("inf")
    began, runs = time.perf_counter(), 0
    while runs < 3 or time.perf_counter() - began < seconds:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        best_cpu = min(best_cpu, time.process_time() - cpu)
        best_wall = min(best_wall, time.perf_counter() - wall)
        runs += 1
    return {"cpu_s_per_gb": best_cpu / size_bytes * 1e9, "mb_s": size_bytes / best_wall / 1e6}


def stages(shape: SegmentShape, codec: Codec) -> dict[str, Callable[[], object]]:
    """One call per stage, each over a whole segment."""
    arena, scratch = ShardArena.of(shape), Scratch()
    laid = arena.lay(shape)
    plain = np.random.default_rng(1).integers(0, 256, shape.capacity, dtype=np.uint8)
    copy, into = np.empty_like(plain), memoryview(bytearray(shape.capacity))
    groups = list(stripe_groups(shape.stripes, group_stripes(shape.total + shape.k)))
    source = plain.data

    def encrypt() -> None:
        xor = segment_cipher(KEY)
        for first, end in groups:
            begin, stop = first * shape.stripe_bytes, end * shape.stripe_bytes
            xor(source[begin:stop], laid.stage[: stop - begin])
            laid.scatter(shape.k, first, end)

    def encode() -> None:
        matrix = encode_matrix(shape.k, shape.total)
        transform = codec.bind(matrix, laid.rows[: shape.k], laid.rows[shape.k :])
        for first, end in groups:
            transform(first * UNIT_BYTES, (end - first) * UNIT_BYTES)

    def mask() -> None:
        masks = [shard_mask(MASK_KEY, index) for index in range(shape.total)]
        for first, end in groups:
            for xor, row in zip(masks, laid.rows, strict=True):
                run = row[first * UNIT_BYTES : end * UNIT_BYTES]
                xor(run, run)

    def hashing() -> None:
        for units in laid.units:
            shard_root(shape.shard_bytes, [leaf_hash(unit) for unit in units])

    def whole_seal() -> SealedSegment:
        return seal(source, key=KEY, mask_key=MASK_KEY, shape=shape, arena=arena, codec=codec)

    sealed = whole_seal()
    shards = {shard.index: np.array(shard.data).data for shard in sealed.shards}
    target = memoryview(bytearray(shape.shard_bytes))

    def reading(indices: range) -> Callable[[], None]:
        chosen = {index: shards[index] for index in indices}
        return lambda: unseal(chosen, key=KEY, mask_key=MASK_KEY, shape=shape, into=into, codec=codec, scratch=scratch)

    others = {index: shards[index] for index in range(1, shape.k + 1)}
    return {
        "copy": lambda: np.copyto(copy, plain),
        "plain_hash": lambda: blake3(source, key=Tag.PLAINTEXT.key).digest(),
        "encrypt": encrypt,
        "encode": encode,
        "mask": mask,
        "hash": hashing,
        "seal": whole_seal,
        "unseal_data_shards": reading(range(shape.k)),
        "unseal_other_shards": reading(range(shape.total - shape.k, shape.total)),
        "rebuild_one_shard": lambda: rebuild(
            others, {0: target}, k=shape.k, mask_key=MASK_KEY, codec=codec, scratch=scratch
        ),
    }


def beside_a_loop(work: Callable[[], object], size_bytes: int, seconds: float) -> dict[str, float]:
    """The seal's rate and CPU while another thread keeps taking the GIL back."""
    stop = threading.Event()
    turns = 0

    def loop() -> None:
        nonlocal turns
        cipher, record = AESGCM(KEY), bytes(1 << 20)
        while not stop.is_set():
            cipher.encrypt(bytes(12), record, None)
            sum(range(PYTHON_STEPS))
            turns += 1

    thread = threading.Thread(target=loop)
    thread.start()
    wall, cpu, runs = time.perf_counter(), time.thread_time(), 0
    while time.perf_counter() - wall < max(seconds, 1.0):
        work()
        runs += 1
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    stop.set()
    thread.join()
    done = runs * size_bytes
    return {"cpu_s_per_gb": cpu / done * 1e9, "mb_s": done / wall / 1e6, "loop_mb_s": turns * (1 << 20) / wall / 1e6}


def measure(codec: Codec, seconds: float, busy: bool) -> dict[str, object]:
    """The whole report."""
    codes = {}
    for k, total in CODES:
        shape = largest_shape(k, total)
        work = stages(shape, codec)
        results = {name: timed(stage, shape.capacity, seconds) for name, stage in work.items()}
        copy = results["copy"]["mb_s"]
        for result in results.values():
            result["share_of_copy"] = result["mb_s"] / copy
        if busy:
            results["seal_beside_loop"] = beside_a_loop(work["seal"], shape.capacity, seconds)
        rounded = {name: {key: round(value, 4) for key, value in result.items()} for name, result in results.items()}
        codes[f"{k}/{total}"] = {"shard_bytes": shape.shard_bytes, "stages": rounded}
    return {"codec": codec.name, "codes": codes}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="per stage and code")
    parser.add_argument("--codec", choices=["auto", "numpy"], default="auto")
    parser.add_argument("--busy", action="store_true", help="also seal beside a busy loop thread")
    options = parser.parse_args()
    codec = NumpyCodec() if options.codec == "numpy" else load_codec()
    report("pipeline", measure(codec, options.seconds, options.busy))
    return 0


if __name__ == "__main__":
    sys.exit(main())
