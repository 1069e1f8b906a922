"""AppWorker, PID 1 of each container."""
