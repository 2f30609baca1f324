"""A group of commands of which one needs no name: `sibol evaluate HF_DIR ...` beside `sibol evaluate generate ...`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class _NamelessContext(TyperCommand.context_class):  # type: ignore[misc, valid-type]
    """Is called like its group in messages: "sibol evaluate", with nothing after it."""

    @property
    def command_path(self) -> str:
        return str(super().command_path).rstrip()


class NamelessCommand(TyperCommand):
    """The command of a `DefaultGroup` that needs no name; to be registered as hidden."""

    context_class = _NamelessContext


class DefaultGroup(TyperGroup):
    """Runs its one hidden command where the first word is no other command's name, with that command's --help.

    A folder named like a command is written ./NAME. The hidden command is a `NamelessCommand`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        completing = ctx.resilient_parsing and not args  # a shell asks what may stand here: the names of the others
        if not completing and (not args or args[0] not in self._named()):
            args = [self._nameless(), *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == self._nameless() else name, command, rest

    def _named(self) -> list[str]:
        return [name for name, command in self.commands.items() if not command.hidden]

    def _nameless(self) -> str:
        (name,) = (name for name, command in self.commands.items() if command.hidden)
        return name
