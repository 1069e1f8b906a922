"""``python -m galaxy.web``."""

from __future__ import annotations

import sys

from galaxy.errors import GalaxyError
from galaxy.web.command import web

if __name__ == "__main__":
    try:
        web()
    except GalaxyError as error:
        print(f"galaxy: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
