# Functions for the scripts in this folder: find a Python, create a virtual environment. POSIX sh.

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$0: $1"
    shift
    for line in "$@"; do say "  $line"; done
    exit 1
}

# Print the path of a Python 3.11 or newer: GALAXY_PYTHON, else the first on PATH. With the argument
# "everybody", prefer one that other users can run: only root can run a Python in root's home.
find_python() {
    first=
    for candidate in ${GALAXY_PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        path=$(command -v "$candidate" 2>/dev/null) || continue
        "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        first=${first:-$path}
        if [ "${1:-}" != everybody ] || everybody_runs "$path"; then
            printf '%s\n' "$path"
            return 0
        fi
    done
    if [ -n "$first" ]; then
        printf '%s\n' "$first"
        return 0
    fi
    die "no Python 3.11 or newer on PATH" \
        "Debian 12, Ubuntu 24.04 and newer: apt-get install python3 python3-venv" \
        "elsewhere: name one with GALAXY_PYTHON=/path/to/python3"
}

# Succeed if the user nobody can run the same Python as we can.
everybody_runs() {
    [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null 2>&1 || return 0
    home='import sys; print(sys.base_prefix, sys.version)'
    theirs=$(cd / && setpriv --reuid=65534 --regid=65534 --clear-groups "$1" -c "$home" 2>/dev/null) || return 1
    [ "$theirs" = "$("$1" -c "$home")" ]
}

# Install Debian packages; "$1" is the purpose. Refresh the package list only if the first try fails.
apt_install() {
    purpose=$1
    shift
    say "installing $* ($purpose)"
    export DEBIAN_FRONTEND=noninteractive
    # RUNLEVEL=1: install servers without starting them; Galaxy starts its own.
    if RUNLEVEL=1 apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" \
        >/dev/null 2>&1 </dev/null; then
        return 0
    fi
    apt-get update -q >/dev/null 2>&1 </dev/null || say "apt-get update failed; continuing with the existing list"
    RUNLEVEL=1 apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" >&2 </dev/null
}

# Create the virtual environment "$1" unless it exists and works; "$2" is as for find_python.
make_venv() {
    venv=$1
    if [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        return 0
    fi
    python=$(find_python "${2:-}") || exit 1
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
            apt_install "creates virtual environments" python3-venv || die "cannot install python3-venv"
        fi
        "$python" -c 'import ensurepip, venv' 2>/dev/null || die \
            "$python cannot create virtual environments: its ensurepip module is missing" \
            "on Debian and Ubuntu it is a separate package: apt-get install python3-venv"
    fi
    rm -rf "$venv"
    "$python" -m venv "$venv" || die "cannot create a virtual environment at $venv"
}
