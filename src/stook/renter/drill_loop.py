"""Drilling without end, within a daily allowance: for a client that stays open.

A `Chore` makes the rounds, so that a test can step it. Content keys are needed, so this runs in the client and nowhere
else.
"""

from __future__ import annotations

from collections.abc import Callable

from stook.audits.allowance import DAY_MS, Allowance
from stook.chore import Chore
from stook.clock import Clock, Entropy, Offload
from stook.errors import ConflictError, NotFoundError
from stook.identity.keys import NodeKey
from stook.renter.certificate import SignedCertificate
from stook.renter.drill import Driller, OnDrill, Run
from stook.renter.drill_plan import affordable_ms, choose, largest_bytes
from stook.storage.renter_ports import Catalog

OnCertificate = Callable[[str, SignedCertificate], None]
"""Told of a bucket's name and its new certificate."""
ROUND_SECONDS = 60.0
CERTIFY_EVERY_MS = DAY_MS
_MOST_A_ROUND = 64
"""Drills of one round; then the objects are looked at again."""


class DrillLoop:
    """Waits until whatever is drawn may be afforded, draws, drills; and once a day certifies every bucket."""

    def __init__(
        self,
        *,
        driller: Driller,
        key: NodeKey,
        catalog: Catalog,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
        bytes_per_day: int,
        on_drill: OnDrill = lambda drilled: None,
        on_certificate: OnCertificate = lambda bucket, signed: None,
        on_error: Callable[[str, Exception], None] = lambda name, error: None,
    ) -> None:
        """Raises `ValueError` for an allowance of nothing."""
        if bytes_per_day < 1:
            raise ValueError("drills without any bytes prove nothing")
        self._driller = driller
        self._key = key
        self._catalog = catalog
        self._clock = clock
        self._entropy = entropy
        self._offload = offload
        self._per_day = bytes_per_day
        self._on_drill = on_drill
        self._on_certificate = on_certificate
        self._allowance: Allowance | None = None
        self.chore = Chore("drill", ROUND_SECONDS, self.round, on_error)

    async def _left(self) -> Allowance:
        if self._allowance is None:
            now = self._clock.now_ms()
            spent = await self._offload(lambda: self._catalog.drills.fetched_on(now))
            self._allowance = Allowance.full(self._per_day, now).spend(min(spent, self._per_day), now)
        return self._allowance

    async def round(self) -> int:
        """Everything that is due and may be afforded now; how many drills were recorded."""
        pool, run = self._driller.pool(), Run(self._driller, self._on_drill)
        for _ in range(_MOST_A_ROUND):
            now = self._clock.now_ms()
            targets = list(await pool.targets())
            allowance = await self._left()
            # Before the draw: what is drawn must not wait, or be forgotten by a restart, for its size.
            if affordable_ms(allowance, largest_bytes(targets), now) > 0:
                break
            pick = choose(targets, now, self._entropy)
            if pick is None:
                break
            before = run.report.charged_bytes
            recorded = await run.drill(pick, pool)
            self._allowance = allowance.spend(run.report.charged_bytes - before, self._clock.now_ms())
            if not recorded:
                break  # gone meanwhile, or nobody answers: the next round is soon enough
            for outcome in recorded:
                pool.learn(outcome)
        await self._certify_due()
        return run.report.drills

    async def _certify_due(self) -> None:
        for bucket in await self._offload(self._catalog.buckets):
            try:
                last = await self._driller.certificates(bucket.name, 1)
                due = not last or last[0].certificate.until_ms + CERTIFY_EVERY_MS <= self._clock.now_ms()
                if due and (last or await self._driller.pool([bucket.name]).targets()):
                    self._on_certificate(bucket.name, await self._driller.certify(bucket.name, self._key))
            except (NotFoundError, ConflictError):
                continue  # removed, or certified by somebody else, this very moment
