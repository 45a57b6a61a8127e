"""The demo's money: farmers are paid for what audits proved and what was fetched, and all books are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stook.cli.output import plural

if TYPE_CHECKING:
    from stook.assembly import Renter

_UNITS = 10**18


def credits(units: int) -> str:
    """A sum for people: credits with nine places, or units when it is less than the last place."""
    if 0 < abs(units) < 10**9:
        return f"{units} units"
    return f"{units / _UNITS:,.9f}"


async def pay(renter: Renter) -> str:
    """Everybody who answers, up to now; what came of it in words."""
    paymaster = renter.agent.paymaster
    if paymaster is None:
        return "nobody keeps books"
    report = await paymaster.pay_all()
    said = f"{plural(report.paid, 'farmer')} paid up to now"
    return said + (f"; {plural(report.unreached, 'farmer')} did not answer" if report.unreached else "")


@dataclass(slots=True)
class Reckoned:
    """All books beside each other."""

    cheques: int = 0
    paid_total: int = 0
    owed_total: int = 0
    in_transit: int = 0
    pairs: int = 0
    unpaid_disputes: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        """For people."""
        if self.wrong:
            return "; ".join(self.wrong)
        way = f", {credits(self.in_transit)} of them on their way" if self.in_transit else ""
        return (
            f"{plural(self.pairs, 'pair')} of books agree to the unit: {credits(self.owed_total)} credits owed, "
            f"{credits(self.paid_total)} paid in {plural(self.cheques, 'cheque')}{way}"
        )

    def as_json(self) -> dict[str, Any]:
        """The figures of the demo."""
        return {
            "cheques": self.cheques,
            "paid_total": self.paid_total,
            "owed_total": self.owed_total,
            "in_transit": self.in_transit,
            "ledger_balanced": not self.wrong,
            "unpaid_disputes": self.unpaid_disputes,
        }


def reckon(renter_home: Path, farmers: Mapping[str, Path]) -> Reckoned:
    """Read every book from its disk and compare each pair; `farmers` are homes by name, of processes dead or alive."""
    from stook.assembly import BOOKS_FILE, load_owner, open_books
    from stook.identity.keys import node_id_of
    from stook.payments.ledger import Kind, reconcile

    found = Reckoned()
    me = load_owner(renter_home, None).tree().node_key().node_id
    with open_books(renter_home) as ours:
        if sum(ours.balances().values()):
            found.wrong.append("the renter's books do not add up to nothing")
        for name, home in farmers.items():
            farmer = load_owner(home, None).tree().node_key()
            account = ours.account(farmer.node_id)
            lines = ours.lines(farmer.node_id)
            if not (home / BOOKS_FILE).exists():
                continue
            with open_books(home) as theirs:
                partner = theirs.account(me)
                if sum(theirs.balances().values()):
                    found.wrong.append(f"the books of {name} do not add up to nothing")
                taken = partner.seq if partner is not None else 0
                sent = [line for line in lines if line.seq <= taken or line.kind in (Kind.CHEQUE, Kind.DELIVERED)]
                pair = reconcile(sent, theirs.lines(me))
            found.cheques += sum(line.kind is Kind.CHEQUE for line in lines)
            found.in_transit += pair.in_transit
            if not pair.agrees:
                found.wrong.append(f"the books of {name} say other sums than ours: {pair}")
            if account is not None:
                found.pairs += 1
                found.owed_total += account.owed
                found.paid_total += account.delivered
                if account.unpaid:
                    found.wrong.append(f"{account.unpaid} units are owed to {name} in no cheque")
            disputed = max(each.disputed for each in (account, partner) if each is not None) if account else 0
            found.unpaid_disputes += disputed > 0
            if disputed:
                found.wrong.append(f"{name} claims {disputed} units more")
        if any(node_id_of(each.partner_key) == me for each in ours.accounts()):
            found.wrong.append("an account with ourselves")
    return found
