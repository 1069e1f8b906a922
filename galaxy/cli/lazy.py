"""Groups of commands that import a command only when it is used, to keep start-up fast."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, NamedTuple

import click
from click.core import ParameterSource

from galaxy.cli import streams


class LazyCommand(NamedTuple):
    """Where a command is (``module:attribute``), and its line in the help of its group."""

    target: str
    help: str = ""
    section: str = "Commands"
    hidden: bool = False


class Command(click.Command):
    """A command whose help shows examples verbatim, and whose options refuse empty values.

    An empty value is usually an unset variable of a script: ``galaxy down --dir "$DIR"`` must
    not stop the default cluster.
    """

    acts: ClassVar[bool] = False
    """Whether the command does more than print: it goes on when its output cannot be written, and
    its exit code says how the work went."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def invoke(self, ctx: click.Context) -> Any:
        streams.make_output_essential(essential=not self.acts)
        for param in self.params:
            if param.name is None or ctx.params.get(param.name) != "" or not isinstance(param, click.Option):
                continue
            if ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
                raise click.BadParameter("it is empty; give a value, or leave the option out", ctx, param)
        return super().invoke(ctx)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.strip("\n").splitlines():
                    formatter.write(f"{line}\n")


class Action(Command):
    """A command whose product is not its output."""

    acts = True


FOREIGN: Final[Mapping[str, str]] = {
    "apply": "job run", "create": "job run", "delete": "job remove", "help": "-h", "hosts": "agent list",
    "node": "agent list", "nodes": "agent list",
    "host": "agent list", "machine": "agent list",
    "machines": "agent list", "ps": "job list", "rollout": "job update",
    "ssh": "exec", "tail": "logs -f",
}  # fmt: skip
"""Commands of other systems."""


class LazyGroup(Command, click.Group):
    """A group whose ``lazy`` commands are imported on use. ``aliases`` map other names to commands."""

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, LazyCommand] | None = None,
        aliases: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})
        self.aliases = dict(aliases or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        visible = [name for name, lazy in self.lazy.items() if not lazy.hidden]
        return [*visible, *(name for name in super().list_commands(ctx) if name not in self.lazy)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = self.aliases.get(cmd_name, cmd_name)
        command = super().get_command(ctx, name)
        if command is not None or name not in self.lazy:
            return command
        module, _, attribute = self.lazy[name].target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), self.lazy[name].target
        self.add_command(command, name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        command = self.get_command(ctx, args[0])
        if command is None:
            guess = self._suggestion(ctx, args[0])
            hint = f"; did you mean `{guess}`?" if guess else ""
            raise click.UsageError(f'no command "{args[0]}"{hint}', ctx)
        return command.name, command, args[1:]

    def _suggestion(self, ctx: click.Context, wrong: str) -> str:
        """Return the command that was probably meant: of this group, or a whole command line."""
        from galaxy.suggest import nearest  # difflib is needed only after a mistake.

        if wrong in FOREIGN:
            return f"{ctx.find_root().command_path} {FOREIGN[wrong]}"
        lines = dict(_command_lines(ctx.find_root()))
        own = {name: name for name in self.list_commands(ctx)} | self.aliases
        # What another group has under exactly this name is nearer than something similar here.
        return (lines | own).get(nearest(wrong, {*lines, *own}), "")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            lazy = self.lazy.get(name)
            if lazy is not None:
                sections.setdefault(lazy.section, []).append((name, lazy.help))
            elif (command := self.get_command(ctx, name)) is not None and not command.hidden:
                sections.setdefault("Commands", []).append((name, command.get_short_help_str(80)))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows)


def _command_lines(root: click.Context) -> Iterator[tuple[str, str]]:
    """Yield the last word of each visible command and all of its words; commands of the root come last."""
    group = root.command
    assert isinstance(group, LazyGroup)
    names = sorted(group.list_commands(root), key=lambda name: name == "job")  # Its commands win.
    commands = [(name, group.get_command(root, name)) for name in names]
    for name, command in commands:
        if isinstance(command, LazyGroup):
            for inner in command.list_commands(root):
                yield inner, f"{root.command_path} {name} {inner}"
    for name, _ in commands:
        yield name, f"{root.command_path} {name}"
