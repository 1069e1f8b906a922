"""``python -m galaxy.web``."""

from __future__ import annotations

import sys

import click

from galaxy.errors import USAGE, GalaxyError
from galaxy.web.command import web

if __name__ == "__main__":
    try:
        web.main(standalone_mode=False)
    except click.ClickException as error:
        print(f"galaxy: {error.format_message()}", file=sys.stderr)
        sys.exit(USAGE)
    except GalaxyError as error:
        print(f"galaxy: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
