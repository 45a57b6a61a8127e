import random
from collections import Counter

import pytest

from stook.errors import NotEnoughError
from stook.ids import NodeId
from stook.renter.planner import (
    Candidate,
    Demand,
    Reason,
    Spread,
    choose,
    group_cap,
    independent_domains,
    network_groups,
    shards_taken,
)

GIB = 1 << 30


def farmer(number: int, **changes: object) -> Candidate:
    values: dict[str, object] = {
        "node_id": NodeId(number.to_bytes(20, "big")),
        "free_bytes": GIB,
        "networks": frozenset({f"10.0.{number}.0/24"}),
    }
    return Candidate(**(values | changes))  # type: ignore[arg-type]


def demand(**changes: object) -> Demand:
    values: dict[str, object] = {"k": 3, "count": 6, "shard_bytes": 1 << 20, "duration_ms": 1000}
    return Demand(**(values | changes))  # type: ignore[arg-type]


def dice(seed: int = 1):
    return random.Random(seed).randbytes


def test_it_chooses_distinct_farmers() -> None:
    choice = choose([farmer(i) for i in range(20)], demand(), now_ms=0, dice=dice())
    assert len(set(choice.chosen)) == 6
    assert choice.rejected == ()


def test_networks_are_slash_24_slash_48_or_a_name() -> None:
    assert network_groups(["192.0.2.77", "192.0.2.1"]) == {"192.0.2.0/24"}
    assert network_groups(["2001:db8:1:2::3"]) == {"2001:db8:1::/48"}
    assert network_groups(["Farm.example.", "198.51.100.1"]) == {"farm.example", "198.51.100.0/24"}
    assert network_groups(["::ffff:192.0.2.1"]) == {"192.0.2.0/24"}
    assert network_groups(["3221225985", "192.0.513", "0xc0.0.2.1"]) == {"odd"}, "one host in old spellings"


@pytest.mark.parametrize("field", ["operator", "failure_domain", "networks"])
def test_a_group_gets_fewer_than_k(field: str) -> None:
    value: object = frozenset({"same"}) if field == "networks" else "same"
    crowd = [farmer(i, **{field: value}) for i in range(30)]
    others = [farmer(100 + i) for i in range(6)]
    for seed in range(20):
        choice = choose(crowd + others, demand(), now_ms=0, dice=dice(seed))
        held = sum(node in {c.node_id for c in crowd} for node in choice.chosen)
        assert held <= group_cap(3) == 2


def test_holders_count_for_the_caps_and_are_not_chosen_again() -> None:
    holders = [farmer(i, operator="same") for i in range(2)]
    others = [farmer(10 + i, operator="same") for i in range(5)] + [farmer(20)]
    choice = choose(others + holders, demand(count=1), holders=holders, now_ms=0, dice=dice())
    assert choice.chosen == (farmer(20).node_id,)


def test_in_a_private_grid_networks_do_not_count_but_operators_and_buildings_do() -> None:
    link = frozenset({"192.168.1.0/24"})
    crowd = [farmer(i, networks=link, operator=f"o{i}", failure_domain=f"d{i}") for i in range(6)]
    assert len(choose(crowd, demand(spread=Spread.DOMAINS), now_ms=0, dice=dice()).chosen) == 6
    one_house = [farmer(i, networks=link, operator=f"o{i}", failure_domain="house") for i in range(6)]
    with pytest.raises(NotEnoughError, match="2 can be had"):
        choose(one_house, demand(spread=Spread.DOMAINS), now_ms=0, dice=dice())


def test_without_caps_one_machine_is_enough() -> None:
    crowd = [farmer(i, networks=frozenset({"127.0.0.0/24"}), operator="me") for i in range(6)]
    assert len(choose(crowd, demand(spread=Spread.FARMERS), now_ms=0, dice=dice()).chosen) == 6
    with pytest.raises(NotEnoughError, match="6 more farmers are needed and 2 can be had: 6 known"):
        choose(crowd, demand(), now_ms=0, dice=dice())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"free_bytes": 1}, Reason.FULL),
        ({"max_shard_bytes": 16384}, Reason.SHARD_TOO_LARGE),
        ({"min_duration_ms": 2000}, Reason.TOO_SHORT),
        ({"max_duration_ms": 500}, Reason.TOO_LONG),
        ({"storage_price_per_gib_hour": 11}, Reason.TOO_DEAR),
        ({"download_price_per_gib": 11}, Reason.TOO_DEAR),
        ({"settlements": (1,)}, Reason.SETTLEMENT),
    ],
)
def test_the_reason_for_passing_over_is_told(changes: dict[str, object], reason: Reason) -> None:
    wanted = demand(count=1, max_storage_price_per_gib_hour=10, max_download_price_per_gib=10)
    with pytest.raises(NotEnoughError, match=reason.value):
        choose([farmer(1, **changes)], wanted, now_ms=0, dice=dice())
    choice = choose([farmer(1, **changes), farmer(2)], wanted, now_ms=0, dice=dice())
    assert [(rejection.node_id, rejection.reason) for rejection in choice.rejected] == [(farmer(1).node_id, reason)]


def test_excluded_farmers_are_left_out() -> None:
    choice = choose(
        [farmer(1), farmer(2)], demand(count=1), excluding=frozenset({farmer(1).node_id}), now_ms=0, dice=dice()
    )
    assert choice.chosen == (farmer(2).node_id,)


def test_farmers_that_rest_come_last_and_only_when_needed() -> None:
    resting = [farmer(1, avoid_until_ms=9), farmer(2, avoid_until_ms=5), farmer(3, avoid_until_ms=7)]
    choice = choose([*resting, farmer(4)], demand(count=1), now_ms=0, dice=dice())
    assert choice.chosen == (farmer(4).node_id,)
    assert {rejection.reason for rejection in choice.rejected} == {Reason.AVOIDED}
    choice = choose([*resting, farmer(4)], demand(count=3), now_ms=0, dice=dice())
    assert choice.chosen == (farmer(4).node_id, farmer(2).node_id, farmer(3).node_id)
    assert [rejection.node_id for rejection in choice.rejected] == [farmer(1).node_id]
    assert choose([*resting, farmer(4)], demand(count=3), now_ms=10, dice=dice()).rejected == ()


def test_resting_farmers_pass_no_cap() -> None:
    crowd = [farmer(number, operator="one", avoid_until_ms=5) for number in range(6)]
    choice = choose(crowd, demand(count=4), at_least=0, now_ms=0, dice=dice())
    assert len(choice.chosen) == group_cap(3)


def test_nobody_known_is_said_plainly() -> None:
    with pytest.raises(NotEnoughError, match="6 more farmers are needed and 0 can be had: 0 known"):
        choose([], demand(), now_ms=0, dice=dice())


def test_less_than_wanted_may_be_enough() -> None:
    choice = choose([farmer(1), farmer(2)], demand(), at_least=1, now_ms=0, dice=dice())
    assert len(choice.chosen) == 2
    assert "can be had" in choice.shortage


def test_free_space_and_standing_weigh_in() -> None:
    crowd = [farmer(0, free_bytes=9 * GIB), farmer(1), farmer(2, free_bytes=9 * GIB, weight=0.1)]
    first = Counter(choose(crowd, demand(count=1), now_ms=0, dice=dice(seed)).chosen[0] for seed in range(2000))
    assert 0.75 < first[farmer(0).node_id] / 2000 < 0.90
    assert first[farmer(1).node_id] > 100
    assert first[farmer(2).node_id] > 80


def test_shared_caps_are_not_used_up_by_chance() -> None:
    # Operators a and b each have one farmer outside the crowded network; greedy order must not lock them out.
    network = frozenset({"crowd"})
    crowd = [farmer(i, operator=name, networks=network) for i, name in enumerate("aabb")]
    lone = [farmer(10, operator="a"), farmer(11, operator="b")]
    for seed in range(50):
        choice = choose(crowd + lone, demand(k=3, count=4), now_ms=0, dice=dice(seed))
        assert len(choice.chosen) == 4


def test_independent_domains_are_joined_groups() -> None:
    crowd = [
        farmer(0, operator="a", networks=frozenset({"x"})),
        farmer(1, operator="b", networks=frozenset({"x"})),
        farmer(2, operator="b", networks=frozenset({"y"})),
        farmer(3, operator="c", networks=frozenset({"z"})),
    ]
    assert independent_domains(crowd, Spread.STRICT) == 2
    assert independent_domains(crowd, Spread.FARMERS) == 4
    assert independent_domains(crowd, Spread.DOMAINS) == 3
    assert independent_domains([], Spread.STRICT) == 0


@pytest.mark.parametrize(
    ("mib", "count", "taken"),
    [((8, 8, 8), 3, 8), ((8, 8, 4), 2, 8), ((8, 8, 4), 3, 4), ((8, 4), 5, 4), ((8, 8, 0), 3, 4), ((), 3, 8)],
)
def test_shards_are_as_large_as_enough_farmers_take(mib: tuple[int, ...], count: int, taken: int):
    farmers = [Candidate(NodeId(bytes(20)), free_bytes=1, max_shard_bytes=size << 20) for size in mib]
    assert shards_taken(farmers, count) == taken << 20
