"""Farmers and a renter that know nobody but two seeds, and a market among them, in virtual time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from stook.contracts.market import Prices
from stook.farmer.admission import FarmerTerms
from stook.farmer.asking import Asking
from stook.farmer.settings import FarmerSettings, MarketSettings
from stook.renter.bargain import UNLIMITED
from stook.renter.market import Market, MarketOptions
from stook.shards.geometry import Policy
from stook.sim.factories import agent_options, farmer_settings
from stook.sim.network import CALM, Path
from stook.sim.signatures import Signatures
from stook.sim.testnet import Testnet

PRICE = Prices(1_000, 5_000)


def stall(discount_percent: int = 0, *, prices: Prices = PRICE, market: MarketSettings | None = None) -> FarmerSettings:
    """A farmer on the market that comes down by so much."""
    terms = FarmerTerms(
        storage_price_per_gib_hour=prices.storage_price_per_gib_hour,
        download_price_per_gib=prices.download_price_per_gib,
    )
    settings = farmer_settings(terms=terms)
    return replace(settings, market=market or MarketSettings(strategy=Asking(discount_percent)))


def town(
    farmers: int = 12,
    *,
    seed: int = 1,
    settings: FarmerSettings | None = None,
    others: Mapping[int, FarmerSettings] | None = None,
    most: Prices | None = None,
    policy: Policy | None = None,
    market: MarketOptions | None = None,
    path: Path = CALM,
    signatures: Signatures = Signatures.CHEAP,
) -> Testnet:
    """The network, not started yet. `others` are the settings of farmers that differ."""
    options = agent_options(policy or Policy(k=2, r=3, o=4, n=5))
    limits = most or Prices(UNLIMITED, UNLIMITED)
    options = replace(
        options,
        max_storage_price_per_gib_hour=limits.storage_price_per_gib_hour,
        max_download_price_per_gib=limits.download_price_per_gib,
        market=market or MarketOptions(offers_wanted=8, count=8),
    )
    net = Testnet(farmers, seed=seed, settings=settings or stall(), options=options, path=path, signatures=signatures)
    for number, changed in (others or {}).items():
        net.farmers[number].settings = changed
    net.renter.seeds = [farmer.peer for farmer in net.farmers[:1]]
    return net


async def settle(net: Testnet, rounds: int = 5) -> None:
    """Everybody knows the seeds' acquaintances, has neighbours, and heard what they lead to."""
    await net.step_chores("announce")
    for _ in range(rounds):
        await net.step_chores("gossip")


def market_of(net: Testnet) -> Market:
    """The renter's side."""
    assert net.renter.agent.market is not None
    return net.renter.agent.market
