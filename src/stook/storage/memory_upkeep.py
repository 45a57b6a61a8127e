"""The part of the agent's half that is about renewing and giving up, in memory."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from stook.contracts.contract import Contract
from stook.contracts.messages import Renew
from stook.errors import NotFoundError
from stook.ids import ContractId, NodeId, SegmentId
from stook.storage.agent_audit_ports import Dossier
from stook.storage.renter_ports import Placement, PlacementState

CLAIMED, STORED, CANCELLING, ERASED, LOST = PlacementState


class MemoryUpkeepStore:
    """`agent_upkeep_ports.UpkeepStore` in dictionaries, which are the whole store's."""

    _lock: threading.RLock
    _released: set[SegmentId]
    _placements: dict[ContractId, Placement]
    _by_segment: dict[SegmentId, set[ContractId]]
    _dossiers: dict[NodeId, Dossier]
    _renewals: dict[ContractId, Renew]

    # -- renewals

    def ending(self, before_ms: int, limit: int, after: Placement | None = None) -> list[Placement]:
        """See the port."""

        def place(each: Placement) -> tuple[int, ContractId]:
            return each.contract.terms.end_ms, each.contract_id

        with self._lock:
            soon = [
                each
                for each in self._placements.values()
                if each.state == STORED
                and each.segment_id not in self._released
                and each.contract.terms.end_ms < before_ms
                and (after is None or place(each) > place(after))
            ]
        return sorted(soon, key=place)[:limit]

    def renewals(self, contract_ids: Iterable[ContractId]) -> Mapping[ContractId, Renew]:
        """See the port."""
        with self._lock:
            return {name: self._renewals[name] for name in contract_ids if name in self._renewals}

    def ask_renewal(self, request: Renew) -> Renew | None:
        """See the port."""
        name, revision = request.terms.contract_id, request.terms.revision
        with self._lock:
            if not self._is_stored(name) or self._placements[name].contract.terms.revision + 1 != revision:
                return None
            kept = self._renewals.get(name)
            if kept is None or kept.terms.revision != revision:
                kept = self._renewals[name] = request
            return kept

    def drop_renewal(self, request: Renew) -> None:
        """See the port."""
        with self._lock:
            if self._renewals.get(request.terms.contract_id) == request:
                del self._renewals[request.terms.contract_id]

    def renew(self, contracts: Sequence[Contract]) -> None:
        """See the port."""
        with self._lock:
            for each in contracts:
                if each.contract_id not in self._placements:
                    raise NotFoundError(f"no placement under contract {each.contract_id.hex()}")
            for each in contracts:
                self._renew(each)

    def _renew(self, contract: Contract) -> None:
        name = contract.contract_id
        held = self._placements[name]
        if contract.terms.revision > held.contract.terms.revision:
            held = self._placements[name] = replace(held, contract=contract)
        asked = self._renewals.get(name)
        if asked is not None and asked.terms.revision <= held.contract.terms.revision:
            del self._renewals[name]

    # -- giving up

    def cancel_stored(self, contract_ids: Iterable[ContractId]) -> None:
        """See the port."""
        with self._lock:
            self._give_up(contract_ids)

    def surplus(
        self, doubtful: Collection[NodeId], limit: int, lapsing_ms: int = 0, before_ms: int = 2**62
    ) -> list[ContractId]:
        """See the port."""
        with self._lock:
            found = [
                each.contract_id
                for each in self._placements.values()
                if each.state == STORED
                and each.stored_ms < before_ms
                and each.farmer not in doubtful
                and any(
                    other.proved_ms > each.stored_ms
                    and (other.stored_ms, other.contract_id) < (each.stored_ms, each.contract_id)
                    and other.contract.terms.end_ms > lapsing_ms
                    and other.farmer not in doubtful
                    for other in self._elsewhere(each)
                )
            ]
        return sorted(found)[:limit]

    def cancel_surplus(self, lapsing_ms: int, limit: int, before_ms: int = 2**62) -> list[ContractId]:
        """See the port."""
        with self._lock:
            names = self.surplus(self._doubtful(), limit, lapsing_ms, before_ms)
            self._give_up(names)
            return names

    def cancel_moved(self, contract_ids: Iterable[ContractId], lapsing_ms: int) -> list[ContractId]:
        """See the port."""
        with self._lock:
            doubtful = self._doubtful()
            moved = [
                name
                for name in contract_ids
                if self._is_stored(name)
                and self._placements[name].farmer in doubtful
                and any(
                    other.proved_ms > 0 and other.contract.terms.end_ms > lapsing_ms and other.farmer not in doubtful
                    for other in self._elsewhere(self._placements[name])
                )
            ]
            self._give_up(moved)
            return sorted(moved)

    def lost_and_replaced(self, limit: int) -> list[ContractId]:
        """See the port."""
        with self._lock:
            return sorted(
                each.contract_id
                for each in self._placements.values()
                if each.state == LOST and (each.segment_id in self._released or any(self._elsewhere(each)))
            )[:limit]

    def cancel_replaced(self, limit: int) -> list[ContractId]:
        """See the port."""
        with self._lock:
            names = self.lost_and_replaced(limit)
            self._give_up(names)
            return names

    def expire(self, before_ms: int) -> int:
        """See the port."""
        with self._lock:
            over = [
                each.contract_id
                for each in self._placements.values()
                if each.state in (CLAIMED, STORED, LOST) and each.contract.terms.end_ms < before_ms
            ]
            self._give_up(over)
            return len(over)

    # -- rules

    def _is_stored(self, name: ContractId) -> bool:
        held = self._placements.get(name)
        return held is not None and held.state == STORED

    def _elsewhere(self, each: Placement) -> Iterator[Placement]:
        """Other placements of the same shard, with a receipt."""
        for name in self._by_segment.get(each.segment_id, ()):
            other = self._placements[name]
            same = (other.index, other.copy, other.state) == (each.index, each.copy, STORED)
            if same and name != each.contract_id:
                yield other

    def _doubtful(self) -> set[NodeId]:
        return {
            farmer
            for farmer, each in self._dossiers.items()
            if each.leaving_by_ms or not each.silence.may_be_given_more
        }

    def _give_up(self, contract_ids: Iterable[ContractId]) -> None:
        for name in contract_ids:
            held = self._placements.get(name)
            if held is not None and held.state in (CLAIMED, STORED, LOST):
                self._placements[name] = replace(held, state=CANCELLING)
