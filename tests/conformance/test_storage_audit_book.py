"""What every `AuditBook` promises, over each adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from audit_samples import answered, drawn, keeper, loss_of
from contract_samples import NOW_MS, OTHER, RENTER
from stook.audits.challenge import SignedChallenge, window_of
from stook.audits.proof import SignedHead
from stook.audits.receipt import Settled, settle
from stook.contracts.contract import AuditStrategy, AuditTerms
from stook.contracts.loss import NotedLoss, note_loss
from stook.ids import ContractId
from stook.storage.audit_ports import AuditBook, LossCounts, UnitsAsked
from stook.storage.contract_store import SqliteContractStore
from stook.storage.memory import MemoryContractStore
from stook.storage.ports import Charge, ContractStore
from storage_samples import held, renter, sample, signed

KEPT = keeper()
SHARDS = KEPT.holding.shards
MINE = RENTER.public_key


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ContractStore]:
    if request.param == "memory":
        yield MemoryContractStore()
        return
    with SqliteContractStore(tmp_path / "contracts.db") as contracts:
        yield contracts


@pytest.fixture
def book(store: ContractStore) -> AuditBook:
    return store.audits


def asked(number: int, units: int = 1, window: int = 0, free: int = 4) -> UnitsAsked:
    return UnitsAsked(SHARDS[number].contract_id, window, units, free)


def page_of(number: int) -> tuple[SignedChallenge, list[SignedHead], Settled]:
    """A challenge, the heads of its answers, its receipt."""
    challenge = drawn(KEPT.holding, 60, nonce=bytes([number]) * 32)
    answers = answered(challenge.challenge, KEPT)
    settled = settle(challenge.challenge, answers, {}, RENTER, NOW_MS + 9)
    return challenge, [answers[page].answer.signed_head for page in sorted(answers)], settled


def add(book: AuditBook, number: int, *, now_ms: int = NOW_MS, keep: int = 99) -> SignedChallenge:
    challenge, heads, _ = page_of(number)
    book.add_page(challenge, heads[0], [], now_ms=now_ms, keep_rounds=keep)
    return challenge


def test_an_empty_book(book: AuditBook) -> None:
    assert book.rounds(9) == []
    assert book.round(bytes(32)) is None
    assert not book.has_page(bytes(32), 0)
    assert book.units_used(ContractId(bytes(32)), 0) == 0
    assert book.loss(ContractId(bytes(32))) is None
    assert book.unnoted(MINE, b"", 9) == book.unnoted_named(MINE, [bytes(32)]) == []
    assert book.renters_to_tell() == book.noted([ContractId(bytes(32))]) == []
    assert book.loss_counts() == LossCounts(0, 0)
    assert book.prune(1 << 60, 0) == 0
    book.declare({})
    book.close([ContractId(bytes(32))])
    assert book.note([]) == 0


def test_a_round_is_kept_with_all_its_pages(book: AuditBook) -> None:
    challenge, heads, settled = page_of(1)
    assert len(heads) > 1
    for head in reversed(heads):
        assert not book.has_page(challenge.challenge.digest, head.head.page)
        book.add_page(challenge, head, [], now_ms=NOW_MS, keep_rounds=9)
        assert book.has_page(challenge.challenge.digest, head.head.page)
    kept = book.round(challenge.challenge.digest)
    assert kept is not None
    assert (kept.challenge, kept.heads, kept.receipt, kept.lines) == (challenge, tuple(heads), None, ())
    (summary,) = book.rounds(9)
    assert (summary.pages, summary.leaves, summary.counts) == (len(heads), challenge.challenge.leaves, None)
    assert book.add_receipt(settled.signed, settled.lines)
    kept = book.round(challenge.challenge.digest)
    assert kept is not None
    assert (kept.receipt, kept.lines) == (settled.signed, settled.lines)
    (summary,) = book.rounds(9)
    assert summary.counts == settled.signed.receipt.counts
    assert summary.proved_bytes == settled.signed.receipt.proved_bytes > 0


def test_the_first_receipt_stays_and_one_of_nothing_is_not_kept(book: AuditBook) -> None:
    challenge, heads, settled = page_of(1)
    assert not book.add_receipt(settled.signed, settled.lines)
    book.add_page(challenge, heads[0], [], now_ms=NOW_MS, keep_rounds=9)
    assert book.add_receipt(settled.signed, settled.lines)
    other = settle(challenge.challenge, {}, {}, RENTER, NOW_MS + 10)
    assert book.add_receipt(other.signed, other.lines)
    kept = book.round(challenge.challenge.digest)
    assert kept is not None
    assert kept.receipt == settled.signed


def test_units_are_counted_once_for_each_challenge(book: AuditBook) -> None:
    challenge, heads, _ = page_of(1)
    page = [asked(0, 3), asked(1, 5), asked(2, 9)]
    assert book.add_page(challenge, heads[0], page, now_ms=NOW_MS, keep_rounds=9) == 1 + 5
    assert book.add_page(challenge, heads[0], page, now_ms=NOW_MS, keep_rounds=9) == 0
    assert [book.units_used(SHARDS[number].contract_id, 0) for number in range(3)] == [3, 5, 9]
    second, heads, _ = page_of(2)
    assert book.add_page(second, heads[0], [asked(0, 3)], now_ms=NOW_MS + 1, keep_rounds=9) == 2
    assert [one.billed_units for one in book.rounds(9)] == [2, 6]


def test_an_interval_begins_with_nothing_used(book: AuditBook) -> None:
    for number, window in enumerate((5, 6, 5)):
        challenge, heads, _ = page_of(number)
        page = [asked(0, 4, window)]
        assert book.add_page(challenge, heads[0], page, now_ms=NOW_MS, keep_rounds=9) == 0
        assert book.units_used(SHARDS[0].contract_id, window) == 4
        assert book.units_used(SHARDS[0].contract_id, window + 1) == 0


def test_only_the_newest_rounds_of_a_renter_are_kept(book: AuditBook) -> None:
    challenges = [add(book, number, now_ms=NOW_MS + number // 2, keep=3) for number in range(6)]
    digests = [one.challenge.digest for one in challenges]
    assert [one.digest for one in book.rounds(99)] == digests[:2:-1]
    assert [one.digest for one in book.rounds(1)] == digests[-1:]
    assert book.round(digests[0]) is None
    assert not book.has_page(digests[0], 0)


def test_old_rounds_are_forgotten(book: AuditBook) -> None:
    for number in range(5):
        add(book, number, now_ms=NOW_MS + number)
    assert book.prune(NOW_MS + 2, 99) == 2
    assert book.prune(0, 1) == 2
    assert [one.asked_ms for one in book.rounds(9)] == [NOW_MS + 4]


def declared(book: AuditBook) -> list[NotedLoss]:
    losses = [loss_of(shard) for shard in SHARDS]
    book.declare({MINE: losses[:3], OTHER.public_key: losses[3:]})
    return [note_loss(loss, RENTER, NOW_MS) for loss in losses]


def test_losses_are_told_by_renter_until_they_are_noted(book: AuditBook) -> None:
    notes = declared(book)
    mine = [note.loss for note in notes[:3]]
    assert book.loss(SHARDS[1].contract_id) == mine[1]
    assert book.unnoted(MINE, b"", 9) == mine
    assert book.unnoted(MINE, b"", 2) == mine[:2]
    assert book.unnoted(MINE, SHARDS[0].contract_id, 9) == mine[1:]
    assert book.unnoted(renter(9), b"", 9) == []
    assert set(book.renters_to_tell()) == {MINE, OTHER.public_key}
    digests = [note.loss.loss.digest for note in notes]
    assert book.unnoted_named(MINE, [digests[1], digests[4], bytes(32), digests[1]]) == [mine[1]]
    assert book.note(notes[:2]) == 2
    assert book.note([note_loss(mine[0], RENTER, NOW_MS + 7)]) == 0
    assert book.unnoted(MINE, b"", 9) == mine[2:]
    assert book.unnoted_named(MINE, digests) == mine[2:]
    assert book.noted([SHARDS[2].contract_id, SHARDS[1].contract_id, SHARDS[0].contract_id]) == notes[:2]
    assert book.loss_counts() == LossCounts(5, 2)
    book.note(notes[2:])
    assert book.renters_to_tell() == []


def test_the_first_declaration_stays(book: AuditBook) -> None:
    first, later = loss_of(SHARDS[0]), loss_of(SHARDS[0], NOW_MS + 5)
    book.declare({MINE: [first]})
    book.declare({MINE: [later]})
    assert book.loss(SHARDS[0].contract_id) == first
    assert book.note([note_loss(later, RENTER, NOW_MS)]) == 0


def test_a_closed_contract_leaves_only_what_was_noted_and_that_for_a_time(book: AuditBook) -> None:
    notes = declared(book)
    challenge, heads, _ = page_of(1)
    book.add_page(challenge, heads[0], [asked(0), asked(1)], now_ms=NOW_MS, keep_rounds=9)
    book.note(notes[:1])
    ids = [shard.contract_id for shard in SHARDS]
    book.close(ids[:2])
    assert book.units_used(ids[0], 0) == 0
    assert book.loss(ids[1]) is None
    assert book.noted(ids) == notes[:1]
    book.prune(NOW_MS - 1, 9)
    assert book.noted(ids) == notes[:1]
    book.note(notes[2:3])
    book.prune(NOW_MS + 1, 9)
    assert book.noted(ids) == notes[2:3]  # its contract is not over: the declaration still stands
    assert book.loss_counts() == LossCounts(3, 1)


def test_a_rebuilt_index_keeps_the_book(store: ContractStore) -> None:
    declared(store.audits)
    add(store.audits, 1)
    store.rebuild([held(signed())])
    assert store.audits.loss_counts().declared == 5
    assert len(store.audits.rounds(9)) == 1


def test_totals_of_one_renter(store: ContractStore) -> None:
    for number in range(4):
        store.put(held(signed(sample(100 + number, number), owner=number % 2)))
    store.reserve([signed(sample(7, 7), owner=0)])
    mine = store.totals_of(renter(0))
    assert (mine.stored_bytes, mine.stored_count, mine.reserved_bytes, mine.reserved_count) == (202, 2, 7, 1)
    assert store.totals_of(renter(5)).stored_count == 0


def test_charges_are_spent_all_or_none(store: ContractStore) -> None:
    first, second = bytes(16), bytes([1]) * 16
    assert store.spend_all([])
    assert store.spend_all([Charge(first, 60, 100, NOW_MS), Charge(second, 5, 10, NOW_MS), Charge(first, 40, 100, 1)])
    assert not store.spend_all([Charge(second, 5, 10, NOW_MS), Charge(first, 1, 100, NOW_MS)])
    assert not store.spend_all([Charge(bytes([2]) * 16, 11, 10, NOW_MS)])
    assert store.spend(second, 5, 10, NOW_MS)


def test_the_window_of_a_contract_without_intervals_never_ends() -> None:
    terms = signed(audit=AuditTerms(AuditStrategy.SAMPLED, 0, 4)).terms
    assert window_of(terms, NOW_MS + 10**12) == 0
