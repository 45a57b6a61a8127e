"""A lookup ends, asks nobody twice, and among honest nodes finds the true nearest, whatever the order of answers."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay_samples import bare_node
from stook.ids import NodeId
from stook.overlay.lookup import Lookup, LookupRules
from stook.overlay.routing_table import Node, RoutingTable, TableRules
from stook.sim.overlay import City, Setting, overlay

RULES = LookupRules(k=5, alpha=2, paths=2, max_asked=80, max_per_network=None)
SPACE = 1 << 12


def id_of(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


def drive(lookup: Lookup, answer: Callable[[Node], list[Node] | None], dice: random.Random) -> list[int]:
    """Run a lookup to its end, answers coming in any order; whom it asked."""
    asked: list[int] = []
    waiting: list[Node] = []
    while True:
        new = lookup.next_nodes()
        waiting += new
        asked += [node.number for node in new]
        assert len(waiting) <= lookup.rules.alpha * lookup.rules.paths
        if not waiting:
            break
        node = waiting.pop(dice.randrange(len(waiting)))
        contacts = answer(node)
        if contacts is None:
            lookup.failed(node)
        else:
            lookup.answered(node, contacts)
    assert lookup.done
    assert len(asked) == len(set(asked)) == lookup.asked <= lookup.rules.max_asked
    return asked


@given(seed=st.integers(0, 2**32), size=st.integers(2, 120), paths=st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_the_true_nearest_are_found_where_all_are_honest(seed: int, size: int, paths: int) -> None:
    dice = random.Random(seed)
    nodes = {number: bare_node(number) for number in dice.sample(range(SPACE), size)}
    rules = TableRules(bucket_size=5, sibling_count=15).without_network_limits()
    tables = {number: RoutingTable(id_of(number), rules) for number in nodes}
    for table in tables.values():
        for node in dice.sample(sorted(nodes.values(), key=lambda one: one.number), size):
            table.seen(node, "n", now_ms=0)
    own, target = dice.choice(sorted(nodes)), dice.randrange(SPACE)
    lookup_rules = LookupRules(k=5, alpha=2, paths=paths, max_per_network=None)
    start = tables[own].closest(id_of(target), max(5, 2 * paths))
    lookup = Lookup(id_of(target), id_of(own), start, lookup_rules)
    drive(lookup, lambda node: tables[node.number].closest(id_of(target), 10), dice)
    truth = sorted((number for number in nodes if number != own), key=lambda one: one ^ target)[:5]
    assert [node.number for node in lookup.result()] == truth


@given(seed=st.integers(0, 2**32), hostile=st.floats(0, 1), paths=st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_it_ends_whatever_is_answered(seed: int, hostile: float, paths: int) -> None:
    dice = random.Random(seed)
    rules = LookupRules(k=5, alpha=2, paths=paths, max_asked=60, max_per_network=dice.choice([None, 1, 3]))
    answered: set[int] = set()

    def answer(node: Node) -> list[Node] | None:
        if dice.random() < hostile:
            return None
        answered.add(node.number)
        return [bare_node(dice.randrange(SPACE), dice.choice("abc"), dice.randrange(3)) for _ in range(20)]

    lookup = Lookup(id_of(7), id_of(1), [bare_node(number) for number in (2, 3, 5, 8)], rules)
    drive(lookup, answer, dice)
    result = [node.number for node in lookup.result()]
    assert set(result) <= answered, "nobody is named into the result"
    assert result == sorted(result, key=lambda one: one ^ 7)
    assert len(result) <= 5
    assert 1 not in result


def test_a_late_answer_counts() -> None:
    near, far = bare_node(1), bare_node(200)
    lookup = Lookup(id_of(0), id_of(255), [near, far], RULES)
    assert set(lookup.next_nodes()) == {near, far}
    lookup.failed(near)
    lookup.answered(far, [])
    lookup.answered(near, [bare_node(2)])
    assert lookup.next_nodes() == [bare_node(2)]
    lookup.answered(bare_node(2), [])
    assert not lookup.next_nodes()
    assert [node.number for node in lookup.result()] == [1, 2, 200]


def test_what_a_path_hears_is_for_that_path_alone_until_the_end() -> None:
    one, two = bare_node(64), bare_node(65)
    rules = LookupRules(k=2, alpha=1, paths=2, max_per_network=None)
    lookup = Lookup(id_of(0), id_of(255), [one, two], rules)
    assert lookup.next_nodes() == [one, two]
    lookup.answered(one, [bare_node(3)])
    assert lookup.next_nodes() == [bare_node(3)], "asked by the first path"
    lookup.answered(two, [bare_node(3), bare_node(4)])
    assert lookup.next_nodes() == [bare_node(4)], "the second must not ask it again"


def test_a_newer_contact_of_a_node_that_moved_is_asked_again() -> None:
    stale, fresh = bare_node(1, sequence=1), bare_node(1, sequence=2)
    lookup = Lookup(id_of(0), id_of(255), [stale, bare_node(9)], RULES)
    lookup.next_nodes()
    lookup.failed(stale)
    lookup.answered(bare_node(9), [fresh])
    assert lookup.next_nodes() == [fresh]


def test_what_only_a_liar_names_is_passed_over_after_five_that_were_not_there() -> None:
    liar, honest = bare_node(200), bare_node(201)
    rules = LookupRules(k=3, alpha=1, paths=1, max_per_network=None)
    lookup = Lookup(id_of(0), id_of(255), [liar, honest], rules)
    nobodies = [bare_node(number) for number in range(1, 41)]
    asked = drive(
        lookup,
        lambda node: nobodies if node == liar else [bare_node(39)] if node == honest else None,
        random.Random(1),
    )
    assert len(set(asked) - {200, 201}) <= 6
    assert [node.number for node in lookup.result()] == [200, 201]


def test_one_network_is_not_the_whole_neighbourhood() -> None:
    swarm = [bare_node(number, "swarm") for number in range(1, 30)]
    honest = [bare_node(number, f"h{number}") for number in range(100, 110)]
    rules = LookupRules(k=5, alpha=3, paths=2, max_per_network=2)
    lookup = Lookup(id_of(0), id_of(255), [*swarm[:3], *honest[:3]], rules)
    drive(lookup, lambda node: [*swarm, *honest], random.Random(2))
    assert [node.number for node in lookup.result()] == [1, 2, 100, 101, 102]


def test_simulated_lookups_find_exactly_the_living() -> None:
    city = City(3, 150)
    result = overlay(Setting(3, nodes=150, dead=0.2, lookups=150), city)
    assert result["success"] == 1.0
    assert result["exact_k"] >= 0.99
    assert overlay(Setting(3, nodes=150, dead=0.2, lookups=150), city) == result, "one seed, one history"


def test_disjoint_paths_beat_one_among_nodes_that_name_each_other() -> None:
    city = City(5, 150)
    one, four = (
        overlay(Setting(5, nodes=150, dead=0.0, hostile=0.5, kind="friends", paths=paths, lookups=300), city)
        for paths in (1, 4)
    )
    assert one["success"] < four["success"]
    assert four["success"] >= 0.99


@pytest.mark.parametrize("wrong", [{"nodes": 1}, {"dead": 1.0}, {"paths": 0}, {"kind": "nice"}, {"hostile": 0.9999}])
def test_settings_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Setting(1, **wrong)  # type: ignore[arg-type]
