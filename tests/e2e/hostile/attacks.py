"""A script that attacks its container and host, and prints the outcome of each attack as JSON.

An outcome is the name of an errno, ``signal N``, or ``done`` with a result. Each attack runs in its own
process. An attack that succeeds does no harm: it sets flags to their present values and loads empty
lists.
"""

from __future__ import annotations

from typing import Final

SCRIPT: Final = r"""
import ctypes, errno, fcntl, json, os, resource, signal, socket, stat, struct, sys

ATTACKS = {}
HOST = json.loads(sys.argv[1])
SUPERVISOR = os.getppid()
libc = ctypes.CDLL(None, use_errno=True)

def attack(name):
    def keep(call):
        ATTACKS[name] = call
        return call
    return keep

def call(number, *arguments):
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *wide)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result

def calls(**table):
    for name, arguments in table.items():
        ATTACKS[name] = lambda arguments=arguments: call(*arguments)

NEWUSER = 0x10000000
calls(
    mount=(165, b"tmpfs", b"/tmp", b"tmpfs", 0, 0), umount=(166, b"/proc", 2),
    pivot_root=(155, b"/tmp", b"/tmp"),
    chroot=(161, b"/tmp"), move_mount=(429, -1, b"", -1, b"", 0), open_tree=(428, -100, b"/", 1),
    fsopen=(430, b"tmpfs", 0), mount_setattr=(442, -100, b"/", 0, b"\0" * 32, 32),
    unshare_user=(272, NEWUSER), unshare_mount=(272, 0x20000), unshare_net=(272, 0x40000000),
    clone_user=(56, NEWUSER | signal.SIGCHLD, 0, 0, 0, 0),
    clone_pid=(56, 0x20000000 | signal.SIGCHLD, 0, 0, 0, 0),
    clone3_user=(435, struct.pack("QQQQQQQQ", NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0), 64),
    keyctl=(250, 0, -3, 1), add_key=(248, b"user", b"x", b"y", 1, -3),
    request_key=(249, b"user", b"x", 0, -3),
    ptrace_traceme=(101, 0, 0, 0, 0), ptrace_pid_1=(101, 16, 1, 0, 0),
    ptrace_seize_parent=(101, 0x4206, os.getppid(), 0, 0),
    process_vm_readv=(310, 1, 0, 0, 0, 0, 0), pidfd_getfd=(438, 0, 0, 0), kcmp=(312, 1, 1, 0, 0, 0),
    bpf=(321, 0, 0, 0), perf_event_open=(298, 0, 0, -1, -1, 0), userfaultfd=(323, 0), io_uring=(425, 1, 0),
    init_module=(175, 0, 0, b""), finit_module=(313, 0, b"", 0), delete_module=(176, b"no-such", 0),
    kexec_load=(246, 0, 0, 0, 0), reboot=(169, 0xfee1dead, 672274793, 0, 0), swapon=(167, b"/tmp/none", 0),
    quotactl=(179, 0, 0, 0, 0), open_by_handle_at=(304, -100, 0, 0), fanotify_init=(300, 0, 0), acct=(163, 0),
    settimeofday=(164, 0, 0), adjtimex=(159, 0), syslog=(103, 10, 0, 0), iopl=(172, 3), ioperm=(173, 0, 1, 1),
    sethostname=(170, b"x", 1), vhangup=(153,), name_to_handle_at=(303, -100, b"/", 0, 0, 0),
    x32=(0x40000000 + 39,),
)

@attack("setns")
def _():
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    return call(308, fd, 0)

@attack("int80")
def _():  # getpid of i386: its numbers would pass a filter that ignores the architecture.
    import mmap
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()

for name, mode in (("block", stat.S_IFBLK), ("char", stat.S_IFCHR)):
    ATTACKS["mknod_" + name] = lambda mode=mode: os.mknod(
        "/tmp/node-%d" % mode, mode | 0o600, os.makedev(1, 1))

for name, arguments in {
    "raw": (socket.AF_INET, socket.SOCK_RAW, 1), "raw6": (socket.AF_INET6, socket.SOCK_RAW, 58),
    "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0), "alg": (38, socket.SOCK_SEQPACKET, 0),
    "vsock": (40, socket.SOCK_STREAM, 0),
}.items():
    ATTACKS["socket_" + name] = lambda arguments=arguments: socket.socket(*arguments).fileno()

@attack("interface_flags")
def _():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        return len(fcntl.ioctl(sock, 0x8914, fcntl.ioctl(sock, 0x8913, request)))

@attack("low_port")
def _():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 81))

@attack("tiocsti")
def _():
    return fcntl.ioctl(os.open("/dev/null", os.O_RDWR), 0x5412, b"x")

ATTACKS["realtime"] = lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
ATTACKS["nice"] = lambda: os.setpriority(os.PRIO_PROCESS, 0, -5)
ATTACKS["io_realtime"] = lambda: call(251, 1, 0, (1 << 13) | 0)
ATTACKS["prlimit_pid_1"] = lambda: resource.prlimit(1, resource.RLIMIT_NOFILE, (8, 8))
ATTACKS["setgroups"] = lambda: os.setgroups([0])
ATTACKS["setuid_other"] = lambda: os.setresuid(1, 1, 1)
ATTACKS["chown"] = lambda: (open("/tmp/own", "w").close(), os.chown("/tmp/own", 1, 1))[1]
ATTACKS["kill_pid_1"] = lambda: os.kill(1, signal.SIGKILL)
ATTACKS["stop_pid_1"] = lambda: os.kill(1, signal.SIGSTOP)
ATTACKS["own_oom"] = lambda: os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-1")
ATTACKS["pid_1_oom"] = lambda: os.write(os.open("/proc/1/oom_score_adj", os.O_WRONLY), b"1000")

@attack("raise_limit")
def _():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard + 1))
    except ValueError:
        raise PermissionError(errno.EPERM, "hard limit")

@attack("capset")
def _():
    data = struct.pack("6I", 1 << 21, 1 << 21, 0, 0, 0, 0)  # CAP_SYS_ADMIN
    return call(126, struct.pack("Ii", 0x20080522, 0), data)

for path in HOST["secrets"]:
    ATTACKS["read " + path] = lambda path=path: (
        os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1))
for name in ("mem", "maps", "environ", "auxv", "stack"):
    ATTACKS["read /proc/1/" + name] = lambda name=name: open("/proc/1/" + name, "rb").read(1)
for name in ("root", "cwd", "exe", "ns/mnt", "ns/pid"):
    ATTACKS["follow /proc/1/" + name] = lambda name=name: os.readlink("/proc/1/" + name)
@attack("open descriptors of PID 1")
def _():
    for fd in range(64):
        try:
            return os.open("/proc/1/fd/%d" % fd, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            continue
for name in ("mem", "environ"):
    ATTACKS["read the supervisor's " + name] = lambda name=name: open(
        "/proc/%d/%s" % (SUPERVISOR, name), "rb").read(1)
for name in ("root", "map_files"):
    ATTACKS["list /proc/1/" + name] = lambda name=name: os.listdir("/proc/1/" + name)
for path in HOST["sockets"]:
    @attack("connect " + path)
    def _(path=path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(path)
for pid in HOST["pids"]:
    @attack("kill host %d" % pid)
    def _(pid=pid):
        with open("/proc/%d/comm" % pid):
            os.kill(pid, 0)

def write_open(path):
    fd = os.open(path, os.O_WRONLY)
    found = os.fstat(fd)
    return "null" if stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3) else "opened"

for path in (
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches",
    "/proc/sys/net/ipv4/ip_forward", "/proc/sys/fs/file-max", "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/kcore", "/proc/keys",
    "/dev/mem", "/dev/kmsg", "/dev/loop0", "/dev/loop-control", "/dev/sda", "/dev/vda",
    "/dev/fuse", "/dev/net/tun",
    "/etc/passwd", "/usr/bin/env", "/dev/core",
):
    ATTACKS["write " + path] = lambda path=path: write_open(path)
for path in ("/x", "/etc/x", "/usr/x", "/dev/x", "/sys/fs/cgroup/x", "/home/x", "/var/lib/x"):
    ATTACKS["mkdir " + path] = lambda path=path: os.mkdir(path)
ATTACKS["chmod /dev/null"] = lambda: os.chmod("/dev/null", 0o600)
ATTACKS["cgroup files"] = lambda: os.listdir("/sys/fs/cgroup")
ATTACKS["above the root"] = lambda: sorted(os.listdir("/proc/self/root/../..")) == sorted(os.listdir("/"))

@attack("writable in /proc and /sys")
def _():
    found = []
    for top in ("/proc", "/sys"):
        for base, names, files in os.walk(top):
            if base == "/proc":
                names[:] = [n for n in names if not n.isdecimal() and n not in ("self", "thread-self", "net")]
            if base.count("/") > 5:
                names[:] = []
            for name in files:
                path = os.path.join(base, name)
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    continue
                try:
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                except OSError:
                    continue
                found.append(path)
    return found

@attack("visible processes")
def _():
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                found.append(open("/proc/%s/comm" % name).read().strip())
            except OSError:
                pass
    return sorted(set(found))

@attack("descriptors")
def _():
    own = "/proc/%d/fd/" % os.getppid()
    streams = {os.readlink(own + fd).split(":")[0] for fd in "012"}
    return sorted(streams) + [fd for fd in os.listdir(own) if int(fd) > 2 and int(fd) not in OURS]

OURS = []

def outcome(work):
    read, write = os.pipe()
    OURS[:] = [read, write]
    pid = os.fork()
    if pid == 0:
        os.close(read)
        signal.alarm(60)
        try:
            said = "done " + json.dumps(work(), default=str)
        except OSError as error:
            said = errno.errorcode.get(error.errno, str(error))
        except BaseException as error:
            said = "fault %r" % (error,)
        os.write(write, said.encode()[:60000])
        os._exit(0)
    os.close(write)
    said = b""
    while chunk := os.read(read, 65536):
        said += chunk
    os.close(read)
    status = os.waitpid(pid, 0)[1]
    return said.decode() or "signal %d" % os.WTERMSIG(status)

print(json.dumps({name: outcome(work) for name, work in sorted(ATTACKS.items())}))
"""
