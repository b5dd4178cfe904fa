"""Mistyped options of `forebay serve` and mistyped commands: the message names the likely setting or command."""

import difflib
from collections.abc import Collection
from typing import Any

import typer
from typer.core import TyperCommand

UsageError: Any = typer.BadParameter.__base__  # of the click that typer brings


class ServeCommand(TyperCommand):
    """`forebay serve`: an unknown option may be a setting without a flag. No hint proposes less security."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - click's
        """Read the words after the command."""
        try:
            return list(super().parse_args(ctx, args))
        except UsageError as error:
            option = getattr(error, "option_name", None)
            if not isinstance(option, str) or not hasattr(error, "possibilities"):
                raise
            from forebay_server.service.settings import option_hint

            flags = {name for parameter in self.params for name in parameter.opts}
            raise UsageError(f"there is no option {option}: {option_hint(option, flags)}", ctx) from None


def nearest(word: str, known: Collection[str]) -> str:
    """Return `: did you mean X?` for a mistyped word; empty if no known one is near."""
    found = difflib.get_close_matches(word, known, 1)
    return f": did you mean {found[0]!r}?" if found else ""
