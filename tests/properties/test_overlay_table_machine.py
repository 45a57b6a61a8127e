"""The routing table against a naive model: who is in it, who may not be, and who is nearest."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from overlay_samples import NOW_MS, bare_node
from stook.ids import NodeId
from stook.overlay.routing_table import Node, Outcome, RoutingTable, TableRules

RULES = TableRules(
    bucket_size=3,
    cache_size=2,
    sibling_count=5,
    max_per_network=4,
    max_per_network_in_bucket=2,
    max_per_network_among_siblings=3,
)
OWN = 0b1010_0110
numbers = st.integers(0, 255)
networks = st.sampled_from("abcdefgh")


def node_id(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


class TableMachine(RuleBasedStateMachine):
    @initialize(limited=st.booleans())
    def begin(self, limited: bool) -> None:
        self.limited = limited
        self.rules = RULES if limited else RULES.without_network_limits()
        self.table = RoutingTable(node_id(OWN), self.rules)
        self.network: dict[int, str] = {}
        self.failures: Counter[int] = Counter()
        self.now = NOW_MS

    def inside(self) -> list[int]:
        return [node.number for node in self.table.neighbours()]

    @rule(number=numbers, network=networks, sequence=st.integers(1, 5))
    def seen(self, number: int, network: str, sequence: int) -> None:
        self.now += 1
        before, moved = set(self.inside()), self.network.get(number, network) != network
        seen = self.table.seen(bare_node(number, network, sequence), network, now_ms=self.now)
        after = set(self.inside())
        siblings = {node.number for node in self.table.siblings()}
        if number == OWN:
            assert seen.outcome is Outcome.OWN
            assert after == before
            return
        self.network[number] = network
        self.failures[number] = 0
        if seen.outcome is Outcome.ADDED:
            assert number in after
            # Nobody makes room but a far sibling for a nearer one.
            lost = before - after - {number}
            assert len(lost) <= 1
            assert all(one ^ OWN > number ^ OWN for one in lost)
            assert not lost or number in siblings
        elif not moved:
            assert after == before

    @rule(number=numbers)
    def heard(self, number: int) -> None:
        self.now += 1
        if self.table.heard(node_id(number), now_ms=self.now):
            self.failures[number] = 0

    @rule(number=numbers)
    def failed(self, number: int) -> None:
        before = set(self.inside())
        self.failures[number] += 1
        gone = self.table.failed(node_id(number))
        after = set(self.inside())
        if gone:
            assert number not in after
            assert self.failures[number] >= self.rules.failures_to_replace
            assert len(after - before) <= 1, "one follows at most"
        else:
            assert after == before
            if number in before:
                assert self.failures[number] < self.rules.failures_to_forget
        if gone:
            self.failures[number] = 0

    @rule(number=numbers)
    def forget(self, number: int) -> None:
        self.table.forget(node_id(number))
        assert number not in self.inside()

    @rule(aim=numbers, count=st.integers(1, 12), without=numbers)
    def closest_is_the_sorted_list(self, aim: int, count: int, without: int) -> None:
        asked = self.table.closest(node_id(aim), count, without=node_id(without))
        naive = sorted((number for number in self.inside() if number != without), key=lambda one: one ^ aim)
        assert [node.number for node in asked] == naive[:count]
        nearer = self.table.nearer_than(node_id(aim), count)
        assert nearer == min(count, sum(one ^ aim < OWN ^ aim for one in self.inside()))

    @rule(number=numbers, network=networks)
    def who_is_not_wanted_has_no_place(self, number: int, network: str) -> None:
        node = bare_node(number, network)
        if number not in self.inside() and not self.table.wants(node) and number != OWN:
            before = self.inside()
            cached = self.table.seen(node, network, now_ms=self.now).outcome
            assert cached in (Outcome.CACHED, Outcome.CROWDED, Outcome.KNOWN) or self.network.get(number) != network
            self.network[number] = network
            if cached is not Outcome.ADDED:
                assert self.inside() == before

    @invariant()
    def bounds_hold(self) -> None:
        rules, inside = self.rules, self.inside()
        assert OWN not in inside
        assert len(inside) == len(set(inside)) == len(self.table)
        assert inside == sorted(inside, key=lambda one: one ^ OWN)
        siblings = [node.number for node in self.table.siblings()]
        assert siblings == sorted(siblings, key=lambda one: one ^ OWN)
        assert set(siblings) <= set(inside)
        assert len(siblings) <= rules.sibling_count
        if not self.limited:
            assert siblings == inside[: rules.sibling_count]
        buckets: dict[int, list[int]] = {}
        for number in inside:
            buckets.setdefault((number ^ OWN).bit_length(), []).append(number)
        for members in buckets.values():
            beyond = len(members) - rules.bucket_size
            assert beyond <= 0 or beyond <= len([one for one in members if one in siblings])
        if self.limited:
            counted = Counter(self.network[number] for number in inside)
            assert max(counted.values(), default=0) <= RULES.max_per_network
            among = Counter(self.network[number] for number in siblings)
            assert max(among.values(), default=0) <= RULES.max_per_network_among_siblings

    @invariant()
    def every_node_is_found_by_its_id(self) -> None:
        for number in self.inside():
            node = self.table.get(node_id(number))
            assert isinstance(node, Node)
            assert node.number == number


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
