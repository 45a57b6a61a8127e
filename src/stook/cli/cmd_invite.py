"""`stook invite`: let others into the network of this farmer."""

from __future__ import annotations

from pathlib import Path

import click

from stook.cli.output import emit, human_time, plural, say
from stook.cli.run import json_option, pass_home, passphrase_for
from stook.config import parse_duration_ms


@click.group("invite")
def invite_command() -> None:
    """Let others into the network of the farmer in this home: make, list and take back invites."""


@invite_command.command("create")
@click.option("--expires", default="7 d", show_default=True, help="How long the code can be used.")
@click.option("--label", default="", metavar="WORDS", help="For whom it is, in your own words; stays here.")
@click.option("--membership", default="1830 d", show_default=True, help="How long they belong to a private grid.")
@click.option("--may-invite", is_flag=True, help="Let them invite others, who may not. Only for the owner of a grid.")
@json_option
@pass_home
def create_command(home: Path, /, expires: str, label: str, membership: str, may_invite: bool, as_json: bool) -> None:
    """Print a code that lets one node in, once.

    Whoever gets it runs `stook join CODE`, while this farmer runs. The code holds a secret: send it as you would a
    password. In a private grid it makes a member; in an open network it only says where to enter.
    """
    from stook.assembly import KEY_FILE
    from stook.joining import make_invite

    invite = make_invite(
        home,
        life_ms=parse_duration_ms(expires),
        membership_ms=parse_duration_ms(membership),
        label=label,
        may_invite=may_invite,
        passphrase=passphrase_for(home / KEY_FILE),
    )
    if as_json:
        emit(
            {
                "ok": True,
                "invite": invite.invite_id.hex(),
                "code": invite.code(),
                "network": invite.network,
                "private": bool(invite.owner_id),
                "expires_ms": invite.expires_ms,
            }
        )
        return
    say(invite.code())
    say()
    kind = "private grid" if invite.owner_id else "network"
    say(f"Lets one node into {kind} {invite.network}, once, until {human_time(invite.expires_ms)}:")
    say("  stook join CODE            to store things")
    say("  stook join CODE --farm     to rent out disk")


@invite_command.command("list")
@json_option
@pass_home
def list_command(home: Path, as_json: bool) -> None:
    """Say which invites were made here, and what became of them."""
    from stook.assembly import SystemClock
    from stook.joining import list_invites

    now_ms = SystemClock().now_ms()
    listed = list_invites(home)
    for one in listed:
        state = one.state(now_ms)
        member = one.redemption.member_id.hex() if one.redemption is not None else ""
        if as_json:
            emit(
                {
                    "invite": one.invite.invite_id.hex(),
                    "label": one.invite.label,
                    "state": state,
                    "may_invite": one.invite.may_invite,
                    "issued_ms": one.invite.issued_ms,
                    "expires_ms": one.invite.expires_ms,
                    "member": member,
                    "redeemed_ms": one.redemption.redeemed_ms if one.redemption is not None else 0,
                }
            )
            continue
        until = f"by {member[:16]}" if member else ""
        if state == "open":
            until = f"until {human_time(one.invite.expires_ms)}"
        say(f"{one.invite.invite_id.hex()[:16]}  {state:<10}  {until:<24}  {one.invite.label}".rstrip())
    if not as_json:
        say(f"{plural(len(listed), 'invite')}." if listed else "No invites yet: `stook invite create` makes one.")


@invite_command.command("revoke")
@click.argument("invite")
@json_option
@pass_home
def revoke_command(home: Path, invite: str, as_json: bool) -> None:
    """Take back an INVITE that nobody has used, named by the first digits of its id.

    Who has joined already stays a member: see `banned` in docs/settings.md.
    """
    from stook.joining import take_back

    taken = take_back(home, invite)
    if as_json:
        emit({"ok": True, "invite": taken.invite.invite_id.hex()})
    else:
        say(f"Invite {taken.invite.invite_id.hex()[:16]} can no longer be used.")
