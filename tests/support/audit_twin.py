"""The slow, obvious twin of sampling and verifying, written from docs/formats/audit.md; it shares no code with ours."""

from __future__ import annotations

from collections.abc import Sequence

from blake3 import blake3


def tagged(tag: str, data: bytes) -> bytes:
    return blake3(data, key=blake3(b"stook/1/" + tag.encode()).digest()).digest()


def holding_string(shards: Sequence[tuple[bytes, bytes, int]]) -> bytes:
    return b"".join(contract + root + size.to_bytes(8, "big") for contract, root, size in sorted(shards))


def draw(shards: Sequence[tuple[bytes, bytes, int]], nonce: bytes, wanted: int) -> list[tuple[bytes, list[int]]]:
    """Every unit is written down as a pair, one word after another is read, and the list is asked each time."""
    ordered = sorted(shards)
    digest = tagged("audit-holding", holding_string(shards))
    every = [(contract, unit) for contract, _, size in ordered for unit in range(-(-size // 16384))]
    limit = 2**64 - 2**64 % len(every)
    key = blake3(b"stook/1/audit-draw").digest()
    stop = min(wanted, sum(min(-(-size // 16384), 48) for _, _, size in ordered))
    chosen: list[tuple[bytes, int]] = []
    word_at = used = 0
    while len(chosen) < stop and used < 16384:
        stream = blake3(nonce + digest, key=key).digest(length=8 * (word_at + 1))
        word = int.from_bytes(stream[8 * word_at :], "big")
        word_at += 1
        if word >= limit:
            continue
        used += 1
        pair = every[word % len(every)]
        if pair in chosen or sum(contract == pair[0] for contract, _ in chosen) == 48:
            continue
        chosen.append(pair)
    contracts = sorted({contract for contract, _ in chosen})
    return [(contract, sorted(unit for other, unit in chosen if other == contract)) for contract in contracts]


def top_of(leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """RFC 6962's recursion: the last hash of the path stands at the topmost cut."""
    if count == 1:
        return leaf if not path else None
    if not path:
        return None
    cut = 1
    while cut * 2 < count:
        cut *= 2
    if index < cut:
        below = top_of(leaf, index, cut, path[:-1])
        return None if below is None else tagged("merkle-node", below + path[-1])
    below = top_of(leaf, index - cut, count - cut, path[:-1])
    return None if below is None else tagged("merkle-node", path[-1] + below)


def units_verdict(root: bytes, size: int, units: Sequence[int], proofs: Sequence[tuple[bytes, Sequence[bytes]]]) -> str:
    """The last three lines of the table of verdicts, for units."""
    if len(proofs) != len(units):
        return "MALFORMED"
    count = -(-size // 16384)
    for unit, (data, path) in zip(units, proofs, strict=True):
        if len(data) != (16384 if unit < count - 1 else size - 16384 * (count - 1)):
            return "MALFORMED"
        if top_of(tagged("merkle-leaf", data), unit, count, path) is None:
            return "MALFORMED"
    for unit, (data, path) in zip(units, proofs, strict=True):
        top = top_of(tagged("merkle-leaf", data), unit, count, path)
        assert top is not None
        if tagged("shard-root", size.to_bytes(8, "big") + top) != root:
            return "FAILED"
    return "PASSED"
