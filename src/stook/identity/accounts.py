"""Ethereum's names for our keys: Keccak-256, the account of a public key, and the recovery bit of a signature.

Pure. Cheques are signed by node keys as everything else is; a chain wants the account and a 65th byte besides
(`docs/formats/cheque.md`).
"""

from __future__ import annotations

from coincurve import PublicKey as CurvePoint
from Crypto.Hash import keccak

from stook.ids import PublicKey, Signature

ACCOUNT_BYTES = 20


def keccak256(data: bytes) -> bytes:
    """The hash that Ethereum uses, which is not SHA3-256."""
    return keccak.new(digest_bits=256, data=data).digest()


def account_of(public_key: PublicKey) -> bytes:
    """The 20-byte account of a compressed key. Raises `ValueError` when it is no point of the curve."""
    return keccak256(CurvePoint(public_key).format(compressed=False)[1:])[-ACCOUNT_BYTES:]


def recoverable(public_key: PublicKey, digest: bytes, signature: Signature) -> bytes:
    """r ‖ s ‖ v of a signature that holds, v being 27 or 28, as `ecrecover` wants it.

    Raises `ValueError` when the key did not make it.
    """
    for bit in (0, 1):
        try:
            found = CurvePoint.from_signature_and_message(signature + bytes((bit,)), digest, hasher=None)
        except ValueError:
            continue
        if found.format(compressed=True) == public_key:
            return signature + bytes((27 + bit,))
    raise ValueError("this key did not make this signature")
