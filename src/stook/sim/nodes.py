"""The nodes of a simulation: a real farmer and a real renter, each on a host of its own, that can die and come back.

What a node keeps on disk in life (keys, stores) outlives its death here; sessions, tasks and buffers do not.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO
from typing import Any, NoReturn

import structlog
from structlog.typing import FilteringBoundLogger

from stook.chore import Chore
from stook.clock import Offload
from stook.farmer.service import Farmer
from stook.farmer.settings import FarmerSettings
from stook.identity.contact import Address, AddressKind, SignedContact, sign_contact
from stook.identity.keys import NodeKey
from stook.ids import NetworkId, NodeId
from stook.overlay.contact_book import BookLimits, ContactBook
from stook.renter.agent import AgentOptions, LocalAgent
from stook.renter.client import Client
from stook.renter.journal_seal import JournalKeys
from stook.renter.pointers import FarmerPointers
from stook.renter.saver import SaverRules
from stook.renter.slots import SlotPool
from stook.shards.erasure import Codec
from stook.sim.adversary import Adversary, Casting, Role
from stook.sim.dice import Dice
from stook.sim.factories import NETWORK, key_tree, node_key
from stook.sim.loop import InlineOffload, VirtualClock
from stook.sim.network import SimNetwork
from stook.sim.signatures import CheapSignatures
from stook.storage.books import SqliteBooks
from stook.storage.journal_ports import Journal
from stook.storage.memory import MemoryContractStore, MemoryShardStore
from stook.storage.ports import ContractStore, ShardStore
from stook.storage.record_shelf import MemoryRecordShelf
from stook.storage.renter_memory import MemoryAgentStore, MemoryCatalog
from stook.storage.renter_ports import Catalog, OutcomeKind
from stook.wire.carrier import Carrier
from stook.wire.endpoint import Endpoint, Handler, Peer
from stook.wire.limits import Limits

PORT = 4000
KEPT_LOG_LINES = 1_000
BLAME = frozenset({OutcomeKind.CLAIM, OutcomeKind.CONSIGN, OutcomeKind.RETRIEVE, OutcomeKind.AUDIT})
"""The dealings in which a farmer can do wrong. Not to be reached may be the network's fault."""


@dataclass(slots=True)
class World:
    """What all nodes of a simulation share."""

    dice: Dice
    network: SimNetwork
    codec: Codec
    limits: Limits = field(default_factory=Limits)
    offload: Offload = field(default_factory=InlineOffload)
    network_id: NetworkId = NETWORK
    cheap: CheapSignatures | None = None
    """How nodes sign, unless with the curve; open while they live."""
    errors: list[tuple[str, Exception]] = field(default_factory=list)
    """Bugs: what handlers, chores and tasks raised that no honest or dishonest peer should make them raise."""
    opened: list[SqliteBooks] = field(default_factory=list)
    """Books of all nodes, in memory."""
    log: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT_LOG_LINES))
    """The latest lines that nodes logged."""

    def books(self, wanted: bool) -> SqliteBooks | None:
        """Empty books, that outlive the death of their node; None where none are wanted."""
        if not wanted:
            return None
        self.opened.append(SqliteBooks(":memory:"))
        return self.opened[-1]

    def key(self, key: NodeKey) -> NodeKey:
        """The key as nodes of this world use it."""
        return key if self.cheap is None else self.cheap.cheapen(key)

    def error(self, where: str, error: Exception) -> None:
        """Note a bug."""
        self.errors.append((where, error))

    def logger(self, host: str) -> FilteringBoundLogger:
        """A logger whose lines end up in `log`."""

        def keep(_logger: Any, _level: str, line: Mapping[str, Any]) -> NoReturn:
            self.log.append(dict(line))
            raise structlog.DropEvent

        wrapped: FilteringBoundLogger = structlog.wrap_logger(
            None, processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(INFO), host=host
        )
        return wrapped


class _BentEndpoint(Endpoint):
    """The endpoint of an adversary: every handler given to it is bent first."""

    adversary: Adversary

    def handle(self, method: str, handler: Handler) -> None:
        super().handle(method, self.adversary.handler(method, handler))


class SimFarmer:
    """One farmer and what it keeps. `adversary` is None for an honest one."""

    def __init__(
        self,
        world: World,
        number: int,
        settings: FarmerSettings,
        *,
        casting: Casting | None = None,
        skew_ms: int = 0,
    ) -> None:
        self.number = number
        self.host = f"farmer-{number}"
        dice = world.dice.child(self.host)
        self.key: NodeKey = world.key(node_key(dice.child("key")))
        self.clock = VirtualClock(skew_ms)
        self.adversary: Adversary | None = None
        if casting is not None:
            self.adversary = casting(Role(self.key, self.host, self.clock, dice.child("adversary"), world.network))
            settings = self.adversary.settings(settings)
        self.settings = settings
        self.disk = MemoryShardStore()
        """What is truly stored, whatever the adversary makes of it."""
        self.shards: ShardStore = self.adversary.shards(self.disk) if self.adversary is not None else self.disk
        self.contracts: ContractStore = MemoryContractStore()
        self.books = world.books(settings.terms.storage_price_per_gib_hour > 0)
        """None where it stores for nothing."""
        self.records = MemoryRecordShelf()
        self.peer = Peer(self.key.node_id, (Address(AddressKind.DIRECT, self.host, PORT),))
        self.free_disk_bytes = 1 << 50
        self.seeds: Sequence[Peer] = ()
        self._world = world
        self._entropy = dice.child("entropy")
        self._endpoint: Endpoint | None = None
        self._farmer: Farmer | None = None

    @property
    def node_id(self) -> NodeId:
        """Its node id."""
        return self.key.node_id

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._farmer is not None

    @property
    def farmer(self) -> Farmer:
        """The running farmer. Raises `LookupError` while it is dead."""
        if self._farmer is None:
            raise LookupError(f"{self.host} does not run")
        return self._farmer

    @property
    def endpoint(self) -> Endpoint:
        """Its endpoint. Raises `LookupError` while it is dead."""
        if self._endpoint is None:
            raise LookupError(f"{self.host} does not run")
        return self._endpoint

    @property
    def stored_bytes(self) -> int:
        """Shard bytes that are truly on its disk."""
        return sum(shard.size_bytes for shard in self.disk.scan())

    async def start(self, *, chores: bool) -> None:
        """Bring it up, on the disk that it had. With `chores` its background loops run by timer."""
        world = self._world
        endpoint = _endpoint(world, self.host, self.key, self.clock, self._entropy, self.adversary)
        await endpoint.listen(self.host, PORT)
        endpoint.contact = _contact(world, self.key, self.host, self.clock)
        farmer = Farmer(
            key=self.key,
            network=world.network_id,
            endpoint=endpoint,
            shards=self.shards,
            contracts=self.contracts,
            book=ContactBook(world.network_id, BookLimits(max_per_network=None)),
            clock=self.clock,
            offload=world.offload,
            free_disk=lambda: self.free_disk_bytes - self.stored_bytes,
            settings=self.settings,
            seeds=[seed for seed in self.seeds if seed.node_id != self.node_id],
            books=self.books,
            records=self.records,
            log=world.logger(self.host),
        )
        self._endpoint, self._farmer = endpoint, farmer
        if not chores:
            for chore in farmer.chores.values():
                chore.pause()
        await farmer.start()

    async def stop(self) -> None:
        """An orderly end: requests under way may finish."""
        if self._farmer is not None and self._endpoint is not None:
            await self._farmer.stop(grace_seconds=5)
            await self._endpoint.close(grace_seconds=1)
            self._farmer = self._endpoint = None

    async def die(self) -> None:
        """A sudden end: its connections break, and nothing that was not on disk is left."""
        if self._farmer is not None and self._endpoint is not None:
            self._world.network.reset(self.host)
            await self._farmer.stop(grace_seconds=0)
            await self._endpoint.close(grace_seconds=0)
            self._farmer = self._endpoint = None

    def __repr__(self) -> str:
        played = f" as {type(self.adversary).__name__}" if self.adversary is not None else ""
        return f"<{self.host}{played}>"


class SimRenter:
    """A person's client and agent in one process on a host of its own, and the databases that outlive it."""

    def __init__(
        self, world: World, name: str, options: AgentOptions, farmers: Sequence[SimFarmer], *, skew_ms: int = 0
    ) -> None:
        self.host = name
        dice = world.dice.child(name)
        self.keys = key_tree(dice.child("phrase"))
        self.key: NodeKey = world.key(self.keys.node_key())
        self.clock = VirtualClock(skew_ms)
        self.store = MemoryAgentStore()
        self.books = world.books(any(farmer.books is not None for farmer in farmers))
        self.catalog: Catalog = MemoryCatalog()
        self.journal: Journal | None = None
        """The journal of its catalog, where it has one: then what it stores is recoverable."""
        self.saver_rules = SaverRules()
        self.options = options
        self.memory_budget_bytes = 80 << 20
        self.seeds: Sequence[Peer] | None = None
        """Whom it asks for farmers; None: nobody, it is told of all."""
        self._world = world
        self.farmers = tuple(farmers)
        """All of them, whether it knows them or not."""
        self._entropy = dice.child("entropy")
        self._endpoint: Endpoint | None = None
        self._agent: LocalAgent | None = None
        self._client: Client | None = None
        self._loops: list[asyncio.Task[None]] = []

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._agent is not None

    @property
    def agent(self) -> LocalAgent:
        """The running agent. Raises `LookupError` while it is dead."""
        if self._agent is None:
            raise LookupError(f"{self.host} does not run")
        return self._agent

    @property
    def client(self) -> Client:
        """The running client. Raises `LookupError` while it is dead."""
        if self._client is None:
            raise LookupError(f"{self.host} does not run")
        return self._client

    @property
    def endpoint(self) -> Endpoint:
        """Its endpoint. Raises `LookupError` while it is dead."""
        if self._endpoint is None:
            raise LookupError(f"{self.host} does not run")
        return self._endpoint

    @property
    def chores(self) -> Mapping[str, Chore]:
        """The agent's background loops by name."""
        return {chore.name: chore for chore in self.agent.chores}

    async def start(self, *, chores: bool) -> None:
        """Bring it up on the databases that it had, and let it look for farmers."""
        world = self._world
        self._endpoint = _endpoint(world, self.host, self.key, self.clock, self._entropy, None)
        if self.options.market is not None:
            await self._endpoint.listen(self.host, PORT)
            self._endpoint.contact = _contact(world, self.key, self.host, self.clock)
        self._agent = LocalAgent(
            endpoint=self._endpoint,
            key=self.key,
            network=world.network_id,
            mask_root=self.keys.mask_root(),
            store=self.store,
            clock=self.clock,
            entropy=self._entropy,
            offload=world.offload,
            codec=world.codec,
            seeds=() if self.seeds is None else self.seeds,
            farmers=[farmer.peer for farmer in self.farmers] if self.seeds is None else (),
            options=self.options,
            on_error=world.error,
            books=self.books,
        )
        slots = SlotPool(self.memory_budget_bytes)
        self._client = Client(
            agent=self._agent,
            endpoint=self._endpoint,
            node_key=self.key.public_key,
            network=world.network_id,
            content_root=self.keys.content_root(),
            catalog=self.catalog,
            clock=self.clock,
            entropy=self._entropy,
            offload=world.offload,
            codec=world.codec,
            slots=slots,
        )
        if self.journal is not None:
            self._client.save_with(
                journal=self.journal,
                keys=JournalKeys(self.keys.recovery_root()),
                pointers=self.pointers(),
                rules=self.saver_rules,
            )
        await self._agent.open()
        await self._agent.refresh()
        if chores:
            self._loops = [
                asyncio.create_task(chore.run(), name=f"{self.host}-{chore.name}") for chore in self._agent.chores
            ]

    def pointers(self) -> FarmerPointers:
        """Where its recovery records are left and found: with the farmers."""
        agent = self.agent
        return FarmerPointers(
            self.endpoint, agent.holders, lambda: [agent.book.peer(farmer) for farmer in agent.book.farmers()]
        )

    async def stop(self) -> None:
        """An orderly end."""
        if self._client is not None and self._agent is not None and self._endpoint is not None:
            await self._end_loops()
            await self._client.aclose()
            await self._agent.aclose()
            await self._endpoint.close(grace_seconds=1)
            self._client = self._agent = self._endpoint = None

    async def die(self) -> None:
        """A sudden end: what is not in its databases is gone."""
        if self._client is not None and self._endpoint is not None:
            self._world.network.reset(self.host)
            await self._end_loops()
            await self._client.aclose()
            await self._endpoint.close(grace_seconds=0)
            self._client = self._agent = self._endpoint = None

    async def blame(self, *kinds: OutcomeKind) -> Mapping[int, Counter[OutcomeKind]]:
        """Failures that the agent noted, by number of the farmer; of the kinds in `BLAME` unless told otherwise."""
        await self.agent.book.flush()
        wanted = frozenset(kinds) or BLAME
        number_of = {farmer.node_id: farmer.number for farmer in self.farmers}
        blamed: dict[int, Counter[OutcomeKind]] = {}
        for stats in self.store.farmer_stats(self.clock.now_ms()):
            if stats.kind in wanted and stats.failures > 0:
                counter = blamed.setdefault(number_of[stats.farmer], Counter())
                counter[stats.kind] += max(1, round(stats.failures))
        return blamed

    async def _end_loops(self) -> None:
        loops, self._loops = self._loops, []
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


def _contact(world: World, key: NodeKey, host: str, clock: VirtualClock) -> SignedContact:
    now_ms = clock.now_ms()
    addresses = (Address(AddressKind.DIRECT, host, PORT),)
    return sign_contact(key, network=world.network_id, addresses=addresses, sequence=now_ms, issued_ms=now_ms)


def _endpoint(
    world: World, host: str, key: NodeKey, clock: VirtualClock, entropy: Dice, adversary: Adversary | None
) -> Endpoint:
    carrier: Carrier = world.network.carrier(host)
    limits = world.limits
    make: Callable[..., Endpoint] = Endpoint
    if adversary is not None:
        carrier, limits, make = adversary.carrier(carrier), adversary.limits(limits), _BentEndpoint
    endpoint = make(
        key=key,
        network=world.network_id,
        clock=clock,
        entropy=entropy,
        carrier=carrier,
        limits=limits,
        on_error=lambda method, error: world.error(f"{host} {method}", error),
    )
    if isinstance(endpoint, _BentEndpoint) and adversary is not None:
        endpoint.adversary = adversary
    return endpoint
