"""The erasure code: any `k` rows of a segment give every other row (`docs/formats/segment.md`).

Systematic Reed-Solomon over GF(2^8) with the polynomial 0x11d and a Cauchy matrix: row ``i < k`` is data row `i`, row
``i >= k`` has the coefficients ``1 / (i xor j)`` for ``j`` in 0..k-1 (the matrix of ISA-L's ``gf_gen_cauchy1_matrix``).
A row does not depend on how many rows there are, so new ones can be made long after sealing.

Two adapters of `Codec` give the same bytes: ISA-L through ctypes, which releases the GIL, and NumPy, which runs
everywhere. Only this module touches either.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stook.errors import BugError, NotEnoughError
from stook.shards.geometry import MAX_SHARDS

POLYNOMIAL = 0x11D
Matrix = tuple[bytes, ...]
"""Rows of coefficients, one byte each."""
_Bytes = npt.NDArray[np.uint8]
_Words = npt.NDArray[np.uint64]


class Transform(Protocol):
    """A matrix bound to its source and target rows. One thread at a time."""

    def __call__(self, offset: int, length: int, /) -> None:
        """Compute bytes `offset` to ``offset + length`` of every target from the same bytes of the sources.

        Both are multiples of 8. Raises `ValueError` when the range leaves the rows.
        """
        ...


class Codec(Protocol):
    """Multiplies matrices with rows of bytes, fast."""

    @property
    def name(self) -> str:
        """For logs and benchmarks."""
        ...

    def bind(self, matrix: Matrix, sources: Sequence[memoryview], targets: Sequence[memoryview]) -> Transform:
        """Prepare ``targets[t] = sum of matrix[t][s] * sources[s]``.

        Targets are writable and distinct from the sources; rows are at least as long as any range asked for later.
        Raises `ValueError` when the matrix does not fit the rows.
        """
        ...


def _power_tables() -> tuple[_Bytes, npt.NDArray[np.intp]]:
    exp = np.zeros(512, dtype=np.uint8)
    log = np.zeros(256, dtype=np.intp)
    value = 1
    for power in range(255):
        exp[power] = exp[power + 255] = value
        log[value] = power
        value = value << 1 ^ (POLYNOMIAL if value & 0x80 else 0)
    return exp, log


_EXP, _LOG = _power_tables()


def _multiply(left: _Bytes, right: _Bytes) -> _Bytes:
    """The products in the field, element by element, broadcast."""
    product: _Bytes = np.where((left == 0) | (right == 0), np.uint8(0), _EXP[_LOG[left] + _LOG[right]])
    return product


def _inverse(value: int) -> int:
    return int(_EXP[255 - _LOG[value]])


def code_row(k: int, index: int) -> bytes:
    """The coefficients of code row `index` over the `k` data rows. Raises `ValueError` outside 0..254."""
    if not (1 <= k <= MAX_SHARDS and 0 <= index < MAX_SHARDS):
        raise ValueError(f"the code has no row {index} over {k} data rows")
    if index < k:
        return bytes(1 if column == index else 0 for column in range(k))
    return bytes(_inverse(index ^ column) for column in range(k))


@lru_cache(maxsize=64)
def encode_matrix(k: int, total: int) -> Matrix:
    """Rows `k` up to `total`: what makes the parity from the data."""
    return tuple(code_row(k, index) for index in range(k, total))


@lru_cache(maxsize=256)
def decode_matrix(k: int, present: tuple[int, ...], wanted: tuple[int, ...]) -> Matrix:
    """What makes the `wanted` rows from the `present` ones, in the orders given.

    Raises `NotEnoughError` unless exactly `k` different rows are present.
    """
    if len(present) != k or len(set(present)) != k:
        raise NotEnoughError(f"{k} different shards are needed to rebuild, not {len(set(present))}")
    inverted = _invert(np.frombuffer(b"".join(code_row(k, index) for index in present), np.uint8).reshape(k, k))
    rows: list[bytes] = []
    for index in wanted:
        if index < k:
            rows.append(inverted[index].tobytes())
            continue
        coefficients = np.frombuffer(code_row(k, index), np.uint8)
        rows.append(np.bitwise_xor.reduce(_multiply(coefficients[:, None], inverted), axis=0).tobytes())
    return tuple(rows)


def _invert(matrix: _Bytes) -> _Bytes:
    """The inverse of a square matrix, by Gauss and Jordan. Every k rows of the code are independent."""
    size = len(matrix)
    work = np.concatenate([matrix, np.eye(size, dtype=np.uint8)], axis=1)
    for column in range(size):
        candidates = np.flatnonzero(work[column:, column])
        if not len(candidates):
            raise BugError("rows of the code are not independent")
        pivot = column + int(candidates[0])
        if pivot != column:
            work[[column, pivot]] = work[[pivot, column]]
        work[column] = _multiply(work[column], _EXP[255 - _LOG[work[column, column : column + 1]]])
        factors = work[:, column].copy()
        factors[column] = 0
        touched = np.flatnonzero(factors)
        work[touched] ^= _multiply(factors[touched, None], work[column][None, :])
    return np.ascontiguousarray(work[:, size:])


def _check(matrix: Matrix, sources: Sequence[memoryview], targets: Sequence[memoryview]) -> None:
    if len(matrix) != len(targets) or any(len(row) != len(sources) for row in matrix) or not sources or not targets:
        raise ValueError(f"the matrix does not fit {len(sources)} sources and {len(targets)} targets")
    if any(target.readonly for target in targets):
        raise ValueError("a target is read-only")


class NumpyCodec:
    """The code in NumPy alone: 64-bit words, multiplied by x in place, added where a coefficient has the bit."""

    name = "numpy"
    _CHUNK_BYTES = 64 * 1024
    """Measured best: three arrays of this size stay in the second-level cache."""

    def bind(self, matrix: Matrix, sources: Sequence[memoryview], targets: Sequence[memoryview]) -> Transform:
        """See `Codec.bind`."""
        _check(matrix, sources, targets)
        source_rows = [np.frombuffer(row, np.uint8) for row in sources]
        target_rows = [np.frombuffer(row, np.uint8) for row in targets]
        # For each source and bit, the targets that take source * x^bit.
        takers = [
            [[t for t, row in enumerate(matrix) if row[s] >> bit & 1] for bit in range(8)] for s in range(len(sources))
        ]

        shortest = min(len(row) for row in (*source_rows, *target_rows))

        def transform(offset: int, length: int, /) -> None:
            if offset < 0 or length < 0 or offset + length > shortest:
                raise ValueError(f"{length} bytes from {offset} leave rows of {shortest}")
            for begin in range(offset, offset + length, self._CHUNK_BYTES):
                end = min(begin + self._CHUNK_BYTES, offset + length)
                outs = [row[begin:end].view(np.uint64) for row in target_rows]
                for out in outs:
                    out.fill(0)
                for row, by_bit in zip(source_rows, takers, strict=True):
                    _add_multiples(row[begin:end].view(np.uint64), by_bit, outs)

        return transform


_HIGH_BITS = np.uint64(0x8080808080808080)
_LOW_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
_REDUCER = np.uint64(POLYNOMIAL & 0xFF)
_SEVEN, _ONE = np.uint64(7), np.uint64(1)


def _add_multiples(source: _Words, takers: list[list[int]], outs: list[_Words]) -> None:
    """Add ``source * x^bit`` to each of ``takers[bit]``, eight field elements to a word."""
    power, carry = source.copy(), np.empty_like(source)
    for bit, taking in enumerate(takers):
        for target in taking:
            np.bitwise_xor(outs[target], power, out=outs[target])
        if bit < 7 and any(takers[bit + 1 :]):
            np.bitwise_and(power, _HIGH_BITS, out=carry)
            np.right_shift(carry, _SEVEN, out=carry)
            np.multiply(carry, _REDUCER, out=carry)
            np.bitwise_and(power, _LOW_BITS, out=power)
            np.left_shift(power, _ONE, out=power)
            np.bitwise_xor(power, carry, out=power)


class IsalCodec:
    """The code in ISA-L, as the pyeclib wheel bundles it, called directly: no headers, no copies, no GIL."""

    name = "isa-l"

    def __init__(self, library: ctypes.CDLL) -> None:
        self._init_tables = library.ec_init_tables
        self._init_tables.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
        self._init_tables.restype = None
        self._encode = library.ec_encode_data
        self._encode.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int] + [ctypes.c_void_p] * 3
        self._encode.restype = None

    def bind(self, matrix: Matrix, sources: Sequence[memoryview], targets: Sequence[memoryview]) -> Transform:
        """See `Codec.bind`."""
        _check(matrix, sources, targets)
        tables = ctypes.create_string_buffer(32 * len(sources) * len(targets))
        self._init_tables(len(sources), len(targets), b"".join(matrix), tables)
        return _IsalTransform(self._encode, tables, sources, targets)


class _IsalTransform:
    """Keeps the tables and every buffer alive and in place, and hands ISA-L their addresses."""

    __slots__ = ("_bases", "_encode", "_held", "_pointers", "_rows", "_shortest", "_sources", "_tables", "_targets")

    def __init__(
        self,
        encode: Callable[..., None],
        tables: ctypes.Array[ctypes.c_char],
        sources: Sequence[memoryview],
        targets: Sequence[memoryview],
    ) -> None:
        self._held = [np.frombuffer(row, np.uint8) for row in (*sources, *targets)]
        self._shortest = min(len(row) for row in self._held)
        self._encode, self._tables = encode, tables
        self._sources, self._rows = len(sources), len(targets)
        self._bases = np.array([row.ctypes.data for row in self._held], dtype=np.uintp)
        self._pointers = np.empty_like(self._bases)
        self._targets = self._pointers.ctypes.data + len(sources) * self._pointers.itemsize

    def __call__(self, offset: int, length: int, /) -> None:
        """Raises `ValueError` when the range leaves the rows: the library itself checks nothing."""
        if offset < 0 or length < 0 or offset + length > self._shortest:
            raise ValueError(f"{length} bytes from {offset} leave rows of {self._shortest}")
        pointers = self._pointers
        np.add(self._bases, np.uintp(offset), out=pointers)
        self._encode(length, self._sources, self._rows, self._tables, pointers.ctypes.data, self._targets)


def find_isal() -> ctypes.CDLL | None:
    """The ISA-L library that came with pyeclib, or the system's; None when there is none to load."""
    names: list[str] = []
    try:
        files = importlib.metadata.files("pyeclib") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    names += [str(file.locate()) for file in files if file.name.startswith("libisal")]
    for name in [*names, "libisal.so.2", "libisal.2.dylib"]:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        if hasattr(library, "ec_encode_data") and hasattr(library, "ec_init_tables"):
            return library
    return None


def load_codec() -> Codec:
    """The fastest codec this machine has."""
    library = find_isal()
    return NumpyCodec() if library is None else IsalCodec(library)
