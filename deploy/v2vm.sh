#!/bin/sh
# Runs a command as root in a virtual machine whose kernel has cgroup v2 only.
#
#   sh deploy/v2vm.sh [--optional] COMMAND [ARGUMENT...]
#
# The machine's root is this host's file system under an overlay in memory: the command finds the same
# files, and nothing that it writes reaches the host. /tmp, /var/tmp and /run are the machine's own;
# the host's are below /run/host. Output and exit status are the command's. Exit status 125: the
# machine ended before the command did; 124: it took too long. With --optional, a host that cannot run
# the machine says so and exits with 0.
#
# Needs root, x86_64 and Debian's qemu-system-x86. The package is installed and a kernel (unpacked
# below .tox, not installed) is downloaded when they are missing. Uses KVM where the processor has it;
# otherwise the processor is emulated, and programs are about fifteen times slower.
#
#   GALAXY_V2_TIMEOUT_S   the time limit in seconds: 600, emulated 1500
#   GALAXY_V2_ACCEL       kvm or tcg, instead of detecting it
#   GALAXY_V2_MEMORY_MIB  the machine's memory: 2048
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/deploy/python.sh"

optional=
if [ "${1:-}" = --optional ]; then
    optional=yes
    shift
fi
[ $# -gt 0 ] || die "no command" "sh deploy/v2vm.sh COMMAND [ARGUMENT...]"

# Say why this host cannot run the machine, and exit.
cannot() {
    if [ -n "$optional" ]; then
        say "SKIPPED, nothing was tested on cgroup v2: $1"
        exit 0
    fi
    die "cannot run a virtual machine: $1"
}

[ "$(id -u)" = 0 ] || cannot "not root"
[ "$(uname -m)" = x86_64 ] || cannot "only x86_64 is supported, this is $(uname -m)"

find_virtiofsd() {
    for daemon in /usr/lib/qemu/virtiofsd /usr/libexec/virtiofsd; do
        [ ! -x "$daemon" ] || return 0
    done
    return 1
}

if ! command -v qemu-system-x86_64 >/dev/null || ! find_virtiofsd; then
    command -v apt-get >/dev/null || cannot "no qemu-system-x86_64 with virtiofsd, and no apt-get to install them"
    apt_install "a machine with cgroup v2" qemu-system-x86 || die "cannot install qemu-system-x86"
    find_virtiofsd || apt_install "shares files with the machine" virtiofsd || die "cannot install virtiofsd"
    find_virtiofsd || die "the packages qemu-system-x86 and virtiofsd contain no virtiofsd"
fi

# Debian's cloud kernel has virtiofs built in since 6.12. It is unpacked elsewhere and then renamed, so
# that an interrupted download leaves no incomplete kernel.
kernel=$root/.tox/v2vm/kernel
if [ ! -d "$kernel" ]; then
    command -v apt-get >/dev/null || cannot "no kernel in $kernel, and no apt-get to fetch one"
    for meta in linux-image-6.12-cloud-amd64 linux-image-cloud-amd64; do
        package=$(apt-cache depends "$meta" 2>/dev/null | awk '/Depends:/ {print $2; exit}')
        if [ -z "$package" ] && [ -z "${updated:-}" ]; then
            apt-get update -q >/dev/null 2>&1 </dev/null || say "apt-get update failed; continuing with the existing list"
            updated=yes
            package=$(apt-cache depends "$meta" 2>/dev/null | awk '/Depends:/ {print $2; exit}')
        fi
        [ -z "$package" ] || break
    done
    [ -n "$package" ] || die "the package list has no linux-image-6.12-cloud-amd64 and no linux-image-cloud-amd64"
    say "fetching $package (boots the machine; not installed)"
    new=$root/.tox/v2vm/new.$$
    mkdir -p "$new/root"
    (
        cd "$new"
        fetch() { apt-get download -q -o APT::Sandbox::User=root "$package" >/dev/null 2>&1 </dev/null; }
        fetch || { apt-get update -q >/dev/null 2>&1 </dev/null && fetch; }
        dpkg-deb -x ./*.deb root
    ) || { rm -rf "$new"; die "cannot fetch $package"; }
    grep -qs '/virtiofs.ko' "$new"/root/lib/modules/*/modules.builtin ||
        { rm -rf "$new"; die "virtiofs is not built into $package" "6.12 or newer is needed"; }
    mv -T "$new/root" "$kernel" 2>/dev/null || [ -d "$kernel" ] || die "cannot write $kernel"
    rm -rf "$new"
fi

accel=${GALAXY_V2_ACCEL:-}
if [ -z "$accel" ]; then
    # Without these flags /dev/kvm runs only guests prepared for it.
    if [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then accel=kvm; else accel=tcg; fi
fi
# NumPy's wheels need these instructions. More of them would make the emulation slower.
case $accel in
    kvm) processor=host limit=600 ;;
    *) processor=qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt limit=1500 && say "no KVM: the processor is emulated, about fifteen times slower" ;;
esac
limit=${GALAXY_V2_TIMEOUT_S:-$limit}
memory=${GALAXY_V2_MEMORY_MIB:-2048}M

work=$(mktemp -d /var/tmp/galaxy-v2vm-XXXXXX)
files='' machine='' reader=''
finish() {
    trap '' INT TERM HUP
    # shellcheck disable=SC2086  # a list of pids
    [ -z "$machine$files$reader" ] || kill $machine $files $reader 2>/dev/null || true
    wait
    rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

quoted() { for word in "$@"; do printf "'%s' " "$(printf %s "$word" | sed "s/'/'\\\\''/g")"; done; }
{
    export -p | grep -E '^export (PATH|PYTHON[A-Z]*|PYTEST_[A-Z_]*|VIRTUAL_ENV|CI|GALAXY_TEST_[A-Z0-9_]*)=' || true
    printf 'cd %s\nexec %s\n' "$(quoted "$PWD")" "$(quoted "$@")"
} >"$work/command"
cp "$root/deploy/v2vm-init.sh" "$work/init"
chmod +x "$work/init"
mkfifo "$work/console"
mkdir "$work/root"

# Boot the machine once, and return when the emulator has ended.
boot() {
    rm -f "$work/socket" "$work/disk" "$work/status"
    truncate -s 64M "$work/disk"  # A disk for tests of io weights.
    truncate -s 4K "$work/status"
    # A read-only mount: nothing in the machine can change the host's files.
    unshare -m sh -c "mount --bind / '$work/root' && mount -o remount,bind,ro '$work/root' && exec '$daemon' \
        --socket-path='$work/socket' -o source='$work/root' -o cache=always -o sandbox=chroot --rlimit-nofile=0" \
        >"$work/files.log" 2>&1 &
    files=$!
    tries=0
    while [ ! -S "$work/socket" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 200 ] || ! kill -0 "$files" 2>/dev/null; then
            cat "$work/files.log" >&2
            die "virtiofsd did not start"
        fi
        sleep 0.05
    done

    sed -u -e 's/\r$//' -e '/\] reboot: /d' <"$work/console" &
    reader=$!
    timeout -k 5 "$((limit - ($(date +%s) - began)))" qemu-system-x86_64 -M pc,memory-backend=memory -accel "$accel" -cpu "$processor" -smp 2 \
        -m "$memory" -nodefaults -no-reboot -display none -serial stdio \
        -object "memory-backend-memfd,id=memory,size=$memory,share=on" \
        -chardev "socket,id=files,path=$work/socket" -device vhost-user-fs-pci,chardev=files,tag=host \
        -drive "file=$work/disk,format=raw,if=virtio" -drive "file=$work/status,format=raw,if=virtio" \
        -kernel "$(ls "$kernel"/boot/vmlinuz-*)" \
        -append "console=ttyS0 root=host rootfstype=virtiofs ro init=$work/init cgroup_no_v1=all psi=1 quiet \
loglevel=1 panic=-1 mitigations=off galaxy.work=$work galaxy.tree=$root" \
        </dev/null >"$work/console" 2>"$work/machine.log" &
    machine=$!
    ended=0
    wait "$machine" || ended=$?
    machine=''
    wait "$reader" || true
    reader=''
    kill "$files" 2>/dev/null || true
    wait "$files" || true
    files=''
    status=$(tr -d '\0' <"$work/status")
}

# If the emulator itself crashes before the command has ended, a new machine runs the command from its
# beginning; nothing of the first machine remains. A machine that ends from inside makes the emulator
# exit with a status instead of a signal.
began=$(date +%s)
boots=1
boot
while [ -z "$status" ] && [ "$ended" -gt 128 ] && [ "$ended" != 137 ] && [ "$boots" -lt 3 ] &&
    [ $(($(date +%s) - began)) -lt "$limit" ]; do
    cat "$work/machine.log" >&2
    say "$0: the emulator crashed (signal $((ended - 128))): a new machine runs the command from its beginning"
    boots=$((boots + 1))
    boot
done
if [ "$ended" = 124 ] || [ "$ended" = 137 ]; then
    say "$0: stopped after $limit s; GALAXY_V2_TIMEOUT_S sets the limit"
    exit 124
fi
if [ -z "$status" ]; then
    cat "$work/machine.log" >&2
    say "$0: the machine ended without an exit status of the command"
    exit 125
fi
exit "$status"
