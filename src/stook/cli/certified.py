"""A restore certificate in words and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stook.cli.output import human_size, human_time, plural

if TYPE_CHECKING:
    from stook.renter.certificate import Certificate

_LATEST_MS = 10**14
"""A stranger's certificate may name any moment; calendars end."""


def share(ppm: int) -> str:
    """Millionths as a percentage with the digits that matter."""
    return f"{ppm / 1e4:.2g} %" if ppm < 10_000 else f"{ppm / 1e4:.1f} %"


def claim_words(certificate: Certificate) -> str:
    """What may be unreadable, in a sentence."""
    if not certificate.segment_bytes:
        return "nothing at farmers, so nothing to prove"
    if certificate.failing_segments:
        failing = f"{plural(certificate.failing_segments, 'segment')} ({human_size(certificate.failing_bytes)})"
        return f"{failing} did NOT come back; {proved_share(certificate)} proved"
    if certificate.unreadable_ppm == 0:
        return "all of it came back"
    at = f"{certificate.confidence_ppm / 1e4:g} %"
    if certificate.unproved_bytes * 1_000_000 <= certificate.unreadable_ppm * certificate.segment_bytes:
        return f"at most {share(certificate.unreadable_ppm)} is unreadable, which is what was not drilled"
    return f"with {at} confidence at most {share(certificate.unreadable_ppm)} of the bytes is unreadable"


def proved_share(certificate: Certificate) -> str:
    """How much was proved."""
    return f"{human_size(certificate.proved_bytes)} of {human_size(certificate.segment_bytes)}"


def certificate_words(certificate: Certificate) -> str:
    """One line."""
    return f"{proved_share(certificate)} proved; {claim_words(certificate)}"


def moment(ms: int) -> str:
    """A time, whatever it is."""
    return human_time(min(ms, _LATEST_MS))


def certificate_lines(certificate: Certificate) -> list[str]:
    """All of it for people."""
    oldest = moment(certificate.oldest_proof_ms) if certificate.oldest_proof_ms else "none"
    return [
        f"  owner      {certificate.owner_key.hex()}",
        f"  bucket     {certificate.bucket_id.hex()} in network {certificate.network}",
        f"  number     {certificate.sequence:,}, over {moment(certificate.from_ms)} to {moment(certificate.until_ms)}",
        f"  objects    {certificate.objects:,}, {human_size(certificate.object_bytes)}, in "
        f"{plural(certificate.segments, 'segment')}, {human_size(certificate.segment_bytes)}",
        f"  proved     {plural(certificate.proved_segments, 'segment')}, {human_size(certificate.proved_bytes)}; "
        f"oldest proof {oldest}",
        f"  failing    {plural(certificate.failing_segments, 'segment')}, {human_size(certificate.failing_bytes)}",
        f"  drills     {certificate.drills:,}, {certificate.drills_failed:,} failed, "
        f"{human_size(certificate.fetched_bytes)} fetched",
        f"  farmers    asked for {plural(certificate.shards_asked, 'shard')}, {certificate.shards_refused:,} of which "
        "did not come or came false",
        f"  sample     {plural(certificate.spot_checks, 'spot check')} over "
        f"{human_size(certificate.settled_bytes)} that were there all the time",
        f"  says       {claim_words(certificate)}",
    ]


def certificate_fields(certificate: Certificate) -> dict[str, Any]:
    """All of it for programs; bytes in hex."""
    values = {name: getattr(certificate, name) for name in certificate.__struct_fields__}
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()} | {
        "digest": certificate.digest.hex(),
        "says": claim_words(certificate),
    }
