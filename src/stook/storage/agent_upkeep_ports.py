"""What keeps an agent's placements in order, as promises: contracts renewed, and given up when they are not needed.

One more part of `agent.db` (`docs/formats/agent-database.md`). Whatever gives a stored shard up looks and writes in one
transaction: what made it superfluous may be gone a moment later, and then both would be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from stook.contracts.contract import Contract
from stook.contracts.messages import Renew
from stook.ids import ContractId, NodeId

if TYPE_CHECKING:
    from stook.storage.renter_ports import Placement


class UpkeepStore(Protocol):
    """Renewals, and what is given up. *Doubtful* are farmers that may be given nothing more, or that leave."""

    # -- renewals

    def ending(self, before_ms: int, limit: int, after: Placement | None = None) -> list[Placement]:
        """STORED placements of unreleased segments whose contract ends before `before_ms`, soonest first, then by id.

        `after` pages on, even when what it names was renewed meanwhile.
        """
        ...

    def renewals(self, contract_ids: Iterable[ContractId]) -> Mapping[ContractId, Renew]:
        """Those that were asked for and not answered yet."""
        ...

    def ask_renewal(self, request: Renew) -> Renew | None:
        """Keep what is about to be asked, durable before it is sent; what to ask.

        That is the request for this revision that was kept first: the farmer may have signed it and its reply been
        lost, and then it signs no other text of the revision. None, and nothing is kept, when the contract is not
        STORED any more, or this is not the revision after the one held.
        """
        ...

    def drop_renewal(self, request: Renew) -> None:
        """It was refused for good. Another one kept for its contract stays."""
        ...

    def renew(self, contracts: Sequence[Contract]) -> None:
        """Replace contracts by later revisions; earlier or equal ones are ignored. Raises `NotFoundError`.

        What was asked for about revisions up to those held is answered thereby.
        """
        ...

    # -- giving up

    def cancel_stored(self, contract_ids: Iterable[ContractId]) -> None:
        """As `AgentStore.cancel`, and STORED placements as well, whatever is stored elsewhere."""
        ...

    def surplus(
        self, doubtful: Collection[NodeId], limit: int, lapsing_ms: int = 0, before_ms: int = 2**62
    ) -> list[ContractId]:
        """STORED placements of shards that are STORED elsewhere as well, longer, and were proved there since; by id.

        Those at, and beside those at, farmers that are `doubtful` are left alone, those beside shards whose contracts
        end by `lapsing_ms`, and those stored since `before_ms`.
        """
        ...

    def cancel_surplus(self, lapsing_ms: int, limit: int, before_ms: int = 2**62) -> list[ContractId]:
        """What is `surplus` while this is written, with those doubtful who are then, becomes CANCELLING; which."""
        ...

    def cancel_moved(self, contract_ids: Iterable[ContractId], lapsing_ms: int) -> list[ContractId]:
        """STORED ones among these, at doubtful farmers, whose shards were proved elsewhere become CANCELLING; which.

        Elsewhere is STORED with a farmer that is not doubtful, under a contract that ends after `lapsing_ms`.
        """
        ...

    def lost_and_replaced(self, limit: int) -> list[ContractId]:
        """LOST placements whose index and copy are STORED elsewhere, or whose segment is released; in order of id."""
        ...

    def cancel_replaced(self, limit: int) -> list[ContractId]:
        """What is `lost_and_replaced` while this is written becomes CANCELLING; which."""
        ...

    def expire(self, before_ms: int) -> int:
        """CLAIMED, STORED and LOST placements whose contract ended before `before_ms` become CANCELLING; how many.

        A farmer that signed a renewal we never heard of holds them still, and is told to erase them.
        """
        ...
