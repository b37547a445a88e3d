/* Who uses an image, and what it is: the checks that keep a raw write from destroying something. */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "virtio/block_internal.h"

/* Container formats by their magic. A negative offset counts from the end of the file. */
struct container {
    const char *name;
    const char *format; /* what qemu-img calls it */
    int64_t offset;
    const char *magic;
    size_t size;
};

static const struct container containers[] = {
    {"qcow", "qcow", 0, "QFI\xfb\0\0\0\1", 8},
    {"qcow2", "qcow2", 0, "QFI\xfb\0\0\0\2", 8},
    {"qcow2", "qcow2", 0, "QFI\xfb\0\0\0\3", 8},
    {"QED", "qed", 0, "QED\0", 4},
    {"VMDK", "vmdk", 0, "KDMV", 4},
    {"VMDK", "vmdk", 0, "COWD", 4},
    {"VMDK descriptor", "vmdk", 0, "# Disk DescriptorFile", 21},
    {"VDI", "vdi", 64, "\x7f\x10\xda\xbe", 4},
    {"VHDX", "vhdx", 0, "vhdxfile", 8},
    {"VHD", "vpc", 0, "conectix", 8},
    {"VHD", "vpc", -512, "conectix", 8},
    {"Parallels", "parallels", 0, "WithoutFreeSpace", 16},
    {"Parallels", "parallels", 0, "WithouFreSpacExt", 16},
    {"Bochs", "bochs", 0, "Bochs Virtual HD Image", 22},
    {"DMG", "dmg", -512, "koly", 4},
};

static bool matches(const struct block_image *image, const struct container *container)
{
    char bytes[32];
    int64_t offset = container->offset;
    if (offset < 0)
        offset += (int64_t)image->data_size;
    return offset >= 0 &&
           pread(image->fd, bytes, container->size, offset) == (ssize_t)container->size &&
           !memcmp(bytes, container->magic, container->size);
}

/* "disk.qcow2" becomes "disk.raw", anything without an extension gets one. */
static char *raw_name(const char *path)
{
    const char *dot = strrchr(path, '.'), *slash = strrchr(path, '/');
    bool extension = dot && dot != path && (!slash || dot > slash + 1) && strcmp(dot, ".raw");
    return xasprintf("%.*s.raw", extension ? (int)(dot - path) : (int)strlen(path), path);
}

bool block_image_check_format(const struct block_image *image, struct error *err)
{
    for (size_t n = 0; n < ARRAY_SIZE(containers); n++) {
        const struct container *container = &containers[n];
        if (!matches(image, container))
            continue;
        char *raw = raw_name(image->path);
        error_set(err,
                  "disk '%s' is a %s image, and disks are raw; convert it first: qemu-img convert "
                  "-O raw -f %s '%s' '%s'",
                  image->path, container->name, container->format, image->path, raw);
        free(raw);
        return false;
    }
    return true;
}

static bool has_open(const char *pid, const struct stat *image)
{
    char folder[64];
    snprintf(folder, sizeof(folder), "/proc/%.20s/fd", pid);
    DIR *directory = opendir(folder);
    if (!directory)
        return false;
    bool found = false;
    for (struct dirent *entry; !found && (entry = readdir(directory));) {
        struct stat status;
        found = isdigit((unsigned char)entry->d_name[0]) &&
                !fstatat(dirfd(directory), entry->d_name, &status, 0) &&
                status.st_dev == image->st_dev && status.st_ino == image->st_ino;
    }
    closedir(directory);
    return found;
}

static void read_command(const char *pid, char *command, size_t size)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%.20s/comm", pid);
    FILE *file = fopen(path, "re");
    if (!file || !fgets(command, (int)size, file))
        snprintf(command, size, "unknown");
    command[strcspn(command, "\n")] = 0;
    if (file)
        fclose(file);
}

/* The kernel does not tell who holds an open file description lock, so look who has the file open;
 * other users' processes stay hidden. */
void block_image_find_user(const struct block_image *image, char *text, size_t size)
{
    struct stat status;
    DIR *processes = fstat(image->fd, &status) ? NULL : opendir("/proc");
    snprintf(text, size, "another program, or by another disk of this machine");
    bool found = false;
    for (struct dirent *entry; processes && !found && (entry = readdir(processes));) {
        if (!isdigit((unsigned char)entry->d_name[0]) || atoi(entry->d_name) == getpid())
            continue;
        found = has_open(entry->d_name, &status);
        if (found) {
            char command[32];
            read_command(entry->d_name, command, sizeof(command));
            snprintf(text, size, "process %.20s (%s)", entry->d_name, command);
        }
    }
    if (processes)
        closedir(processes);
}
