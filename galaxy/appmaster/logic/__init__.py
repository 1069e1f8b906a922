"""What AppMaster decides, purely: jobs, pods, rollouts, endpoints, batches, sessions."""

from galaxy.appmaster.logic.appmaster import AppMaster
from galaxy.appmaster.logic.config import AppMasterConfig

__all__ = ["AppMaster", "AppMasterConfig"]
