"""The page of all commands, `docs/commands.md`, made of their own help: ``python -m stook.cli.reference``.

A test compares the page with what this makes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from stook.cli.main import cli

WIDTH = 100
_HEAD = """# Commands

What `stook COMMAND --help` says, made by `python -m stook.cli.reference docs/commands.md`; a test keeps them in step.
"""


def _commands(command: click.Command, parent: click.Context | None, name: str) -> Iterator[tuple[str, str]]:
    """The full name and help of a command and of all below it, in order."""
    context = click.Context(command, parent=parent, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
    context.help_option_names = ["-h", "--help"]
    with context:
        yield context.command_path, command.get_help(context)
        if isinstance(command, click.Group):
            for below in command.list_commands(context):
                found = command.get_command(context, below)
                if found is not None:
                    yield from _commands(found, context, below)


def page() -> str:
    """The whole page, in Markdown."""
    sections = [_HEAD]
    for path, text in _commands(cli, None, "stook"):
        sections.append(f"## `{path}`\n\n```text\n{text.rstrip()}\n```\n")
    return "\n".join(sections)


def main() -> None:
    """Write the page to the file named, or print it."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page(), encoding="utf-8")
    else:
        click.echo(page(), nl=False)


if __name__ == "__main__":
    main()
