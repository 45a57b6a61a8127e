"""Build each node from its parts, start them together and stop them in reverse; the one place that knows every adapter.

The system's clock, dice and threads are made here, so that no other module reaches for them.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog

from stook import config
from stook.codec import encode
from stook.config import FarmSettings, NodeSettings, RentSettings, Settings
from stook.contracts.contract import Settlement
from stook.contracts.verdict import Verdict
from stook.errors import (
    BugError,
    ConfigError,
    CorruptionError,
    NotFoundError,
    ReasonCode,
    RefusedError,
    UnreachableError,
    UserError,
)
from stook.farmer.admission import FarmerTerms
from stook.farmer.capacity import CapacityLimits
from stook.farmer.evidence import find_round, receipt_file
from stook.farmer.service import Farmer
from stook.farmer.settings import ChoreIntervals, FarmerSettings, TransferLimits
from stook.identity.contact import Address, AddressKind, ContactUri, sign_contact
from stook.identity.keys import NodeKey, node_id_of, phrase_entropy
from stook.identity.keystore import OWNER_SECRETS_VERSION, OwnerSecrets, load_secrets, save_secrets
from stook.identity.pow import solve_puzzle
from stook.ids import NetworkId, NodeId, PublicKey
from stook.overlay.contact_book import BookLimits, ContactBook
from stook.renter.agent import AgentOptions, LocalAgent
from stook.renter.auditor import AuditRules
from stook.renter.client import Client
from stook.renter.planner import Spread
from stook.renter.repairer import RepairSettings
from stook.shards.erasure import Codec, load_codec
from stook.shards.geometry import Policy
from stook.storage import fsck
from stook.storage.agent_store import SqlAgentStore
from stook.storage.catalog import SqlCatalog
from stook.storage.contract_store import SqliteContractStore, set_aside
from stook.storage.database import copy_database
from stook.storage.presence import FilePresence
from stook.storage.shard_store import FileShardStore
from stook.threads import ThreadOffload
from stook.wire.endpoint import Endpoint, Exchange, Handler, Peer
from stook.wire.limits import Limits
from stook.wire.tcp import TcpCarrier

KEY_FILE = "keys.stook"
CONTRACTS_FILE = "contracts.db"
AGENT_FILE = "agent.db"
CATALOG_FILE = "catalog.db"
UPLOADS_LOCK_FILE = "uploads.lock"
STATUS_METHOD = "STATUS"
"""Answered with JSON, to the operator's key alone (`docs/protocol/methods.md`)."""
MAX_ROUNDS = 1_000_000
MAX_LEAVE_MS = 3653 * 24 * 3_600_000
OPERATOR_KEY = (1, 0)
"""Group and index of the node key that a farmer's own command line speaks with."""


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that never run backwards."""
        return time.monotonic()


def system_entropy(size_bytes: int, /) -> bytes:
    """Unpredictable bytes from the operating system."""
    return os.urandom(size_bytes)


# --------------------------------------------------------------------------------------------------------- any node


def peer_of(uri: str) -> Peer:
    """The peer that a contact URI names. Raises `ConfigError`."""
    contact = ContactUri.parse(uri)
    return Peer(contact.node_id, (contact.address,))


def new_owner_secrets(network: str) -> OwnerSecrets:
    """Fresh secrets of a person or node, from 32 random bytes."""
    return OwnerSecrets(OWNER_SECRETS_VERSION, NetworkId(network), system_entropy(32), "")


def with_puzzle(node: NodeSettings, key: NodeKey) -> NodeSettings:
    """The settings with a solution of the network's node id puzzle; takes about 2**puzzle_bits hashes."""
    nonce: int | None = 0
    if node.puzzle_bits:
        nonce = solve_puzzle(key.public_key, node.puzzle_bits, attempts=64 << node.puzzle_bits)
    if nonce is None:
        raise BugError(f"no solution of a puzzle of {node.puzzle_bits} bits; try again")
    return msgspec.structs.replace(node, puzzle_nonce=nonce)


def _make_home(home: Path, secrets: OwnerSecrets, sections: dict[str, msgspec.Struct], passphrase: str | None) -> None:
    """Keys first: a home is one that has settings, so what a crash leaves in between is no half node."""
    config.settings_to_write(home, sections)
    save_secrets(home / KEY_FILE, secrets, entropy=system_entropy, passphrase=passphrase)
    config.write_settings(home, sections)


def load_owner(home: Path, passphrase: str | None) -> OwnerSecrets:
    """The owner's secrets in `home`. Raises as `load_secrets`, and `ConfigError` for an agent's key file."""
    secrets = load_secrets(home / KEY_FILE, passphrase=passphrase)
    if not isinstance(secrets, OwnerSecrets):
        raise ConfigError(f"{home / KEY_FILE} is an agent's credential: it can run `stook agent`, and read no content")
    return secrets


def _limits(node: NodeSettings, upload: str, download: str) -> Limits:
    return Limits(
        upload_bytes_per_second=config.parse_size(upload),
        download_bytes_per_second=config.parse_size(download),
        puzzle_bits=node.puzzle_bits,
    )


def _endpoint(key: NodeKey, node: NodeSettings, limits: Limits, clock: SystemClock) -> Endpoint:
    log = structlog.get_logger("stook.wire")
    return Endpoint(
        key=key,
        network=NetworkId(node.network),
        clock=clock,
        entropy=system_entropy,
        carrier=TcpCarrier(),
        limits=limits,
        puzzle_nonce=node.puzzle_nonce,
        on_error=lambda what, error: log.error("unexpected error", where=what, why=str(error), exc_info=error),
    )


# ----------------------------------------------------------------------------------------------------------- farmer


def create_farmer_home(home: Path, node: NodeSettings, farm: FarmSettings, passphrase: str | None = None) -> str:
    """Make a new farmer's home: settings and a fresh key. Returns its contact URI as others may use it.

    Raises `ConfigError` when the home holds a node already or the address has no port.
    """
    host, port = config.parse_address(node.advertise[0] if node.advertise else node.listen)
    if port == 0:
        raise ConfigError("a farmer needs a port that stays: give --listen host:port")
    secrets = new_owner_secrets(node.network)
    _make_home(home, secrets, {"node": with_puzzle(node, secrets.tree().node_key()), "farm": farm}, passphrase)
    return str(ContactUri(Address(AddressKind.DIRECT, host, port), secrets.tree().node_key().node_id))


def _farmer_settings(settings: Settings) -> FarmerSettings:
    farm = settings.farm
    allowed = frozenset(NodeId(bytes.fromhex(text)) for text in farm.allowed_renters) or None
    return FarmerSettings(
        terms=FarmerTerms(
            storage_price_per_gib_hour=farm.storage_price_per_gib_hour,
            download_price_per_gib=farm.download_price_per_gib,
            min_duration_ms=config.parse_duration_ms(farm.min_duration),
            max_duration_ms=config.parse_duration_ms(farm.max_duration),
            settlements=(Settlement.LEDGER,),
            operator=farm.operator,
            failure_domain=farm.failure_domain,
            max_unfilled_bytes_per_renter=config.parse_size(farm.max_reserved_per_renter),
            allowed_renters=allowed,
        ),
        capacity=CapacityLimits(
            allocated_bytes=config.parse_size(farm.capacity),
            min_free_disk_bytes=config.parse_size(farm.min_free_disk),
        ),
        transfers=TransferLimits(max_transfers=farm.max_transfers),
        chores=ChoreIntervals(scrub_round_seconds=config.parse_duration_ms(farm.scrub_interval) / 1000),
    )


def _book_limits(node: NodeSettings) -> BookLimits:
    return BookLimits(max_per_network=node.max_nodes_per_network or None, puzzle_bits=node.puzzle_bits)


def advertised(node: NodeSettings, bound: tuple[str, int]) -> list[Address]:
    """The addresses a node tells others: as set, else where it listens."""
    texts = [config.parse_address(text) for text in node.advertise] or [bound]
    return [Address(AddressKind.DIRECT, host, port or bound[1]) for host, port in texts]


@dataclass(frozen=True, slots=True)
class RunningFarmer:
    """A farmer that serves, and its contact URI."""

    farmer: Farmer
    uri: str


@asynccontextmanager
async def run_farmer(home: Path, *, passphrase: str | None = None) -> AsyncIterator[RunningFarmer]:
    """Serve as the farmer in `home` until the block ends; then stop in order.

    Raises `ConfigError`, or `EnvironmentFault` when the port is taken or the disk refuses.
    """
    settings = config.load_settings(home, "farm")
    tree = load_owner(home, passphrase).tree()
    key = tree.node_key()
    network = NetworkId(settings.node.network)
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        offload = ThreadOffload(2, "stook-disk")
        stack.callback(offload.close)
        shards = stack.enter_context(FileShardStore(home))
        contracts = stack.enter_context(SqliteContractStore(home / CONTRACTS_FILE))
        if contracts.is_new:
            # A lost index beside shards: the shard files carry their contracts.
            await offload(lambda: fsck.rebuild(shards, contracts))
        limits = _limits(settings.node, settings.farm.upload_limit, settings.farm.download_limit)
        endpoint = _endpoint(key, settings.node, limits, clock)
        stack.push_async_callback(endpoint.close)
        bound = await endpoint.listen(*config.parse_address(settings.node.listen))
        addresses = advertised(settings.node, bound)
        now_ms = clock.now_ms()
        endpoint.contact = sign_contact(key, network=network, addresses=addresses, sequence=now_ms, issued_ms=now_ms)
        farmer = Farmer(
            key=key,
            network=network,
            endpoint=endpoint,
            shards=shards,
            contracts=contracts,
            book=ContactBook(network, _book_limits(settings.node)),
            clock=clock,
            offload=offload,
            free_disk=lambda: shutil.disk_usage(home).free,
            settings=_farmer_settings(settings),
            seeds=[peer_of(uri) for uri in settings.node.seeds],
        )
        endpoint.handle(STATUS_METHOD, _status_handler(farmer, tree.node_key(*OPERATOR_KEY).public_key))
        await farmer.start()
        stack.push_async_callback(farmer.stop)
        yield RunningFarmer(farmer, str(ContactUri(addresses[0], key.node_id)))


def usage() -> dict[str, float]:
    """CPU seconds and peak resident memory of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    return {"cpu_seconds": used.ru_utime + used.ru_stime, "peak_rss_mib": used.ru_maxrss * unit / (1 << 20)}


def _status_handler(farmer: Farmer, operator: PublicKey) -> Handler:
    async def answer(exchange: Exchange, _payload: bytes) -> None:
        if exchange.peer_key != operator:
            raise RefusedError(ReasonCode.WRONG_IDENTITY, "a farmer's status is for its own operator")
        status = (await farmer.status()).as_json()
        await exchange.reply(json.dumps({**status, **usage()}).encode())

    return answer


async def farmer_status(home: Path, *, passphrase: str | None = None) -> dict[str, Any]:
    """The status of the farmer that runs in `home`, asked over its own port with its own key.

    Raises `NotFoundError` when it does not run.
    """
    settings = config.load_settings(home, "farm")
    tree = load_owner(home, passphrase).tree()
    host, port = config.parse_address(settings.node.listen)
    operator = tree.node_key(*OPERATOR_KEY)
    endpoint = _endpoint(operator, with_puzzle(settings.node, operator), Limits(), SystemClock())
    try:
        peer = Peer(tree.node_key().node_id, (Address(AddressKind.DIRECT, host, port),))
        answer = await endpoint.call(peer, STATUS_METHOD, b"", deadline_seconds=10)
    except UnreachableError as error:
        raise NotFoundError(f"the farmer in {home} does not run: start it with `stook farm run` ({error})") from None
    finally:
        await endpoint.close(grace_seconds=0)
    status: dict[str, Any] = json.loads(answer)
    return status


@contextmanager
def _farmer_records(home: Path) -> Iterator[SqliteContractStore]:
    """The contract store of a farmer that runs or not. None is made: a new index has to be made from the shards."""
    config.load_settings(home, "farm")
    path = home / CONTRACTS_FILE
    if not path.exists():
        raise NotFoundError(f"the farmer in {home} has not run yet: start it with `stook farm run`")
    with SqliteContractStore(path) as contracts:
        yield contracts


def set_leaving(home: Path, within_ms: int | None) -> int:
    """Let the farmer in `home` leave within so long, or stay (None); the day. A running one sees it within a minute.

    Raises `NotFoundError` when it never ran, `UserError` for more than ten years.
    """
    if within_ms is not None and within_ms > MAX_LEAVE_MS:
        raise UserError("a farmer that stays for more than ten years does not leave yet")
    by_ms = 0 if within_ms is None else SystemClock().now_ms() + within_ms
    with _farmer_records(home) as contracts:
        contracts.exits.set_leaving(by_ms)
    return by_ms


def audit_rounds(home: Path, limit: int) -> list[dict[str, Any]]:
    """The newest rounds of audits that the farmer in `home` answered, newest first. Raises `NotFoundError`."""
    with _farmer_records(home) as contracts:
        rounds = contracts.audits.rounds(limit)
    return [
        {
            "round": one.digest.hex(),
            "renter": node_id_of(one.renter_key).hex(),
            "auditor": node_id_of(one.auditor_key).hex(),
            "asked_ms": one.asked_ms,
            "units": one.leaves,
            "pages_signed": one.pages,
            "units_billed": one.billed_units,
            "verdicts": None
            if one.counts is None
            else {verdict.name.lower(): count for verdict, count in zip(Verdict, one.counts, strict=True)},
            "proved_bytes": one.proved_bytes,
        }
        for one in rounds
    ]


def audit_evidence(home: Path, name: str) -> tuple[bytes, bytes]:
    """Digest and receipt file of the round whose digest begins with the hex digits `name`.

    Raises `NotFoundError` when there is none, `UserError` when there are several.
    """
    with _farmer_records(home) as contracts, FileShardStore(home, read_only=True) as shards:
        found = find_round(contracts.audits.rounds(MAX_ROUNDS), name)
        return found.digest, encode(receipt_file(contracts, shards, found.digest))


def _set_aside_if_damaged(path: Path) -> None:
    """A sound index knows things the shard files do not (reservations, spending), so only a damaged one goes."""
    try:
        with SqliteContractStore(path) as contracts:
            contracts.verify()
    except CorruptionError:
        set_aside(path)


def check_farmer_home(home: Path, *, deep: bool, rebuild: bool) -> dict[str, Any]:
    """Compare the index of a farmer that does not run with its shard files; with `rebuild` make the index anew.

    Raises `ConflictError` while the farmer runs, `CorruptionError` when the index is damaged and not to be rebuilt.
    """
    config.load_settings(home, "farm")
    path = home / CONTRACTS_FILE
    with FileShardStore(home) as shards:
        if rebuild:
            _set_aside_if_damaged(path)
        with SqliteContractStore(path) as contracts:
            report = fsck.check(shards, contracts, deep=deep)
            result: dict[str, Any] = {
                "ok": report.clean,
                "shards": report.shard_count,
                "bytes": report.size_bytes,
                "disk_bytes": report.disk_bytes,
                "damaged": [str(damage.path) for damage in report.damaged],
                "orphaned": [root.hex() for root in report.orphaned],
                "missing": [contract_id.hex() for contract_id in report.missing],
                "not_in_index": [contract_id.hex() for contract_id in report.unindexed],
            }
            if rebuild:
                mended = fsck.mend(shards, contracts, report)
                result |= {
                    "ok": True,
                    "adopted": len(mended.adopted),
                    "restored": len(mended.restored),
                    "quarantined": len(mended.quarantined),
                }
    return result


# ----------------------------------------------------------------------------------------------------------- renter


def create_renter_home(
    home: Path, node: NodeSettings, rent: RentSettings, *, phrase: str | None = None, passphrase: str | None = None
) -> str:
    """Make a new renter's home from fresh words, or from a phrase typed in; returns the 24 words.

    Raises `PhraseError`, or `ConfigError` when the home holds a node already.
    """
    if phrase is None:
        secrets = new_owner_secrets(node.network)
    else:
        entropy = phrase_entropy(phrase)
        secrets = OwnerSecrets(OWNER_SECRETS_VERSION, NetworkId(node.network), entropy, "")
    _make_home(home, secrets, {"node": with_puzzle(node, secrets.tree().node_key()), "rent": rent}, passphrase)
    return secrets.phrase()


def _agent_options(rent: RentSettings) -> AgentOptions:
    return AgentOptions(
        policy=Policy.parse(rent.code) if rent.code else None,
        spares=rent.spares,
        spread=Spread(rent.spread),
        contract_duration_ms=config.parse_duration_ms(rent.contract_duration),
        max_storage_price_per_gib_hour=rent.max_storage_price_per_gib_hour,
        max_download_price_per_gib=rent.max_download_price_per_gib,
        audits=AuditRules(
            bytes_per_day=config.parse_size(rent.audit_bytes_per_day), requests_per_day=rent.audits_per_day
        ),
        memory_budget_bytes=config.parse_size(rent.memory_budget),
        repair=RepairSettings(
            bytes_per_day=config.parse_size(rent.repair_bytes_per_day),
            copies=rent.copies,
            patience_ms=config.parse_duration_ms(rent.repair_patience),
        ),
    )


@asynccontextmanager
async def _agent_parts(
    home: Path, settings: Settings, key: NodeKey, mask_root: bytes
) -> AsyncIterator[tuple[LocalAgent, Endpoint, ThreadOffload, Codec]]:
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        offload = ThreadOffload(3, "stook-work")
        stack.callback(offload.close)
        store = await offload(lambda: SqlAgentStore.open(home / AGENT_FILE))
        stack.callback(store.close)
        limits = _limits(settings.node, settings.rent.upload_limit, settings.rent.download_limit)
        endpoint = _endpoint(key, settings.node, limits, clock)
        stack.push_async_callback(endpoint.close, grace_seconds=1)
        codec = load_codec()
        log = structlog.get_logger("stook.agent")
        agent = LocalAgent(
            endpoint=endpoint,
            key=key,
            network=NetworkId(settings.node.network),
            mask_root=mask_root,
            store=store,
            clock=clock,
            entropy=system_entropy,
            offload=offload,
            codec=codec,
            seeds=[peer_of(uri) for uri in settings.node.seeds],
            options=_agent_options(settings.rent),
            on_error=lambda chore, error: log.warning("chore failed", chore=chore, why=str(error)),
        )
        await agent.open()
        stack.push_async_callback(agent.aclose)
        yield agent, endpoint, offload, codec


@dataclass(frozen=True, slots=True)
class Renter:
    """A renter that is open: both halves, on one endpoint."""

    client: Client
    agent: LocalAgent
    settings: Settings
    key: NodeKey
    """Signs restore certificates."""
    catalog: SqlCatalog


@asynccontextmanager
async def open_renter(home: Path, *, passphrase: str | None = None, refresh: bool = True) -> AsyncIterator[Renter]:
    """Both halves of the renter in `home`, until the block ends. With `refresh` the farmers known are asked first.

    Raises `ConfigError`, `PassphraseNeededError`, `WrongPassphraseError`.
    """
    settings = config.load_settings(home, "rent")
    tree = load_owner(home, passphrase).tree()
    key = tree.node_key()
    async with AsyncExitStack() as stack:
        parts = _agent_parts(home, settings, key, tree.mask_root())
        agent, endpoint, offload, codec = await stack.enter_async_context(parts)
        catalog = await offload(lambda: SqlCatalog.open(home / CATALOG_FILE))
        stack.callback(catalog.close)
        client = Client(
            agent=agent,
            endpoint=endpoint,
            node_key=key.public_key,
            network=NetworkId(settings.node.network),
            content_root=tree.content_root(),
            catalog=catalog,
            clock=SystemClock(),
            entropy=system_entropy,
            offload=offload,
            codec=codec,
            slots=agent.slots,
            presence=FilePresence(home / UPLOADS_LOCK_FILE),
        )
        stack.push_async_callback(client.aclose)
        if refresh:
            await agent.refresh()
        yield Renter(client, agent, settings, key, catalog)


def load_agent_keys(home: Path, passphrase: str | None) -> tuple[NodeKey, bytes]:
    """The node key and mask root in `home`, whether it holds an owner's secrets or an exported credential."""
    secrets = load_secrets(home / KEY_FILE, passphrase=passphrase)
    if isinstance(secrets, OwnerSecrets):
        tree = secrets.tree()
        return tree.node_key(), tree.mask_root()
    return secrets.node_key(), secrets.mask_root


@asynccontextmanager
async def open_agent(home: Path, *, passphrase: str | None = None, refresh: bool = True) -> AsyncIterator[LocalAgent]:
    """The half without content keys, until the block ends. The home may hold an exported credential alone.

    With `refresh` the farmers known are asked for news first.
    """
    settings = config.load_settings(home, "rent")
    key, mask_root = load_agent_keys(home, passphrase)
    async with _agent_parts(home, settings, key, mask_root) as (agent, _endpoint, _offload, _codec):
        if refresh:
            await agent.refresh()
        yield agent


def export_agent(home: Path, target: Path, *, passphrase: str | None, new_passphrase: str | None) -> None:
    """Write a home for `stook agent run` elsewhere: credential, settings, and what the agent knows; no content keys.

    Raises `ConflictError` when `target` holds keys already.
    """
    settings = config.load_settings(home, "rent")
    secrets = load_owner(home, passphrase)
    credential = secrets.tree().agent_credential(NetworkId(settings.node.network))
    save_secrets(target / KEY_FILE, credential, entropy=system_entropy, passphrase=new_passphrase)
    config.write_settings(target, {"node": settings.node, "rent": settings.rent})
    if (home / AGENT_FILE).exists():
        copy_database(home / AGENT_FILE, target / AGENT_FILE)
