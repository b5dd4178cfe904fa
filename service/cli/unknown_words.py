"""Mistakes on the command line: one line says the mistake and the likely remedy, one names the help; exit code 2.

click, inside typer, writes four lines, and the usage before the mistake. No hint proposes less security.
"""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from forebay_server.service.cli import exit_codes

UsageError: Any = typer.BadParameter.__base__  # of the click that typer brings

OTHER_COMMANDS = {
    "build": "engine build",
    "check": "models check",
    "help": "--help",
    "list": "models list",
    "run": "serve",
    "search": "load search",
    "start": "serve",
    "version": "--version",
}
"""Words that other programs have, or that are commands of a group -> words after `forebay`."""
ADDRESS = "--address HOST:PORT"
OTHER_OPTIONS = {
    **dict.fromkeys(
        ("--bind", "--endpoint", "--grpc-port", "--host", "--listen", "--port", "--server", "--target", "--url"),
        ADDRESS,
    ),
    "-h": "--help",
    "-V": "--version",
}
"""The same for options, of commands that have the option named there."""
_NO_COMMAND = re.compile(r"No such command '(.*?)'\.")


@contextmanager
def in_plain_words(ctx: typer.Context) -> Iterator[None]:
    """Print the mistake that is met inside, and raise typer.Exit with exit code 2. `ctx` is that of `forebay`."""
    try:
        yield
    except UsageError as error:
        if type(error).show is not UsageError.show:  # a command without arguments: its help
            raise
        # Some errors of the parser have no context.
        where = f"{ctx.command_path} {ctx.invoked_subcommand or ''}" if error.ctx is None else error.ctx.command_path
        for line in lines_about(error, where.strip()):
            typer.echo(line, err=True)
        raise typer.Exit(exit_codes.USAGE) from None


def lines_about(error: Any, where: str) -> list[str]:  # noqa: ANN401 - click's UsageError
    """Return the lines to print about a mistake in the words after `where`."""
    if isinstance(getattr(error, "option_name", None), str) and hasattr(error, "possibilities"):
        return [f"forebay: there is no option {error.option_name}: {_about_option(error.option_name, error.ctx)}"]
    if (found := _NO_COMMAND.match(error.message)) is not None and error.ctx is not None:
        word, known = found[1], error.ctx.command.list_commands(error.ctx)
        others = OTHER_COMMANDS if error.ctx.parent is None else {"help": "--help"}
        meant = _meant(word, known, others)
        hint = f"did you mean `{where} {meant}`?" if meant else f"`{where} --help` lists them"
        return [f"forebay: there is no command {word!r}: {hint}"]
    message = error.format_message().removesuffix(".")
    return [f"forebay: {message[:1].lower()}{message[1:]}", f"`{where} --help` says more"]


def _about_option(option: str, ctx: Any) -> str:  # noqa: ANN401 - click's Context
    flags = {"--help"}.union(*((*each.opts, *each.secondary_opts) for each in ctx.command.params))
    others = {other: meant for other, meant in OTHER_OPTIONS.items() if meant.split()[0] in flags}
    if ctx.command_path == "forebay serve":  # an unknown option may be a setting without a flag
        from forebay_server.service.settings import option_hint

        return option_hint(option, flags, others)
    meant = _meant(option, flags, others)
    return f"did you mean {meant}?" if meant else f"`{ctx.command_path} --help` lists them"


def _meant(word: str, known: Collection[str], others: Mapping[str, str]) -> str:
    """Return the known word that is likely meant; empty if none is near."""
    begins_so = sorted(each for each in known if each.startswith(word) and len(word.strip("-")) > 1)
    found = [word] if word in others else begins_so or difflib.get_close_matches(word, [*known, *others], 1)
    return others.get(found[0], found[0]) if found else ""
