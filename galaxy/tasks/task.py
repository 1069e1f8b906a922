"""The base class of Galaxy's Celery tasks."""

from __future__ import annotations

from celery import Task


class GalaxyTask(Task):
    """A task that takes any arguments, so that its handler answers a wrong call instead of Celery raising."""

    typing = False
    Request = "galaxy.tasks.outcomes:OutcomeRequest"
    resultrepr_maxsize = 200
