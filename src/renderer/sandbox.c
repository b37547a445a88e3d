/* What the process gives up once its adapters are open. */
#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>

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
    "kcmp",
    "fork",
    "vfork",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "fsopen",
    "fsmount",
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
    "name_to_handle_at",
    "open_by_handle_at",
};

/* Files that are there may be opened for reading, and for both as devices are: drivers load their
 * parts late. */
static const struct {
    const char *name;
    unsigned flags; /* which argument they are */
} openers[] = {{"open", 1}, {"openat", 2}};

static bool deny(scmp_filter_ctx filter)
{
    for (size_t i = 0; i < ARRAY_SIZE(denied); i++) {
        int number = seccomp_syscall_resolve_name(denied[i]);
        /* Names that this kernel or architecture does not have need no rule. */
        if (number >= 0 && seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), number, 0) < 0)
            return false;
    }
    static const int writing[] = {O_WRONLY, O_CREAT, O_TRUNC};
    for (size_t i = 0; i < ARRAY_SIZE(openers); i++) {
        int number = seccomp_syscall_resolve_name(openers[i].name);
        for (size_t k = 0; number >= 0 && k < ARRAY_SIZE(writing); k++) {
            const struct scmp_arg_cmp flag =
                SCMP_CMP(openers[i].flags, SCMP_CMP_MASKED_EQ, (scmp_datum_t)writing[k],
                         (scmp_datum_t)writing[k]);
            if (seccomp_rule_add_array(filter, SCMP_ACT_ERRNO(EPERM), number, 1, &flag) < 0)
                return false;
        }
    }
    return true;
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
