#!/bin/sh
# PID 1 in the machine of v2vm.sh: sets up the system, runs the command, and returns its exit status.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
value() { sed -n "s/.*galaxy\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
work=$(value work) tree=$(value tree)

# Load modules without modprobe, which does not find modules outside /lib/modules.
/usr/bin/python3 -I -S - "$tree/.tox/v2vm/kernel/lib/modules" overlay virtio_blk bfq loop <<'PY'
import ctypes, lzma, os, sys

libc = ctypes.CDLL(None, use_errno=True)
paths = {}
for folder, _, names in os.walk(sys.argv[1]):
    paths.update((name.split(".ko")[0], os.path.join(folder, name)) for name in names if ".ko" in name)
for name in sys.argv[2:]:
    if name in paths:  # Otherwise it is built in.
        with open(paths[name], "rb") as file:
            image = file.read()
        image = lzma.decompress(image) if paths[name].endswith(".xz") else image
        if libc.syscall(175, image, ctypes.c_ulong(len(image)), b""):
            print("cannot load", name, os.strerror(ctypes.get_errno()))
PY

# An overlay in memory makes every file writable. pivot_root, because chroot forbids user namespaces.
mount -t tmpfs -o mode=755 over /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work" root /mnt/root
for place in dev proc; do mount -n --move "/$place" "/mnt/root/$place"; done
cd /mnt/root || exit
mount -t tmpfs -o mode=755 run run
mkdir run/host
pivot_root . run/host
exec </dev/console >/dev/console 2>&1
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm
# devtmpfs has no such links; on a host, udev or the container's runtime makes them.
ln -s /proc/self/fd /dev/fd
for stream in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${stream%:*}" "/dev/${stream#*:}"; done
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
for place in /tmp /var/tmp; do mount -t tmpfs -o mode=1777 tmp "$place"; done
if [ -d /var/lib/galaxy ]; then mount -t tmpfs galaxy /var/lib/galaxy; fi
if [ ! -e "$tree" ]; then  # It was below one of these mount points.
    mkdir -p "$tree"
    mount --bind "/run/host$tree" "$tree"
fi
export HOME=/tmp/home
mkdir "$HOME"
ip link set lo up
echo bfq >/sys/block/vda/queue/scheduler

sh "/run/host$work/command"
echo $? >/dev/vdb
sync
exec /usr/bin/python3 -I -S -c 'import ctypes; ctypes.CDLL(None).reboot(0x01234567)'
