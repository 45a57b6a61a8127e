"""Settlement on an Ethereum chain: cheques of an ERC-20 chequebook contract. The only module that knows web3.

Needs ``pip install stook[evm]``. Calls block. The contracts are `chain/Chequebook.vy` and, for tests and demos,
`chain/TestToken.vy`; what is deployed is compared with them before a cheque counts (`docs/formats/cheque.md`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

from stook.contracts.contract import Settlement as Kind
from stook.errors import ConfigError, EnvironmentFault, UserError
from stook.identity.accounts import account_of, recoverable
from stook.identity.keys import SigningKey
from stook.ids import PublicKey
from stook.money import NOTHING, Amount
from stook.payments.cheque import Drawer, SignedCheque
from stook.payments.settlement import Cashed

try:
    from web3 import HTTPProvider, Web3
    from web3.exceptions import ContractLogicError, Web3Exception
except ImportError:  # said in words, when it is wanted
    Web3 = None  # type: ignore[misc, assignment, unused-ignore]

CALL_SECONDS = 20
RECEIPT_SECONDS = 120
MAX_BATCH = 20
MIN_DELAY_SECONDS = 86_400
"""A chequebook whose owner gets money back sooner covers nothing: a farmer has to have time to redeem."""


def artifact(name: str) -> dict[str, Any]:
    """ABI, bytecode and runtime of a contract, as compiled from its source."""
    text = resources.files("stook.payments.chain").joinpath("artifacts.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)[name]
    return found


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction that was mined."""

    hash: bytes
    gas: int
    receipt: Any


class Chain:
    """A connection to a node, speaking with one account."""

    def __init__(self, url: str, key: SigningKey) -> None:
        """Raises `ConfigError` without web3 or a URL."""
        if Web3 is None:
            raise ConfigError("settlement evm needs web3: pip install 'stook[evm]'")
        if not url:
            raise ConfigError("settlement evm needs the URL of an Ethereum node: set `chain` under [pay]")
        self.url = url
        self._key = key
        self.account = account_of(key.public_key)
        self._web3 = Web3(HTTPProvider(url, request_kwargs={"timeout": CALL_SECONDS}))

    @cached_property
    def chain_id(self) -> int:
        """The chain's id."""
        return int(self.ask(lambda: self._web3.eth.chain_id))

    def ask(self, work: Callable[[], Any]) -> Any:
        """What the node says. Raises `EnvironmentFault` when it does not answer, or refuses."""
        try:
            return work()
        except (OSError, Web3Exception, ValueError) as error:
            raise EnvironmentFault(f"the Ethereum node at {self.url}: {error}") from error

    def contract(self, name: str, address: bytes) -> Any:
        """A deployed contract."""
        return self._web3.eth.contract(Web3.to_checksum_address(address), abi=artifact(name)["abi"])

    def is_ours(self, name: str, address: bytes) -> bool:
        """Whether the code at the address is what we compiled. Vyper puts immutables behind the code."""
        code = bytes(self.ask(lambda: self._web3.eth.get_code(Web3.to_checksum_address(address))))
        runtime = bytes.fromhex(artifact(name)["runtime"][2:])
        return len(code) > len(runtime) and code.startswith(runtime)

    def deploy(self, name: str, *arguments: Any) -> tuple[bytes, Sent]:
        """A new contract; its address."""
        made = artifact(name)
        factory = self._web3.eth.contract(abi=made["abi"], bytecode=made["bytecode"])
        sent = self.send(factory.constructor(*arguments))
        return bytes.fromhex(sent.receipt["contractAddress"][2:]), sent

    def send(self, call: Any) -> Sent:
        """Sign a call, send it, wait until it is mined. Raises `EnvironmentFault`, also when it reverts."""

        def work() -> Sent:
            mine = Web3.to_checksum_address(self.account)
            fields = call.build_transaction(
                {"from": mine, "nonce": self._web3.eth.get_transaction_count(mine), "chainId": self.chain_id}
            )
            signed = self._web3.eth.account.sign_transaction(fields, self._key.reveal_secret())
            name = self._web3.eth.send_raw_transaction(signed.raw_transaction)
            receipt = self._web3.eth.wait_for_transaction_receipt(name, timeout=RECEIPT_SECONDS)
            if receipt["status"] != 1:
                raise ValueError(f"transaction {name.hex()} was reverted")
            return Sent(bytes(name), int(receipt["gasUsed"]), receipt)

        sent: Sent = self.ask(work)
        return sent

    def view(self, call: Any) -> Any:
        """What a contract answers without a transaction."""
        return self.ask(lambda: call.call({"from": Web3.to_checksum_address(self.account)}))

    def coins(self, account: bytes) -> int:
        """What an account has for gas, in wei."""
        return int(self.ask(lambda: self._web3.eth.get_balance(Web3.to_checksum_address(account))))

    def request(self, method: str, *parameters: Any) -> Any:
        """A raw call, for what development nodes offer besides."""
        return self.ask(lambda: self._web3.provider.make_request(method, list(parameters)))  # type: ignore[arg-type]


class Token:
    """An ERC-20 token."""

    def __init__(self, chain: Chain, address: bytes) -> None:
        self._chain = chain
        self.address = address
        self._token = chain.contract("TestToken", address)

    def balance(self, account: bytes) -> int:
        """What an account has."""
        return int(self._chain.view(self._token.functions.balanceOf(Web3.to_checksum_address(account))))

    def moved(self, source: bytes, to: bytes) -> int:
        """What ever went from one account to another, by the token's own events."""
        event = self._token.events.Transfer()
        names = {"sender": Web3.to_checksum_address(source), "receiver": Web3.to_checksum_address(to)}
        logs = self._chain.ask(lambda: event.get_logs(from_block=0, argument_filters=names))
        return sum(int(each["args"]["value"]) for each in logs)

    def transfer(self, to: bytes, amount: int) -> Sent:
        """Send some of ours."""
        return self._chain.send(self._token.functions.transfer(Web3.to_checksum_address(to), amount))

    def approve(self, spender: bytes, amount: int) -> Sent:
        """Let a contract take some of ours."""
        return self._chain.send(self._token.functions.approve(Web3.to_checksum_address(spender), amount))


class Chequebook:
    """A chequebook contract, as its owner or a beneficiary uses it."""

    def __init__(self, chain: Chain, address: bytes) -> None:
        self._chain = chain
        self.address = address
        self._book = chain.contract("Chequebook", address)

    @classmethod
    def deploy(cls, chain: Chain, token: bytes, issuer: bytes, delay_seconds: int) -> Chequebook:
        """A new one; the account of `chain` owns it, `issuer` signs its cheques."""
        address, _ = chain.deploy(
            "Chequebook", Web3.to_checksum_address(token), Web3.to_checksum_address(issuer), delay_seconds
        )
        return cls(chain, address)

    def _view(self, name: str, *arguments: Any) -> Any:
        return self._chain.view(self._book.functions[name](*arguments))

    def _send(self, name: str, *arguments: Any) -> Sent:
        return self._chain.send(self._book.functions[name](*arguments))

    def issuer(self) -> bytes:
        """Whose signature it pays."""
        return bytes.fromhex(self._view("issuer")[2:])

    def owner(self) -> bytes:
        """Who may take money out."""
        return bytes.fromhex(self._view("owner")[2:])

    def token(self) -> bytes:
        """What it pays in."""
        return bytes.fromhex(self._view("token")[2:])

    def delay(self) -> int:
        """Seconds between asking for money back and getting it."""
        return int(self._view("delay"))

    def liquid(self) -> int:
        """What is neither reserved nor staked."""
        return int(self._view("liquid"))

    def paid_out(self, beneficiary: bytes) -> int:
        """What it paid this beneficiary."""
        return int(self._view("paid_out", Web3.to_checksum_address(beneficiary)))

    def covered(self, beneficiary: bytes) -> int:
        """What it can have paid this beneficiary in all."""
        return int(self._view("covered", Web3.to_checksum_address(beneficiary)))

    def would_pay(self, issuer: PublicKey, signed: SignedCheque) -> int:
        """What its beneficiary would be paid for a cheque now; nothing when the contract refuses it."""
        to = Web3.to_checksum_address(signed.cheque.beneficiary)
        call = self._book.functions.redeem(_redemption(issuer, signed), to)

        def work() -> int:
            try:
                return int(call.call({"from": to}))
            except ContractLogicError:
                return 0

        return int(self._chain.ask(work))

    def redeem(self, issuer: PublicKey, signed: SignedCheque, recipient: bytes) -> tuple[int, Sent]:
        """Bring a cheque; what was paid, which may be less than it says."""
        sent = self._send("redeem", _redemption(issuer, signed), Web3.to_checksum_address(recipient))
        return self._paid(sent), sent

    def redeem_many(self, issuer: PublicKey, several: Sequence[SignedCheque]) -> tuple[int, Sent]:
        """Bring up to 20 cheques; each is paid to its beneficiary."""
        sent = self._send("redeem_many", [_redemption(issuer, signed) for signed in several])
        return self._paid(sent), sent

    def _paid(self, sent: Sent) -> int:
        events = self._book.events.Redeemed().process_receipt(sent.receipt, errors=_DISCARD)
        return sum(int(event["args"]["paid"]) for event in events)

    def reserve(self, beneficiary: bytes, amount: int) -> Sent:
        """Put some aside for one beneficiary."""
        return self._send("reserve", Web3.to_checksum_address(beneficiary), amount)

    def ask_withdrawal(self, amount: int) -> Sent:
        """Ask for money back."""
        return self._send("ask_withdrawal", amount)

    def withdraw(self) -> Sent:
        """Take what was asked for, after the delay."""
        return self._send("withdraw")

    def call(self, name: str, *arguments: Any) -> Sent:
        """Any other function, by name."""
        return self._send(name, *arguments)

    def read(self, name: str, *arguments: Any) -> Any:
        """Any other view, by name."""
        return self._view(name, *arguments)


def _discard() -> Any:
    if Web3 is None:
        return None
    from web3.logs import DISCARD

    return DISCARD


_DISCARD = _discard()


def _redemption(issuer: PublicKey, signed: SignedCheque) -> tuple[str, int, int, int, bytes, bytes]:
    cheque = signed.cheque
    full = recoverable(issuer, cheque.digest, signed.signature)
    beneficiary = Web3.to_checksum_address(cheque.beneficiary)
    return beneficiary, cheque.amount, cheque.serial, full[64], full[:32], full[32:64]


class EvmSettlement:
    """`Settlement` on a chain."""

    kind = Kind.EVM

    def __init__(self, url: str, key: SigningKey, *, token: str = "", chequebook: str = "") -> None:
        """`token` is the one taken, `chequebook` the one cheques are drawn on; each only at its side."""
        self.chain = Chain(url, key)
        self._token = bytes.fromhex(token[2:])
        self._chequebook = bytes.fromhex(chequebook[2:])
        self._ours: set[tuple[bytes, bytes]] = set()

    def drawer(self, payer: PublicKey, payee: PublicKey, chequebook: bytes) -> Drawer:
        """The chequebook that a cheque names, or the one from the settings."""
        named = chequebook or self._chequebook
        if len(named) != 20:
            raise ConfigError("settlement evm needs a chequebook: `stook wallet deploy`, then `chequebook` under [pay]")
        return Drawer(payer, self.chain.chain_id, named, account_of(payee))

    def covered(self, drawer: Drawer) -> int:
        """Nothing when the contract is not the one we know, is another's, pays in another token, or lets go too soon.

        Its code is what we know; what its maker wrote into its storage is not, and so `redeemable` tries it.
        """
        book = Chequebook(self.chain, drawer.chequebook)
        issuer = account_of(drawer.issuer)
        if (drawer.chequebook, issuer) not in self._ours:
            if not self.chain.is_ours("Chequebook", drawer.chequebook) or book.issuer() != issuer:
                return 0
            if (self._token and book.token() != self._token) or book.delay() < MIN_DELAY_SECONDS:
                return 0
            self._ours.add((drawer.chequebook, issuer))
        return book.covered(drawer.beneficiary)

    def redeemable(self, drawer: Drawer, signed: SignedCheque) -> int | None:
        """As the contract would pay it to its beneficiary at this moment."""
        return Chequebook(self.chain, drawer.chequebook).would_pay(drawer.issuer, signed)

    def received(self, drawer: Drawer) -> Amount:
        """What the contract says it paid, as far as the token has moved."""
        book = Chequebook(self.chain, drawer.chequebook)
        moved = Token(self.chain, book.token()).moved(drawer.chequebook, drawer.beneficiary)
        return Amount(min(book.paid_out(drawer.beneficiary), moved))

    def cash(self, drawer: Drawer, signed: SignedCheque) -> Cashed:
        """Redeem it to the beneficiary's own account."""
        book = Chequebook(self.chain, drawer.chequebook)
        paid, sent = book.redeem(drawer.issuer, signed, drawer.beneficiary)
        if not paid and signed.cheque.amount > book.paid_out(drawer.beneficiary):
            raise UserError("the chequebook is empty: the cheque was not paid, and stays good for when it is filled")
        return Cashed(Amount(paid), Amount(book.paid_out(drawer.beneficiary)), sent.hash, sent.gas)

    def paid_out(self, drawer: Drawer) -> Amount:
        """What the contract says it paid."""
        if len(drawer.chequebook) != 20:
            return NOTHING
        return Amount(Chequebook(self.chain, drawer.chequebook).paid_out(drawer.beneficiary))
