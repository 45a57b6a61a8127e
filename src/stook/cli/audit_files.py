"""The JSON files of `stook audit` for plain files, and a plain file as something that can be proved.

Formats are in `docs/formats/audit-files.md`. Whatever is read is checked field by field: these files come from whoever
is being audited as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from stook.audits.challenge import MAX_PAGE_WEIGHT, MAX_SALTS, Ask, SaltedAsk
from stook.audits.holding import MAX_SIZE_BYTES, HeldShard, Holding
from stook.audits.proof import MAX_PATH, AnswerKind, Item, UnitProof
from stook.audits.salted import MAX_DEPTH, SaltedProof, SaltedSecrets
from stook.contracts.loss import SignedLoss
from stook.errors import CorruptionError, NotFoundError, UserError
from stook.ids import ContractId, ShardRoot
from stook.merkle import UNIT_BYTES, leaves_of, shard_root
from stook.storage.durable import faults

MAX_FILE_BYTES = 4 << 20
_PIECE_BYTES = 1 << 20
NO_CONTRACT = ContractId(bytes(32))
"""A plain file has none."""

Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Strategy = Literal["sampled", "salted"]


class _Json(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str


class CommitmentFile(_Json, kw_only=True, frozen=True):
    """What is known of the file beforehand. Public."""

    strategy: Strategy
    size_bytes: Annotated[int, Meta(ge=1, le=MAX_SIZE_BYTES)]
    shard_root: Hex32
    root: Hex32 | None = None
    """The salted commitment."""
    leaves: Annotated[list[Hex32], Meta(max_length=MAX_SALTS)] = []
    """One for each salt; whoever keeps the file needs them to prove."""


class SecretsFile(_Json, kw_only=True, frozen=True):
    """Salts that were not shown yet. Private."""

    seed: Hex32
    count: Annotated[int, Meta(ge=1, le=MAX_SALTS)]
    root: Hex32
    next_index: Annotated[int, Meta(ge=0, le=MAX_SALTS)]


class SaltedJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`SaltedAsk` in JSON."""

    index: Annotated[int, Meta(ge=0, lt=MAX_SALTS)]
    count: Annotated[int, Meta(ge=1, le=MAX_SALTS)]
    root: Hex32
    salt: Hex32


class ChallengeFile(_Json, kw_only=True, frozen=True):
    """What is asked of whoever keeps the file."""

    nonce: Hex32
    size_bytes: Annotated[int, Meta(ge=1, le=MAX_SIZE_BYTES)]
    shard_root: Hex32
    units: Annotated[list[Annotated[int, Meta(ge=0, lt=2**32)]], Meta(max_length=MAX_PAGE_WEIGHT)]
    salted: SaltedJson | None


class UnitJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`UnitProof` in JSON, the unit in base64."""

    unit: bytes
    path: Annotated[list[Hex32], Meta(max_length=MAX_PATH)]


class SaltedProofJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`SaltedProof` in JSON."""

    pre_leaf: Hex32
    path: Annotated[list[Hex32], Meta(max_length=MAX_DEPTH)]


class ProofFile(_Json, kw_only=True, frozen=True):
    """The answer."""

    nonce: Hex32
    units: Annotated[list[UnitJson], Meta(max_length=MAX_PAGE_WEIGHT)]
    salted: SaltedProofJson | None


FORMATS: dict[type[_Json], str] = {
    CommitmentFile: "stook audit commitment 1",
    SecretsFile: "stook audit secrets 1",
    ChallengeFile: "stook audit challenge 1",
    ProofFile: "stook audit proof 1",
}
F = TypeVar("F", bound=_Json)


# --- reading and writing ---------------------------------------------------------------------------------------------


def read_json(kind: type[F], path: Path) -> F:
    """The file at `path`. Raises `NotFoundError`, `EnvironmentFault`, `UserError` that says what is wrong with it."""
    wanted = FORMATS[kind]
    if not path.exists():
        raise NotFoundError(f"there is no file {path}")
    with faults(f"cannot read {path}"), path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise UserError(f"{path} is too large for a file of the format {wanted!r}")
    try:
        value = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UserError(f"{path} is no file of the format {wanted!r}: {error}") from None
    if value.format != wanted:
        raise UserError(f"{path} has the format {value.format[:40]!a}, not {wanted!r}")
    return value


def write_json(value: _Json, path: Path, *, private: bool = False, replace: bool = False) -> None:
    """`write_file`, as text that people can read."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
    write_file(text, path, private=private, replace=replace)


def write_file(data: bytes, path: Path, *, private: bool = False, replace: bool = False) -> None:
    """Write a whole file or none, synced; mode 0600 when `private`. Raises `UserError` when it is there already."""
    if path.exists() and not replace:
        raise UserError(f"{path} exists already: remove it, or write to another file")
    fresh = path.with_name(f".{path.name}.new")
    with faults(f"cannot write {path}"):
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(fresh, path)


# --- between JSON and the audit room ---------------------------------------------------------------------------------


def unhex(text: str) -> bytes:
    """32 bytes."""
    return bytes.fromhex(text)


def holding_of(size_bytes: int, root: str) -> Holding:
    """A plain file as a holding of one."""
    return Holding([HeldShard(NO_CONTRACT, ShardRoot(unhex(root)), size_bytes)])


def ask_of(challenge: ChallengeFile) -> Ask:
    """The ask that a challenge file spells. Raises `UserError` when it contradicts itself."""
    told = challenge.salted
    try:
        salted = None if told is None else SaltedAsk(told.index, told.count, unhex(told.root), unhex(told.salt))
        root = ShardRoot(unhex(challenge.shard_root))
        return Ask(NO_CONTRACT, root, challenge.size_bytes, tuple(challenge.units), salted)
    except ValueError as error:
        raise UserError(f"this challenge contradicts itself: {error}") from None


def challenge_file(nonce: bytes, ask: Ask) -> ChallengeFile:
    """An ask as a file."""
    told = ask.salted
    return ChallengeFile(
        format=FORMATS[ChallengeFile],
        nonce=nonce.hex(),
        size_bytes=ask.size_bytes,
        shard_root=ask.shard_root.hex(),
        units=list(ask.units),
        salted=None if told is None else SaltedJson(told.index, told.count, told.root.hex(), told.salt.hex()),
    )


def item_of(proof: ProofFile) -> Item:
    """The item that a proof file spells. Raises `UserError` for units that none has."""
    for entry in proof.units:
        if not 1 <= len(entry.unit) <= UNIT_BYTES:
            raise UserError(f"this proof has a unit of {len(entry.unit)} bytes; units have 1 to {UNIT_BYTES}")
    units = tuple(UnitProof(entry.unit, tuple(unhex(step) for step in entry.path)) for entry in proof.units)
    told = proof.salted
    salted = None if told is None else SaltedProof(unhex(told.pre_leaf), tuple(unhex(step) for step in told.path))
    return Item(AnswerKind.PROOF, units, salted, None)


def proof_file(nonce: str, item: Item) -> ProofFile:
    """An item as a file."""
    told = item.salted
    salted = None if told is None else SaltedProofJson(told.pre_leaf.hex(), [step.hex() for step in told.path])
    units = [UnitJson(entry.unit, [step.hex() for step in entry.path]) for entry in item.units]
    return ProofFile(format=FORMATS[ProofFile], nonce=nonce, units=units, salted=salted)


def secrets_file(secrets: SaltedSecrets) -> SecretsFile:
    """Secrets as a file."""
    return SecretsFile(
        format=FORMATS[SecretsFile],
        seed=secrets.seed.hex(),
        count=secrets.count,
        root=secrets.root.hex(),
        next_index=secrets.next_index,
    )


def secrets_of(file: SecretsFile) -> SaltedSecrets:
    """Secrets from their file."""
    return SaltedSecrets(unhex(file.seed), file.count, unhex(file.root), file.next_index)


# --- a plain file ----------------------------------------------------------------------------------------------------


class PlainFile:
    """A file as a `Keeper` of one shard: its leaf list is made anew from all its bytes."""

    def __init__(self, path: Path, salted_leaves: Sequence[bytes] = ()) -> None:
        """Raises `NotFoundError`, `EnvironmentFault`; `UserError` when it is no regular file, or empty."""
        if not path.exists():
            raise NotFoundError(f"there is no file {path}")
        if not path.is_file():
            raise UserError(f"{path} is no regular file")
        self._path = path
        self._salted_leaves = salted_leaves
        with faults(f"cannot read {path}"):
            self.size_bytes = path.stat().st_size
        if not 1 <= self.size_bytes <= MAX_SIZE_BYTES:
            raise UserError(f"{path} has {self.size_bytes} bytes; 1 to {MAX_SIZE_BYTES} can be audited")

    def pieces(self) -> Iterator[bytes]:
        """All bytes in order."""
        with faults(f"cannot read {self._path}"), self._path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    def leaves(self) -> list[bytes]:
        """The leaf list."""
        return [leaf for piece in self.pieces() for leaf in leaves_of(memoryview(piece))]

    def root(self) -> ShardRoot:
        """Its shard root."""
        return shard_root(self.size_bytes, self.leaves())

    def standing(self, ask: Ask) -> AnswerKind | SignedLoss:
        """It is there."""
        return AnswerKind.PROOF

    def read_leaves(self, root: ShardRoot) -> bytes:
        """The leaf list in one piece."""
        return b"".join(self.leaves())

    def read_units(self, root: ShardRoot, first_unit: int, into: memoryview) -> int:
        """As a shard store."""
        with faults(f"cannot read {self._path}"), self._path.open("rb") as file:
            file.seek(first_unit * UNIT_BYTES)
            filled = 0
            while got := file.readinto(into[filled:]):
                filled += got
            return filled

    def salted_leaves(self, ask: Ask) -> Sequence[bytes]:
        """Those of the commitment file; none without one."""
        return self._salted_leaves

    def lose(self, ask: Ask) -> SignedLoss:
        """A plain file has nobody to sign for it. Raises `CorruptionError`."""
        raise CorruptionError(f"{self._path} is not the file that was asked about, or it changed while it was read")
