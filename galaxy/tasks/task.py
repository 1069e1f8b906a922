"""What every Celery task of Galaxy has in common."""

from __future__ import annotations

from celery import Task


class GalaxyTask(Task):
    """A handler of ours; takes any arguments, so that a wrong call is answered, not raised."""

    typing = False
    resultrepr_maxsize = 200
