"""Three months of a large network on a bad line, with a whole cast of liars: who is condemned, and who is not.

Nobody honest may be, whatever befalls it: one message in twenty lost, restarts, absences of days, clocks that are off,
disks that die. And every liar must be named. The nodes are the real ones; signatures are cheap as a rule
(`stook.sim.signatures`).
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from stook.audits.containment import Silence
from stook.shards.geometry import Policy
from stook.sim import adversaries, liars
from stook.sim.adversary import Casting
from stook.sim.attacks.goods import put, refuses, unread
from stook.sim.factories import PATIENT, RARELY, STEADY, WATCHFUL, agent_options, farmer_settings
from stook.sim.liars import ACQUAINTANCES, Ring
from stook.sim.life import DAY_SECONDS, FIRST_MORTAL, Fates, Life
from stook.sim.loop import run
from stook.sim.network import CALM, LOSSY
from stook.sim.signatures import Signatures
from stook.sim.testnet import Testnet
from stook.sim.watch import Opinion

FATES = Fates(restarts=3.0, absences=1.0, longest_absence_hours=120.0, disk_losses=0.05)
SKEW_MS = 60_000
"""Clocks are off by up to a minute either way."""
OBJECT_BYTES = 150_000
READ_DAYS = 7
"""How often the owner reads everything."""
WEEKS_WITHHELD = 3
"""Who was asked in so many of those readings and never once gave anything back is asked once more over a good line:
bad luck on a bad one befalls one honest farmer in some hundred. Who refuses then withholds.
"""


def the_cast(ring: Ring) -> Mapping[str, Casting]:
    """Every liar there is, by name."""
    return {
        "forgets some": partial(liars.ForgetsSome, share=0.8),
        "confesses when caught": partial(liars.ConfessesWhenCaught, share=0.8),
        "deletes what was asked": liars.DeletesWhatWasAsked,
        "denies contracts": partial(liars.DeniesContracts, share=0.8),
        "mute when caught": partial(liars.MuteWhenCaught, share=0.8),
        "goes dark when asked": partial(liars.GoesDark, share=0.8),
        "shows inner nodes": partial(liars.ShowsInnerNodes, share=0.8),
        "shows another shard": partial(liars.ShowsAnotherShard, share=0.8),
        "shows another's answer": partial(liars.ShowsAnothersAnswer, ring=ring),
        "fetches elsewhere": partial(liars.FetchesElsewhere, ring=ring),
        "colludes": partial(liars.Colludes, ring=ring, number=0, keeps=False),
        "forgets all, hides behind a receipt": adversaries.ForgesReceipts,
        "holds hostage": adversaries.HoldsHostage,
        "serves other bytes": adversaries.ServesOtherBytes,
    }


@dataclass(frozen=True, slots=True)
class Setting:
    """How large, how long."""

    seed: int
    farmers: int = 300
    days: int = 90
    objects: int = 80
    code: str = "10/30"
    signatures: Signatures | None = None

    def __post_init__(self) -> None:
        if self.farmers < 2 * len(the_cast(Ring())) or self.days < 1 or self.objects < 1:
            raise ValueError(f"at least {2 * len(the_cast(Ring()))} farmers, a day, and an object")


def honesty(setting: Setting) -> dict[str, Any]:
    """Let the days pass; `ok` says whether nobody honest was condemned, every liar named, and nothing lost."""
    begun = time.perf_counter()
    result = run(_play(setting), within_seconds=(setting.days + 30) * DAY_SECONDS)
    return {**result, "seconds": round(time.perf_counter() - begun, 1)}


async def _play(setting: Setting) -> dict[str, Any]:
    ring = Ring()
    named = dict(zip(the_cast(ring), range(FIRST_MORTAL, setting.farmers), strict=False))
    cast = {named[name]: casting for name, casting in the_cast(ring).items()}
    ring.members.clear()
    net = Testnet(
        farmers=setting.farmers,
        seed=setting.seed,
        options=agent_options(Policy.parse(setting.code), audits=WATCHFUL, care=STEADY),
        settings=farmer_settings(chores=RARELY),
        limits=PATIENT,
        cast=cast,
        skews_ms=_skews(setting),
        chores=True,
        signatures=setting.signatures,
    )
    async with net:
        ring.peers = [farmer.peer for farmer in net.honest[:ACQUAINTANCES]]
        objects = {f"{number}": net.dice(OBJECT_BYTES) for number in range(setting.objects)}
        await put(net, objects)
        net.network.path = LOSSY
        out: dict[int, tuple[float, str]] = {}
        withheld: defaultdict[int, set[int]] = defaultdict(set)
        async with Life(net, FATES, net.dice.child("life")) as life:
            for day in range(setting.days):
                await asyncio.sleep(DAY_SECONDS)
                if day % READ_DAYS == 0:
                    await unread(net, objects)  # who withholds is seen only by those who ask for something
                    for number, asked_ms in Opinion.of(net).withholding.items():
                        withheld[number].add(asked_ms)
                opinion = Opinion.of(net)
                for number in cast:
                    if number not in out and opinion.is_out(number):
                        days = opinion.condemned_days.get(number, float(day + 1))
                        out[number] = (days, opinion.word(number))
        net.network.path = CALM
        lost = await unread(net, objects)
        await net.renter.agent.book.flush()
        opinion = Opinion.of(net)
        suspects = [net.farmers[n] for n in sorted(opinion.withholding) if len(withheld[n]) >= WEEKS_WITHHELD]
        withholding = {farmer.number for farmer in suspects if await refuses(net, farmer)}
        told = []
        for name, number in named.items():
            days, word = out.get(number, (0.0, ""))
            if not word and number in withholding:
                days, word = float(setting.days), "gives nothing back"
            told.append({"liar": name, "named": bool(word), "as": word, "after_days": round(days, 2)})
        honest = {farmer.number for farmer in net.honest}
        condemned = honest & set(opinion.crimes)
        gone = [n for n in honest if opinion.silences.get(n) is Silence.GONE]
        counts = net.network.traffic.counts
        return {
            "seed": setting.seed,
            "farmers": setting.farmers,
            "days": setting.days,
            "code": setting.code,
            "objects": setting.objects,
            "signatures": net.signatures.value,
            "honest": len(net.honest),
            "honest_condemned": len(condemned),
            "honest_gone": len(gone),
            "honest_called_withholding": len(withholding & honest),
            "suspected_of_withholding": len(suspects),
            "restarts": life.restarts,
            "absences": life.absences,
            "disk_losses": life.disk_losses,
            "chunks": counts["chunk"],
            "chunks_lost": counts["lost"],
            "liars": told,
            "liars_named": sum(each["named"] is True for each in told),
            "lost": lost,
            "ok": not condemned and not withholding & honest and all(each["named"] for each in told) and not lost,
        }


def _skews(setting: Setting) -> dict[int, int]:
    """Every other clock is off."""
    return {n: (-1) ** (n // 2) * SKEW_MS * (n % 10) // 10 for n in range(0, setting.farmers, 2)}
