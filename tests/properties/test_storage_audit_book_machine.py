"""Random lives of two audit books, SQLite and memory: whatever is asked, both say the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from audit_samples import answered, drawn, keeper, loss_of
from contract_samples import NOW_MS, OTHER, RENTER
from stook.audits.challenge import SignedChallenge
from stook.audits.proof import SignedHead
from stook.audits.receipt import Settled, settle
from stook.contracts.loss import note_loss
from stook.storage.audit_ports import AuditBook, UnitsAsked
from stook.storage.contract_store import SqliteContractStore
from stook.storage.memory import MemoryContractStore

T = TypeVar("T")
KEPT = keeper((100, 16384, 40 * 16384, 40 * 16384))
SHARDS = KEPT.holding.shards
KEYS = (RENTER.public_key, OTHER.public_key)
NUMBERS = st.integers(0, 4)
WHICH = st.integers(0, len(SHARDS) - 1)
TIMES = st.integers(0, 9)


@cache
def round_of(number: int) -> tuple[SignedChallenge, list[SignedHead], Settled]:
    challenge = drawn(KEPT.holding, 70, nonce=bytes([number]) * 32)
    answers = answered(challenge.challenge, KEPT)
    settled = settle(challenge.challenge, answers, {}, RENTER, NOW_MS + 9)
    return challenge, [answers[page].answer.signed_head for page in sorted(answers)], settled


class BookMachine(RuleBasedStateMachine):
    """Every rule is done to both; time goes on by the number of steps, so that no order is left to chance."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "contracts.db"
        self.store = SqliteContractStore(self.path)
        self.memory = MemoryContractStore().audits
        self.steps = 0

    def both(self, work: Callable[[AuditBook], T]) -> T:
        said = work(self.store.audits)
        assert said == work(self.memory)
        return said

    @rule(number=NUMBERS, page=st.integers(0, 1), which=WHICH, window=st.integers(0, 1), units=st.integers(1, 9))
    def sign(self, number: int, page: int, which: int, window: int, units: int) -> None:
        challenge, heads, _ = round_of(number)
        asked = [UnitsAsked(SHARDS[which].contract_id, window, units, 4)]
        self.steps += 1
        now_ms = NOW_MS + self.steps
        self.both(lambda book: book.add_page(challenge, heads[page], asked, now_ms=now_ms, keep_rounds=3))

    @rule(number=NUMBERS)
    def take_receipt(self, number: int) -> None:
        settled = round_of(number)[2]
        self.both(lambda book: book.add_receipt(settled.signed, settled.lines))

    @rule(which=WHICH, owner=st.integers(0, 1), at=TIMES)
    def declare(self, which: int, owner: int, at: int) -> None:
        loss = loss_of(SHARDS[which], NOW_MS + at)
        self.both(lambda book: book.declare({KEYS[owner]: [loss]}))

    @rule(which=WHICH, at=TIMES)
    def note(self, which: int, at: int) -> None:
        noted = note_loss(loss_of(SHARDS[which], NOW_MS + at), RENTER, NOW_MS + at)
        self.both(lambda book: book.note([noted]))

    @rule(which=WHICH)
    def close(self, which: int) -> None:
        self.both(lambda book: book.close([SHARDS[which].contract_id]))

    @rule(back=st.integers(0, 9), keep=st.integers(1, 3))
    def prune(self, back: int, keep: int) -> None:
        self.both(lambda book: book.prune(NOW_MS + self.steps - back, keep))

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = SqliteContractStore(self.path)

    @invariant()
    def say_the_same(self) -> None:
        ids = [shard.contract_id for shard in SHARDS]
        digests = [loss_of(shard, NOW_MS + at).loss.digest for shard in SHARDS for at in (0, 5)]
        self.both(lambda book: book.rounds(2))
        self.both(lambda book: [book.round(round_of(number)[0].challenge.digest) for number in range(5)])
        self.both(lambda book: [book.has_page(round_of(number)[0].challenge.digest, 1) for number in range(5)])
        self.both(lambda book: [book.units_used(one, window) for one in ids for window in (0, 1)])
        self.both(lambda book: [book.loss(one) for one in ids])
        self.both(lambda book: [book.unnoted(key, after, 2) for key in KEYS for after in (b"", ids[1])])
        self.both(lambda book: [book.unnoted_named(key, digests) for key in KEYS])
        self.both(lambda book: sorted(book.renters_to_tell()))
        self.both(lambda book: book.noted(ids))
        self.both(lambda book: book.loss_counts())

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


TestBooks = BookMachine.TestCase
TestBooks.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
