"""Attacks on audits: being paid for bytes that are not kept. Real farmers, real agent, its auditor running by timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from stook.shards.arena import ShardArena
from stook.shards.erasure import decode_matrix, load_codec
from stook.shards.geometry import Policy, smallest_shape
from stook.shards.mask import shard_mask
from stook.shards.pipeline import seal
from stook.sim import liars
from stook.sim.adversary import Casting
from stook.sim.attacks.goods import put, unread
from stook.sim.attacks.outcome import Attack, Outcome
from stook.sim.dice import Dice
from stook.sim.factories import PATIENT, WATCHFUL, agent_options
from stook.sim.liars import ACQUAINTANCES, Liar, Ring
from stook.sim.loop import run
from stook.sim.testnet import Testnet
from stook.sim.watch import Opinion

FARMERS = 12
POLICY = Policy.parse("4/8/9/10")
OBJECTS = 30
OBJECT_BYTES = 250_000
DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Scene:
    """A network with liars in it, and how it is opinion."""

    cast: Mapping[int, Casting]
    """Those who must be out within the bound, ..."""
    days: int
    """... so many days."""
    others: Mapping[int, Casting]
    """Accomplices that keep what they should."""
    ring: Ring

    async def play(self, seed: int) -> Outcome:
        """Store, let days pass until all liars are out or the bound is reached, and look."""
        async with Testnet(
            farmers=FARMERS,
            seed=seed,
            options=agent_options(POLICY, audits=WATCHFUL),
            cast={**self.cast, **self.others},
            limits=PATIENT,
            chores=True,
        ) as net:
            self.ring.peers = [farmer.peer for farmer in net.honest[:ACQUAINTANCES]]
            objects = {f"{number}": net.dice(OBJECT_BYTES) for number in range(OBJECTS)}
            await put(net, objects)
            out: dict[int, float] = {}
            opinion = Opinion.of(net)
            while len(out) < len(self.cast) and _days() < self.days:
                await asyncio.sleep(DAY_SECONDS / 8)
                opinion = Opinion.of(net)
                for number in self.cast:
                    if number not in out and opinion.is_out(number):
                        out[number] = opinion.condemned_days.get(number, _days())
            return await self._outcome(net, opinion, out, await unread(net, objects))

    async def _outcome(self, net: Testnet, opinion: Opinion, out: Mapping[int, float], lost: int) -> Outcome:
        saved, told, gain = 0, [], 0.0
        for number in self.cast:
            liar = net.adversary(number)
            assert isinstance(liar, Liar)
            held = max(1, net.farmers[number].stored_bytes)
            saved += liar.saved_bytes
            days = out.get(number, float(self.days))
            gain += liar.saved_bytes / held * days / self.days
            word = opinion.word(number)
            told.append(f"{word} after {days:.1f} days" if number in out else f"still {word}")
        honest = {farmer.number for farmer in net.honest} & set(opinion.crimes)
        detail = (
            f"{', '.join(sorted(set(told)))}; {saved:,} bytes not kept; {OBJECTS - lost} of {OBJECTS} objects read."
        )
        if self.ring.refusals:
            codes = ", ".join(sorted({code.name for code in self.ring.refusals}))
            detail += f" Others refused it {len(self.ring.refusals)} times: {codes}."
            detail += f" Fetched: {self.ring.fetched}."
        caught = len(out) == len(self.cast) and not lost and not self.ring.fetched
        return Outcome(caught, round(gain / len(self.cast), 4), detail, len(honest), net.signatures)


def _days() -> float:
    return asyncio.get_running_loop().time() / DAY_SECONDS


def _played(
    make: Callable[[Ring], Mapping[int, Casting]],
    days: int,
    *,
    others: Callable[[Ring], Mapping[int, Casting]] = lambda _: {},
) -> Callable[[int], Outcome]:
    def attack(seed: int) -> Outcome:
        ring = Ring()
        scene = Scene(make(ring), days, others(ring), ring)
        return run(scene.play(seed), within_seconds=(days + 30) * DAY_SECONDS)

    return attack


def _alone(casting: Casting, days: int) -> Callable[[int], Outcome]:
    return _played(lambda _: {0: casting}, days)


# --- k colluders who claim n -----------------------------------------------------------------------------------------

_COLLUDERS = POLICY.n


def colluders(seed: int) -> Outcome:
    """Ten of twelve farmers pool their shards: four keep theirs, six make theirs out of those when they are asked."""
    outcome = _played(
        lambda ring: {
            n: partial(liars.Colludes, ring=ring, number=n, keeps=False) for n in range(POLICY.k, _COLLUDERS)
        },
        30,
        others=lambda ring: {n: partial(liars.Colludes, ring=ring, number=n, keeps=True) for n in range(POLICY.k)},
    )(seed)
    bare, masked = _rebuilt_without_masks(seed)
    detail = (
        f"{outcome.detail} From k shards the code makes the others: {bare} of {POLICY.n - POLICY.k} without masks, "
        f"{masked} as farmers have them."
    )
    return replace(outcome, detail=detail, caught=outcome.caught and not masked)


def _rebuilt_without_masks(seed: int) -> tuple[int, int]:
    """How many of a segment's other shards k farmers can make from theirs: if there were no masks, and as it is."""
    dice, codec = Dice(seed).child("colluders"), load_codec()
    shape = smallest_shape(1, POLICY.k, POLICY.n)
    mask_key = dice(32)
    sealed = seal(
        memoryview(dice(shape.capacity)),
        key=dice(32),
        mask_key=mask_key,
        shape=shape,
        arena=ShardArena.of(shape),
        codec=codec,
    )
    bare = []
    for shard in sealed.shards:
        row = memoryview(bytearray(shape.shard_bytes))
        shard_mask(mask_key, shard.index)(shard.data, row)
        bare.append(row)
    used, missing = tuple(range(POLICY.k)), tuple(range(POLICY.k, POLICY.n))
    made = []
    for rows in (bare, [shard.data for shard in sealed.shards]):
        targets = [memoryview(bytearray(shape.shard_bytes)) for _ in missing]
        codec.bind(decode_matrix(POLICY.k, used, missing), list(rows[: POLICY.k]), targets)(0, shape.shard_bytes)
        made.append(sum(target == rows[index] for target, index in zip(targets, missing, strict=True)))
    return made[0], made[1]


# --- honest Geppetto -------------------------------------------------------------------------------------------------

PUPPETS = 100
CROWD = 300
CROWD_POLICY = Policy.parse("10/14/20/30")


def geppetto(seed: int) -> Outcome:
    """A hundred of three hundred farmers are one person's, honest for a month, and then gone at one moment."""

    async def main() -> Outcome:
        async with Testnet(farmers=CROWD, seed=seed, policy=CROWD_POLICY, limits=PATIENT) as net:
            objects = {f"{number}": net.dice(150_000) for number in range(40)}
            await put(net, objects)
            puppets = net.dice.some(PUPPETS, CROWD)
            names = {net.farmers[number].node_id for number in puppets}
            store = net.renter.store
            most = max(
                sum(placement.farmer in names for placement in held)
                for held in store.placements(store.segment_ids(2**62, b"", 1000)).values()
            )
            await net.kill(*puppets)
            lost = await unread(net, objects)
            n, k = CROWD_POLICY.n, CROWD_POLICY.k
            detail = (
                f"The puppets held {most} shards of a segment at most, {n - k} may go; {len(objects) - lost} of "
                f"{len(objects)} objects were read whole after {PUPPETS} of {CROWD} farmers vanished."
            )
            return Outcome(not lost, lost, detail, 0, net.signatures)

    return run(main(), within_seconds=10 * DAY_SECONDS)


_PAY = "share of the bound's pay got for nothing"

ATTACKS = (
    Attack(
        name="honest-geppetto",
        paper="5.2.2",
        goal="destroy data by a hundred well-behaved puppets that vanish at once",
        bound="no object is lost when a third of all farmers vanish, though nobody knew that they belong together",
        gain_unit="objects lost",
        stops="placement by chance over all farmers, n - k spare shards; where they declare or show that they belong "
        "together, the caps; repair afterwards. A larger share, or a smaller n - k, loses data",
        run=geppetto,
    ),
    Attack(
        name="defeated-audit",
        paper="5.7",
        goal="keep half, and pass audits with inner nodes of the tree in place of units",
        bound="condemned within 60 days",
        gain_unit=_PAY,
        stops="leaves and nodes are hashed under different tags, a path's length and turns follow from index and size",
        run=_alone(partial(liars.ShowsInnerNodes, share=0.5), 60),
    ),
    Attack(
        name="forgets-a-tenth",
        paper="",
        goal="be paid for a tenth of each shard that was thrown away",
        bound="condemned within a year, with 1.6 MB held",
        gain_unit=_PAY,
        stops="every audit draws fresh units; how soon is `detection.md`",
        run=_alone(partial(liars.ForgetsSome, share=0.1), 365),
    ),
    Attack(
        name="deletes-what-was-asked",
        paper="",
        goal="throw away what was proved, since it will not be asked again",
        bound="condemned within a year, with 1.6 MB held",
        gain_unit=_PAY,
        stops="draws have no memory: what was asked is asked again like anything else",
        run=_alone(liars.DeletesWhatWasAsked, 365),
    ),
    Attack(
        name="confesses-when-caught",
        paper="",
        goal="keep half, declare a loss only when it is asked about, and keep the name",
        bound="condemned within 60 days",
        gain_unit=_PAY,
        stops="a loss is honest only if its renter noted it before the challenge was sent",
        run=_alone(partial(liars.ConfessesWhenCaught, share=0.5), 60),
    ),
    Attack(
        name="denies-contracts",
        paper="",
        goal="keep half, and say of a shard that is missing that it was never brought",
        bound="condemned within 60 days",
        gain_unit=_PAY,
        stops="its own storage receipt",
        run=_alone(partial(liars.DeniesContracts, share=0.5), 60),
    ),
    Attack(
        name="another-shards-proof",
        paper="",
        goal="keep half, and answer for a missing shard with units and paths of another",
        bound="condemned within 60 days",
        gain_unit=_PAY,
        stops="a path leads to one root",
        run=_alone(partial(liars.ShowsAnotherShard, share=0.5), 60),
    ),
    Attack(
        name="anothers-answer",
        paper="",
        goal="keep nothing and hand in what an accomplice has signed",
        bound="condemned within 30 days",
        gain_unit=_PAY,
        stops="what the farmer did not sign about this challenge is silence, and silence while it answers other things "
        "is a lie after 48 hours",
        run=_played(
            lambda ring: {0: partial(liars.ShowsAnothersAnswer, ring=ring)},
            30,
            others=lambda ring: {1: partial(liars.LendsAnswers, ring=ring)},
        ),
    ),
    Attack(
        name="outsourcing",
        paper="",
        goal="keep nothing, and fetch what is asked for from farmers that keep it",
        bound="condemned within 30 days, nothing fetched",
        gain_unit=_PAY,
        stops="grants name grantee and farmer; and no other farmer has these bytes, since every shard has its own "
        "mask. A farmer that pays another to keep its very shard is that farmer's front: the bytes are there",
        run=_played(lambda ring: {0: partial(liars.FetchesElsewhere, ring=ring)}, 30),
    ),
    Attack(
        name="colluders",
        paper="",
        goal="keep k shards of each segment and be paid for n",
        bound="who keeps nothing is condemned within 30 days, and no shard can be made from k others",
        gain_unit=_PAY,
        stops="masks: without the agent's key k shards make no other",
        run=colluders,
    ),
    Attack(
        name="mute-when-caught",
        paper="",
        goal="keep half, and answer everything but the questions that would show it",
        bound="condemned within 60 days",
        gain_unit=_PAY,
        stops="the same units are asked for again; mute eight times over 48 hours while it answers heartbeats is a lie",
        run=_alone(partial(liars.MuteWhenCaught, share=0.5), 60),
    ),
    Attack(
        name="goes-dark-when-asked",
        paper="",
        goal="keep half, and be away for an hour whenever a question cannot be answered",
        bound="gone, its shards replaced and its pay ended, within 60 days",
        gain_unit=_PAY,
        stops="who is heard of is asked at once; unproved for 7 days is gone. It keeps its name, not its pay",
        run=_alone(partial(liars.GoesDark, share=0.5), 60),
    ),
)
