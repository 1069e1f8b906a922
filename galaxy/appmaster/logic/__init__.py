"""AppMaster's pure logic: jobs, pods, rollouts, runs, endpoints, identity and sessions."""

from galaxy.appmaster.logic.appmaster import AppMaster
from galaxy.appmaster.logic.config import AppMasterConfig

__all__ = ["AppMaster", "AppMasterConfig"]
