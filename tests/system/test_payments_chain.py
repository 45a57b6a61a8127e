"""The chequebook contract on a real development node: what it pays, what it refuses, what can be taken out and when."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import structlog

from contract_samples import NETWORK
from stook.assembly import SystemClock
from stook.cli.dev_node import GAS_MONEY, DevNode, find_anvil
from stook.errors import ConfigError, EnvironmentFault, RefusedError, UserError
from stook.farmer.till import Till, cash
from stook.identity.accounts import account_of, keccak256, recoverable
from stook.identity.keys import CURVE_ORDER, NodeKey
from stook.money import wide
from stook.payments.account import Account, Change
from stook.payments.cheque import Cheque, Drawer, Fault, SignedCheque, draw_cheque, judge
from stook.payments.evm import MIN_DELAY_SECONDS, Chain, Chequebook, EvmSettlement, Token
from stook.sim.loop import InlineOffload
from stook.storage.books import SqliteBooks
from stook.storage.memory import MemoryContractStore

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(find_anvil() is None, reason="no anvil: `make anvil`"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:websockets"),
]
RENTER, FARMER, OTHER = (NodeKey.from_secret(bytes((n,)) * 32) for n in (11, 12, 13))
DELAY = 86_400
SUPPLY = 10**24


@dataclass
class World:
    node: DevNode
    renter: Chain
    farmer: Chain
    token: Token
    book: Chequebook
    last: dict[bytes, SignedCheque]

    def drawer(self, payee: NodeKey = FARMER) -> Drawer:
        return Drawer(RENTER.public_key, self.renter.chain_id, self.book.address, account_of(payee.public_key))

    def cheque(self, cumulative: int, payee: NodeKey = FARMER) -> SignedCheque:
        drawer = self.drawer(payee)
        signed = draw_cheque(drawer, RENTER, self.last.get(drawer.beneficiary), cumulative)
        self.last[drawer.beneficiary] = signed
        return signed

    def later(self, seconds: int) -> None:
        self.renter.request("evm_increaseTime", seconds)
        self.renter.request("evm_mine")

    def settlement(self, key: NodeKey = FARMER, **changes: str) -> EvmSettlement:
        return EvmSettlement(self.node.url, key, **changes)

    @property
    def earned(self) -> int:
        return self.token.balance(account_of(FARMER.public_key))


@pytest.fixture(scope="module")
def node() -> Iterator[DevNode]:
    with DevNode() as running:
        yield running


@pytest.fixture
def world(node: DevNode) -> World:
    chains = [Chain(node.url, key) for key in (RENTER, FARMER, OTHER)]
    for chain in chains:
        chain.request("anvil_setBalance", "0x" + chain.account.hex(), hex(GAS_MONEY))
    renter = chains[0]
    address, _ = renter.deploy("TestToken", SUPPLY)
    token = Token(renter, address)
    book = Chequebook.deploy(renter, address, account_of(RENTER.public_key), DELAY)
    token.transfer(book.address, 10_000)
    return World(node, renter, chains[1], token, book, {})


def as_farmer(world: World) -> Chequebook:
    return Chequebook(world.farmer, world.book.address)


def test_a_cheque_judged_here_is_paid_there_once(world: World) -> None:
    signed = world.cheque(1000)
    assert judge(signed, world.drawer(), None, world.book.covered(world.drawer().beneficiary)).worth == 1000
    done = world.settlement().cash(world.drawer(), signed)
    assert (done.paid, done.paid_in_all, world.earned) == (1000, 1000, 1000)
    again = as_farmer(world).redeem(RENTER.public_key, signed, account_of(FARMER.public_key))
    assert again[0] == 0
    assert world.earned == 1000
    assert world.settlement().cash(world.drawer(), world.cheque(1500)).paid == 500
    assert world.earned == 1500


def test_a_lower_or_older_cheque_pays_nothing(world: World) -> None:
    first, second = world.cheque(1000), world.cheque(2000)
    as_farmer(world).redeem(RENTER.public_key, second, account_of(FARMER.public_key))
    assert as_farmer(world).redeem(RENTER.public_key, first, account_of(FARMER.public_key))[0] == 0
    assert world.earned == 2000


@pytest.mark.parametrize("what", ["signature", "chain", "chequebook", "beneficiary", "high s", "recipient"])
def test_what_the_contract_refuses(world: World, what: str) -> None:
    drawer = world.drawer()
    cheque = Cheque(drawer.chain_id, drawer.chequebook, drawer.beneficiary, wide(500), 1)
    key, fields = RENTER, {}
    if what == "chain":
        fields = {"chain_id": 1}
    elif what == "chequebook":
        fields = {"chequebook": bytes(20)}
    elif what == "beneficiary":
        fields = {"beneficiary": account_of(OTHER.public_key)}
    elif what == "signature":
        key = OTHER
    from msgspec import structs

    said = structs.replace(cheque, **fields)
    signature = key.sign(said.digest)
    full = recoverable(key.public_key, said.digest, signature)
    r, s, v = full[:32], full[32:64], full[64]
    if what == "high s":
        s, v = (CURVE_ORDER - int.from_bytes(s, "big")).to_bytes(32, "big"), 55 - v
    from web3 import Web3

    to = Web3.to_checksum_address(drawer.beneficiary)
    chain = Chain(world.node.url, OTHER) if what == "recipient" else world.farmer
    recipient = Web3.to_checksum_address(account_of(OTHER.public_key)) if what == "recipient" else to
    with pytest.raises(EnvironmentFault):
        Chequebook(chain, world.book.address).call("redeem", (to, 500, 1, v, r, s), recipient)
    assert world.earned == 0
    if what not in ("recipient", "high s"):
        bad = SignedCheque(said, signature)
        assert judge(bad, drawer, None).fault in (Fault.CHAIN, Fault.CHEQUEBOOK, Fault.BENEFICIARY, Fault.SIGNATURE)


def test_an_overdrawn_cheque_pays_what_there_is_and_stays_good(world: World) -> None:
    signed = world.cheque(12_000)
    assert judge(signed, world.drawer(), None, world.settlement().covered(world.drawer())).fault is Fault.UNCOVERED
    assert world.settlement().cash(world.drawer(), signed).paid == 10_000
    with pytest.raises(UserError, match="empty"):
        world.settlement().cash(world.drawer(), signed)
    world.token.transfer(world.book.address, 5_000)
    assert world.settlement().cash(world.drawer(), signed).paid == 2_000
    assert world.earned == 12_000


def test_a_reserve_is_for_one_alone(world: World) -> None:
    world.book.reserve(account_of(FARMER.public_key), 8_000)
    theirs = world.cheque(5_000, OTHER)
    assert world.book.covered(account_of(OTHER.public_key)) == 2_000
    assert Chequebook(world.renter, world.book.address).redeem_many(RENTER.public_key, [theirs])[0] == 2_000
    assert world.settlement().cash(world.drawer(), world.cheque(8_000)).paid == 8_000
    with pytest.raises(EnvironmentFault):
        world.book.reserve(account_of(FARMER.public_key), 1)


def test_money_leaves_only_after_the_delay_and_cheques_go_first(world: World) -> None:
    with pytest.raises(EnvironmentFault):
        world.book.withdraw()
    world.book.ask_withdrawal(10_000)
    assert world.settlement().covered(world.drawer()) == 0
    with pytest.raises(EnvironmentFault):
        world.book.withdraw()
    assert world.settlement().cash(world.drawer(), world.cheque(4_000)).paid == 4_000
    world.later(DELAY + 1)
    with pytest.raises(EnvironmentFault):
        as_farmer(world).withdraw()
    world.book.withdraw()
    assert world.token.balance(world.book.address) == 0
    assert world.earned == 4_000


def test_a_withdrawal_that_is_not_taken_lapses(world: World) -> None:
    """Else an owner could keep one ready for ever, and everything behind its cheques would be gone at any moment."""
    world.book.ask_withdrawal(10_000)
    world.later(2 * DELAY + 5)
    with pytest.raises(EnvironmentFault):
        world.book.withdraw()
    assert world.settlement().covered(world.drawer()) == 10_000


def test_a_reserve_is_released_only_after_the_delay(world: World) -> None:
    from web3 import Web3

    farmer = Web3.to_checksum_address(account_of(FARMER.public_key))
    world.book.reserve(account_of(FARMER.public_key), 9_000)
    world.book.call("ask_release", farmer, 9_000)
    assert world.book.covered(account_of(FARMER.public_key)) == 1_000
    with pytest.raises(EnvironmentFault):
        world.book.call("release", farmer)
    world.later(DELAY + 1)
    world.book.call("release", farmer)
    assert world.book.liquid() == 10_000


def test_collateral_is_paid_by_the_farmers_own_claim_or_comes_back(world: World) -> None:
    """A farmer's chequebook: here RENTER plays the farmer that owns and signs, OTHER the renter it is staked for."""
    from web3 import Web3

    renter = Web3.to_checksum_address(account_of(OTHER.public_key))
    now = world.renter.ask(lambda: world.renter._web3.eth.get_block("latest"))["timestamp"]
    world.token.approve(world.book.address, 3_000)
    world.book.call("stake", renter, 3_000, now + 10 * DELAY)
    assert world.book.liquid() == 10_000
    domain = keccak256(
        keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
        + keccak256(b"Stook Chequebook")
        + keccak256(b"1")
        + world.renter.chain_id.to_bytes(32, "big")
        + world.book.address.rjust(32, b"\0")
    )
    kind = keccak256(b"Slash(address renter,uint256 amount,uint256 number)")
    body = keccak256(kind + account_of(OTHER.public_key).rjust(32, b"\0") + wide(1_000).rjust(32, b"\0") + bytes(32))
    digest = keccak256(b"\x19\x01" + domain + body)
    claim = recoverable(RENTER.public_key, digest, RENTER.sign(digest))
    said = claim[64], claim[:32], claim[32:64]
    world.book.call("slash", renter, 1_000, *said)
    assert world.token.balance(account_of(OTHER.public_key)) >= 1_000
    with pytest.raises(EnvironmentFault):
        world.book.call("slash", renter, 1_000, *said)  # each claim counts once
    with pytest.raises(EnvironmentFault):
        world.book.call("unstake", renter)
    world.later(10 * DELAY + 1)
    world.book.call("unstake", renter)
    assert world.book.liquid() == 12_000


def test_a_chequebook_that_is_not_ours_covers_nothing(world: World) -> None:
    strange = Chequebook.deploy(world.renter, world.token.address, account_of(OTHER.public_key), DELAY)
    world.token.transfer(strange.address, 1_000)
    drawer = Drawer(RENTER.public_key, world.renter.chain_id, strange.address, account_of(FARMER.public_key))
    assert world.settlement().covered(drawer) == 0
    nothing = Drawer(RENTER.public_key, world.renter.chain_id, world.token.address, account_of(FARMER.public_key))
    assert world.settlement().covered(nothing) == 0
    assert world.settlement(token="0x" + bytes(20).hex()).covered(world.drawer()) == 0
    assert world.settlement(token="0x" + world.token.address.hex()).covered(world.drawer()) == 10_000


def test_gas(world: World) -> None:
    """The figures of `docs/payments-on-chain.md`: no more than a tenth above what is written there."""
    world.token.transfer(world.book.address, 10**20)
    _, first = as_farmer(world).redeem(RENTER.public_key, world.cheque(1000), account_of(FARMER.public_key))
    _, later = as_farmer(world).redeem(RENTER.public_key, world.cheque(2000), account_of(FARMER.public_key))
    keys = [NodeKey.from_secret((1000 + n).to_bytes(32, "big")) for n in range(20)]
    _, batch = world.book.redeem_many(RENTER.public_key, [world.cheque(500, key) for key in keys])
    _, again = world.book.redeem_many(RENTER.public_key, [world.cheque(900, key) for key in keys])
    found = {"first": first.gas, "later": later.gas, "batch": batch.gas // 20, "batch again": again.gas // 20}
    print(found)
    for name, most in {"first": 101_000, "later": 63_500, "batch": 66_600, "batch again": 29_000}.items():
        assert found[name] <= most, found


def test_invariants_over_random_histories(world: World) -> None:
    """Whatever is done in whatever order: nobody gets more than its cheques, and no token appears or vanishes."""
    dice = random.Random(7)
    world.token.transfer(world.book.address, 40_000)
    keys = [NodeKey.from_secret((5000 + n).to_bytes(32, "big")) for n in range(4)]
    accounts = [account_of(key.public_key) for key in keys]
    signed: dict[int, list[SignedCheque]] = {n: [] for n in range(4)}
    out = world.token.balance(account_of(RENTER.public_key))
    put_in = world.token.balance(world.book.address)
    from web3 import Web3

    for _ in range(40):
        n = dice.randrange(4)
        move = dice.choice(("draw", "redeem", "redeem", "batch", "reserve", "ask", "withdraw", "time"))
        try:
            if move == "draw":
                before = signed[n][-1].cheque.amount if signed[n] else 0
                signed[n].append(world.cheque(before + dice.randrange(1, 8_000), keys[n]))
            elif move == "redeem" and signed[n]:
                world.book.redeem(RENTER.public_key, dice.choice(signed[n]), accounts[n])
            elif move == "batch":
                some = [dice.choice(each) for each in signed.values() if each]
                if some:
                    world.book.redeem_many(RENTER.public_key, some)
            elif move == "reserve":
                world.book.reserve(accounts[n], dice.randrange(1, 5_000))
            elif move == "ask":
                world.book.ask_withdrawal(dice.randrange(1, 20_000))
            elif move == "withdraw":
                world.book.withdraw()
            elif move == "time":
                world.later(dice.randrange(60, DELAY))
        except EnvironmentFault:
            pass  # refused: then nothing changed, which is what is checked below
        paid = [world.book.paid_out(account) for account in accounts]
        for m in range(4):
            most = max((each.cheque.amount for each in signed[m]), default=0)
            assert paid[m] <= most
            assert world.token.balance(accounts[m]) == paid[m]
        back = world.token.balance(account_of(RENTER.public_key)) - out
        assert world.token.balance(world.book.address) + sum(paid) + back == put_in
        reserved = sum(world.book.read("hard_deposit", Web3.to_checksum_address(account)) for account in accounts)
        assert reserved == world.book.read("total_hard") <= world.token.balance(world.book.address)


def test_settings_that_are_missing() -> None:
    with pytest.raises(ConfigError, match="URL"):
        EvmSettlement("", FARMER)
    with pytest.raises(EnvironmentFault):
        Chain("http://127.0.0.1:1", FARMER).chain_id  # noqa: B018
    assert NETWORK


def till_of(world: World, books: SqliteBooks) -> Till:
    return Till(
        key=FARMER,
        network=NETWORK,
        contracts=MemoryContractStore(),
        books=books,
        settlement=world.settlement(token="0x" + world.token.address.hex()),
        clock=SystemClock(),
        offload=InlineOffload(),
        log=structlog.get_logger(),
    )


def test_a_made_up_sum_paid_out_covers_nothing_and_is_not_booked(world: World) -> None:
    """Whoever deploys may write any storage before our code is there: no check of the code sees it."""
    drawer = world.drawer()
    slot = keccak256(bytes(32) + drawer.beneficiary.rjust(32, b"\0"))
    forged = "0x" + (10**24).to_bytes(32, "big").hex()
    world.renter.request("anvil_setStorageAt", "0x" + world.book.address.hex(), "0x" + slot.hex(), forged)
    assert world.book.paid_out(drawer.beneficiary) == 10**24
    signed = world.cheque(1000)
    with SqliteBooks(":memory:") as books:
        till = till_of(world, books)
        with pytest.raises(RefusedError, match="uncovered"):
            till._deposit(RENTER.public_key, RENTER.node_id, signed)
        account = Account(RENTER.public_key, cheque=signed, delivered=signed.cheque.amount)
        books.post(Change(account))
        cash(books, till.settlement, FARMER, RENTER.node_id, 1)
        assert books.account(RENTER.node_id).cashed == 0
        assert world.earned == 0


def test_what_was_paid_unseen_is_found_and_booked(world: World) -> None:
    """Killed between redeeming and writing it down, or redeemed by others: what came counts, and the next is taken."""
    with SqliteBooks(":memory:") as books:
        till = till_of(world, books)
        till._deposit(RENTER.public_key, RENTER.node_id, world.cheque(1000))
        assert world.book.redeem_many(RENTER.public_key, [books.account(RENTER.node_id).cheque])[0] == 1000
        till._deposit(RENTER.public_key, RENTER.node_id, world.cheque(1500))
        assert cash(books, till.settlement, FARMER, RENTER.node_id, 1).paid == 500
        assert books.account(RENTER.node_id).cashed == 1500 == world.earned


def test_a_chequebook_that_lets_go_at_once_covers_nothing(world: World) -> None:
    for delay, covered in ((0, 0), (MIN_DELAY_SECONDS - 1, 0), (MIN_DELAY_SECONDS, 1_000)):
        book = Chequebook.deploy(world.renter, world.token.address, account_of(RENTER.public_key), delay)
        world.token.transfer(book.address, 1_000)
        drawer = Drawer(RENTER.public_key, world.renter.chain_id, book.address, account_of(FARMER.public_key))
        assert world.settlement().covered(drawer) == covered
