/* What the process may write to: nothing but devices of GPUs. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "renderer/renderer.h"

/* Newer than the oldest headers that this is built with. */
#define ACCESS_TRUNCATE (UINT64_C(1) << 14)

#define ACCESS_CHANGE                                                                              \
    (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |                               \
     LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | \
     LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |   \
     LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM)

/* What drivers speak to. */
static const char *const devices[] = {
    "/dev/dri",  "/dev/nvidia*", "/dev/kfd",      "/dev/dxg",     "/dev/mali*", "/dev/kgsl*",
    "/dev/pvr*", "/dev/galcore", "/dev/dma_heap", "/dev/udmabuf", "/dev/null",  "/dev/zero",
};

static bool allow(int rules, const char *path, uint64_t access)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = access};
    rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0)
        return errno == ENOENT || errno == EACCES; /* then it could not be written to either */
    bool ok = !syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    close(rule.parent_fd);
    return ok;
}

static bool allow_devices(int rules, uint64_t access)
{
    bool ok = true;
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
        glob_t found;
        if (glob(devices[i], 0, NULL, &found) == 0)
            for (size_t k = 0; k < found.gl_pathc; k++)
                ok = allow(rules, found.gl_pathv[k], access) && ok;
        globfree(&found);
    }
    return ok;
}

bool sandbox_close_files(struct error *err)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < 1) /* the kernel has none, or it is turned off */
        return true;
    uint64_t truncate = version >= 3 ? ACCESS_TRUNCATE : 0;
    const struct landlock_ruleset_attr all = {.handled_access_fs = ACCESS_CHANGE | truncate};
    int rules = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    bool ok = rules >= 0 && allow_devices(rules, LANDLOCK_ACCESS_FS_WRITE_FILE | truncate) &&
              !syscall(SYS_landlock_restrict_self, rules, 0);
    if (!ok)
        error_set_errno(err, errno, "the renderer cannot be kept from files (Landlock)");
    if (rules >= 0)
        close(rules);
    return ok;
}
