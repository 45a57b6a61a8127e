"""Drills, certificates and "last proven restorable", as a person sees them; the farmers are not there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from test_cli_commands import Ran, Stook, renter, stook

import certificate_samples as samples
from stook.cli.certified import certificate_words, claim_words, share
from stook.cli.proved import bucket_fields, bucket_words, proof_fields, proved_words
from stook.codec import encode
from stook.ids import SegmentId
from stook.renter.certificate import CertificateFile, SignedCertificate
from stook.storage.catalog import SqlCatalog
from stook.storage.drill_ports import BucketProof, DrillOutcome, ObjectProof
from stook.storage.renter_ports import ObjectEntry, SegmentEntry

__all__ = ["renter", "stook"]

NOON_MS = 1_700_000_000_000


@pytest.fixture
def drilled(renter: Stook, tmp_path: Path) -> Stook:
    """A bucket with an object that was proved, one that was not, one that fails, and an empty one."""
    assert renter("mb", "photos").code == 0
    catalog = SqlCatalog.open(tmp_path / "home" / "catalog.db")
    sid = [SegmentId(bytes([number]) * 16) for number in range(3)]
    segments = [SegmentEntry(each, b"sealed", 100, bytes(32), 2, 5, 16384) for each in sid]
    names = ("a", "b", "c")
    entries = [
        ObjectEntry("photos", name, 1, 100, 5, bytes(32), b"r", (each,)) for name, each in zip(names, sid, strict=True)
    ]
    catalog.commit([*entries, ObjectEntry("photos", "d", 1, 0, 5, bytes(32), b"r", ())], segments)
    catalog.drills.enlist(NOON_MS)
    catalog.drills.record(DrillOutcome(sid[0], NOON_MS, True, True, bytes(32), 32768, 2, 0))
    catalog.drills.record(DrillOutcome(sid[2], NOON_MS, False, False, bytes(32), 0, 5, 5, "too few"))
    catalog.close()
    return renter


def lines(ran: Ran) -> list[dict]:
    return [json.loads(line) for line in ran.out.splitlines()]


def test_ls_says_when_each_object_was_last_proved(drilled: Stook) -> None:
    ran = drilled("ls", "-l", "photos")
    assert ran.code == 0
    columns = [re.split(r"  +", line.strip()) for line in ran.out.splitlines()]
    assert [(row[2][:4], row[-1]) for row in columns] == [("2023", "a"), ("neve", "b"), ("fail", "c"), ("-", "d")]
    found = {
        line["name"]: (line["proved_ms"], line["restore_failing"]) for line in lines(drilled("ls", "photos", "--json"))
    }
    assert found == {"a": (NOON_MS, False), "b": (None, False), "c": (None, True), "d": (None, False)}
    assert drilled("ls", "photos").out == "a\nb\nc\nd\n"


def test_status_says_it_for_each_bucket(drilled: Stook) -> None:
    bucket = drilled("status", "--json").json["buckets"]["photos"]
    assert bucket["never_drilled"] == 2
    assert bucket["restore_failing"] == 1
    assert bucket["oldest_proof_ms"] == bucket["newest_proof_ms"] == NOON_MS
    out = drilled("status").out
    assert "2 never drilled; 1 FAILED the last drill" in out
    assert "proven restorable 2023" in out


def test_a_drill_that_brings_nothing_back_says_so_and_signs_it(drilled: Stook, tmp_path: Path) -> None:
    ran = drilled("drill", "--json")
    assert ran.code == 7
    assert ran.json["ok"] is False
    assert (ran.json["drills"], ran.json["passed"], ran.json["offline"]) == (3, 0, False)
    assert all(failed["why"] for failed in ran.json["failed"])
    assert ran.json["unreadable_ppm"] == {"photos": 1_000_000}
    again = drilled("drill", "--bucket", "photos")
    assert again.code == 7
    assert again.out.count("FAILED") == 3
    assert "did NOT come back" in again.out

    shown = drilled("certificate", "show", "photos")
    assert shown.code == 0
    assert "number     2" in shown.out
    everything = lines(drilled("certificate", "show", "--all", "--json"))
    assert [each["sequence"] for each in everything] == [1, 2]
    assert everything[1]["previous"] == everything[0]["digest"]

    file, chain = tmp_path / "one.cert", tmp_path / "all.cert"
    assert drilled("certificate", "export", "photos", str(file)).code == 0
    assert drilled("certificate", "export", "photos", str(file)).code == 2
    assert drilled("certificate", "export", "photos", str(chain), "--all", "--json").json["certificates"] == 2
    stranger = tmp_path / "no-home"
    assert "restore certificate holds" in drilled("certificate", "verify", str(file), home=stranger).out
    judged = drilled("certificate", "verify", str(chain), "--json", home=stranger)
    assert (judged.code, judged.json["whole_chain"], len(judged.json["certificates"])) == (0, True, 2)
    own = drilled("certificate", "verify", "photos", "--json")
    assert own.json["certificates"] == judged.json["certificates"]
    assert "photos" not in file.read_bytes().decode("latin-1")


def test_a_false_certificate_is_refused(drilled: Stook, tmp_path: Path) -> None:
    first, second, third, _ = samples.chain()
    broken = tmp_path / "broken"
    for number, (certificates, why) in enumerate(
        (
            ((first, third), "HASH_MISMATCH"),
            ((SignedCertificate(first.certificate, second.signature),), "BAD_SIGNATURE"),
        )
    ):
        path = tmp_path / f"{number}"
        path.write_bytes(encode(CertificateFile(1, certificates)))
        ran = drilled("certificate", "verify", str(path))
        assert (ran.code, why in ran.err) == (6, True)
    broken.write_bytes(b"nonsense")
    assert drilled("certificate", "verify", str(broken)).code == 6
    assert drilled("certificate", "verify", str(tmp_path / "nothing"), home=tmp_path / "no-home").code == 3
    assert drilled("certificate", "verify", "nothing").code == 3


def test_what_cannot_be_drilled_is_said(renter: Stook) -> None:
    assert "No certificate yet" in renter("certificate", "show").err
    ran = renter("drill")
    assert ran.code == 0
    assert "Nothing is stored" in ran.out
    assert renter("drill", "--bucket", "nowhere").code == 3
    assert renter("certificate", "show", "nowhere").code == 3
    assert renter("certificate", "export", "nowhere", "f").code == 3
    for words in (("--bytes", "0"), ("--bytes", "many"), ("--continuous", "--bucket", "b")):
        assert renter("drill", *words).code == 2


def test_words_for_proofs() -> None:
    assert proved_words(None, empty=True) == "-"
    assert proved_words(None, empty=False) == "never"
    assert proved_words(ObjectProof(0, False), empty=False) == "never"
    assert proved_words(ObjectProof(0, True), empty=False) == "failing"
    assert proved_words(ObjectProof(NOON_MS, False), empty=False).startswith("2023-11-1")
    assert proof_fields(None) == {"proved_ms": None, "restore_failing": False}
    assert bucket_words(bucket_fields(BucketProof(0, 0, 0, 0))) == "nothing at farmers"
    words = bucket_words(bucket_fields(BucketProof(0, 0, NOON_MS, NOON_MS + 10**9)))
    assert " to " in words


def test_words_for_claims() -> None:
    first, second, third, fourth = (signed.certificate for signed in samples.chain())
    assert "at most 100.0 % is unreadable" in claim_words(first)
    assert "95 % confidence at most" in claim_words(second)
    assert "1 segment (1.0 MiB) did NOT come back" in claim_words(third)
    assert claim_words(fourth) == "all of it came back"
    assert claim_words(samples.certify(now_ms=5).certificate).startswith("nothing")
    assert certificate_words(fourth).startswith("39.0 MiB of 39.0 MiB proved")
    assert (share(5), share(12_345), share(1_000_000)) == ("0.0005 %", "1.2 %", "100.0 %")
