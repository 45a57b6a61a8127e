import errno
import hashlib
import os
import stat
import unicodedata

import msgspec
import pytest

from stook.codec import decode, encode
from stook.errors import ConfigError, ConflictError, CorruptionError, EnvironmentFault
from stook.hashing import Tag, tagged_hash
from stook.identity import keystore
from stook.identity.keystore import (
    KeyFile,
    OwnerSecrets,
    PassphraseNeededError,
    Protection,
    WrongPassphraseError,
    inspect_key_file,
    load_secrets,
    save_secrets,
)

OWNER = OwnerSecrets(1, "local", bytes(range(32)), "")
AGENT = OWNER.tree().agent_credential("local")
QUICK = 10


class Dice:
    def __init__(self):
        self.rolls = 0

    def __call__(self, size_bytes, /):
        self.rolls += 1
        return hashlib.shake_256(self.rolls.to_bytes(4, "big")).digest(size_bytes)


def save(path, secrets=OWNER, **changes):
    save_secrets(path, secrets, **({"entropy": Dice(), "scrypt_log_n": QUICK} | changes))


def rewrite(path, change):
    """Change a key file and mend its check, as somebody with a hex editor and our source would."""
    file = change(decode(KeyFile, path.read_bytes()))
    check = tagged_hash(Tag.KEY_FILE, encode(file.header) + file.body)
    path.write_bytes(encode(msgspec.structs.replace(file, check=check)))


def with_header(**changes):
    return lambda file: msgspec.structs.replace(file, header=msgspec.structs.replace(file.header, **changes))


@pytest.mark.parametrize("passphrase", [None, "correct horse", "é ß 漢"])
@pytest.mark.parametrize("secrets", [OWNER, AGENT], ids=["owner", "agent"])
def test_what_was_saved_is_loaded(tmp_path, secrets, passphrase):
    path = tmp_path / "home" / "keys"
    save(path, secrets, passphrase=passphrase)
    assert load_secrets(path, passphrase=passphrase) == secrets
    header = inspect_key_file(path)
    assert header.node_id == AGENT.node_key().node_id
    assert header.protection is (Protection.NONE if passphrase is None else Protection.SCRYPT_AES_256_GCM)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["keys"]


def test_owner_secrets_give_the_phrase_and_its_tree():
    assert OWNER.tree().node_key() == AGENT.node_key()
    assert len(OWNER.phrase().split()) == 24
    other = msgspec.structs.replace(OWNER, phrase_passphrase="25th")
    assert other.tree().node_key() != OWNER.tree().node_key()
    assert "25th" not in repr(other)
    assert OWNER.phrase().split()[1] not in repr(OWNER)


def test_an_encrypted_file_shows_no_secret(tmp_path):
    save(tmp_path / "keys", passphrase="secret")
    assert OWNER.entropy not in (tmp_path / "keys").read_bytes()
    save(tmp_path / "open")
    assert OWNER.entropy in (tmp_path / "open").read_bytes()


def test_salt_and_nonce_are_new_for_each_file(tmp_path):
    dice = Dice()
    for name in "ab":
        save(tmp_path / name, passphrase="secret", entropy=dice)
    a, b = (inspect_key_file(tmp_path / name) for name in "ab")
    assert a.salt != b.salt
    assert a.nonce != b.nonce


def test_two_ways_to_type_an_accent_are_one_passphrase(tmp_path):
    save(tmp_path / "keys", passphrase=unicodedata.normalize("NFC", "café"))
    assert load_secrets(tmp_path / "keys", passphrase=unicodedata.normalize("NFD", "café")) == OWNER


def test_a_passphrase_is_asked_for_and_checked(tmp_path):
    path = tmp_path / "keys"
    save(path, passphrase="secret")
    with pytest.raises(PassphraseNeededError, match="give its passphrase"):
        load_secrets(path)
    for wrong in ("Secret", "", "secret "):
        with pytest.raises(WrongPassphraseError, match="does not open"):
            load_secrets(path, passphrase=wrong)
    with pytest.raises(ConfigError, match="empty"):
        save(tmp_path / "other", passphrase="")


@pytest.mark.parametrize("log_n", [9, 21])
def test_the_cost_is_bounded_when_written(tmp_path, log_n):
    with pytest.raises(ConfigError, match="10 to 20"):
        save(tmp_path / "keys", scrypt_log_n=log_n)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o602, 0o644, 0o610])
def test_a_file_that_others_may_touch_is_refused_with_the_remedy(tmp_path, mode):
    path = tmp_path / "keys"
    save(path)
    path.chmod(mode)
    for read in (load_secrets, inspect_key_file):
        with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
            read(path)
    path.chmod(0o400)
    assert load_secrets(path) == OWNER


def test_a_file_of_another_user_is_refused(tmp_path, monkeypatch):
    save(tmp_path / "keys")
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        load_secrets(tmp_path / "keys")


def test_the_mode_does_not_depend_on_the_umask(tmp_path):
    before = os.umask(0)
    try:
        save(tmp_path / "keys")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600


def test_missing_files_folders_and_pipes(tmp_path):
    with pytest.raises(ConfigError, match="24 words"):
        load_secrets(tmp_path / "none")
    with pytest.raises(ConfigError, match="no regular file"):
        load_secrets(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="no regular file"):
        load_secrets(tmp_path / "pipe")
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentFault, match="Not a directory"):
        load_secrets(tmp_path / "file" / "keys")
    with pytest.raises(EnvironmentFault, match="cannot make the folder"):
        save(tmp_path / "file" / "keys")


def test_an_existing_file_is_not_replaced_unasked(tmp_path):
    path = tmp_path / "keys"
    save(path)
    before = path.read_bytes()
    with pytest.raises(ConflictError, match="move it away"):
        save(path, AGENT)
    assert path.read_bytes() == before
    save(path, AGENT, replace=True)
    assert load_secrets(path) == AGENT
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys"]


def test_a_folder_without_hard_links_still_replaces_nothing(tmp_path, monkeypatch):
    def no_links(*_args):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "keys"
    save(path)
    assert load_secrets(path) == OWNER
    with pytest.raises(ConflictError):
        save(path, AGENT)
    assert load_secrets(path) == OWNER


@pytest.mark.parametrize("call", ["fsync", "link", "replace"])
def test_a_failing_disk_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, call):
    path = tmp_path / "keys"
    if call == "replace":
        save(path, AGENT)

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(keystore.os, call, full)
    with pytest.raises(EnvironmentFault, match="No space left"):
        save(path, replace=call == "replace")
    monkeypatch.undo()
    if call == "replace":
        assert load_secrets(path) == AGENT
    assert [entry.name for entry in tmp_path.iterdir()] == (["keys"] if call == "replace" else [])


def test_the_file_is_synced_before_it_gets_its_name_and_the_folder_after(tmp_path, monkeypatch):
    events = []
    for name in ("fsync", "link"):
        original = getattr(os, name)

        def spy(*args, name=name, original=original):
            events.append(name)
            return original(*args)

        monkeypatch.setattr(keystore.os, name, spy)
    save(tmp_path / "keys")
    assert events == ["fsync", "link", "fsync"]


@pytest.mark.parametrize("passphrase", [None, "secret"])
def test_every_damaged_byte_is_noticed(tmp_path, passphrase):
    path = tmp_path / "keys"
    save(path, passphrase=passphrase)
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :])
        with pytest.raises(CorruptionError):
            load_secrets(path, passphrase=passphrase)
    for cut in (0, 1, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:cut])
        with pytest.raises(CorruptionError):
            load_secrets(path, passphrase=passphrase)
    path.write_bytes(good + bytes(8192))
    with pytest.raises(CorruptionError):
        load_secrets(path, passphrase=passphrase)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (with_header(magic="other"), CorruptionError),
        (with_header(version=2), ConfigError),
        (with_header(node_id=bytes(20)), CorruptionError),
        (with_header(content=2), CorruptionError),
        (with_header(scrypt_log_n=12), CorruptionError),
        (with_header(salt=bytes(16)), CorruptionError),
        (with_header(protection=1), CorruptionError),
        (lambda file: msgspec.structs.replace(file, body=file.body[:-1]), CorruptionError),
        (
            lambda file: msgspec.structs.replace(file, body=encode(msgspec.structs.replace(OWNER, version=2))),
            ConfigError,
        ),
    ],
)
def test_a_file_that_does_not_fit_together_is_refused(tmp_path, change, error):
    path = tmp_path / "keys"
    save(path)
    rewrite(path, change)
    with pytest.raises(error):
        load_secrets(path)


@pytest.mark.parametrize("changes", [{"scrypt_log_n": 9}, {"salt": b""}, {"nonce": bytes(11)}, {"scrypt_log_n": 21}])
def test_encryption_parameters_are_bounded_when_read(tmp_path, changes):
    path = tmp_path / "keys"
    save(path, passphrase="secret")
    rewrite(path, with_header(**changes))
    with pytest.raises(CorruptionError):
        load_secrets(path, passphrase="secret")


def test_the_header_is_authenticated(tmp_path):
    path = tmp_path / "keys"
    save(path, passphrase="secret")
    rewrite(path, with_header(node_id=bytes(20)))
    with pytest.raises(WrongPassphraseError):
        load_secrets(path, passphrase="secret")


def test_an_agent_file_whose_secret_is_no_key_is_damaged(tmp_path):
    path = tmp_path / "keys"
    save(path, AGENT)
    rewrite(
        path,
        lambda file: msgspec.structs.replace(file, body=encode(msgspec.structs.replace(AGENT, node_secret=bytes(32)))),
    )
    with pytest.raises(CorruptionError, match="do not decode"):
        load_secrets(path)
