"""ResMan's pure logic: from orders, reports and heartbeats to commands and statuses."""

from galaxy.resman.logic.config import ResManConfig
from galaxy.resman.logic.resman import ResMan

__all__ = ["ResMan", "ResManConfig"]
