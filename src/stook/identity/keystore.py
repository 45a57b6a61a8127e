"""Secrets on disk: one small file, readable by its owner alone, written whole or not at all.

A file holds either a person's phrase (`OwnerSecrets`) or what an agent needs (`AgentCredential`); a passphrase may
encrypt it. Calls block: they sync to disk, and scrypt takes a good part of a second (`docs/formats/keystore.md`).
"""

from __future__ import annotations

import enum
import errno
import os
import stat
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Meta

from stook.clock import Entropy
from stook.codec import Record, decode, encode
from stook.errors import ConfigError, ConflictError, CorruptionError, EnvironmentFault, MalformedError
from stook.hashing import Tag, tagged_hash
from stook.identity.keys import AgentCredential, KeyTree, new_phrase, phrase_seed
from stook.ids import Bytes32Field, NetworkIdField, NodeId, NodeIdField

KEY_FILE_VERSION = 1
OWNER_SECRETS_VERSION = 1
MAX_KEY_FILE_BYTES = 4096
MAX_PASSPHRASE_CHARS = 256
DEFAULT_SCRYPT_LOG_N = 17
"""2**17 rounds of 1 KiB blocks: 128 MiB and about half a second for every guess."""
_MIN_SCRYPT_LOG_N, _MAX_SCRYPT_LOG_N = 10, 20
_SCRYPT_R = 8
_MAGIC = "stook-keys"


class PassphraseNeededError(ConfigError):
    """The key file is encrypted and no passphrase was given."""


class WrongPassphraseError(ConfigError):
    """The passphrase does not open the key file."""


class Content(enum.IntEnum):
    """What the body of a key file decodes to."""

    OWNER = 1
    AGENT = 2


class Protection(enum.IntEnum):
    """How the body is kept."""

    NONE = 0
    SCRYPT_AES_256_GCM = 1


class OwnerSecrets(Record):
    """What a person owns: the entropy of the 24 words, and the BIP-39 passphrase if one is used ("25th word")."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    entropy: Bytes32Field
    phrase_passphrase: Annotated[str, Meta(max_length=MAX_PASSPHRASE_CHARS)]

    def phrase(self) -> str:
        """The 24 words."""
        return new_phrase(self.entropy)

    def tree(self) -> KeyTree:
        """All the keys that follow."""
        return KeyTree(phrase_seed(self.phrase(), self.phrase_passphrase))

    def __repr__(self) -> str:
        return f"OwnerSecrets(version={self.version}, network={self.network!r}, …)"


class KeyFileHeader(Record):
    """The part of a key file that anybody who may read it sees; authenticated with the body when encrypted."""

    magic: Annotated[str, Meta(max_length=16)]
    version: Annotated[int, Meta(ge=1, le=255)]
    content: Content
    node_id: NodeIdField
    """Node key 0 of group 0 of the owner, or the agent's: shown without the passphrase, checked with it."""
    protection: Protection
    scrypt_log_n: Annotated[int, Meta(ge=0, le=_MAX_SCRYPT_LOG_N)]
    salt: Annotated[bytes, Meta(max_length=16)]
    nonce: Annotated[bytes, Meta(max_length=12)]


class KeyFile(Record):
    """A whole key file. `check` is the tagged hash of header and body: it tells damage from a wrong passphrase."""

    header: KeyFileHeader
    body: Annotated[bytes, Meta(max_length=2048)]
    check: Bytes32Field


Secrets = OwnerSecrets | AgentCredential


def save_secrets(
    path: Path,
    secrets: Secrets,
    *,
    entropy: Entropy,
    passphrase: str | None = None,
    replace: bool = False,
    scrypt_log_n: int = DEFAULT_SCRYPT_LOG_N,
) -> None:
    """Write `secrets` to `path`, mode 0600, synced, all or nothing; missing parent folders are made with mode 0700.

    Raises `ConflictError` when the file exists and `replace` is false, `ConfigError` for an empty passphrase or
    `scrypt_log_n` outside 10..20, `EnvironmentFault` when the disk or its permissions refuse.
    """
    data = encode(_pack(secrets, entropy, passphrase, scrypt_log_n))
    fresh = path.with_name(f"{path.name}.new-{entropy(8).hex()}")
    _make_folder(path.parent)
    try:
        try:
            _write_synced(fresh, data)
            _publish(fresh, path, replace)
        finally:
            with suppress(FileNotFoundError):
                fresh.unlink()
    except FileExistsError:
        raise ConflictError(
            f"{path} exists already; move it away first: replacing a key file loses the identity in it"
        ) from None
    except OSError as error:
        raise EnvironmentFault(f"cannot write the key file {path}: {error.strerror}") from error


def load_secrets(path: Path, *, passphrase: str | None = None) -> Secrets:
    """The secrets in `path`.

    Raises `ConfigError` when there is no such file, it is not this user's, or others may read it;
    `PassphraseNeededError`, `WrongPassphraseError`; `CorruptionError` when its bytes are damaged.
    """
    key_file = _parse(path, _read_private(path))
    header = key_file.header
    body = key_file.body
    if header.protection is Protection.SCRYPT_AES_256_GCM:
        if passphrase is None:
            raise PassphraseNeededError(f"{path} is encrypted; give its passphrase")
        body = _decrypt(path, header, body, passphrase)
    try:
        secrets = decode(_CONTENT_TYPES[header.content], body, max_bytes=MAX_KEY_FILE_BYTES)
        matches = _node_id(secrets) == header.node_id
    except (MalformedError, ValueError) as error:
        raise CorruptionError(f"{path}: the secrets in it do not decode: {error}") from None
    if not matches:
        raise CorruptionError(f"{path}: its keys do not lead to the node id it names")
    if secrets.version != 1:
        raise ConfigError(f"{path} holds secrets of version {secrets.version}; this version of Stook knows 1")
    return secrets


def inspect_key_file(path: Path) -> KeyFileHeader:
    """What a key file says of itself without its passphrase. Raises like `load_secrets`."""
    return _parse(path, _read_private(path)).header


# --- inside ----------------------------------------------------------------------------------------------------------

_CONTENT_TYPES: dict[Content, type[OwnerSecrets] | type[AgentCredential]] = {
    Content.OWNER: OwnerSecrets,
    Content.AGENT: AgentCredential,
}


def _node_id(secrets: Secrets) -> NodeId:
    return (secrets.tree().node_key() if isinstance(secrets, OwnerSecrets) else secrets.node_key()).node_id


def _scrypt_key(passphrase: str, salt: bytes, log_n: int) -> bytes:
    # NFKD, as BIP-39 does, so that the same words typed on another keyboard give the same bytes.
    typed = unicodedata.normalize("NFKD", passphrase).encode(errors="surrogateescape")
    return Scrypt(salt=salt, length=32, n=1 << log_n, r=_SCRYPT_R, p=1).derive(typed)


def _pack(secrets: Secrets, entropy: Entropy, passphrase: str | None, log_n: int) -> KeyFile:
    if passphrase == "":
        raise ConfigError("the passphrase is empty; give one, or none at all to keep the file unencrypted")
    if not _MIN_SCRYPT_LOG_N <= log_n <= _MAX_SCRYPT_LOG_N:
        raise ConfigError(f"scrypt_log_n is {_MIN_SCRYPT_LOG_N} to {_MAX_SCRYPT_LOG_N}, not {log_n}")
    protected = passphrase is not None
    header = KeyFileHeader(
        magic=_MAGIC,
        version=KEY_FILE_VERSION,
        content=Content.OWNER if isinstance(secrets, OwnerSecrets) else Content.AGENT,
        node_id=_node_id(secrets),
        protection=Protection.SCRYPT_AES_256_GCM if protected else Protection.NONE,
        scrypt_log_n=log_n if protected else 0,
        salt=entropy(16) if protected else b"",
        nonce=entropy(12) if protected else b"",
    )
    body = encode(secrets)
    if passphrase is not None:
        key = _scrypt_key(passphrase, header.salt, log_n)
        body = AESGCM(key).encrypt(header.nonce, body, encode(header))
    return KeyFile(header, body, tagged_hash(Tag.KEY_FILE, encode(header) + body))


def _decrypt(path: Path, header: KeyFileHeader, body: bytes, passphrase: str) -> bytes:
    try:
        key = _scrypt_key(passphrase, header.salt, header.scrypt_log_n)
        return AESGCM(key).decrypt(header.nonce, body, encode(header))
    except InvalidTag:
        raise WrongPassphraseError(f"this passphrase does not open {path}") from None


def _parse(path: Path, data: bytes) -> KeyFile:
    try:
        key_file = decode(KeyFile, data, max_bytes=MAX_KEY_FILE_BYTES)
    except MalformedError as error:
        raise CorruptionError(f"{path} is no key file, or damaged: {error}") from None
    header = key_file.header
    if key_file.check != tagged_hash(Tag.KEY_FILE, encode(header) + key_file.body) or header.magic != _MAGIC:
        raise CorruptionError(f"{path} is no key file, or damaged; restore it from a copy or from your 24 words")
    if header.version != KEY_FILE_VERSION:
        raise ConfigError(f"{path} has version {header.version}; this version of Stook reads {KEY_FILE_VERSION}")
    encrypted = header.protection is Protection.SCRYPT_AES_256_GCM
    sizes = (16, 12) if encrypted else (0, 0)
    cost_fits = header.scrypt_log_n >= _MIN_SCRYPT_LOG_N if encrypted else header.scrypt_log_n == 0
    if (len(header.salt), len(header.nonce)) != sizes or not cost_fits:
        raise CorruptionError(f"{path}: its encryption parameters do not fit together")
    return key_file


def _read_private(path: Path) -> bytes:
    """The bytes of a file that only this user may read. The checks and the reading use one open descriptor."""
    try:
        # Without O_NONBLOCK, opening a named pipe somebody put there would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        raise ConfigError(f"there is no key file at {path}; create it, or restore it from your 24 words") from None
    except OSError as error:
        raise EnvironmentFault(f"cannot read the key file {path}: {error.strerror}") from error
    try:
        _check_private(path, os.fstat(descriptor))
        return os.read(descriptor, MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise EnvironmentFault(f"cannot read the key file {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is no regular file")
    if os.name != "posix":
        return  # other systems keep a folder private by its access list, which we do not judge
    if status.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to another user; keys are only read from files of your own")
    if status.st_mode & 0o077:
        raise ConfigError(
            f"{path} can be read or changed by others (mode {stat.S_IMODE(status.st_mode):04o}); run: chmod 600 {path}"
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"cannot make the folder {folder}: {error.strerror}") from error


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _publish(fresh: Path, path: Path, replace: bool) -> None:
    """Give the finished file its name, and sync the folder so that the name survives a power cut."""
    if replace:
        os.replace(fresh, path)
    else:
        try:
            os.link(fresh, path)  # unlike a rename, a link never replaces: two processes cannot both win
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            # No hard links here (FAT, some network folders). A rename is the best there is.
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            os.replace(fresh, path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
