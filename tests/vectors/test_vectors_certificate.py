"""Golden vectors of restore certificates. Never delete a file in `data/`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import certificate_samples
from stook.codec import decode, encode
from stook.hashing import Tag
from stook.renter.certificate import SignedCertificate, read_certificate_file, verify_certificate, verify_chain

VECTORS = json.loads((Path(__file__).parent / "data" / "certificate-v1.json").read_text())


def test_the_vectors_are_what_is_made_now() -> None:
    assert json.loads(json.dumps(certificate_samples.made())) == VECTORS
    assert VECTORS["tag"] == {"name": Tag.CERTIFICATE.value, "key": Tag.CERTIFICATE.key.hex()}


@pytest.mark.parametrize("vector", VECTORS["certificates"], ids=lambda vector: vector["fields"]["sequence"])
def test_a_certificate_reads_as_it_was_written(vector: dict) -> None:
    data = bytes.fromhex(vector["encoded"])
    signed = decode(SignedCertificate, data)
    assert encode(signed) == data
    assert signed.certificate.digest.hex() == vector["digest"]
    assert certificate_samples.spelled(signed) == vector["fields"]
    verify_certificate(signed)


def test_the_file_is_a_chain() -> None:
    file = read_certificate_file(bytes.fromhex(VECTORS["file"]))
    verify_chain(file.certificates)
    assert [encode(signed).hex() for signed in file.certificates] == [
        vector["encoded"] for vector in VECTORS["certificates"]
    ]
