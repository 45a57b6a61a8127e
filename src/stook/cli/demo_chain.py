"""The demo's chain: a development node, a token, the renter's chequebook, and every farmer redeeming there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stook.cli.demo_pay import credits
from stook.cli.dev_node import GAS_MONEY, DevNode
from stook.cli.output import plural

if TYPE_CHECKING:
    from stook.config import PaySettings

SUPPLY = 10**24
DEPOSIT = 10**18
"""One credit: far above what a demo owes."""
RESERVE = DEPOSIT // 100
DELAY_SECONDS = 86_400


class DemoChain:
    """Start it, `fund` the network, `redeem`, `compare`, `close`."""

    def __init__(self) -> None:
        from stook.assembly import new_owner_secrets
        from stook.config import DEFAULT_NETWORK

        self._node = DevNode()
        secrets = new_owner_secrets(DEFAULT_NETWORK)
        self.phrase = secrets.phrase()
        """Of the renter, whose chequebook is there before its home is."""
        self._tree = secrets.tree()
        self._gas: list[int] = []
        self._token = self._chequebook = b""

    def start(self) -> None:
        """Start the node; deploy token and chequebook. Raises `ConfigError` without web3 or anvil."""
        from stook.identity.accounts import account_of
        from stook.payments.evm import Chequebook

        self._node.__enter__()
        chain = self._owner
        chain.request("anvil_setBalance", "0x" + chain.account.hex(), hex(GAS_MONEY))
        self._token, _ = chain.deploy("TestToken", SUPPLY)
        issuer = account_of(self._tree.node_key().public_key)
        self._chequebook = Chequebook.deploy(chain, self._token, issuer, DELAY_SECONDS).address

    def close(self) -> None:
        """End the node."""
        self._node.close()

    @cached_property
    def _owner(self) -> Any:
        from stook.payments.evm import Chain

        return Chain(self._node.url, self._tree.payment_key())

    @property
    def farmer_settings(self) -> PaySettings:
        """What a farmer's home says."""
        from stook.config import PaySettings

        return PaySettings(settlement="evm", chain=self._node.url, token="0x" + self._token.hex())

    @property
    def renter_settings(self) -> PaySettings:
        """What the renter's home says."""
        from stook.config import PaySettings

        return PaySettings(settlement="evm", chain=self._node.url, chequebook="0x" + self._chequebook.hex())

    def fund(self, homes: Sequence[Path]) -> str:
        """Gas for everybody, tokens for the chequebook, a reserve for the first farmer."""
        from stook.assembly import load_owner
        from stook.identity.accounts import account_of
        from stook.payments.evm import Chequebook, Token

        accounts = [account_of(load_owner(home, None).tree().node_key().public_key) for home in homes]
        for account in accounts:
            self._owner.request("anvil_setBalance", "0x" + account.hex(), hex(GAS_MONEY))
        Token(self._owner, self._token).transfer(self._chequebook, DEPOSIT)
        Chequebook(self._owner, self._chequebook).reserve(accounts[1], RESERVE)
        return f"on {self._node.version()}: {credits(DEPOSIT)} credits deposited, {credits(RESERVE)} of them reserved"

    def redeem(self, farmers: Mapping[str, Path]) -> dict[str, Any]:
        """Every farmer, dead ones from their disks, brings the cheque that it holds."""
        import time

        from stook import config
        from stook.assembly import load_owner, open_books, settlement_of
        from stook.farmer.till import cash

        me, redeemers = self._tree.node_key().node_id, 0
        for home in farmers.values():
            key = load_owner(home, None).tree().node_key()
            with open_books(home) as books:
                done = cash(
                    books,
                    settlement_of(config.load_settings(home, "farm"), key),
                    key,
                    me,
                    time.time_ns() // 1_000_000,
                )
            if done is not None and done.paid:
                redeemers += 1
                self._gas.append(done.gas)
        return {"node": self._node.version(), "redeemers": redeemers, "gas_redeem": self._gas}

    def compare(self, renter_home: Path, farmers: Mapping[str, Path]) -> dict[str, Any]:
        """Balances on the chain beside all ledgers."""
        from stook.assembly import load_owner, open_books
        from stook.identity.accounts import account_of
        from stook.payments.evm import Token
        from stook.payments.ledger import Book

        token, wrong, redeemed, cheques = Token(self._owner, self._token), list[str](), 0, 0
        with open_books(renter_home) as ours:
            for name, home in farmers.items():
                key = load_owner(home, None).tree().node_key()
                balance = token.balance(account_of(key.public_key))
                redeemed += balance
                with open_books(home) as theirs:
                    wallet = theirs.balances().get(Book.WALLET, 0)
                    held = theirs.balances().get(Book.HELD, 0)
                    account = theirs.account(self._tree.node_key().node_id)
                mine = ours.account(key.node_id)
                drawn = account.drawn if account is not None else 0
                cheques += drawn > 0
                if not balance == wallet == drawn == (mine.cashed if mine is not None else 0) or held:
                    wrong.append(f"{name} has {balance} on the chain, {wallet} in its book, a cheque over {drawn}")
            spent = -ours.balances().get(Book.CHEQUEBOOK, 0)
        left = token.balance(self._chequebook)
        if DEPOSIT - left != redeemed or spent != redeemed:
            wrong.append(
                f"the chequebook paid {DEPOSIT - left}, farmers got {redeemed}, the renter's book says {spent}"
            )
        got = f"{plural(cheques, 'farmer')} redeemed {credits(redeemed)} credits"
        said = f"{got}; balances on the chain are those of all books"
        return {
            "deposited": DEPOSIT,
            "redeemed": redeemed,
            "left": left,
            "balances_equal": not wrong,
            "wrong": wrong,
            "said": "; ".join(wrong) or said,
        }
