"""``galaxy completion``: the script with which a shell completes commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from galaxy.cli.lazy import Command
from galaxy.cli.output import print_out


@click.command(
    cls=Command,
    examples="""\
  galaxy completion bash > ~/.local/share/bash-completion/completions/galaxy
  galaxy completion zsh > "${fpath[1]}/_galaxy"
  galaxy completion fish > ~/.config/fish/completions/galaxy.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, /, shell: str) -> None:
    """Print the completion script for a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    root = ctx.find_root().command
    print_out(kind(root, {}, "galaxy", "_GALAXY_COMPLETE").source(), raw=True)
