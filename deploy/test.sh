#!/bin/sh
# Makes a virtual environment, installs what the tests need, and runs every test with tox.
#
#   sh deploy/test.sh                run everything, two environments at a time
#   sh deploy/test.sh -e unit        arguments go to tox
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/deploy/python.sh"
cd "$root"

# Commands that tests and benchmarks start, and the Debian package of each.
missing=
while read -r command package; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null 2>&1 || missing="$missing $package"
done <<'LIST'
redis-server redis-server
cron cron
bwrap bubblewrap
runc runc
crun crun
mkfs.ext4 e2fsprogs
losetup mount
ip iproute2
setpriv util-linux
LIST
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        # shellcheck disable=SC2086  # a list of words
        apt_install "for the tests" $missing || say "continuing without:$missing; tests that need them are skipped and say so"
    else
        say "not root: continuing without:$missing; tests that need them are skipped and say so"
    fi
fi

venv=$root/.tox/runner
make_venv "$venv" everybody
if ! "$venv/bin/python" -c 'import tox' 2>/dev/null; then
    "$venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check 'tox>=4' </dev/null || die "pip could not install tox"
fi

[ $# -gt 0 ] && exec "$venv/bin/python" -m tox run "$@" </dev/null
# Two at a time, in the order that the "depends" of tox.ini give.
exec "$venv/bin/python" -m tox run-parallel --parallel 2 --parallel-live --parallel-no-spinner </dev/null
