"""AppWorker: PID 1 of each container. It deploys, starts, stops, watches and reports the user's programs."""
