"""An option that takes one value is given once: the parser would keep the last one and say nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

from typer.core import TyperCommand, TyperGroup

from lipcert.errors import UsageError


class OnceCommand(TyperCommand):
    """A command that refuses an option given again."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; raises UsageError where an option of one value stands there twice."""
        _refuse_repeated(self, ctx, args)
        return super().parse_args(ctx, args)

    def get_help_option(self, ctx: Any) -> Any:
        """Return ``--help``, which takes no value and so names none."""
        return _bare(super().get_help_option(ctx))


class OnceGroup(TyperGroup):
    """A group of commands that refuses an option of its own given again."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; raises UsageError where an option of one value stands there twice."""
        _refuse_repeated(self, ctx, args)
        return super().parse_args(ctx, args)

    def get_help_option(self, ctx: Any) -> Any:
        """Return ``--help``, which takes no value and so names none."""
        return _bare(super().get_help_option(ctx))


def _bare(option: Any) -> Any:
    if option is not None:
        option.metavar = ""
    return option


def _refuse_repeated(command: Any, context: Any, arguments: list[str]) -> None:
    """Raise UsageError where an option of one value is given again; flags may be, they say the same twice."""
    if context.resilient_parsing:  # tab completion
        return
    _, _, order = command.make_parser(context).parse_args(args=list(arguments))
    for option, times in Counter(order).items():
        if times > 1 and option.param_type_name == "option" and not (option.multiple or option.is_flag):
            name = max(option.opts, key=len)
            several = " with its numbers separated by commas" if (option.metavar or "").endswith(",..") else ""
            raise UsageError(f"{name} is given {times} times: give it once{several}")
