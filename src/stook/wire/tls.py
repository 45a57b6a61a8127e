"""TLS 1.3 with a throw-away certificate, and a driver that runs OpenSSL in memory in large pieces.

TLS gives secrecy and integrity on the way; who is at the other end is settled by the hello, which names the hash of
the certificate. So certificates are made anew for each process, signed by nobody, and checked by nobody here.
asyncio's own TLS costs two to three times what OpenSSL needs (`docs/decisions/0031-own-tls-driver.md`).
"""

from __future__ import annotations

import datetime
import hashlib
import secrets
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typing_extensions import Buffer

_NOT_BEFORE = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """The two contexts of one process, and the channel value of connections it accepts."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    channel: bytes
    """SHA-256 of our certificate (DER)."""


def new_tls_identity() -> TlsIdentity:
    """A fresh self-signed certificate (EC P-256) and its contexts. Nobody checks the dates in it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stook")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .sign(key, hashes.SHA256())
    )
    server = _context(ssl.PROTOCOL_TLS_SERVER)
    # The module takes certificates from files only; the key in the file is encrypted under a password nobody keeps.
    password = secrets.token_hex(32)
    with tempfile.TemporaryDirectory(prefix="stook-") as folder:
        path = Path(folder) / "throw-away.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password.encode()),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        server.load_cert_chain(path, password=password)
    server.num_tickets = 0  # no resumption: a resumed session would show no certificate to bind to
    der = certificate.public_bytes(serialization.Encoding.DER)
    return TlsIdentity(server, _context(ssl.PROTOCOL_TLS_CLIENT), hashlib.sha256(der).digest())


def _context(purpose: ssl._SSLMethod) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class TlsStream:
    """One TLS connection in memory: ciphertext in and out, plaintext in and out.

    Every method may raise `ssl.SSLError`, after which the stream is of no use.
    """

    __slots__ = ("_incoming", "_object", "_outgoing", "ended", "ready")

    def __init__(self, context: ssl.SSLContext, *, server: bool) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self.ready = False
        """Whether the handshake is done."""
        self.ended = False
        """Whether the peer said that nothing more follows (close_notify)."""

    def shake(self) -> bool:
        """Go on with the handshake; whether it is done. Write `take_ciphertext` to the network afterwards."""
        if not self.ready:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                return False
            self.ready = True
        return True

    def peer_channel(self) -> bytes:
        """Client: SHA-256 of the certificate the server showed."""
        return hashlib.sha256(self._object.getpeercert(binary_form=True) or b"").digest()

    def put_ciphertext(self, data: Buffer) -> None:
        """Bytes from the network."""
        self._incoming.write(data)

    def take_ciphertext(self) -> bytes:
        """Bytes for the network; b"" when there are none."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def read_into(self, buffer: memoryview) -> int:
        """Decrypt into `buffer`, one record at most; how many bytes, 0 at the end or when more ciphertext is needed."""
        try:
            size_bytes: int = self._object.read(len(buffer), buffer)  # type: ignore[assignment]
        except ssl.SSLWantReadError:
            return 0
        except ssl.SSLZeroReturnError:
            size_bytes = 0
        if not size_bytes:
            self.ended = True
        return size_bytes

    def write(self, pieces: Sequence[Buffer]) -> None:
        """Encrypt `pieces`, in order."""
        for piece in pieces:
            rest = memoryview(piece)
            while len(rest):
                rest = rest[self._object.write(rest) :]

    def say_end(self) -> None:
        """Tell the peer that nothing more follows (close_notify)."""
        try:
            self._object.unwrap()
        except ssl.SSLError:
            return  # it has not said so itself yet, and need not
