"""The Celery application: queues, routes, thin handlers."""
