"""A paid grid: audits earn, transfers earn, cheques fly; lost replies, deaths and lost books change no sum."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sim_objects import assert_all_there, put_all, some_objects
from stook.farmer.admission import FarmerTerms
from stook.farmer.settings import FarmerSettings
from stook.payments.enforcement import CreditRules, Step
from stook.payments.ledger import Book, reconcile
from stook.renter.auditor import AuditRules
from stook.shards.geometry import Policy
from stook.sim.factories import agent_options, farmer_settings
from stook.sim.loop import run
from stook.sim.nodes import SimFarmer
from stook.sim.testnet import Testnet
from stook.storage.books import SqliteBooks

POLICY = Policy(k=3, r=5, o=7, n=8)
OPTIONS = agent_options(POLICY, audits=AuditRules())
HOUR = 3600.0
DAY = 24 * HOUR
SIZES = (200_000, 500_000)
PRICED = FarmerTerms(storage_price_per_gib_hour=10**15, download_price_per_gib=10**16)
PAID = farmer_settings(terms=PRICED)


def net(seed: int, **changes: object) -> Testnet:
    return Testnet(farmers=9, seed=seed, settings=changes.pop("settings", PAID), options=OPTIONS, **changes)


def checked(grid: Testnet) -> int:
    """Every pair of books, compared to the unit; what was paid in all."""
    ours, paid = grid.renter.books, 0
    for farmer in grid.farmers:
        found = reconcile(ours.lines(farmer.node_id), farmer.books.lines(grid.renter.key.node_id))
        assert found.agrees, (farmer.number, found)
        account = farmer.books.account(grid.renter.key.node_id)
        paid += account.drawn if account is not None else 0
    assert sum(ours.balances().values()) == 0
    return paid


def step(grid: Testnet, farmer: SimFarmer) -> Step | None:
    standing = farmer.farmer.till.standings.get(grid.renter.key.public_key)
    return standing.step if standing is not None else None


async def a_day(grid: Testnet, days: int = 1) -> None:
    for _ in range(days):
        await asyncio.sleep(DAY)
        await grid.step_chores("audit")
        await grid.renter.agent.paymaster.pay_all()


def test_audits_and_downloads_earn_and_everybody_is_paid() -> None:
    async def scenario() -> None:
        async with net(1) as grid:
            objects = some_objects(grid, SIZES)
            await put_all(grid, objects)
            await grid.renter.client.settle()
            await a_day(grid, 3)
            storage = checked(grid)
            assert storage > 0
            await assert_all_there(grid, objects)
            await a_day(grid)
            assert checked(grid) > storage
            for account in grid.renter.books.accounts():
                assert account.delivered == account.owed > 0
                assert account.disputed == 0
                lines = grid.renter.books.lines(account.partner)
                assert any(line.receipt for line in lines)

    run(scenario())


def test_restarts_of_either_side_and_repeated_rounds_change_nothing() -> None:
    async def scenario() -> None:
        async with net(2) as grid:
            await put_all(grid, some_objects(grid, SIZES))
            await grid.renter.client.settle()
            await a_day(grid, 2)
            await grid.restart_renter()
            await grid.restart(*range(9))
            before = checked(grid)
            await grid.renter.agent.paymaster.pay_all()
            now = checked(grid)
            assert now - before < before / 100  # some seconds went by
            await a_day(grid)
            assert checked(grid) > now

    run(scenario())


@pytest.mark.parametrize("whose", ["payer", "payee"])
def test_lost_books_are_found_again(whose: str) -> None:
    async def scenario() -> None:
        async with net(3) as grid:
            await put_all(grid, some_objects(grid, SIZES))
            await grid.renter.client.settle()
            await a_day(grid, 2)
            paid = checked(grid)
            fresh = SqliteBooks(":memory:")
            grid.world.opened.append(fresh)
            if whose == "payer":
                grid.renter.books = fresh
                await grid.restart_renter()
            else:
                grid.farmers[0].books = fresh
                await grid.restart(0)
            await a_day(grid)
            me = grid.renter.key.node_id
            for farmer in grid.farmers:
                ours, theirs = grid.renter.books.account(farmer.node_id), farmer.books.account(me)
                if ours is theirs is None:
                    continue
                assert ours.seq == theirs.seq
                assert ours.owed == theirs.owed
                assert ours.drawn == theirs.drawn == ours.delivered
                assert ours.cheque == theirs.cheque
                assert theirs.disputed == 0
            now = sum(each.drawn for farmer in grid.farmers if (each := farmer.books.account(me)) is not None)
            assert paid < now < 2 * paid

    run(scenario())


def test_a_silent_farmer_is_not_paid_for_the_gap() -> None:
    async def scenario() -> None:
        async with net(4) as grid:
            await put_all(grid, some_objects(grid, SIZES))
            await grid.renter.client.settle()
            await a_day(grid, 2)
            me, dead = grid.renter.key.node_id, grid.farmers[0]
            before = dead.books.account(me).drawn
            daily = before / 2
            await grid.kill(0)
            for _ in range(30):
                await asyncio.sleep(HOUR / 6)
                await grid.step_chores("audit")
            await grid.renter.agent.paymaster.pay_all()
            await grid.restart(0)
            for _ in range(6):
                await asyncio.sleep(HOUR / 6)
                await grid.step_chores("audit")
            await grid.renter.agent.paymaster.pay_all()
            account = dead.books.account(me)
            assert account.disputed == 0
            assert account.drawn - before < daily / 4
            checked(grid)

    run(scenario())


def test_a_renter_that_never_pays_is_not_served() -> None:
    async def scenario() -> None:
        async with net(5) as grid:
            objects = some_objects(grid, SIZES)
            await put_all(grid, objects)
            await grid.renter.client.settle()
            await asyncio.sleep(40 * DAY)
            for farmer in grid.farmers:
                await farmer.farmer.till.collect()
            key = grid.renter.key.public_key
            steps = {each.step for one in grid.farmers if (each := one.farmer.till.standings.get(key)) is not None}
            assert steps == {Step.STOP}
            with pytest.raises(Exception, match=r"PAYMENT_DUE|farmer"):
                await put_all(grid, some_objects(grid, (300_000,)))
            await grid.renter.agent.paymaster.pay_all()
            await grid.renter.agent.refresh()
            await put_all(grid, some_objects(grid, (300_000,)))
            checked(grid)

    run(scenario())


def test_a_credit_limit_stops_at_once_and_paying_opens_again() -> None:
    settings: FarmerSettings = replace(PAID, credit=CreditRules(limit=10**10))

    async def scenario() -> None:
        async with net(6, settings=settings) as grid:
            await put_all(grid, some_objects(grid, SIZES))
            await grid.renter.client.settle()
            await asyncio.sleep(DAY)
            for farmer in grid.farmers:
                await farmer.farmer.till.collect()
                assert step(grid, farmer) in (None, Step.STOP)
            await grid.renter.agent.paymaster.pay_all()
            for farmer in grid.farmers:
                assert step(grid, farmer) in (None, Step.SERVE)
            assert grid.renter.books.balances()[Book.IN_TRANSIT] == 0

    run(scenario())
