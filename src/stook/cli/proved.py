"""When something was last proved restorable, in words and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stook.cli.output import human_time

if TYPE_CHECKING:
    from stook.storage.drill_ports import BucketProof, ObjectProof


def proved_words(proof: ObjectProof | None, *, empty: bool) -> str:
    """At most 16 characters: a time, ``never``, ``failing``, or ``-`` when there is nothing at farmers."""
    if empty:
        return "-"
    if proof is None or not (proof.proved_ms or proof.failing):
        return "never"
    return "failing" if proof.failing else human_time(proof.proved_ms)


def proof_fields(proof: ObjectProof | None) -> dict[str, Any]:
    """For programs: ``proved_ms`` is null when some of it was never proved, or nothing of it is at farmers."""
    return {
        "proved_ms": (proof.proved_ms or None) if proof is not None else None,
        "restore_failing": proof is not None and proof.failing,
    }


def bucket_fields(proof: BucketProof) -> dict[str, Any]:
    """For programs."""
    return {
        "never_drilled": proof.never,
        "restore_failing": proof.failing,
        "oldest_proof_ms": proof.oldest_ms or None,
        "newest_proof_ms": proof.newest_ms or None,
    }


def bucket_words(fields: dict[str, Any]) -> str:
    """A bucket's proofs in a sentence, from `bucket_fields`."""
    parts = []
    if fields["oldest_proof_ms"]:
        oldest, newest = human_time(fields["oldest_proof_ms"]), human_time(fields["newest_proof_ms"])
        parts.append(f"proven restorable {newest}" if oldest == newest else f"proven restorable {oldest} to {newest}")
    if fields["never_drilled"]:
        parts.append(f"{fields['never_drilled']:,} never drilled")
    if fields["restore_failing"]:
        parts.append(f"{fields['restore_failing']:,} FAILED the last drill")
    return "; ".join(parts) or "nothing at farmers"
