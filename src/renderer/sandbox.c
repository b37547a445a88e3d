/* What the process gives up once its adapters are open. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "renderer/renderer.h"

#ifdef HAVE_SECCOMP
#    include <seccomp.h>

/* Programs, other processes, the file system's shape, the network, the kernel's own workings. Each
 * then fails with EPERM. Threads, memory (also executable: software Vulkan translates shaders) and
 * the calls of drivers go on. */
static const char *const denied[] = {
    "execve",
    "execveat",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "pidfd_open",
    "pidfd_send_signal",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "tkill",
    "process_madvise",
    "kcmp",
    "fork",
    "vfork",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "fsopen",
    "fsmount",
    "fsconfig",
    "fspick",
    "move_mount",
    "open_tree",
    "mount_setattr",
    "unshare",
    "setns",
    "socket",
    "connect",
    "bind",
    "listen",
    "accept",
    "accept4",
    "socketpair",
    "mkdir",
    "mkdirat",
    "rmdir",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "mknod",
    "mknodat",
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "utimensat",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "truncate",
    "setxattr",
    "creat",
    "openat2",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "keyctl",
    "add_key",
    "request_key",
    "reboot",
    "swapon",
    "swapoff",
    "sethostname",
    "setdomainname",
    "settimeofday",
    "clock_settime",
    "adjtimex",
    "clock_adjtime",
    "quotactl",
    "acct",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setgroups",
    "capset",
    "personality",
    "iopl",
    "ioperm",
    "io_uring_setup",
    "fanotify_init",
    "shmget",
    "msgget",
    "semget",
    "name_to_handle_at",
    "open_by_handle_at",
};

/* Files that are there may be opened for reading: drivers load their parts late. */
static const struct {
    const char *name;
    unsigned flags; /* which argument they are */
} openers[] = {{"open", 1}, {"openat", 2}};

/* NVIDIA's driver opens its device again for each piece of memory. Where that is not there, nothing
 * is opened for reading and writing: /proc has the memory of other processes. */
#    define NVIDIA_DEVICE "/dev/nvidiactl"

static bool deny_writing(scmp_filter_ctx filter)
{
    static const int writing[] = {O_WRONLY, O_CREAT, O_TRUNC, O_RDWR};
    size_t count = ARRAY_SIZE(writing) - (access(NVIDIA_DEVICE, F_OK) == 0);
    for (size_t i = 0; i < ARRAY_SIZE(openers); i++) {
        int number = seccomp_syscall_resolve_name(openers[i].name);
        for (size_t k = 0; number >= 0 && k < count; k++) {
            const struct scmp_arg_cmp flag =
                SCMP_CMP(openers[i].flags, SCMP_CMP_MASKED_EQ, (scmp_datum_t)writing[k],
                         (scmp_datum_t)writing[k]);
            if (seccomp_rule_add_array(filter, SCMP_ACT_ERRNO(EPERM), number, 1, &flag) < 0)
                return false;
        }
    }
    return true;
}

/* Threads are made with the flags in sight, not in clone3's memory; the C library then does the
 * same. Signals reach this process only, and so do limits. */
static bool deny_others(scmp_filter_ctx filter)
{
    scmp_datum_t self = (scmp_datum_t)getpid();
    return seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) >= 0 &&
           seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                            SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0)) >= 0 &&
           seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(tgkill), 1,
                            SCMP_A0(SCMP_CMP_NE, self)) >= 0 &&
           seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(kill), 1,
                            SCMP_A0(SCMP_CMP_NE, self)) >= 0 &&
           seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(prlimit64), 1,
                            SCMP_A0(SCMP_CMP_NE, 0)) >= 0;
}

static bool deny(scmp_filter_ctx filter)
{
    for (size_t i = 0; i < ARRAY_SIZE(denied); i++) {
        int number = seccomp_syscall_resolve_name(denied[i]);
        /* Names that this kernel or architecture does not have need no rule. */
        if (number >= 0 && seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), number, 0) < 0)
            return false;
    }
    return deny_writing(filter) && deny_others(filter);
}

bool sandbox_enter(struct error *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    /* All threads: the driver has started some. */
    bool ok = filter && seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1) >= 0 && deny(filter) &&
              seccomp_load(filter) >= 0;
    if (filter)
        seccomp_release(filter);
    return ok || error_set(err, "the kernel does not let the renderer be confined (seccomp)");
}

#else

bool sandbox_enter(struct error *err)
{
    return true;
}

#endif
