"""Build each node from its parts, start them together and stop them in reverse; the one place that knows every adapter.

The system's clock, dice and threads are made here, so that no other module reaches for them.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import structlog

from stook import config
from stook.codec import decode, encode
from stook.config import FarmSettings, NodeSettings, PaySettings, RentSettings, Settings
from stook.contracts.contract import Settlement
from stook.contracts.topics import Degree
from stook.contracts.verdict import Verdict
from stook.errors import (
    BugError,
    ConfigError,
    ConflictError,
    CorruptionError,
    EnvironmentFault,
    MalformedError,
    NotFoundError,
    ReasonCode,
    RefusedError,
    UnreachableError,
    UserError,
)
from stook.farmer.admission import FarmerTerms
from stook.farmer.asking import Asking
from stook.farmer.capacity import CapacityLimits
from stook.farmer.evidence import find_round, receipt_file
from stook.farmer.service import Farmer
from stook.farmer.settings import ChoreIntervals, FarmerSettings, MarketSettings, TransferLimits
from stook.identity.contact import Address, AddressKind, ContactUri, SignedContact, sign_contact
from stook.identity.keys import NodeKey, node_id_of, phrase_entropy
from stook.identity.keystore import OWNER_SECRETS_VERSION, OwnerSecrets, load_secrets, save_secrets
from stook.identity.membership import MAX_MEMBERSHIP_BYTES, Gate, SignedMembership
from stook.identity.pow import solve_puzzle
from stook.ids import NetworkId, NodeId, PublicKey, SegmentId
from stook.overlay.contact_book import BookLimits, ContactBook
from stook.overlay.joining import MAX_SEEDS_TOLD, InviteDesk, JoinMethod
from stook.overlay.memory import BlobMemory
from stook.overlay.neighbours import LanFinder
from stook.overlay.publishing import announcement_into, own_records
from stook.overlay.quasar import QuasarRules
from stook.overlay.records import SignedRecord
from stook.overlay.service import OverlayNode, OverlaySettings
from stook.payments.enforcement import CreditRules
from stook.payments.settlement import LedgerSettlement
from stook.payments.settlement import Settlement as SettlementPort
from stook.renter.agent import AgentOptions, LocalAgent
from stook.renter.audit_rules import AuditRules
from stook.renter.client import Client
from stook.renter.fetch import Fetcher
from stook.renter.journal_seal import JournalKeys
from stook.renter.market import MarketOptions
from stook.renter.overlay_pointers import OverlayPointers
from stook.renter.paymaster import PayRules
from stook.renter.planner import Spread
from stook.renter.pointers import AllPointers, FarmerPointers, RecoveryPointers
from stook.renter.recover import Recovered, Recovery, Wanted, newest_save, unnamed_segments
from stook.renter.repairer import RepairSettings
from stook.renter.restorer import OnRows, Restorer
from stook.renter.saver import RecordMaker, SaverRules
from stook.renter.undo import Undone
from stook.shards.erasure import Codec, load_codec
from stook.shards.geometry import Policy
from stook.storage import fsck
from stook.storage.agent_store import SqlAgentStore
from stook.storage.blobs import FileBlobs
from stook.storage.books import SqliteBooks
from stook.storage.catalog import SqlCatalog
from stook.storage.contract_store import SqliteContractStore, set_aside
from stook.storage.database import copy_database
from stook.storage.durable import sync_directory
from stook.storage.invite_store import InviteStore
from stook.storage.journal_load import CatalogLoader, differences, remove_database
from stook.storage.journal_records import MAX_SETTINGS_CHARS, Point
from stook.storage.presence import FilePresence
from stook.storage.record_shelf import SqliteRecordShelf
from stook.storage.shard_store import FileShardStore
from stook.threads import ThreadOffload
from stook.wire.endpoint import Endpoint, Exchange, Handler, Peer
from stook.wire.lan import MulticastLink
from stook.wire.limits import Limits
from stook.wire.tcp import TcpCarrier

KEY_FILE = "keys.stook"
CONTRACTS_FILE = "contracts.db"
RECORDS_FILE = "records.db"
AGENT_FILE = "agent.db"
CATALOG_FILE = "catalog.db"
BOOKS_FILE = "books.db"
UPLOADS_LOCK_FILE = "uploads.lock"
SAVES_LOCK_FILE = "saves.lock"
RECOVERING = "recovering"
"""Directory in a home that is being recovered; it is gone when the home is whole."""
OVERLAY_FOLDER = "overlay"
MEMBERSHIP_FILE = "membership.stook"
INVITES_FOLDER = "invites"
STATUS_METHOD = "STATUS"
"""Answered with JSON, to the operator's key alone (`docs/protocol/methods.md`)."""
MAX_ROUNDS = 1_000_000
LAN_SECONDS = 0.5
"""How long a command waits for somebody on the local link to answer; they take a few milliseconds."""
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


def _paying(pay: PaySettings | None) -> dict[str, msgspec.Struct]:
    return {} if pay is None else {"pay": pay}


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


def membership_of(home: Path) -> SignedMembership | None:
    """The membership in `home`; None when there is none, as at the owner's. Raises `ConfigError` for another file."""
    path = home / MEMBERSHIP_FILE
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MEMBERSHIP_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EnvironmentFault(f"{path}: {error.strerror}") from error
    try:
        return decode(SignedMembership, data, max_bytes=MAX_MEMBERSHIP_BYTES)
    except MalformedError as error:
        raise ConfigError(f"{path} holds no membership: join again by a new invite ({error})") from None


def gate_of(home: Path, node: NodeSettings) -> Gate | None:
    """Who is let in at the node in `home`; None in an open network. Raises `ConfigError`, `EnvironmentFault`."""
    if not node.owner:
        return None
    own = membership_of(home)
    return Gate(
        network=NetworkId(node.network),
        owner_id=NodeId(bytes.fromhex(node.owner)),
        shown=b"" if own is None else encode(own),
        banned=frozenset(NodeId(bytes.fromhex(text)) for text in node.banned),
        open_methods=frozenset({JoinMethod.REDEEM, STATUS_METHOD}),
    )


def make_endpoint(
    key: NodeKey, node: NodeSettings, limits: Limits, clock: SystemClock, *, gate: Gate | None = None
) -> Endpoint:
    """An endpoint on the system's sockets. Close it."""
    log = structlog.get_logger("stook.wire")
    return Endpoint(
        key=key,
        network=NetworkId(node.network),
        clock=clock,
        entropy=system_entropy,
        carrier=TcpCarrier(),
        limits=limits,
        puzzle_nonce=node.puzzle_nonce,
        gate=gate,
        on_error=lambda what, error: log.error("unexpected error", where=what, why=str(error), exc_info=error),
    )


def _overlay(
    home: Path,
    node: NodeSettings,
    endpoint: Endpoint,
    clock: SystemClock,
    offload: ThreadOffload,
    *,
    member: bool,
    on_record: Callable[[SignedRecord], None] = lambda _: None,
) -> OverlayNode:
    log = structlog.get_logger("stook.overlay")
    return OverlayNode(
        endpoint=endpoint,
        network=NetworkId(node.network),
        clock=clock,
        entropy=system_entropy,
        offload=offload,
        memory=BlobMemory(FileBlobs(home / OVERLAY_FOLDER)),
        seeds=[peer_of(uri) for uri in node.seeds],
        settings=OverlaySettings(
            member=member, share_network=not node.max_nodes_per_network, puzzle_bits=node.puzzle_bits
        ),
        on_error=lambda chore, error: log.warning("chore failed", chore=chore, why=str(error)),
        on_record=on_record,
    )


@asynccontextmanager
async def _lan(
    node: NodeSettings, key: NodeKey, port: int, overlay: OverlayNode | None, endpoint: Endpoint, clock: SystemClock
) -> AsyncIterator[LanFinder | None]:
    """Beacons, where the settings name an interface; whoever is heard is a way into the overlay."""
    if not node.lan or overlay is None:
        yield None
        return
    log = structlog.get_logger("stook.overlay")
    finder = LanFinder(
        key=key,
        network=NetworkId(node.network),
        port=port,
        link=MulticastLink(node.lan),
        clock=clock,
        on_neighbour=lambda peer: endpoint.spawn(overlay.meet(peer)),
        on_error=lambda chore, error: log.warning("chore failed", chore=chore, why=str(error)),
    )
    await finder.start()
    try:
        yield finder
    finally:
        await finder.stop()


# ----------------------------------------------------------------------------------------------------------- farmer


def farmer_address(node: NodeSettings) -> tuple[str, int]:
    """Where others reach a farmer of these settings. Raises `ConfigError` when its port would not stay."""
    host, port = config.parse_address(node.advertise[0] if node.advertise else node.listen)
    if port == 0:
        raise ConfigError("a farmer needs a port that stays: give --listen host:port")
    return host, port


def private_settings(node: NodeSettings, owner: NodeId) -> NodeSettings:
    """The settings in the private grid of `owner`: whom it let in is counted by nobody's network."""
    return msgspec.structs.replace(node, owner=owner.hex(), max_nodes_per_network=0)


def new_network_name() -> str:
    """A name that no other network has, for a private grid that was given none."""
    return f"grid-{system_entropy(8).hex()}"


def create_farmer_home(
    home: Path,
    node: NodeSettings,
    farm: FarmSettings,
    passphrase: str | None = None,
    *,
    private: bool = False,
    pay: PaySettings | None = None,
) -> str:
    """Make a new farmer's home: settings and a fresh key. Returns its contact URI as others may use it.

    With `private` it founds a grid of its own, and owns it. Raises `ConfigError` when the home holds a node already or
    the address has no port.
    """
    host, port = farmer_address(node)
    secrets = new_owner_secrets(node.network)
    if private:
        node = private_settings(node, secrets.tree().node_key().node_id)
    node = with_puzzle(node, secrets.tree().node_key())
    _make_home(home, secrets, {"node": node, "farm": farm, **_paying(pay)}, passphrase)
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
            settlements=(Settlement.EVM,) if settings.pay.settlement == "evm" else (Settlement.LEDGER,),
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
        market=_farmer_market(settings) if farm.market else None,
        credit=CreditRules(limit=farm.credit_limit, drop=farm.drop_unpaid),
    )


def _farmer_market(settings: Settings) -> MarketSettings:
    return MarketSettings(
        availability=Degree[settings.farm.availability.upper()],
        speed=Degree[settings.farm.speed.upper()],
        strategy=Asking(settings.farm.market_discount),
        rules=QuasarRules(puzzle_bits=settings.node.puzzle_bits),
        puzzle_nonce=settings.node.puzzle_nonce,
    )


def settlement_of(settings: Settings, key: NodeKey) -> SettlementPort:
    """What the home's accounts are settled by. Raises `ConfigError` when a setting for the chain is missing."""
    pay = settings.pay
    if pay.settlement == "ledger":
        return LedgerSettlement(NetworkId(settings.node.network))
    from stook.payments.evm import EvmSettlement

    return EvmSettlement(pay.chain, key, token=pay.token, chequebook=pay.chequebook)


def _chain_thread(stack: AsyncExitStack) -> ThreadOffload:
    """One thread for what may wait for a chain; it is made with the first call."""
    offload = ThreadOffload(1, "stook-chain")
    stack.callback(offload.close)
    return offload


def open_books(home: Path) -> SqliteBooks:
    """The books in `home`, made when there are none."""
    return SqliteBooks(home / BOOKS_FILE)


def _book_limits(node: NodeSettings) -> BookLimits:
    return BookLimits(max_per_network=node.max_nodes_per_network or None, puzzle_bits=node.puzzle_bits)


def advertised(node: NodeSettings, bound: tuple[str, int]) -> list[Address]:
    """The addresses a node tells others: as set, else where it listens."""
    texts = [config.parse_address(text) for text in node.advertise] or [bound]
    return [Address(AddressKind.DIRECT, host, port or bound[1]) for host, port in texts]


def _contact(key: NodeKey, node: NodeSettings, bound: tuple[str, int], clock: SystemClock) -> SignedContact:
    now_ms = clock.now_ms()
    return sign_contact(
        key,
        network=NetworkId(node.network),
        addresses=advertised(node, bound),
        sequence=now_ms,
        issued_ms=now_ms,
        puzzle_nonce=node.puzzle_nonce,
    )


@dataclass(frozen=True, slots=True)
class RunningFarmer:
    """A farmer that serves, and its contact URI."""

    farmer: Farmer
    uri: str
    overlay: OverlayNode | None = None


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
        records = stack.enter_context(SqliteRecordShelf(home / RECORDS_FILE))
        limits = _limits(settings.node, settings.farm.upload_limit, settings.farm.download_limit)
        endpoint = make_endpoint(key, settings.node, limits, clock, gate=gate_of(home, settings.node))
        stack.push_async_callback(endpoint.close)
        bound = await endpoint.listen(*config.parse_address(settings.node.listen))
        addresses = advertised(settings.node, bound)
        endpoint.contact = _contact(key, settings.node, bound, clock)
        book = ContactBook(network, _book_limits(settings.node))
        overlay = None
        if settings.node.overlay:
            into_book = announcement_into(book, clock)
            overlay = _overlay(home, settings.node, endpoint, clock, offload, member=True, on_record=into_book)
        farmer = Farmer(
            key=key,
            network=network,
            endpoint=endpoint,
            shards=shards,
            contracts=contracts,
            book=book,
            clock=clock,
            offload=offload,
            free_disk=lambda: shutil.disk_usage(home).free,
            settings=_farmer_settings(settings),
            seeds=[peer_of(uri) for uri in settings.node.seeds],
            neighbourhood=overlay,
            books=stack.enter_context(open_books(home)),
            settlement=settlement_of(settings, key),
            chain=_chain_thread(stack),
            records=records,
        )
        if overlay is not None:
            overlay.add_source(own_records(key, endpoint, farmer.announcement, clock, offload))
        endpoint.handle(STATUS_METHOD, _status_handler(farmer, overlay, tree.node_key(*OPERATOR_KEY).public_key))
        endpoint.handle(JoinMethod.REDEEM, _invite_desk(home, settings.node, key, book, clock, offload).redeem)
        await farmer.start()
        stack.push_async_callback(farmer.stop)
        if overlay is not None:
            await overlay.start()
            stack.push_async_callback(overlay.stop)
        await stack.enter_async_context(_lan(settings.node, key, bound[1], overlay, endpoint, clock))
        yield RunningFarmer(farmer, str(ContactUri(addresses[0], key.node_id)), overlay)


def _invite_desk(
    home: Path, node: NodeSettings, key: NodeKey, book: ContactBook, clock: SystemClock, offload: ThreadOffload
) -> InviteDesk:
    return InviteDesk(
        key=key,
        network=NetworkId(node.network),
        private=bool(node.owner),
        own=membership_of(home),
        book=InviteStore(home / INVITES_FOLDER, system_entropy),
        clock=clock,
        offload=offload,
        seeds=lambda: [one.announcement.contact for one in book.some(MAX_SEEDS_TOLD + 1, now_ms=clock.now_ms())],
    )


def usage() -> dict[str, float]:
    """CPU seconds and peak resident memory of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    return {"cpu_seconds": used.ru_utime + used.ru_stime, "peak_rss_mib": used.ru_maxrss * unit / (1 << 20)}


def _status_handler(farmer: Farmer, overlay: OverlayNode | None, operator: PublicKey) -> Handler:
    async def answer(exchange: Exchange, _payload: bytes) -> None:
        if exchange.peer_key != operator:
            raise RefusedError(ReasonCode.WRONG_IDENTITY, "a farmer's status is for its own operator")
        status = (await farmer.status()).as_json()
        found = None if overlay is None else overlay.status()
        await exchange.reply(json.dumps({**status, "overlay": found, **usage()}).encode())

    return answer


async def farmer_status(home: Path, *, passphrase: str | None = None) -> dict[str, Any]:
    """The status of the farmer that runs in `home`, asked over its own port with its own key.

    Raises `NotFoundError` when it does not run.
    """
    settings = config.load_settings(home, "farm")
    tree = load_owner(home, passphrase).tree()
    host, port = config.parse_address(settings.node.listen)
    operator = tree.node_key(*OPERATOR_KEY)
    endpoint = make_endpoint(operator, with_puzzle(settings.node, operator), Limits(), SystemClock())
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
    home: Path,
    node: NodeSettings,
    rent: RentSettings,
    *,
    phrase: str | None = None,
    passphrase: str | None = None,
    pay: PaySettings | None = None,
) -> str:
    """Make a new renter's home from fresh words, or from a phrase typed in; returns the 24 words.

    Raises `PhraseError`, or `ConfigError` when the home holds a node already.
    """
    if phrase is None:
        secrets = new_owner_secrets(node.network)
    else:
        entropy = phrase_entropy(phrase)
        secrets = OwnerSecrets(OWNER_SECRETS_VERSION, NetworkId(node.network), entropy, "")
    node = with_puzzle(node, secrets.tree().node_key())
    _make_home(home, secrets, {"node": node, "rent": rent, **_paying(pay)}, passphrase)
    return secrets.phrase()


def _agent_options(settings: Settings) -> AgentOptions:
    rent, node = settings.rent, settings.node
    market = MarketOptions(rules=QuasarRules(puzzle_bits=node.puzzle_bits), puzzle_nonce=node.puzzle_nonce)
    return AgentOptions(
        market=market if rent.market else None,
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
        pay=PayRules(chequebook=bytes.fromhex(settings.pay.chequebook[2:])),
    )


@asynccontextmanager
async def _agent_parts(
    home: Path, settings: Settings, key: NodeKey, mask_root: bytes
) -> AsyncIterator[tuple[LocalAgent, Endpoint, ThreadOffload, Codec, OverlayNode | None]]:
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        offload = ThreadOffload(3, "stook-work")
        stack.callback(offload.close)
        store = await offload(lambda: SqlAgentStore.open(home / AGENT_FILE))
        stack.callback(store.close)
        books = stack.enter_context(open_books(home))
        limits = _limits(settings.node, settings.rent.upload_limit, settings.rent.download_limit)
        endpoint = make_endpoint(key, settings.node, limits, clock, gate=gate_of(home, settings.node))
        stack.push_async_callback(endpoint.close, grace_seconds=1)
        codec = load_codec()
        log = structlog.get_logger("stook.agent")
        options = _agent_options(settings)
        if options.market is not None:
            try:
                bound = await endpoint.listen(*config.parse_address(settings.node.listen))
                endpoint.contact = _contact(key, settings.node, bound, clock)
            except EnvironmentFault as fault:
                # Another process of this home listens there, as a rule, and hears offers for both.
                log.warning("no market: offers cannot be heard", why=str(fault))
                options = replace(options, market=None)
        overlay = None
        if settings.node.overlay:
            overlay = _overlay(home, settings.node, endpoint, clock, offload, member=False)
            await overlay.start()
            stack.push_async_callback(overlay.stop)
        finder = await stack.enter_async_context(_lan(settings.node, key, 0, overlay, endpoint, clock))
        if finder is not None:
            await finder.ask(wait_seconds=LAN_SECONDS)
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
            sample=None if overlay is None else overlay.sample,
            options=options,
            neighbourhood=overlay,
            neighbours=tuple if finder is None else finder.neighbours,
            on_error=lambda chore, error: log.warning("chore failed", chore=chore, why=str(error)),
            books=books,
            settlement=settlement_of(settings, key),
            chain=_chain_thread(stack),
        )
        await agent.open()
        stack.push_async_callback(agent.aclose)
        yield agent, endpoint, offload, codec, overlay


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
        agent, endpoint, offload, codec, overlay = await stack.enter_async_context(parts)
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
        keys = JournalKeys(tree.recovery_root())
        client.save_with(
            journal=catalog.journal,
            keys=keys,
            pointers=_pointers(agent, endpoint, overlay, keys, settings.node, offload),
            rules=saver_rules(settings),
            presence=FilePresence(home / SAVES_LOCK_FILE),
        )
        if refresh:
            await agent.refresh()
            await agent.discover_if_needed()
        yield Renter(client, agent, settings, key, catalog)


def _pointers(
    agent: LocalAgent,
    endpoint: Endpoint,
    overlay: OverlayNode | None,
    keys: JournalKeys,
    node: NodeSettings,
    offload: ThreadOffload,
) -> RecoveryPointers:
    """Recovery records are left with the farmers that hold contracts of ours, and in the overlay where there is one."""
    farmers = FarmerPointers(endpoint, agent.holders, lambda: [agent.book.peer(each) for each in agent.book.farmers()])
    if overlay is None:
        return farmers
    network = NetworkId(node.network)
    return AllPointers(
        farmers, OverlayPointers(overlay, keys.record_key, network, SystemClock(), offload, node.puzzle_bits)
    )


def saver_rules(settings: Settings) -> SaverRules:
    """How the catalog is saved. What the renter is set to goes along."""
    rent = settings.rent
    return SaverRules(
        lag_seconds=config.parse_duration_ms(rent.catalog_lag) / 1000,
        history_ms=config.parse_duration_ms(rent.catalog_history),
        settings=config.render_settings({"node": settings.node, "rent": rent, "pay": settings.pay})[
            :MAX_SETTINGS_CHARS
        ],
    )


def holds_owner(home: Path, passphrase: str | None) -> bool:
    """Whether the home holds the owner's secrets, not an agent's credential alone."""
    return isinstance(load_secrets(home / KEY_FILE, passphrase=passphrase), OwnerSecrets)


def load_agent_keys(home: Path, passphrase: str | None) -> tuple[NodeKey, bytes]:
    """The node key and mask root in `home`, whether it holds an owner's secrets or an exported credential."""
    secrets = load_secrets(home / KEY_FILE, passphrase=passphrase)
    if isinstance(secrets, OwnerSecrets):
        tree = secrets.tree()
        return tree.node_key(), tree.mask_root()
    return secrets.node_key(), secrets.mask_root


@asynccontextmanager
async def open_agent(
    home: Path, *, passphrase: str | None = None, refresh: bool = True, market: bool = False
) -> AsyncIterator[LocalAgent]:
    """The half without content keys, until the block ends. The home may hold an exported credential alone.

    With `refresh` the farmers known are asked for news first; with `market` it takes part in the open market whatever
    the settings say.
    """
    settings = config.load_settings(home, "rent")
    if market:
        settings = msgspec.structs.replace(settings, rent=msgspec.structs.replace(settings.rent, market=True))
    key, mask_root = load_agent_keys(home, passphrase)
    async with _agent_parts(home, settings, key, mask_root) as (agent, *_):
        if refresh:
            await agent.refresh()
            await agent.discover_if_needed()
        yield agent


def export_agent(home: Path, target: Path, *, passphrase: str | None, new_passphrase: str | None) -> None:
    """Write a home for `stook agent run` elsewhere: credential, settings, and what the agent knows; no content keys.

    Raises `ConflictError` when `target` holds keys already.
    """
    settings = config.load_settings(home, "rent")
    secrets = load_owner(home, passphrase)
    credential = secrets.tree().agent_credential(NetworkId(settings.node.network))
    save_secrets(target / KEY_FILE, credential, entropy=system_entropy, passphrase=new_passphrase)
    if (home / MEMBERSHIP_FILE).exists():
        shutil.copyfile(home / MEMBERSHIP_FILE, target / MEMBERSHIP_FILE)
    config.write_settings(target, {"node": settings.node, "rent": settings.rent, "pay": settings.pay})
    if (home / AGENT_FILE).exists():
        copy_database(home / AGENT_FILE, target / AGENT_FILE)


# --------------------------------------------------------------------------------------------------------- recovery


def restorer_of(
    agent: LocalAgent, endpoint: Endpoint, key: NodeKey, network: str, offload: ThreadOffload, codec: Codec, root: bytes
) -> Restorer:
    """What fetches saved catalogs; `root` is the recovery root."""
    return Restorer(
        agent=agent,
        fetcher=Fetcher(agent=agent, endpoint=endpoint, clock=SystemClock(), offload=offload),
        node_key=key.public_key,
        network=NetworkId(network),
        slots=agent.slots,
        codec=codec,
        keys=JournalKeys(root),
        offload=offload,
    )


async def recover_home(
    home: Path,
    node: NodeSettings,
    phrase: str,
    *,
    passphrase: str | None = None,
    wanted: Wanted,
    on_rows: OnRows = lambda done, total: None,
) -> Recovered:
    """Make `home` again from the 24 words and the seeds in `node`. A kill at any moment leaves what can be run again.

    Raises `PhraseError`, `ConfigError` when the home holds a node, `ConflictError` when it holds databases, and as
    `Recovery.run`.
    """
    entropy = phrase_entropy(phrase)
    config.settings_to_write(home, {"node": node})
    half = home / RECOVERING
    ours = [home / name for name in (KEY_FILE, AGENT_FILE, CATALOG_FILE)]
    if not half.exists() and (there := [path for path in ours if path.exists()]):
        raise ConflictError(f"{there[0]} is there already: recover into a home that is empty, or move it away")
    secrets = OwnerSecrets(OWNER_SECRETS_VERSION, NetworkId(node.network), entropy, "")
    tree = secrets.tree()
    key = tree.node_key()
    settings = Settings(node=with_puzzle(node, key))
    _clear(half, *ours)
    half.mkdir(parents=True, mode=0o700)
    keys = JournalKeys(tree.recovery_root())
    clock, network = SystemClock(), NetworkId(node.network)
    async with _agent_parts(half, settings, key, tree.mask_root()) as parts:
        agent, endpoint, offload, codec, overlay = parts
        pointers = _pointers(agent, endpoint, overlay, keys, settings.node, offload)
        recovery = Recovery(
            agent=agent,
            restorer=restorer_of(agent, endpoint, key, node.network, offload, codec, tree.recovery_root()),
            pointers=pointers,
            keys=keys,
            maker=RecordMaker(agent, pointers, keys, network, key.public_key, clock, system_entropy, offload),
            network=network,
            clock=clock,
            entropy=system_entropy,
            offload=offload,
        )
        came = await recovery.run(half / CATALOG_FILE, wanted, on_rows)
    for name in (AGENT_FILE, CATALOG_FILE):
        (half / name).replace(home / name)
    sync_directory(home)
    _make_home(home, secrets, _saved_settings(came.settings, settings), passphrase)
    _clear(half)
    return came


def _clear(half: Path, *leftovers: Path) -> None:
    """Remove what an interrupted recovery left."""
    for path in leftovers:
        remove_database(path)
    shutil.rmtree(half, ignore_errors=True)


def _saved_settings(text: str, now: Settings) -> dict[str, msgspec.Struct]:
    """The settings that were saved, with the seeds of today before the old ones; today's when they make no sense."""
    try:
        saved = config.parse_settings(text, "the saved settings")
    except ConfigError:
        return {"node": now.node, "rent": now.rent, "pay": now.pay}
    seeds = tuple(dict.fromkeys((*now.node.seeds, *saved.node.seeds)))
    node = msgspec.structs.replace(saved.node, network=now.node.network, seeds=seeds)
    return {"node": node, "rent": saved.rent, "pay": saved.pay}


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of fetching everything that is saved of a catalog."""

    saved_ms: int
    saves: int
    rows: int
    size_bytes: int
    differences: tuple[str, ...]
    """Rows that are not saved as they are; what changed since the last save is not counted."""
    unnamed: tuple[SegmentId, ...]
    """Segments at farmers that the catalog does not name."""


class CatalogTools:
    """What `stook catalog` does, over a renter that is open."""

    def __init__(self, home: Path, renter: Renter, restorer: Restorer, catalog: SqlCatalog, keys: JournalKeys) -> None:
        self.renter = renter
        self.catalog = catalog
        self._home = home
        self._restorer = restorer
        self._keys = keys

    async def fetch(self, point: Point, target: Path, on_rows: OnRows = lambda done, total: None) -> tuple[Path, int]:
        """The catalog as it was at a moment, in a new file, and the rows read. Raises as `Restorer.load`."""
        saves = {each.sequence: each for each in await asyncio.to_thread(self.catalog.journal.saves)}
        chain = [saves[each] for each in point.chain]
        opened = await self._restorer.open_head(chain[-1].head.segment_id, chain[-1].sequence)
        loader = await asyncio.to_thread(CatalogLoader, target, opened.manifest.schema)
        try:
            await self._restorer.load(chain, loader, on_rows)
            await asyncio.to_thread(loader.check)
            await asyncio.to_thread(loader.publish)
            return target, loader.rows
        finally:
            loader.close()

    async def points(self) -> list[Point]:
        """Moments that can be gone back to, oldest first."""
        return await asyncio.to_thread(self.catalog.journal.points)

    async def verify(self, on_rows: OnRows = lambda done, total: None) -> Verified:
        """Fetch all that is saved and compare it, row by row, with the catalog here. Raises `NotFoundError`."""
        points = await self.points()
        if not points:
            raise NotFoundError("nothing of this catalog is saved yet: `stook catalog save`")
        point = points[-1]
        saves = [each for each in self.catalog.journal.saves() if each.sequence in point.chain]
        target = self._home / "catalog.verify"
        remove_database(target)
        try:
            _, rows = await self.fetch(point, target, on_rows)
            # The saved file may be of an older schema; opening it brings it to today's.
            await asyncio.to_thread(lambda: SqlCatalog.open(target).close())
            found = await asyncio.to_thread(differences, self._home / CATALOG_FILE, target)
        finally:
            remove_database(target)
        return Verified(
            saved_ms=point.saved_ms,
            saves=len(saves),
            rows=rows,
            size_bytes=sum(each.size_bytes for each in saves),
            differences=tuple(found),
            unnamed=tuple(await self.unnamed()),
        )

    async def go_back(self, point: Point, *, exactly: bool, on_rows: OnRows = lambda done, total: None) -> Undone:
        """Bring back what the catalog named at a moment. Raises as `fetch` and `Client.bring_back`."""
        target = self._home / "catalog.then"
        remove_database(target)
        try:
            await self.fetch(point, target, on_rows)
            old = await asyncio.to_thread(SqlCatalog.open, target)
            try:
                stores = old.s3, self.renter.catalog.s3
                return await self.renter.client.bring_back(old, exactly=exactly, stores=stores)
            finally:
                old.close()
        finally:
            remove_database(target)

    async def give_up(self, unnamed: Sequence[SegmentId]) -> None:
        """Let farmers erase segments that nothing names."""
        await self.renter.agent.release(unnamed)

    async def unnamed(self) -> list[SegmentId]:
        """Segments at farmers that the catalog does not name."""
        pages = unnamed_segments(
            self.renter.agent.all_segments(1000),
            self.catalog,
            self._keys,
            asyncio.to_thread,
            finished=await asyncio.to_thread(newest_save, self.catalog.journal),
        )
        return [each async for page in pages for each in page]


@asynccontextmanager
async def open_catalog_tools(home: Path, *, passphrase: str | None = None) -> AsyncIterator[CatalogTools]:
    """The renter in `home` with its catalog, for `stook catalog`. Raises as `open_renter`."""
    tree = load_owner(home, passphrase).tree()
    async with open_renter(home, passphrase=passphrase) as renter, AsyncExitStack() as stack:
        catalog = await asyncio.to_thread(lambda: SqlCatalog.open(home / CATALOG_FILE))
        stack.callback(catalog.close)
        offload = ThreadOffload(2, "stook-catalog")
        stack.callback(offload.close)
        network, root = renter.settings.node.network, tree.recovery_root()
        restorer = restorer_of(renter.agent, renter.agent.endpoint, renter.key, network, offload, load_codec(), root)
        yield CatalogTools(home, renter, restorer, catalog, JournalKeys(root))
