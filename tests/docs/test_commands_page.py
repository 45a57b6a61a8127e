"""`docs/commands.md` is the commands' own help, and says everything a command takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from stook.cli.main import COMMANDS, cli
from stook.cli.reference import page

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for below in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), below)
            assert found is not None
            yield from commands(found, f"{name} {below}")


ALL = dict(commands(cli, "stook"))


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m stook.cli.reference docs/commands.md"


def test_every_command_is_on_the_page_once() -> None:
    headings = [line[4:-1] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("## `")]
    assert headings == list(ALL)
    assert {name.split()[1] for name in headings if " " in name} == set(COMMANDS)


@pytest.mark.parametrize("name", ALL)
def test_every_command_and_option_has_help(name: str) -> None:
    command = ALL[name]
    assert command.help, name
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"


@pytest.mark.parametrize("name", [name for name, command in ALL.items() if not isinstance(command, click.Group)])
def test_every_command_speaks_json(name: str) -> None:
    assert "--json" in {option for parameter in ALL[name].params for option in parameter.opts}
