# pragma version ~=0.4.3
"""
@title Stook chequebook
@notice Holds a payer's tokens and pays its cheques: cumulative, EIP-712, one sum per beneficiary (docs/formats/cheque.md).
        The issuer signs; the owner puts money in and takes it out, but only after a delay in which beneficiaries can redeem.
        A farmer may lock a stake here for one renter.
"""

from ethereum.ercs import IERC20

event Redeemed:
    beneficiary: indexed(address)
    recipient: indexed(address)
    paid: uint256
    cumulative: uint256
    bounced: bool

event HardDeposit:
    beneficiary: indexed(address)
    amount: uint256

event WithdrawalAsked:
    amount: uint256
    ready_at: uint256

event Withdrawn:
    amount: uint256

event Staked:
    renter: indexed(address)
    amount: uint256
    until: uint256

event Slashed:
    renter: indexed(address)
    amount: uint256

struct Redemption:
    beneficiary: address
    cumulative: uint256
    serial: uint256
    v: uint8
    r: bytes32
    s: bytes32

struct Asked:
    amount: uint256
    ready_at: uint256

struct Stake:
    amount: uint256
    until: uint256

MAX_BATCH: constant(uint256) = 20
HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168
DOMAIN_TYPE: constant(bytes32) = keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
CHEQUE_TYPE: constant(bytes32) = keccak256("Cheque(address beneficiary,uint256 cumulativePayout,uint256 serial)")
SLASH_TYPE: constant(bytes32) = keccak256("Slash(address renter,uint256 amount,uint256 number)")

TOKEN: immutable(IERC20)
ISSUER: immutable(address)
OWNER: immutable(address)
DELAY: immutable(uint256)
DOMAIN: immutable(bytes32)

paid_out: public(HashMap[address, uint256])
hard_deposit: public(HashMap[address, uint256])
total_hard: public(uint256)
hard_decrease: public(HashMap[address, Asked])
withdrawal: public(Asked)
stake_of: public(HashMap[address, Stake])
total_staked: public(uint256)
slashes: public(HashMap[address, uint256])


@deploy
def __init__(token: address, issuer: address, delay: uint256):
    """
    @param issuer The account of the node key that signs cheques
    @param delay Seconds between asking for money back and getting it
    """
    TOKEN = IERC20(token)
    ISSUER = issuer
    OWNER = msg.sender
    DELAY = delay
    DOMAIN = keccak256(
        abi_encode(DOMAIN_TYPE, keccak256("Stook Chequebook"), keccak256("1"), chain.id, self)
    )


@view
@external
def token() -> address:
    return TOKEN.address


@view
@external
def issuer() -> address:
    return ISSUER


@view
@external
def owner() -> address:
    return OWNER


@view
@external
def delay() -> uint256:
    return DELAY


@view
@internal
def _liquid() -> uint256:
    return staticcall TOKEN.balanceOf(self) - self.total_hard - self.total_staked


@view
@external
def liquid() -> uint256:
    """
    @notice What is neither reserved for a beneficiary nor staked
    """
    return self._liquid()


@view
@internal
def _is_ready(asked: Asked) -> bool:
    # Not for ever: money that could leave at any moment would stand behind nothing.
    return asked.ready_at != 0 and block.timestamp >= asked.ready_at and block.timestamp <= asked.ready_at + DELAY


@view
@external
def covered(beneficiary: address) -> uint256:
    """
    @notice What this beneficiary can have been paid in all if it redeems in time, and nobody before it. Money that the
            owner asked back, from the pool or from this reserve, does not count.
    """
    liquid: uint256 = self._liquid()
    if self.withdrawal.ready_at != 0 and block.timestamp <= self.withdrawal.ready_at + DELAY:
        liquid -= min(liquid, self.withdrawal.amount)
    hard: uint256 = self.hard_deposit[beneficiary]
    leaving: Asked = self.hard_decrease[beneficiary]
    if leaving.ready_at != 0 and block.timestamp <= leaving.ready_at + DELAY:
        hard -= min(hard, leaving.amount)
    return self.paid_out[beneficiary] + hard + liquid


@internal
def _send(to: address, amount: uint256):
    assert extcall TOKEN.transfer(to, amount, default_return_value=True), "transfer"


@view
@internal
def _check(digest: bytes32, v: uint8, r: bytes32, s: bytes32):
    assert convert(s, uint256) <= HALF_ORDER, "high s"
    signer: address = ecrecover(digest, v, r, s)
    assert signer != empty(address) and signer == ISSUER, "signature"


@internal
def _redeem(one: Redemption, recipient: address) -> uint256:
    message: bytes32 = keccak256(abi_encode(CHEQUE_TYPE, one.beneficiary, one.cumulative, one.serial))
    self._check(keccak256(concat(b"\x19\x01", DOMAIN, message)), one.v, one.r, one.s)
    before: uint256 = self.paid_out[one.beneficiary]
    if one.cumulative <= before:
        return 0
    wanted: uint256 = one.cumulative - before
    hard: uint256 = self.hard_deposit[one.beneficiary]
    paid: uint256 = min(wanted, hard + self._liquid())
    from_hard: uint256 = min(paid, hard)
    if from_hard > 0:
        self.hard_deposit[one.beneficiary] = hard - from_hard
        self.total_hard -= from_hard
    self.paid_out[one.beneficiary] = before + paid
    log Redeemed(
        beneficiary=one.beneficiary,
        recipient=recipient,
        paid=paid,
        cumulative=one.cumulative,
        bounced=paid < wanted,
    )
    if paid > 0:
        self._send(recipient, paid)
    return paid


@external
@nonreentrant
def redeem(one: Redemption, recipient: address) -> uint256:
    """
    @notice Pay what a cheque says beyond what was paid; less when there is less. The amount paid is the return value:
            a cheque with nothing behind it succeeds and pays nothing.
    @dev Anybody may bring a cheque, but only its beneficiary may name another recipient
    """
    assert recipient == one.beneficiary or msg.sender == one.beneficiary, "recipient"
    return self._redeem(one, recipient)


@external
@nonreentrant
def redeem_many(several: DynArray[Redemption, MAX_BATCH]) -> uint256:
    """
    @notice Bring several cheques at once; each is paid to its beneficiary
    """
    paid: uint256 = 0
    for one: Redemption in several:
        paid += self._redeem(one, one.beneficiary)
    return paid


@external
def reserve(beneficiary: address, amount: uint256):
    """
    @notice Raise what only this beneficiary can be paid from
    """
    assert msg.sender == OWNER, "owner"
    assert amount <= self._liquid(), "liquid"
    self.hard_deposit[beneficiary] += amount
    self.total_hard += amount
    self.hard_decrease[beneficiary] = empty(Asked)
    log HardDeposit(beneficiary=beneficiary, amount=self.hard_deposit[beneficiary])


@external
def ask_release(beneficiary: address, amount: uint256):
    """
    @notice Ask to lower a reserve; it stays as it is for the delay
    """
    assert msg.sender == OWNER, "owner"
    assert amount <= self.hard_deposit[beneficiary], "reserve"
    self.hard_decrease[beneficiary] = Asked(amount=amount, ready_at=block.timestamp + DELAY)


@external
def release(beneficiary: address):
    asked: Asked = self.hard_decrease[beneficiary]
    assert self._is_ready(asked), "delay"
    amount: uint256 = min(asked.amount, self.hard_deposit[beneficiary])
    self.hard_decrease[beneficiary] = empty(Asked)
    self.hard_deposit[beneficiary] -= amount
    self.total_hard -= amount
    log HardDeposit(beneficiary=beneficiary, amount=self.hard_deposit[beneficiary])


@external
def ask_withdrawal(amount: uint256):
    """
    @notice Ask for money back; cheques go first for the delay
    """
    assert msg.sender == OWNER, "owner"
    self.withdrawal = Asked(amount=amount, ready_at=block.timestamp + DELAY)
    log WithdrawalAsked(amount=amount, ready_at=block.timestamp + DELAY)


@external
@nonreentrant
def withdraw() -> uint256:
    assert msg.sender == OWNER, "owner"
    asked: Asked = self.withdrawal
    assert self._is_ready(asked), "delay"
    self.withdrawal = empty(Asked)
    amount: uint256 = min(asked.amount, self._liquid())
    log Withdrawn(amount=amount)
    if amount > 0:
        self._send(OWNER, amount)
    return amount


@external
@nonreentrant
def stake(renter: address, amount: uint256, until: uint256):
    """
    @notice Lock tokens of the owner for one renter until a time; more may be added, and the time only moves on
    """
    assert msg.sender == OWNER, "owner"
    before: Stake = self.stake_of[renter]
    assert until >= before.until and until > block.timestamp, "until"
    self.stake_of[renter] = Stake(amount=before.amount + amount, until=until)
    self.total_staked += amount
    assert extcall TOKEN.transferFrom(OWNER, self, amount, default_return_value=True), "transfer"
    log Staked(renter=renter, amount=before.amount + amount, until=until)


@external
@nonreentrant
def slash(renter: address, amount: uint256, v: uint8, r: bytes32, s: bytes32) -> uint256:
    """
    @notice Pay a renter from its stake, by a claim that the issuer signed; each claim counts once
    """
    message: bytes32 = keccak256(abi_encode(SLASH_TYPE, renter, amount, self.slashes[renter]))
    self._check(keccak256(concat(b"\x19\x01", DOMAIN, message)), v, r, s)
    self.slashes[renter] += 1
    paid: uint256 = min(amount, self.stake_of[renter].amount)
    self.stake_of[renter].amount -= paid
    self.total_staked -= paid
    log Slashed(renter=renter, amount=paid)
    if paid > 0:
        self._send(renter, paid)
    return paid


@external
def unstake(renter: address):
    """
    @notice When its time is over a stake becomes liquid again
    """
    one: Stake = self.stake_of[renter]
    assert block.timestamp >= one.until, "until"
    self.stake_of[renter] = empty(Stake)
    self.total_staked -= one.amount
