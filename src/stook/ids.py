"""The names everyone shares: who a node is, which shard, which contract, which message.

Every id is a `bytes` value under a `NewType`, so that a `NodeId` is never passed where a `ShardRoot` is meant. The
``*Field`` aliases carry the exact length for `stook.codec`: a value of any other length does not decode.
"""

from __future__ import annotations

from typing import Annotated, NewType

from msgspec import Meta

NodeId = NewType("NodeId", bytes)
"""160 bits: RIPEMD160(SHA256(compressed public key)) (white paper 2.2)."""
ShardRoot = NewType("ShardRoot", bytes)
"""256 bits: the tagged hash of a shard's size and Merkle top; its address and its audit commitment."""
ContractId = NewType("ContractId", bytes)
"""256 bits: the tagged hash of a contract's terms, without signatures."""
SegmentId = NewType("SegmentId", bytes)
"""128 random bits: the renter's name for one sealed segment. Farmers never see it in the clear."""
MessageId = NewType("MessageId", bytes)
"""128 random bits, new for each request."""
SessionNonce = NewType("SessionNonce", bytes)
"""128 random bits, chosen by the receiver, fresh for each session."""
PublicKey = NewType("PublicKey", bytes)
"""33 bytes: a compressed secp256k1 point."""
Signature = NewType("Signature", bytes)
"""64 bytes: ECDSA r ‖ s, s in the lower half (so that one message has one signature per nonce)."""
NetworkId = NewType("NetworkId", str)
"""1 to 32 characters of ``a-z 0-9 - .``; nodes of different networks refuse each other."""

NODE_ID_BYTES = 20
ROOT_BYTES = 32
NONCE_BYTES = 16
PUBLIC_KEY_BYTES = 33
SIGNATURE_BYTES = 64

NodeIdField = Annotated[NodeId, Meta(min_length=20, max_length=20)]
ShardRootField = Annotated[ShardRoot, Meta(min_length=32, max_length=32)]
ContractIdField = Annotated[ContractId, Meta(min_length=32, max_length=32)]
SegmentIdField = Annotated[SegmentId, Meta(min_length=16, max_length=16)]
MessageIdField = Annotated[MessageId, Meta(min_length=16, max_length=16)]
SessionNonceField = Annotated[SessionNonce, Meta(min_length=16, max_length=16)]
PublicKeyField = Annotated[PublicKey, Meta(min_length=33, max_length=33)]
SignatureField = Annotated[Signature, Meta(min_length=64, max_length=64)]
NetworkIdField = Annotated[NetworkId, Meta(min_length=1, max_length=32, pattern=r"^[a-z0-9.-]+\Z")]
Bytes32Field = Annotated[bytes, Meta(min_length=32, max_length=32)]
U32Field = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U63Field = Annotated[int, Meta(ge=0, le=2**63 - 1)]
