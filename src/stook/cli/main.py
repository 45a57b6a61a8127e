"""The `stook` command: finds the subcommand, turns errors into sentences and exit codes, and nothing else.

Each command lives in a file of its own and is imported when it is used, so that `stook --help` answers at once.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import click

import stook
from stook.errors import BugError, StookError

COMMANDS: dict[str, str] = {
    "init": "cmd_init",
    "join": "cmd_join",
    "invite": "cmd_invite",
    "mb": "cmd_buckets",
    "rb": "cmd_buckets",
    "put": "cmd_put",
    "get": "cmd_get",
    "cat": "cmd_cat",
    "cp": "cmd_cp",
    "ls": "cmd_ls",
    "stat": "cmd_stat",
    "rm": "cmd_rm",
    "status": "cmd_status",
    "recover": "cmd_recover",
    "catalog": "cmd_catalog",
    "drill": "cmd_drill",
    "certificate": "cmd_certificate",
    "durability": "cmd_durability",
    "farmers": "cmd_farmers",
    "market": "cmd_market",
    "agent": "cmd_agent",
    "repair": "cmd_repair",
    "serve": "cmd_serve",
    "keys": "cmd_keys",
    "farm": "cmd_farm",
    "audit": "cmd_audit",
    "pay": "cmd_pay",
    "ledger": "cmd_ledger",
    "wallet": "cmd_wallet",
    "demo": "cmd_demo",
    "sim": "cmd_sim",
}


class Commands(click.Group):
    """A group whose commands are imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command object: the attribute of the command's own name in its module."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"stook.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. Whoever reads our output may stop reading: `stook ls photos | head` is no error."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # What is still buffered goes nowhere, so that the interpreter's last flush does not complain either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(stook.__version__, prog_name="stook")
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of this node's settings, keys and data. Default: $STOOK_HOME, or ~/.stook.",
)
@click.option("--debug", is_flag=True, help="Show the whole traceback when something goes wrong.")
@click.pass_context
def cli(ctx: click.Context, home: Path | None, debug: bool) -> None:
    """Encrypted, erasure-coded storage on other people's disks, under signed contracts.

    \b
    Try it:       stook demo
    Store:        stook init --seed URI;  stook mb photos;  stook put holiday.jpg photos/holiday.jpg
    Rent out:     stook farm init --capacity "100 GiB";  stook farm run
    Together:     stook invite create  there;  stook join CODE  here

    Remote names are BUCKET/NAME. Exit codes: 0 done, 2 wrong use, 3 not found, 4 conflict, 5 this machine
    (disk, permissions), 6 another node, 7 too few farmers or shards, 130 interrupted, 70 a bug of ours.
    """
    from stook.config import default_home

    ctx.obj = home or default_home()
    ctx.meta["stook.debug"] = debug


def _report(error: StookError, *, as_json: bool) -> None:
    if as_json:
        text = {"ok": False, "error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
        click.echo(json.dumps(text))
    click.echo(f"stook: {error}", err=True)


def _clean_up_when_ended() -> None:
    """Make SIGTERM and a closed terminal end a command as Ctrl-C does: with its processes and temporary files gone.

    A signal that is ignored (`nohup`) stays ignored; `farm run` and `agent run` put their own handlers over these.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))


def main() -> None:
    """Run the command line; the process's exit status says what happened (`stook --help`)."""
    arguments = sys.argv[1:]
    _clean_up_when_ended()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding lacks is shown escaped; it must not end the command.
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in arguments
    try:
        cli.main(args=arguments, prog_name="stook", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stook: interrupted; nothing half-written is visible, and running it again goes on", err=True)
        sys.exit(130)
    except StookError as error:
        if debug:
            traceback.print_exc()
        _report(error, as_json="--json" in arguments)
        sys.exit(error.exit_code)
    except Exception as error:
        # Nobody raised this on purpose, so it says nothing to a person: where it happened is what we need to know.
        traceback.print_exc()
        _report(
            BugError(f"a bug of ours: {error!r}. Please report it with the lines above"), as_json="--json" in arguments
        )
        sys.exit(BugError.exit_code)


if __name__ == "__main__":
    main()
