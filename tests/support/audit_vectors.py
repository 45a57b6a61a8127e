"""The golden vectors of audits, made anew; as a program, it writes into a folder those that are not yet there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from msgspec import structs

from audit_samples import NONCE, PARTIES, MemoryKeeper, answered, drawn, loss_of
from contract_samples import NOW_MS, RENTER
from stook.audits.challenge import repeat_challenge, salted_challenge
from stook.audits.evidence import ReceiptFile
from stook.audits.holding import HeldShard, Holding
from stook.audits.proof import verify
from stook.audits.receipt import settle, show_line
from stook.audits.salted import PADDING, prepare
from stook.codec import Record, encode
from stook.contracts.loss import note_loss
from stook.hashing import Tag, tagged_hash
from stook.ids import ContractId, ShardRoot
from stook.merkle import UNIT_BYTES

TAGS = (
    Tag.LOSS,
    Tag.LOSS_NOTE,
    Tag.HOLDING,
    Tag.DRAW,
    Tag.CHALLENGE,
    Tag.ANSWER,
    Tag.ANSWER_BODY,
    Tag.AUDIT_LINE,
    Tag.AUDIT_LINES,
    Tag.AUDIT_RECEIPT,
    Tag.SALT,
    Tag.PRE_LEAF,
    Tag.SALTED_LEAF,
    Tag.SALTED_ROOT,
)


def spelled(value: Any) -> Any:
    """The value as a vector spells it: records as objects, bytes in hex, enums as numbers."""
    if isinstance(value, Record):
        return {name: spelled(part) for name, part in structs.asdict(value).items()}
    if isinstance(value, tuple):
        return [spelled(part) for part in value]
    return value.hex() if isinstance(value, bytes) else value


def record(value: Record, **more: Any) -> dict[str, Any]:
    return {"fields": spelled(value), "encoded": encode(value).hex(), **more}


def draws() -> dict[str, Any]:
    """Holdings of several shapes, and what a nonce draws from them."""
    shapes = {
        "one unit": (UNIT_BYTES,),
        "one byte": (1,),
        "five shards": (UNIT_BYTES, 5 * UNIT_BYTES - 7, 100, 64 * UNIT_BYTES, 3 * UNIT_BYTES + 1),
        "one full shard": (256 * UNIT_BYTES,),
        "forty of the largest": (256 * UNIT_BYTES,) * 40,
        "a very large file beside a small one": (1 << 46, 1),
    }
    cases = []
    for name, sizes in shapes.items():
        holding = Holding(
            HeldShard(
                ContractId(tagged_hash(Tag.CONTRACT, bytes((number,)))),
                ShardRoot(tagged_hash(Tag.SHARD, bytes((number,)))),
                size,
            )
            for number, size in enumerate(sizes)
        )
        for wanted in (1, 7, 60):
            drawn_units = holding.draw(NONCE, wanted)
            cases.append(
                {
                    "name": f"{name}, {wanted}",
                    "holding": holding.encoded().hex(),
                    "digest": holding.digest.hex(),
                    "nonce": NONCE.hex(),
                    "wanted": wanted,
                    "units": holding.units,
                    "drawn": [[shard.contract_id.hex(), list(units)] for shard, units in drawn_units],
                }
            )
    return {
        "format": "audit draw 1",
        "tags": [{"tag": tag.value, "key": tag.key.hex(), "abc": tagged_hash(tag, b"abc").hex()} for tag in TAGS],
        "draws": cases,
    }


def salts() -> dict[str, Any]:
    """Commitments of 1, 2, 3, 4 and 7 salts over 100,000 bytes, with every answer."""
    size, seed = 100_000, bytes(range(32))
    shard = (bytes(range(251)) * 400)[:size]
    cases = []
    for count in (1, 2, 3, 4, 7):
        secrets, leaves = prepare(seed, count, size, [shard])
        kept = MemoryKeeper()
        held = HeldShard(ContractId(bytes(32)), ShardRoot(bytes(32)), size)
        kept.held[held.contract_id] = held
        kept.shards[held.shard_root] = bytearray(shard)
        kept.salts[held.contract_id] = leaves
        answers = []
        for _ in range(count):
            ask, secrets = secrets.take(held.contract_id, held.shard_root, size)
            challenge = salted_challenge([ask], PARTIES, RENTER, nonce=NONCE, now_ms=NOW_MS, answer_within_ms=1000)
            proof = answered(challenge.challenge, kept)[0].answer.items[0].salted
            answers.append({"ask": spelled(ask.salted), "proof": spelled(proof)})
        cases.append(
            {
                "count": count,
                "leaves": [leaf.hex() for leaf in leaves],
                "root": secrets.root.hex(),
                "answers": answers,
            }
        )
    return {
        "format": "audit salted 1",
        "seed": seed.hex(),
        "size_bytes": size,
        "shard": "the bytes 0 to 250 over and over",
        "padding": PADDING.hex(),
        "commitments": cases,
    }


def rounds() -> dict[str, Any]:
    """One round with passed, lost, unknown and silent shards, from challenge to receipt file."""
    kept = MemoryKeeper()
    for number, size in enumerate((UNIT_BYTES + 1, 47 * UNIT_BYTES, 90, 100, 5)):
        kept.add(number, size)
    holding = kept.holding
    signed = drawn(holding, 60)
    challenge = signed.challenge
    noted_ask, unknown_ask = challenge.asks[0], challenge.asks[1]
    noted = note_loss(loss_of(noted_ask), RENTER, NOW_MS - 1)
    kept.losses[noted_ask.contract_id] = noted.loss
    del kept.held[unknown_ask.contract_id]
    answers = answered(challenge, kept)
    last = max(answers)
    del answers[last]
    losses = {noted_ask.contract_id: noted}
    findings = verify(challenge, answers, losses)
    settled = settle(challenge, answers, losses, RENTER, NOW_MS + 5000, findings=findings)
    silent = {finding.contract_id for finding in findings if finding.verdict.name == "SILENT"}
    again = repeat_challenge(challenge, silent, RENTER, nonce=bytes(32), now_ms=NOW_MS + 6000, answer_within_ms=1000)
    file = ReceiptFile(
        1,
        settled.signed,
        settled.lines,
        signed,
        tuple(answers[page].answer for page in sorted(answers)),
        (noted,),
        holding.encoded(),
        (),
    )
    data = encode(file)
    return {
        "format": "audit 1",
        "shards": "the vectors of tests/support/audit_samples.py; their bytes are in the answers",
        "holding": holding.encoded().hex(),
        "challenge": record(signed, digest=challenge.digest.hex()),
        "pages": len(answers) + 1,
        "repeat": record(again, digest=again.challenge.digest.hex()),
        "loss": record(noted, loss_digest=noted.loss.loss.digest.hex(), note_digest=noted.note.note.digest.hex()),
        "heads": [record(answers[page].answer.signed_head) for page in sorted(answers)],
        "verdicts": [[finding.contract_id.hex(), int(finding.verdict)] for finding in findings],
        "receipt": record(settled.signed, digest=settled.signed.receipt.digest.hex()),
        "lines": [record(line) for line in settled.lines],
        "line": record(show_line(settled.lines, 1)),
        "file": data.hex(),
    }


def made() -> dict[str, dict[str, Any]]:
    """Every vector file by name."""
    return {"audit-draw-v1.json": draws(), "audit-salted-v1.json": salts(), "audit-round-v1.json": rounds()}


def main() -> None:
    folder = Path(sys.argv[1])
    for name, content in made().items():
        path = folder / name
        if not path.exists():
            path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
