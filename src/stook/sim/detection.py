"""How many audit rounds pass before a lost part of a holding is seen: the real code, beside the closed form.

A farmer holds shards of which some units are gone. Round after round a challenge is drawn, proved from what is left,
and verified, all with the code that nodes run and real signatures, until a verdict is not PASSED. How long it took is
compared with `stook.audits.confidence`: units are drawn without putting back, so the chance that a round sees the loss
is exact, and the rounds follow the geometric law.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stook.audits.challenge import Ask, Parties, draw_challenge, pages_of
from stook.audits.confidence import detection_chance, mean_rounds, rounds_until
from stook.audits.holding import MAX_LEAVES_PER_SHARD, HeldShard, Holding
from stook.audits.proof import AnswerKind, Came, prove, sign_answer, verify
from stook.contracts.loss import LossDeclaration, SignedLoss
from stook.contracts.verdict import Verdict
from stook.identity.keys import NodeKey
from stook.ids import ContractId, ShardRoot
from stook.merkle import UNIT_BYTES, leaves_of, shard_root
from stook.sim.dice import Dice
from stook.sim.factories import NETWORK, node_key
from stook.sim.loop import START_MS

FRACTIONS = (0.001, 0.01, 0.05, 0.2)
TRIALS = 400
LEAVES = 8
"""What a round of a holding of 100 MiB draws (`docs/protocol/scores.md`)."""
SHARDS = 125
UNITS_PER_SHARD = 16
TOLERANCE = 3.0
"""Standard errors between measured and expected mean that still count as agreement."""
GAP_TOLERANCE = 1.95
"""Largest distance between the two curves, times the root of the trials: exceeded by chance once in a thousand."""
CONFIDENCE = 0.95
ROUND_MS = 1000


class HalfEmpty:
    """`stook.audits.proof.Keeper` of a farmer that misses some units and does not know it: where they were is noise."""

    def __init__(self, dice: Dice, key: NodeKey, shards: int, units_per_shard: int) -> None:
        self.key = key
        self.gone: frozenset[tuple[ShardRoot, int]] = frozenset()
        self._leaves: dict[ShardRoot, bytes] = {}
        self._bytes: dict[ShardRoot, memoryview] = {}
        held = []
        for _ in range(shards):
            data = memoryview(dice(units_per_shard * UNIT_BYTES))
            leaves = leaves_of(data)
            root = shard_root(len(data), leaves)
            self._leaves[root], self._bytes[root] = b"".join(leaves), data
            held.append(HeldShard(ContractId(dice(32)), root, len(data)))
        self.holding = Holding(held)

    def lose_units(self, dice: Dice, count: int) -> None:
        """Let exactly `count` units be gone, each set as likely as any other, and all others be there."""
        per_shard = self.holding.shards[0].units
        self.gone = frozenset(
            (self.holding.shards[at // per_shard].shard_root, at % per_shard)
            for at in dice.some(count, self.holding.units)
        )

    def standing(self, ask: Ask) -> AnswerKind | SignedLoss:
        """It thinks that it has everything."""
        return AnswerKind.PROOF

    def read_leaves(self, root: ShardRoot) -> bytes:
        """The leaf list, which it kept."""
        return self._leaves[root]

    def read_units(self, root: ShardRoot, first_unit: int, into: memoryview) -> int:
        """One unit, or zeros where it was."""
        if (root, first_unit) in self.gone:
            into[:] = bytes(len(into))
        else:
            begin = first_unit * UNIT_BYTES
            into[:] = self._bytes[root][begin : begin + len(into)]
        return len(into)

    def salted_leaves(self, ask: Ask) -> Sequence[bytes]:
        """None."""
        return ()

    def lose(self, ask: Ask) -> SignedLoss:
        """A declaration, which comes too late."""
        loss = LossDeclaration(ask.contract_id, ask.shard_root, START_MS, self.key.public_key)
        return SignedLoss(loss, self.key.sign(loss.digest))


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured: a holding, how much of it a round draws, how often the whole thing is done."""

    seed: int
    trials: int = TRIALS
    leaves: int = LEAVES
    shards: int = SHARDS
    units_per_shard: int = UNITS_PER_SHARD

    def __post_init__(self) -> None:
        if min(self.trials, self.leaves, self.shards) < 1 or not 1 <= self.units_per_shard <= MAX_LEAVES_PER_SHARD:
            raise ValueError(f"at least one trial, leaf and shard, and 1 to {MAX_LEAVES_PER_SHARD} units a shard")
        if self.leaves > self.units:
            raise ValueError(f"{self.leaves} leaves of {self.units} units")

    @property
    def units(self) -> int:
        """Units of the whole holding."""
        return self.shards * self.units_per_shard


@dataclass(frozen=True)
class Detected:
    """One fraction: in which round each trial saw the loss, beside what the closed form says."""

    setting: Setting
    fraction: float
    rounds: tuple[int, ...]

    @property
    def missing(self) -> int:
        """Units that are gone."""
        return missing_units(self.setting, self.fraction)

    @cached_property
    def chance(self) -> float:
        """The exact chance that one round sees the loss."""
        return detection_chance(self.setting.units, self.missing, self.setting.leaves)

    @property
    def expected(self) -> float:
        """Rounds, on average, by the closed form."""
        return mean_rounds(self.chance)

    @property
    def mean(self) -> float:
        """Rounds, on average, as measured."""
        return sum(self.rounds) / len(self.rounds)

    @property
    def standard_error(self) -> float:
        """How far the mean of so many trials is off as a rule, by the closed form."""
        return math.sqrt((1 - self.chance) / len(self.rounds)) / self.chance

    @property
    def distance(self) -> float:
        """Measured less expected mean, in standard errors."""
        off = self.mean - self.expected
        return off / self.standard_error if self.standard_error else math.copysign(math.inf, off) if off else 0.0

    def seen_by(self, number: int) -> float:
        """The share of trials in which round `number`, or one before it, saw the loss."""
        return sum(rounds <= number for rounds in self.rounds) / len(self.rounds)

    def foretold_by(self, number: int) -> float:
        """The same by the closed form."""
        return detection_chance(self.setting.units, self.missing, self.setting.leaves, number)

    @cached_property
    def gap(self) -> float:
        """The largest distance between the two curves."""
        return max(abs(self.seen_by(number) - self.foretold_by(number)) for number in {0, *self.rounds})

    @property
    def agrees(self) -> bool:
        """Whether chance explains what lies between measurement and closed form, mean and curve."""
        near = abs(self.distance) <= TOLERANCE
        return near and self.gap * math.sqrt(len(self.rounds)) <= GAP_TOLERANCE

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs and for the page."""
        return {
            "fraction": self.fraction,
            "missing_units": self.missing,
            "chance_per_round": self.chance,
            "rounds_expected": self.expected,
            "rounds_measured": self.mean,
            "standard_error": self.standard_error,
            "distance_in_standard_errors": self.distance,
            "largest_gap": self.gap,
            "rounds_95_expected": rounds_until(self.chance, CONFIDENCE),
            "rounds_95_measured": sorted(self.rounds)[math.ceil(CONFIDENCE * len(self.rounds)) - 1],
            "agrees": self.agrees,
            "rounds": list(self.rounds),
        }


def missing_units(setting: Setting, fraction: float) -> int:
    """How many units are gone. Raises `ValueError` unless the fraction is above 0 and at most 1."""
    if not 0 < fraction <= 1:
        raise ValueError("the fraction that is gone is above 0 and at most 1")
    return max(1, round(fraction * setting.units))


class Experiment:
    """A renter that audits, and a farmer that lost something. Trials are independent and can be made alone."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._dice = Dice(setting.seed)
        self._renter = node_key(self._dice.child("renter"))
        farmer = node_key(self._dice.child("farmer"))
        self._parties = Parties(NETWORK, self._renter.public_key, farmer.public_key)
        self._keeper = HalfEmpty(self._dice.child("holding"), farmer, setting.shards, setting.units_per_shard)

    def measure(self, fraction: float) -> Detected:
        """All trials of one fraction."""
        rounds = tuple(self.trial(fraction, number) for number in range(self.setting.trials))
        return Detected(self.setting, fraction, rounds)

    def trial(self, fraction: float, number: int) -> int:
        """The round that sees the loss, from 1. The same whichever other trials are made."""
        dice = self._dice.child(f"{fraction:g}/{number}")
        self._keeper.lose_units(dice, missing_units(self.setting, fraction))
        rounds = 1
        while self._passes(dice, START_MS + rounds * ROUND_MS):
            rounds += 1
        return rounds

    def _passes(self, dice: Dice, now_ms: int) -> bool:
        challenge = draw_challenge(
            self._keeper.holding,
            self._parties,
            self._renter,
            nonce=dice(32),
            wanted=self.setting.leaves,
            now_ms=now_ms,
            answer_within_ms=ROUND_MS,
        ).challenge
        answers = {
            page: Came(
                sign_answer(challenge, page, prove(challenge, page, self._keeper), self._keeper.key, now_ms), now_ms
            )
            for page in range(len(pages_of(challenge)))
        }
        findings = verify(challenge, answers, {})
        return all(finding.verdict is Verdict.PASSED for finding in findings)


def detection(setting: Setting, fractions: Sequence[float] = FRACTIONS) -> dict[str, Any]:
    """Measure every fraction; `agrees` says whether all agree with the closed form. Raises `ValueError`."""
    for fraction in fractions:
        missing_units(setting, fraction)
    experiment = Experiment(setting)
    measured = [experiment.measure(fraction) for fraction in fractions]
    return {
        "seed": setting.seed,
        "trials": setting.trials,
        "leaves": setting.leaves,
        "shards": setting.shards,
        "units_per_shard": setting.units_per_shard,
        "signatures": "real",
        "agrees": all(one.agrees for one in measured),
        "fractions": [one.as_json() for one in measured],
    }
