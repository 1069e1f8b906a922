"""Operations on the cluster as a whole."""

from __future__ import annotations

from typing import ClassVar

from galaxy.model.api.body import Body
from galaxy.model.api.views import ClusterStatusView


class ClusterStatus(Body[ClusterStatusView], frozen=True, kw_only=True):
    """Show leaders, counts and totals of the cluster."""

    op: ClassVar[str] = "galaxy.cluster.status"
