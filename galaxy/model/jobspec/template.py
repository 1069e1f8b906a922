"""A job file to start from: short, commented and valid."""

from __future__ import annotations

from typing import Final

from galaxy.model.jobspec.spec import JobType

_HEAD: Final = """\
# A job of Galaxy. Check it with `galaxy job validate FILE`, run it with `galaxy job run FILE`.
# Sizes are 1024-based (64M, 2G), CPU is millicores or cores (250m, 0.25), times have units (30s, 5m).
name: {name}
type: {type}              # monitor, service or batch; this is the order of importance

deploy:
  replica: {replica}            # pods, each in a container of its own
"""

_DEPLOY_SERVICE: Final = """\
  step: 1               # pods down at once in an update
  interval: 0s          # pause between them, after the last one became healthy
  drain: 2s             # from withdrawing a pod's endpoints to stopping it
"""

_DEPLOY: Final = """\
  max_per_host: 0       # 0 means no limit
  # pools: [main]       # any pool when left out
  # tag: ssd            # only agents with this tag
  # spread: rack        # evenly over the values of this label; also require, forbid, prefer
  # anti_affinity: [db] # no host with a pod of these jobs; also affinity
  stop_timeout: 30s     # SIGTERM to SIGKILL

pod:
  workspace: 64M        # where the program starts; also {{path, size, medium: disk or tmpfs}}
  # volumes:
  #   - path: /home/data
  #     size: 1G
  tasks:
    - name: main
      cpu: 250m         # a hard quota; {{millicores: 250, excess: true}} is a share instead
      memory: 64M       # a hard limit; beyond it the program is killed
      pids: 128         # processes and threads at most
"""

_SERVICE: Final = """\
      ports:
        - name: http    # handed over as GALAXY_PORT_HTTP
          port: dynamic # or a number from 1025 to 65535
      # package:                          # unpacked into the workspace before the start
      #   source: build/app-1.0.0.tar.gz  # a path, or a URL: http, https, ftp, s3, hdfs
      #   version: 1.0.0
      start: exec python3 -m http.server "$GALAXY_PORT_HTTP"
      # stop: ./stop.sh                   # SIGTERM when left out
      env:
        GREETING: hello
      restart:
        policy: always  # always, on-failure or never
      health:
        type: http      # http, tcp or command
        port: http
        path: /
        interval: 2s
      services:
        - name: {service}
          port: http
"""

_BATCH: Final = """\
      # package:                          # unpacked into the workspace before the start
      #   source: build/app-1.0.0.tar.gz  # a path, or a URL: http, https, ftp, s3, hdfs
      #   version: 1.0.0
      start: echo "hello from $GALAXY_POD_ID"
      restart:
        policy: on-failure  # a pod that exits 0 is finished and never runs again
        attempts: 3
"""


def template(name: str, type_: JobType) -> str:
    """Return a commented job file in YAML for a job called ``name``."""
    batch = type_ is JobType.BATCH
    parts = (_HEAD, "" if batch else _DEPLOY_SERVICE, _DEPLOY, _BATCH if batch else _SERVICE)
    return "".join(parts).format(name=name, type=type_.value, replica=1 if batch else 2, service=name)
