#!/bin/sh
# Start a cluster on this machine and run the example on it; Ctrl-C stops all of it.
#
#   sh deploy/quickstart.sh [options of galaxy up, such as --dir DIR or --detach]
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/deploy/python.sh"

venv=${GALAXY_VENV:-$root/.quickstart/venv}
stamp=$venv/.installed

make_venv "$venv"
if [ ! -e "$stamp" ] || [ "$root/pyproject.toml" -nt "$stamp" ]; then
    say "installing Galaxy into $venv (the first time downloads its packages)"
    # --no-compile: Python compiles modules on import; compiling all of them here would dominate the install.
    "$venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check -e "$root[server]" \
        >"$venv/install.log" 2>&1 </dev/null || {
        tail -n 20 "$venv/install.log" >&2
        die "pip could not install Galaxy" "the lines above say why; run this again when that is fixed"
    }
    : >"$stamp"
fi

# Package the example the way a user would: an archive beside the job file.
mkdir -p "$root/examples/hello/build"
tar -czf "$root/examples/hello/build/hello-1.0.0.tar.gz" -C "$root/examples/hello" hello.py

exec "$venv/bin/galaxy" up --run "$root/examples/hello/job.yaml" --cron "$root/examples/nightly/job.yaml" "$@"
