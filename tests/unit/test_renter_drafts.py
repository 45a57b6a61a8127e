"""What the agent drafts, judged by the rules the farmer judges by."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contract_samples import FARMER, NETWORK, NOW_MS, RENTER, ROOT, SHARD_BYTES, announcement, contract
from stook.audits.containment import CLEAR, Containment, Silence
from stook.audits.score import NEWCOMER, Audited, DeclaredLoss, FarmerScore, update
from stook.contracts.negotiation import DAY_MS, check_draft
from stook.contracts.renewal import check_renewal, sign_renewal
from stook.contracts.verdict import Verdict
from stook.ids import NodeId
from stook.renter.drafts import DraftRules, GoingRates, draft, renewal_terms
from stook.renter.planner import Reason
from stook.renter.standing import UNKNOWN, Standing, candidate_of, standings
from stook.storage.renter_ports import FarmerStats, OutcomeKind

RULES = DraftRules(network=NETWORK, renter_key=RENTER.public_key)
LATER_MS = NOW_MS + 50 * DAY_MS
DEARER = {"storage_price_per_gib_hour": 2 * 10**12, "download_price_per_gib": 3 * 10**15}


def test_a_draft_is_one_the_farmer_may_sign_at_its_own_prices() -> None:
    terms = draft(announcement(), ROOT, SHARD_BYTES, b"memo", RULES, NOW_MS)
    check_draft(terms, announcement=announcement(), renter_key=RENTER.public_key, now_ms=NOW_MS)
    assert terms.storage_price_per_gib_hour == announcement().storage_price_per_gib_hour
    assert terms.farmer_key == FARMER.public_key
    assert terms.end_ms - terms.begin_ms == RULES.duration_ms


@pytest.mark.parametrize("prices", [{}, DEARER], ids=["same prices", "dearer"])
def test_a_renewal_is_one_the_farmer_may_sign(prices: dict[str, int]) -> None:
    old, asked = contract(), announcement(**prices)
    terms = renewal_terms(old, asked, RULES, LATER_MS)
    assert terms is not None
    check_renewal(old, sign_renewal(terms, RENTER), announcement=asked, caller_key=RENTER.public_key, now_ms=LATER_MS)
    assert terms.end_ms == LATER_MS + RULES.duration_ms
    # The past is never priced anew.
    assert terms.begin_ms == (LATER_MS if prices else old.terms.begin_ms)


def test_a_cheaper_farmer_keeps_the_price_agreed() -> None:
    terms = renewal_terms(contract(), announcement(storage_price_per_gib_hour=1), RULES, LATER_MS)
    assert terms is not None
    assert terms.storage_price_per_gib_hour == contract().terms.storage_price_per_gib_hour


@pytest.mark.parametrize(
    ("asked", "rules"),
    [
        (DEARER, replace(RULES, max_storage_price_per_gib_hour=10**12)),
        (DEARER, replace(RULES, max_download_price_per_gib=10**15)),
        ({"settlements": (1,)}, RULES),
        ({"max_duration_ms": 5 * DAY_MS}, RULES),
    ],
    ids=["storage too dear", "downloads too dear", "other settlement", "no longer than it is"],
)
def test_what_a_farmer_no_longer_offers_is_not_renewed(asked: dict[str, object], rules: DraftRules) -> None:
    assert renewal_terms(contract(), announcement(**asked), rules, LATER_MS) is None


# --- standing --------------------------------------------------------------------------------------------------------

NODE = NodeId(bytes(20))


def stats(kind: OutcomeKind, good: float, bad: float, value: float = 0.0, in_a_row: int = 0) -> FarmerStats:
    return FarmerStats(NODE, kind, good, bad, value, in_a_row, 0, NOW_MS)


def test_good_dealings_cost_nothing_and_bad_ones_weigh() -> None:
    assert standings([stats(OutcomeKind.CLAIM, 9, 0)])[NODE].takes == 1.0
    once = standings([stats(OutcomeKind.CLAIM, 0, 1)])[NODE].takes
    often = standings([stats(OutcomeKind.CLAIM, 0, 9)])[NODE].takes
    assert 0 < often < once < 1
    both = standings([stats(OutcomeKind.CLAIM, 0, 1), stats(OutcomeKind.CONSIGN, 0, 1)])[NODE].takes
    assert both < once
    # What it gives back is for its score to say.
    assert standings([stats(OutcomeKind.RETRIEVE, 0, 9)])[NODE].takes == 1.0


def test_each_failure_in_a_row_doubles_the_rest_up_to_an_hour() -> None:
    rests = [
        standings([stats(OutcomeKind.CONSIGN, 0, row, in_a_row=row)])[NODE].avoid_until_ms - NOW_MS
        for row in (1, 2, 3, 60)
    ]
    assert rests == [5_000, 10_000, 20_000, 3_600_000]
    assert standings([stats(OutcomeKind.CONSIGN, 3, 1)])[NODE].avoid_until_ms == 0


def test_speeds_are_kept_by_direction() -> None:
    both = standings([stats(OutcomeKind.CONSIGN, 1, 0, 5.0), stats(OutcomeKind.RETRIEVE, 1, 0, 7.0)])[NODE]
    assert (both.upload_speed, both.download_speed) == (5.0, 7.0)


def test_a_candidate_is_what_it_announced_less_what_was_promised() -> None:
    asked = announcement()
    plain = candidate_of(asked, UNKNOWN, NEWCOMER, CLEAR, NOW_MS, promised_bytes=1000)
    assert plain.free_bytes == asked.free_bytes - 1000
    assert plain.networks == {"farmer.example"}
    assert (plain.operator, plain.failure_domain) == ("alice", "cellar")
    half = candidate_of(asked, Standing(takes=0.5), NEWCOMER, CLEAR, NOW_MS, promised_bytes=2**60)
    assert (half.free_bytes, half.weight) == (0, plain.weight / 2)


def test_who_lied_is_silent_or_loses_too_much_is_barred_and_not_merely_unlikely() -> None:
    asked = announcement()

    def reason(score: FarmerScore, silence: Containment = CLEAR) -> Reason | None:
        return candidate_of(asked, UNKNOWN, score, silence, NOW_MS).barred

    assert reason(NEWCOMER) is None
    liar = update(NEWCOMER, Audited(Verdict.FAILED), NOW_MS)
    assert reason(liar, Containment(Silence.CONDEMNED)) is Reason.CONDEMNED
    for state in (Silence.CONTAINED, Silence.OFFLINE, Silence.GONE):
        assert reason(NEWCOMER, Containment(state)) is Reason.SILENT
    loser = NEWCOMER
    for month in (3, 2, 1, 0):
        loser = update(loser, DeclaredLoss(1, 1), NOW_MS - month * 30 * 86_400_000)
    assert reason(loser) is Reason.LOSES_TOO_MUCH


def test_who_has_our_shards_is_not_paid_more_than_twice_what_others_take() -> None:
    old = contract()
    price = old.terms.storage_price_per_gib_hour
    offers = [announcement(storage_price_per_gib_hour=each) for each in (price, price, 2 * price, 10**15)]
    going = GoingRates.of(offers)
    assert going == GoingRates(price, announcement().download_price_per_gib)
    assert GoingRates.of([]) is None
    raised = announcement(storage_price_per_gib_hour=2 * price)
    assert renewal_terms(old, raised, RULES, LATER_MS, going) is not None
    raised = announcement(storage_price_per_gib_hour=2 * price + 1)
    assert renewal_terms(old, raised, RULES, LATER_MS, going) is None
    dear = announcement(download_price_per_gib=2 * going.download_price_per_gib + 1)
    assert renewal_terms(old, dear, RULES, LATER_MS, going) is None
    # What was agreed upon already is no reason to leave, however cheap others are.
    assert renewal_terms(old, announcement(), RULES, LATER_MS, GoingRates(1, 1)) is not None
