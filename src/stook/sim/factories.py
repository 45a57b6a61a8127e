"""Seeded keys, settings and bytes: what a simulated node is made of when nobody says otherwise."""

from __future__ import annotations

from dataclasses import replace

from stook.farmer.admission import FarmerTerms
from stook.farmer.capacity import CapacityLimits
from stook.farmer.settings import ChoreIntervals, FarmerSettings, TransferLimits
from stook.identity.keys import KeyTree, NodeKey, new_phrase
from stook.ids import NetworkId
from stook.merkle import UNIT_BYTES
from stook.renter.agent import AgentOptions
from stook.renter.audit_rules import HOUR_MS, AuditRules
from stook.renter.caretaker import CareTiming
from stook.renter.drafts import DAY_MS
from stook.renter.planner import Spread
from stook.shards.geometry import Policy
from stook.sim.dice import Dice
from stook.wire.limits import Limits

NETWORK = NetworkId("sim.stook")
GIB = 1 << 30
HOUR_SECONDS = 3600.0
CHORES = ChoreIntervals(
    reap_seconds=6 * HOUR_SECONDS,
    scrub_seconds=24 * HOUR_SECONDS,
    announce_seconds=12 * HOUR_SECONDS,
    declare_seconds=6 * HOUR_SECONDS,
    move_seconds=HOUR_SECONDS,
)
"""Rarer than in life, so that months pass in seconds; give others where a finer step matters."""
PATIENT = Limits(max_sessions=4096, idle_seconds=400 * 24 * HOUR_SECONDS)
"""Sessions stay open: a hello costs more than ten requests, and months of them would be most of a long simulation."""
CARE = CareTiming(
    refresh_seconds=12 * HOUR_SECONDS,
    cancel_seconds=6 * HOUR_SECONDS,
    repair_seconds=6 * HOUR_SECONDS,
    move_seconds=6 * HOUR_SECONDS,
    renew_seconds=24 * HOUR_SECONDS,
    surplus_after_ms=0,
)

AUDITS = AuditRules(step_seconds=6 * HOUR_SECONDS, beat_ms=12 * HOUR_MS)
"""The same for audits: a heartbeat twice a day."""
STEADY = replace(CARE, refresh_seconds=20 * HOUR_SECONDS, renew_seconds=4 * HOUR_SECONDS, surplus_after_ms=3 * DAY_MS)
"""For thousands of contracts that end together, at farmers that come and go: who was away is asked again soon."""
RARELY = ChoreIntervals(
    reap_seconds=24 * HOUR_SECONDS,
    scrub_seconds=48 * HOUR_SECONDS,
    announce_seconds=20 * HOUR_SECONDS,
    declare_seconds=24 * HOUR_SECONDS,
    move_seconds=24 * HOUR_SECONDS,
)
"""For months of hundreds of farmers."""
WATCHFUL = AuditRules(step_seconds=HOUR_SECONDS, beat_ms=6 * HOUR_MS, look_ms=HOUR_MS)
"""For simulations that are about audits: looked for hourly, a heartbeat every six hours."""


def node_key(dice: Dice) -> NodeKey:
    """A node key that this seed always gives. It guards nothing."""
    return NodeKey.from_secret(dice(32))


def key_tree(dice: Dice) -> KeyTree:
    """A person's keys, phrase and all."""
    return KeyTree.from_phrase(new_phrase(dice(32)))


def farmer_settings(
    allocated_bytes: int = GIB, *, terms: FarmerTerms | None = None, chores: ChoreIntervals = CHORES
) -> FarmerSettings:
    """A farmer with so much room, small buffers and slow chores."""
    return FarmerSettings(
        capacity=CapacityLimits(allocated_bytes, min_free_disk_bytes=0),
        terms=terms if terms is not None else FarmerTerms(),
        transfers=TransferLimits(block_bytes=16 * UNIT_BYTES),
        chores=chores,
    )


def agent_options(
    policy: Policy | None = None,
    *,
    spares: int = 1,
    spread: Spread = Spread.STRICT,
    contract_days: int = 90,
    audits: AuditRules = AUDITS,
    care: CareTiming = CARE,
) -> AgentOptions:
    """How a simulated agent places."""
    return AgentOptions(
        policy=policy,
        spares=spares,
        spread=spread,
        contract_duration_ms=contract_days * DAY_MS,
        care=care,
        audits=audits,
        memory_budget_bytes=80 << 20,
    )
