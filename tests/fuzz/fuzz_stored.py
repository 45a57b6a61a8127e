"""Targets: what lies on a disk or is typed by a person: shard files, sealed records, key files, settings, URIs, words.

Most of it carries a check value or is authenticated, so that plain mutation ends at the first door. These targets also
put the check right again behind the mutation: what is behind the door has to hold as well.
"""

from __future__ import annotations

import atexit
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from msgspec import structs

import audit_store_samples as audit_rows
import contract_samples as contracts
import storage_samples as stored
from fuzz_base import Memory, Tape, target
from fuzz_samples import encoded_samples
from stook.audits.allowance import Allowance
from stook.audits.containment import Containment, Silence
from stook.audits.score import Entry, Retrieved
from stook.codec import decode, encode
from stook.config import (
    NodeSettings,
    Settings,
    load_settings,
    parse_address,
    parse_duration_ms,
    parse_size,
    render_settings,
    write_settings,
)
from stook.contracts.contract import MAX_CONTRACT_BYTES
from stook.contracts.lifecycle import ContractState
from stook.contracts.receipt import sign_storage_receipt
from stook.errors import ConfigError, ConflictError, CorruptionError, NotFoundError, StookError
from stook.hashing import Tag, tagged_hash
from stook.identity.contact import ContactUri
from stook.identity.keys import new_phrase, parse_phrase
from stook.identity.keystore import KeyFile, OwnerSecrets, inspect_key_file, load_secrets, save_secrets
from stook.ids import NetworkId, SegmentId
from stook.merkle import UNIT_BYTES
from stook.overlay.contact_book import network_group
from stook.renter.vault import Vault
from stook.shards.cipher import (
    RecordContext,
    decrypt_name,
    encrypt_name,
    open_record,
    seal_record,
)
from stook.shards.derive import Purpose, derive_key
from stook.shards.geometry import Policy
from stook.shards.memo import Memo, open_memo
from stook.shards.pointer import ObjectRecord, SegmentRecord
from stook.storage.agent_audit_ports import FarmerChange, FlightRow
from stook.storage.agent_rows import read_placement
from stook.storage.agent_store import SqlAgentStore
from stook.storage.audit_records import read_question, write_question
from stook.storage.catalog import SqlCatalog
from stook.storage.contract_store import SqliteContractStore
from stook.storage.fsck import check, mend
from stook.storage.memory import MemoryContractStore
from stook.storage.names import bucket_name_bytes, name_bytes
from stook.storage.renter_ports import (
    Bucket,
    ObjectEntry,
    Outcome,
    OutcomeKind,
    Placement,
    PlacementState,
    SegmentEntry,
    SegmentFacts,
    Upload,
)
from stook.storage.shard_file import (
    HEADER_BYTES,
    SLOT_BYTES,
    leaves_lead_to,
    pack_header,
    pack_log,
    parse_header,
    read_log,
    require_leaves,
    root_from_name,
)
from stook.storage.shard_store import FileShardStore

ROOT_KEY = b"\x07" * 32
SALT = b"\x09" * 32
CONTEXT = RecordContext(1, "local", b"bucket", b"name", 3)


@cache
def folder() -> Path:
    """A folder of this process, gone at its end. It lies on this machine's disk for files that come and go."""
    made = Path(tempfile.mkdtemp(prefix="stook-fuzz-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


# --- sealed by the owner ---------------------------------------------------------------------------------------------


@target(
    "shards.memo",
    seeds=lambda: [AESSIV(_memo_key()).encrypt(one, None) for one in encoded_samples(Memo)] + encoded_samples(Memo),
    covers=("stook.shards.memo.open_memo",),
    max_bytes=256,
)
def memo(data: bytes) -> None:
    """As sealed, and as the plaintext of a memo that this owner sealed."""
    try:
        opened = open_memo(ROOT_KEY, data)
    except StookError:
        if not data:
            return
        opened = open_memo(ROOT_KEY, AESSIV(_memo_key()).encrypt(data, None))
        assert encode(opened) == data
    assert opened.version >= 1


def _memo_key() -> bytes:
    return derive_key(ROOT_KEY, Purpose.MEMO, size=64)


@target(
    "shards.sealed_record",
    seeds=lambda: [seal_record(ROOT_KEY, CONTEXT, b"plain", salt=SALT), bytes(49), b"\x01" + bytes(48)],
    covers=("stook.shards.cipher.open_record",),
)
def sealed_record(data: bytes) -> None:
    """Only what was sealed opens."""
    assert open_record(ROOT_KEY, CONTEXT, data) == b"plain"


@target(
    "shards.name",
    seeds=lambda: [encrypt_name(_memo_key(), name) for name in ("a", "docs/Über.txt")] + [b"\xff\xfe", b"name"],
    covers=("stook.shards.cipher.decrypt_name", "stook.storage.names.name_bytes"),
    documented=(ValueError,),
)
def names(data: bytes) -> None:
    """As sealed, and as a name sealed under the right key."""
    try:
        name = decrypt_name(_memo_key(), data)
    except CorruptionError:
        if not data:
            return
        name = decrypt_name(_memo_key(), AESSIV(_memo_key()).encrypt(data, None))
        assert name.encode() == data
    assert decrypt_name(_memo_key(), encrypt_name(_memo_key(), name)) == name
    name_bytes(name)
    bucket_name_bytes(name)


@target(
    "renter.vault",
    seeds=lambda: (
        [b"\x00" + one for one in encoded_samples(SegmentRecord)]
        + [b"\x01" + one for one in encoded_samples(ObjectRecord)]
    ),
    covers=("stook.renter.vault.Vault.open_segment", "stook.renter.vault.Vault.open_object"),
    max_bytes=16384,
)
def vault(data: bytes) -> None:
    """Any plaintext under a good seal; it belongs to its place or it is damage."""
    tape = Tape(data)
    safe = Vault(ROOT_KEY, NetworkId("local"), lambda size: SALT[:size])
    try:
        if tape.number(1):
            bucket = Bucket("b", b"i" * 16, SALT, 0)
            _, context = safe._object_context(bucket, "n", 1)
            root, _ = safe._bucket_keys(bucket.bucket_id, bucket.salt)
            sealed = seal_record(root, context, tape.rest(), salt=SALT)
            safe.open_object(bucket, ObjectEntry("b", "n", 1, 30, 0, b"c" * 32, sealed, ()))
        else:
            context = safe._segment_context(b"s" * 16)
            sealed = seal_record(ROOT_KEY, context, tape.rest(), salt=SALT)
            opened = safe.open_segment(SegmentEntry(b"s" * 16, sealed, 1, b"h" * 32, 1, 1, 16384))
            assert opened.shape.capacity >= opened.plain_bytes
    except CorruptionError:
        return


# --- shard files -----------------------------------------------------------------------------------------------------

SHARD = stored.sample(UNIT_BYTES + 1)
CONTRACT = encode(stored.signed(SHARD))


@target(
    "storage.shard_header",
    seeds=lambda: [pack_header(SHARD.root, size) for size in (1, SHARD.size, 2**40)],
    covers=("stook.storage.shard_file.parse_header",),
)
def shard_header(data: bytes) -> None:
    """As it stands, and with the check value put right."""
    try:
        layout = parse_header(data, SHARD.root)
    except CorruptionError:
        body = data.ljust(HEADER_BYTES, b"\0")[: HEADER_BYTES - 8]
        layout = parse_header(body + tagged_hash(Tag.SHARD_FILE, body)[:8], SHARD.root)
    assert 0 < layout.leaf_bytes <= layout.data < layout.log < layout.file_bytes


@target(
    "storage.contract_log",
    seeds=lambda: [pack_log(SHARD.root, CONTRACT, 0)[:1024], b"\x02\x01\x02a\x02\x05bcdef\x00", bytes(600)],
    covers=("stook.storage.shard_file.read_log",),
    max_bytes=8192,
    memory=Memory(per_byte=64, constant=1 << 20),
)
def contract_log(data: bytes) -> None:
    """As it stands; and a log of good records, written over in places."""
    found = read_log(SHARD.root, data)
    assert found.contract in data
    assert found.next_slot_at % SLOT_BYTES == 0
    tape = Tape(data)
    log = b""
    for _ in range(tape.number(5)):
        contract = (tape.chunk(255) or b"x") * (1 + tape.number(7))
        log += pack_log(SHARD.root, contract, len(log))
    spoiled = tape.spoiled(log)
    found = read_log(SHARD.root, spoiled)
    assert len(found.contract) <= MAX_CONTRACT_BYTES
    assert found.next_slot_at <= len(spoiled) + SLOT_BYTES


@target(
    "storage.leaves",
    seeds=lambda: [SHARD.leaves, SHARD.leaves[:32], b"", bytes(31)],
    covers=("stook.storage.shard_file.require_leaves", "stook.storage.shard_file.leaves_lead_to"),
)
def leaves(data: bytes) -> None:
    """One list leads to the root."""
    assert leaves_lead_to(SHARD.root, SHARD.size, data) == (data == SHARD.leaves)
    require_leaves(SHARD.root, SHARD.size, data)


@target(
    "storage.file_name",
    seeds=lambda: [f"{SHARD.root.hex()}.shard".encode(), b".shard", b"x.shard.shard"],
    covers=("stook.storage.shard_file.root_from_name",),
)
def file_name(data: bytes) -> None:
    """A name is one root's or nobody's."""
    name = data.decode("utf-8", "surrogateescape")
    root = root_from_name(name, ".shard")
    assert root is None or f"{root.hex()}.shard" == name


@cache
def _shard_file() -> bytes:
    with FileShardStore(folder() / "pattern") as store:
        stored.store_shard(store, SHARD)
        return store.path_of(SHARD.root).read_bytes()


@cache
def _spoiled_store() -> FileShardStore:
    store = FileShardStore(folder() / "spoiled")
    atexit.register(store.close)
    return store


@target(
    "storage.shard_folder",
    seeds=lambda: [
        bytes([0]),
        bytes([1]),
        bytes([2, 0, 0]),
        bytes([0, 3]) + bytes(range(30)),
        bytes([1, 2]) + b"x" * 9,
    ],
    covers=(
        "stook.storage.shard_store.FileShardStore.find",
        "stook.storage.shard_store.FileShardStore.survey",
        "stook.storage.shard_store.FileShardStore.restore_head",
        "stook.storage.fsck.check",
        "stook.storage.fsck.mend",
    ),
    memory=Memory(per_byte=64, constant=4 << 20),
    weight=40,
)
def shard_folder(data: bytes) -> None:
    """A whole file spoiled anywhere, then everything a farmer and fsck do with it; mending ends in a sound store."""
    tape = Tape(data)
    store, index = _spoiled_store(), MemoryContractStore()
    held = decode(type(stored.signed(SHARD)), CONTRACT)
    if tape.number(1):
        index.put(stored.held(held, tape.pick(list(ContractState))))
    content = _shard_file()
    at = tape.pick((0, 0, HEADER_BYTES, 4096, 4096 + UNIT_BYTES, len(content) - 4096)) + tape.number(4200)
    content = content[:at] + tape.spoiled(content[at:], 2)
    if tape.number(1):  # somebody put the header's check value right
        body = content[: HEADER_BYTES - 8].ljust(HEADER_BYTES - 8, b"\0")
        content = body + tagged_hash(Tag.SHARD_FILE, body)[:8] + content[HEADER_BYTES:]
    path = store.path_of(SHARD.root)
    path.write_bytes(content[: 1 << 17])

    def attempt(use: Callable[[], object]) -> None:
        with suppress(StookError):
            use()

    into = bytearray(SHARD.size)
    for use in (
        lambda: store.find(SHARD.root),
        lambda: store.read_leaves(SHARD.root),
        lambda: store.read_units(SHARD.root, 0, memoryview(into)),
        lambda: store.bad_units(SHARD.root),
    ):
        attempt(use)
    try:
        mend(store, index, check(store, index, deep=True), even_if_empty=True)
        again = check(store, index, deep=True)
        assert not again.damaged, again
        if path.exists():
            assert not store.bad_units(SHARD.root)
    finally:
        for left in (path, *(store.directory / "quarantine").iterdir()):
            left.unlink(missing_ok=True)


# --- databases -------------------------------------------------------------------------------------------------------


@cache
def _contract_store() -> SqliteContractStore:
    store = SqliteContractStore(folder() / "contracts.db")
    atexit.register(store.close)
    store._writer.execute("PRAGMA synchronous = OFF")  # what is tried here is reading
    store.put(stored.held(stored.signed(SHARD)))
    return store


@target(
    "storage.database_rows",
    seeds=lambda: [CONTRACT, CONTRACT[:-1], b""],
    covers=("stook.storage.contract_store.SqliteContractStore.get", "stook.storage.agent_rows.read_placement"),
    weight=8,
)
def database_rows(data: bytes) -> None:
    """A contract's bytes changed inside a database that is itself sound: damage, never the fault of a peer."""
    store, contract_id = _contract_store(), stored.signed(SHARD).contract_id
    store._writer.execute("UPDATE contracts SET body = ?", (data,))
    row = SimpleNamespace(
        contract_id=contract_id,
        segment_id=b"s" * 16,
        shard_index=0,
        copy=0,
        farmer=bytes(20),
        contract=data,
        state=data[0] % 8 if data else 0,
        receipt=None if len(data) % 2 else data,
        erased=None,
        stored_ms=0,
        proved_ms=0,
    )
    for use in (lambda: store.get(contract_id), lambda: read_placement(row)):
        try:
            use()
        except CorruptionError:
            continue


@cache
def _renter_databases() -> tuple[SqlAgentStore, SqlCatalog, sqlite3.Connection, sqlite3.Connection]:
    """An agent's database and a catalog with one of everything, and a way to write into them behind their backs."""
    agent, catalog = SqlAgentStore.open(folder() / "agent.db"), SqlCatalog.open(folder() / "catalog.db")
    segment_id, contract = SegmentId(b"s" * 16), contracts.contract()
    farmer = contracts.FARMER.node_id
    agent.add_segments([SegmentFacts(segment_id, Policy(1, 1, 1, 2), 2, UNIT_BYTES, (contracts.ROOT,) * 2, 0)])
    agent.add_claims(
        [Placement(segment_id, 0, 0, contracts.ROOT, farmer, contract, PlacementState.CLAIMED, receipt=None)]
    )
    agent.record_receipts([sign_storage_receipt(contract.terms, contracts.FARMER, 1)])
    agent.save_announcements([contracts.signed_announcement()])
    agent.note_outcomes([Outcome(farmer, OutcomeKind.CLAIM, True, 1.0, 5)])
    asked = audit_rows.opened(farmer, list(agent.placements([segment_id])[segment_id]))
    agent.change(
        FarmerChange(
            farmer,
            (Entry(5, Retrieved(True)),),
            Containment(Silence.CONTAINED, write_question(asked.signed, first=True)),
            opened=asked,
            receipt=audit_rows.kept(asked, 900),
        ),
        allowances={"audit": Allowance.full(9, 9)},
    )
    agent.begin_flights([FlightRow(segment_id, 0, 0, 5, b"me")], 0)
    catalog.create_bucket(Bucket("b", b"i" * 16, SALT, 0))
    catalog.commit(
        [ObjectEntry("b", "docs/name", 1, 3, 0, b"c" * 32, b"sealed", (segment_id,))],
        [SegmentEntry(segment_id, b"sealed", 3, b"h" * 32, 1, 2, UNIT_BYTES)],
    )
    catalog.begin_upload(Upload(b"u" * 16, "b", "film", b"f", 1, 1))
    backs = tuple(
        sqlite3.connect(folder() / f"{name}.db", isolation_level=None, check_same_thread=False)
        for name in ("agent", "catalog")
    )
    for opened in (*backs, agent, catalog):
        atexit.register(opened.close)
    for back in backs:
        back.execute("PRAGMA synchronous = OFF")
        back.execute("PRAGMA foreign_keys = OFF")
    return agent, catalog, *backs  # type: ignore[return-value]


@cache
def _columns(which: int) -> list[tuple[str, str, bool]]:
    """Tables and columns of a database that bit rot may change without its structure noticing; and whether bytes."""
    back = _renter_databases()[2 + which]
    tables = [row[0] for row in back.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    return [
        (table, column, "BLOB" in kind)
        for table in tables
        if not table.startswith(("sqlite_", "alembic"))
        for _, column, kind, *_ in back.execute(f"PRAGMA table_info({table})")
    ]


@target(
    "storage.renter_databases",
    seeds=lambda: [bytes((which, column)) + bytes(6) for which in (0, 1) for column in range(40)],
    covers=(
        "stook.storage.agent_rows.read_facts",
        "stook.storage.audit_records.read_event",
        "stook.storage.audit_records.read_question",
        "stook.storage.audit_records.read_score",
        "stook.storage.audit_records.read_silence",
        "stook.storage.catalog_rows.read_bucket",
    ),
    memory=None,
    weight=100,
)
def renter_databases(data: bytes) -> None:
    """One value changed in a sound database, then everything that reads it: damage, or nothing to see."""
    tape = Tape(data)
    agent, catalog, *backs = _renter_databases()
    which = tape.number(1)
    table, column, is_bytes = tape.pick(_columns(which))
    back = backs[which]
    (good,) = back.execute(f"SELECT {column} FROM {table}").fetchone() or (None,)
    spoiled = tape.spoiled(good or b"", 2) if is_bytes else tape.number(2**63 - 1) * tape.pick((1, -1))
    with suppress(sqlite3.IntegrityError):
        back.execute(f"UPDATE {table} SET {column} = ?", (spoiled,))
    contract, segment_id = contracts.contract(), SegmentId(b"s" * 16)
    try:
        for use in (
            agent.announcements,
            lambda: agent.segment(segment_id),
            lambda: agent.segments_wanting(5),
            lambda: agent.placement(contract.contract_id),
            lambda: agent.placements([segment_id]),
            lambda: agent.ending(2**62, 5),
            lambda: agent.farmer_stats(10),
            agent.counts,
            lambda: [read_question(each.silence.question) for each in agent.dossiers()],
            lambda: agent.history(contracts.FARMER.node_id),
            agent.totals,
            agent.open_challenges,
            lambda: agent.receipts(None, 9),
            lambda: agent.rounds_since(0),
            lambda: agent.noted_losses([contract.contract_id]),
            lambda: agent.allowance("audit"),
            lambda: agent.flights([segment_id]),
            lambda: agent.segments_short(0, (), 1, 9, b""),
            lambda: agent.renew([contract]),
            catalog.buckets,
            lambda: catalog.get("b", "docs/name"),
            lambda: catalog.list_objects("b"),
            lambda: catalog.list_objects("b", delimiter="/"),
            lambda: catalog.segments([segment_id]),
            lambda: catalog.stale_uploads(2**62, 5),
            lambda: catalog.totals("b"),
        ):
            with suppress(CorruptionError, NotFoundError, ConflictError):
                use()
    except StookError as error:
        raise AssertionError(f"a changed {table}.{column} is taken for {error!r}") from error
    finally:
        with suppress(sqlite3.IntegrityError):
            back.execute(f"UPDATE {table} SET {column} = ?", (good,))


# --- key files -------------------------------------------------------------------------------------------------------


@cache
def _key_files() -> list[bytes]:
    owner = OwnerSecrets(1, "local", bytes(range(32)), "")
    agent = owner.tree().agent_credential(NetworkId("local"))
    made = []
    for number, (secrets, passphrase) in enumerate(((owner, None), (agent, None), (agent, "pass"))):
        path = folder() / f"seed-{number}"
        save_secrets(
            path, secrets, entropy=lambda size: SALT[:size], passphrase=passphrase, replace=True, scrypt_log_n=10
        )
        made.append(path.read_bytes())
    return made


@target(
    "identity.key_file",
    seeds=_key_files,
    covers=("stook.identity.keystore.inspect_key_file", "stook.identity.keystore.load_secrets"),
    memory=Memory(per_byte=64, constant=2 << 20),
    weight=40,
)
def key_file(data: bytes) -> None:
    """As it stands, and with the check value put right; encrypted ones only where scrypt is cheap."""
    path = folder() / "keys"
    for content in (data, _with_check(data)):
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(content)
        try:
            header = inspect_key_file(path)
            load_secrets(path, passphrase="pass" if header.scrypt_log_n <= 10 else None)
        except (CorruptionError, ConfigError):
            continue


def _with_check(data: bytes) -> bytes:
    try:
        read = decode(KeyFile, data, max_bytes=4096)
    except StookError:
        return data
    header = structs.replace(read.header, magic="stook-keys")
    return encode(KeyFile(header, read.body, tagged_hash(Tag.KEY_FILE, encode(header) + read.body)))


# --- typed by a person -----------------------------------------------------------------------------------------------


def _text(data: bytes) -> str:
    """As Python hands over what stands on a command line."""
    return data.decode("utf-8", "surrogateescape")


@target(
    "identity.contact_uri",
    seeds=lambda: [
        uri.encode()
        for uri in (
            f"stook://farmer.example:4000/{'ab' * 20}",
            f"stook://[2001:db8::1]:1/{'00' * 20}/",
            f"stook://[::ffff:192.0.2.1]:65535/{'FF' * 20}",
        )
    ],
    covers=("stook.identity.contact.ContactUri.parse", "stook.overlay.contact_book.network_group"),
)
def contact_uri(data: bytes) -> None:
    """What parses is said again in one way, and could be sent in a contact."""
    uri = ContactUri.parse(_text(data))
    assert ContactUri.parse(str(uri)) == uri
    assert decode(type(uri.address), encode(uri.address)) == uri.address
    network_group(uri.address.host)


@target(
    "config.quantities",
    seeds=lambda: [
        *(b"1.5 GiB", b"100MB", b"4096", b"90 d", b"0.5h", b" 7 ms ", b"[::1]:80", b"h:0", b"4/10", b"4/6/8/10"),
        *(b"9" * 5000, b"x:" + b"1" * 5000),
    ],
    covers=(
        "stook.config.parse_size",
        "stook.config.parse_duration_ms",
        "stook.config.parse_address",
        "stook.shards.geometry.Policy.parse",
    ),
    max_bytes=8192,
)
def quantities(data: bytes) -> None:
    """Sizes, durations, addresses and codes as typed."""
    text = _text(data)
    for parse in (parse_size, parse_duration_ms):
        with suppress(ConfigError):
            assert parse(text) >= 0
    with suppress(ConfigError):
        host, port = parse_address(text)
        assert parse_address(f"[{host}]:{port}") == (host, port) or host[:1] == "[" or host[-1:] == "]"
    policy = Policy.parse(text)
    assert Policy.parse(str(policy)) == policy


@target(
    "identity.phrase",
    seeds=lambda: [
        new_phrase(bytes(range(32))).encode(),
        b"abandon " * 23 + b"art",
        b"ABANDON\n" * 24,
        b"zoo zo\xcc\x81o",
    ],
    covers=("stook.identity.keys.parse_phrase",),
    memory=Memory(per_byte=200, constant=1 << 18),
    max_bytes=1024,
    weight=30,
)
def phrase(data: bytes) -> None:
    """What is read is read again as the same."""
    read = parse_phrase(_text(data))
    assert parse_phrase(read) == read
    assert len(read.split()) == 24


@target(
    "config.settings",
    seeds=lambda: [
        render_settings({"node": Settings().node, "farm": Settings().farm, "rent": Settings().rent}).encode(),
        b'[node]\nseeds = ["stook://a:1/x"]\nlisten = "[::1]:0"\n[farm]\ncapacity = "1 TiB"\nmax_transfers = 9\n',
        b"[node]\npuzzle_nonce = 9223372036854775808\n",
        b"a = " + b"[" * 2000,
        b"a = " + b"9" * 5000,
        b"a = 1979-13-32\nb = inf\nc = 0xff\nd = '''x'''\n",
    ],
    covers=("stook.config.load_settings",),
    memory=Memory(per_byte=400, constant=1 << 20),
    max_bytes=8192,
    weight=4,
)
def settings(data: bytes) -> None:
    """A file as somebody's editor left it."""
    home = folder() / "home"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_bytes(data)
    load_settings(home)


@target(
    "config.written_settings",
    seeds=lambda: [b"", b"\x01\x02\x03", bytes(range(60)), b"\x02\x08" + b"\xff" * 20],
    covers=("stook.config.load_settings",),
    memory=Memory(per_byte=400, constant=1 << 20),
    weight=8,
)
def written_settings(data: bytes) -> None:
    """What is written is read back, or is refused before it is written."""
    home = folder() / "written"
    shutil.rmtree(home, ignore_errors=True)
    tape = Tape(data)
    operator = _text(tape.chunk(70))
    farm = structs.replace(Settings().farm, operator=operator, max_transfers=tape.number(300))
    node = NodeSettings(advertise=(_text(tape.chunk(40)),), network=_text(tape.chunk(34)))
    write_settings(home, {"node": node, "farm": farm})
    read = load_settings(home)
    assert (read.node, read.farm) == (node, farm)
