"""Joining: invites made and kept in a farmer's home, and homes made from an invite (`docs/protocol/joining.md`)."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from stook import config
from stook.assembly import (
    INVITES_FOLDER,
    KEY_FILE,
    MEMBERSHIP_FILE,
    SystemClock,
    advertised,
    farmer_address,
    gate_of,
    load_owner,
    make_endpoint,
    membership_of,
    new_owner_secrets,
    private_settings,
    system_entropy,
    with_puzzle,
)
from stook.codec import encode
from stook.config import FarmSettings, NodeSettings, RentSettings
from stook.errors import ConfigError, ConflictError, NotFoundError, ReasonCode, RefusedError, UserError
from stook.identity.contact import Address, AddressKind, ContactUri
from stook.identity.invite import (
    INVITE_VERSION,
    MAX_INVITE_ADDRESSES,
    MAX_LABEL_CHARS,
    SECRET_BYTES,
    Invite,
    KeptInvite,
    Redemption,
)
from stook.identity.keys import phrase_entropy
from stook.identity.keystore import OWNER_SECRETS_VERSION, OwnerSecrets, save_secrets
from stook.identity.membership import SignedMembership
from stook.ids import NetworkId, NodeId
from stook.overlay.joining import RedeemReply, redeem
from stook.storage.durable import faults, sync_directory, sync_file
from stook.storage.invite_store import InviteStore
from stook.wire.limits import Limits

MAX_INVITE_LIFE_MS = 366 * 86_400_000
MAX_MEMBERSHIP_LIFE_MS = 100 * 366 * 86_400_000
MAX_SEEDS = 8
_GAVE_NOTHING = frozenset({ReasonCode.INVITE_UNKNOWN, ReasonCode.INVITE_EXPIRED, ReasonCode.INVITE_SPENT})
"""Refusals after which new keys are worth nothing; after any other the issuer may have let them in."""
KEPT_AFTER_END_MS = 30 * 86_400_000


@dataclass(frozen=True, slots=True)
class ListedInvite:
    """An invite, and what became of it."""

    invite: KeptInvite
    redemption: Redemption | None

    def state(self, now_ms: int) -> str:
        """``open``, ``used``, ``taken back`` or ``expired``."""
        if self.redemption is not None:
            return "used" if self.redemption.member_id else "taken back"
        return "open" if self.invite.expires_ms > now_ms else "expired"


# --- the issuer ------------------------------------------------------------------------------------------------------


def make_invite(
    home: Path, *, life_ms: int, membership_ms: int, label: str, may_invite: bool, passphrase: str | None
) -> Invite:
    """An invite to the network of the farmer in `home`, which has to run when it is used. It is kept first.

    Raises `ConfigError` for a home that is no farmer's, has no address others can call, or may not invite.
    """
    settings = config.load_settings(home, "farm")
    node = settings.node
    key = load_owner(home, passphrase).tree().node_key()
    now_ms = SystemClock().now_ms()
    if len(label) > MAX_LABEL_CHARS:
        raise UserError(f"a label has at most {MAX_LABEL_CHARS} characters")
    if not 0 < life_ms <= MAX_INVITE_LIFE_MS or not 0 < membership_ms <= MAX_MEMBERSHIP_LIFE_MS:
        raise UserError("an invite is good for at most a year, a membership for at most a hundred")
    gate = gate_of(home, node)
    if gate is not None and key.node_id != gate.owner_id:
        own = membership_of(home)
        if own is None or not own.membership.may_invite:
            raise ConfigError("this node may not invite others: ask the owner of the grid for an invite that lets it")
        if may_invite:
            raise ConfigError("only the owner of the grid can let others invite")
        if own.membership.expires_ms <= now_ms:
            raise ConfigError("this node's own membership is over: ask the owner of the grid for a new invite")
    secret = system_entropy(SECRET_BYTES)
    invite = Invite(
        version=INVITE_VERSION,
        network=NetworkId(node.network),
        issuer_id=key.node_id,
        addresses=_callable(advertised(node, farmer_address(node))),
        secret=secret,
        expires_ms=now_ms + life_ms,
        owner_id=b"" if gate is None else gate.owner_id,
        puzzle_bits=node.puzzle_bits,
    )
    kept = KeptInvite(
        INVITE_VERSION,
        invite.invite_id,
        label,
        may_invite and gate is not None,
        membership_ms,
        now_ms,
        now_ms + life_ms,
    )
    store = _store(home)
    _forget_old(store, now_ms)
    store.add(kept)
    return invite


def _forget_old(store: InviteStore, now_ms: int) -> None:
    """Those that ended long ago: whoever used one has had time to ask again for an answer that was lost."""
    for invite in store.all():
        ended = store.redemption(invite.invite_id)
        if max(invite.expires_ms, 0 if ended is None else ended.redeemed_ms) < now_ms - KEPT_AFTER_END_MS:
            store.forget(invite.invite_id)


def _callable(addresses: Sequence[Address]) -> tuple[Address, ...]:
    for address in addresses:
        try:
            everywhere = ipaddress.ip_address(address.host).is_unspecified
        except ValueError:
            everywhere = False
        if everywhere:
            raise ConfigError(f"nobody can call {address.host}: write how others reach this node into advertise")
    return tuple(addresses[:MAX_INVITE_ADDRESSES])


def list_invites(home: Path) -> list[ListedInvite]:
    """The invites of the farmer in `home`, the newest first."""
    config.load_settings(home, "farm")
    store = _store(home)
    return [ListedInvite(invite, store.redemption(invite.invite_id)) for invite in store.all()]


def take_back(home: Path, name: str) -> ListedInvite:
    """End the open invite whose id begins with the hex digits `name`.

    Raises `NotFoundError` when there is none, `UserError` when there are several, `ConflictError` when it was used.
    """
    found = [one for one in list_invites(home) if one.invite.invite_id.hex().startswith(name.lower())]
    if not found:
        raise NotFoundError(f"no invite begins with {name}")
    if len(found) > 1:
        raise UserError(f"{len(found)} invites begin with {name}: write more of it")
    now_ms = SystemClock().now_ms()
    ended = Redemption(INVITE_VERSION, found[0].invite.invite_id, b"", now_ms, None)
    if not _store(home).end(ended):
        raise ConflictError("that invite was used, or taken back, already")
    return ListedInvite(found[0].invite, ended)


def _store(home: Path) -> InviteStore:
    return InviteStore(home / INVITES_FOLDER, system_entropy)


# --- the invited -----------------------------------------------------------------------------------------------------


async def join_as_renter(
    home: Path,
    invite: Invite,
    rent: RentSettings,
    *,
    lan: str = "",
    phrase: str | None = None,
    passphrase: str | None = None,
) -> str:
    """Make a renter's home from an invite; returns the 24 words.

    Raises `RefusedError` with the issuer's code, `PeerError` when it cannot be reached, `ConfigError` when the home
    holds a node already. Run again after any stop, the same invite goes on where it was.
    """
    secrets = await _join(home, invite, NodeSettings(lan=lan), {"rent": rent}, phrase, passphrase)
    return secrets.phrase()


async def join_as_farmer(
    home: Path, invite: Invite, node: NodeSettings, farm: FarmSettings, *, passphrase: str | None = None
) -> str:
    """Make a farmer's home from an invite; returns its contact URI. Raises as `join_as_renter`."""
    host, port = farmer_address(node)
    secrets = await _join(home, invite, node, {"farm": farm}, None, passphrase)
    return str(ContactUri(Address(AddressKind.DIRECT, host, port), secrets.tree().node_key().node_id))


async def _join(
    home: Path,
    invite: Invite,
    node: NodeSettings,
    role: dict[str, msgspec.Struct],
    phrase: str | None,
    passphrase: str | None,
) -> OwnerSecrets:
    """Keys, then the issuer's word, then the settings: only they make a home, so a stop in between is no half node."""
    node = msgspec.structs.replace(
        node,
        network=invite.network,
        seeds=invite.seeds,
        puzzle_bits=invite.puzzle_bits,
    )
    if invite.owner_id:
        node = private_settings(node, NodeId(invite.owner_id))
    config.settings_to_write(home, {"node": node, **role})
    fresh = not (home / KEY_FILE).exists()
    secrets = _new_secrets(invite, phrase) if fresh else _interrupted(home, invite, phrase, passphrase)
    key = secrets.tree().node_key()
    node = with_puzzle(node, key)
    if fresh:
        save_secrets(home / KEY_FILE, secrets, entropy=system_entropy, passphrase=passphrase)
    clock = SystemClock()
    endpoint = make_endpoint(key, node, Limits(), clock)
    try:
        reply = await redeem(endpoint, invite, now_ms=clock.now_ms())
    except RefusedError as refusal:
        if fresh and refusal.code in _GAVE_NOTHING:
            (home / KEY_FILE).unlink()
        raise
    finally:
        await endpoint.close(grace_seconds=1)
    if reply.membership is not None:
        _write_membership(home / MEMBERSHIP_FILE, reply.membership)
    node = msgspec.structs.replace(node, seeds=_seeds(invite, reply))
    config.write_settings(home, {"node": node, **role})
    return secrets


def _new_secrets(invite: Invite, phrase: str | None) -> OwnerSecrets:
    if phrase is None:
        return new_owner_secrets(invite.network)
    return OwnerSecrets(OWNER_SECRETS_VERSION, NetworkId(invite.network), phrase_entropy(phrase), "")


def _interrupted(home: Path, invite: Invite, phrase: str | None, passphrase: str | None) -> OwnerSecrets:
    """The keys of a join that was stopped: its issuer may know them already."""
    secrets = load_owner(home, passphrase)
    if secrets.network != invite.network or (phrase is not None and phrase_entropy(phrase) != secrets.entropy):
        raise ConfigError(f"{home / KEY_FILE} holds the keys of another join that was stopped: move it away first")
    return secrets


def _seeds(invite: Invite, reply: RedeemReply) -> tuple[str, ...]:
    uris = list(invite.seeds)
    for contact in reply.seeds:
        direct = [one for one in contact.contact.addresses if one.kind is AddressKind.DIRECT]
        uri = str(ContactUri(direct[0], contact.node_id)) if direct else ""
        with suppress(ConfigError):  # a contact may hold hosts that no setting may
            uris.append(str(ContactUri.parse(uri)))
    return tuple(dict.fromkeys(uris))[:MAX_SEEDS]


def _write_membership(path: Path, membership: SignedMembership) -> None:
    """Durable before the settings are, which make the home a member's."""
    fresh = path.with_name(f"{path.name}.new")
    with faults(f"writing {path}"):
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(encode(membership))
            file.flush()
            sync_file(file.fileno())
        os.replace(fresh, path)
        sync_directory(path.parent)
