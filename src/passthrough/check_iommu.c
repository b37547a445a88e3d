/* Is there an IOMMU, is it on, and if not: who has to do what. */
#include <stdlib.h>
#include <string.h>

#include "passthrough/internal.h"

/* --- The machine --- */

static const struct {
    const char *line; /* of /proc/cpuinfo */
    enum host_processor processor;
} processors[] = {
    {"GenuineIntel", PROCESSOR_INTEL},
    {"AuthenticAMD", PROCESSOR_AMD},
    {"HygonGenuine", PROCESSOR_AMD},
    {"CPU implementer", PROCESSOR_ARM},
};

/* How each hypervisor gives a guest an IOMMU; by words in the names that it puts into DMI. */
static const struct {
    const char *word, *name, *remedy;
} hypervisors[] = {
    {"QEMU", "QEMU",
     "start QEMU with: -machine q35,kernel-irqchip=split -device intel-iommu,intremap=on,"
     "caching-mode=on\n(in libvirt: <iommu model='intel'><driver intremap='on' caching_mode='on'/>"
     "</iommu>);\nthe guest's kernel then needs intel_iommu=on"},
    {"VMware", "VMware",
     "in the machine's settings, under CPU, switch on \"Expose IOMMU\" (vvtd.enable = \"TRUE\"), "
     "with EFI firmware"},
    {"VirtualBox", "VirtualBox",
     "give the machine the ICH9 chipset and an IOMMU:\nVBoxManage modifyvm NAME --chipset ich9 "
     "--iommu automatic"},
    {"Microsoft", "Hyper-V",
     "Hyper-V gives its guests no IOMMU that Linux can use for this: use a physical machine"},
    {"Xen", "Xen", "Xen gives its guests no IOMMU: use a physical machine"},
    {"Amazon", "Amazon EC2", "choose an instance of a .metal type: only those have an IOMMU"},
    {"Google", "Google Compute Engine", "its guests have no IOMMU: use a physical machine"},
};

static const char *const other_hypervisor =
    "its hypervisor has to offer an emulated IOMMU (with QEMU: -device intel-iommu); "
    "otherwise use a physical machine";

static const char *const firmware_remedies[] = {
    [PROCESSOR_UNKNOWN] = "look in the firmware's setup for a switch named IOMMU",
    [PROCESSOR_INTEL] =
        "in the firmware's setup, switch on \"Intel VT-d\" (\"VT for Directed I/O\";"
        " often under CPU, chipset or system agent)",
    [PROCESSOR_AMD] = "in the firmware's setup, switch on \"IOMMU\" (or \"AMD-Vi\"; often under "
                      "AMD CBS, NBIO), not only \"SVM\"",
    [PROCESSOR_ARM] = "the firmware has to describe the SMMU (ACPI table IORT, or the device tree):"
                      " look for \"SMMU\" in its setup, or for newer firmware",
};

static const char *const tables[] = {
    [PROCESSOR_UNKNOWN] = "DMAR",
    [PROCESSOR_INTEL] = "DMAR",
    [PROCESSOR_AMD] = "IVRS",
    [PROCESSOR_ARM] = "IORT",
};

static const char *const processor_names[] = {
    [PROCESSOR_UNKNOWN] = "a processor of another maker",
    [PROCESSOR_INTEL] = "an Intel processor",
    [PROCESSOR_AMD] = "an AMD processor",
    [PROCESSOR_ARM] = "an ARM processor",
};

static const char *hypervisor_remedy(const struct host_platform *platform)
{
    for (size_t i = 0; i < ARRAY_SIZE(hypervisors); i++)
        if (!strcmp(platform->hypervisor, hypervisors[i].name))
            return hypervisors[i].remedy;
    return other_hypervisor;
}

static void find_hypervisor(const struct host *host, struct host_platform *platform)
{
    char vendor[128] = "", product[128] = "";
    host_read(host, vendor, sizeof(vendor), "/sys/class/dmi/id/sys_vendor");
    host_read(host, product, sizeof(product), "/sys/class/dmi/id/product_name");
    for (size_t i = 0; i < ARRAY_SIZE(hypervisors); i++) {
        const char *word = hypervisors[i].word;
        /* VirtualBox names itself as the product; Microsoft and Google sell machines, too. */
        if (!strstr(vendor, word) && !strstr(product, word))
            continue;
        snprintf(platform->hypervisor, sizeof(platform->hypervisor), "%s", hypervisors[i].name);
        platform->virtual = platform->virtual || i < 3;
        return;
    }
}

/* Whether a line of cpuinfo that begins with "flags" has the word. */
static bool has_flag(const char *cpuinfo, const char *flag)
{
    const char *line = strstr(cpuinfo, "\nflags"), *place;
    size_t length = strlen(flag);
    if (!line)
        return false;
    const char *end = strchr(line + 1, '\n');
    for (place = line; (place = strstr(place, flag)) && (!end || place < end); place += length)
        if (place[-1] == ' ' && (place[length] == ' ' || place[length] == '\n' || !place[length]))
            return true;
    return false;
}

void host_platform_find(const struct host *host, struct host_platform *platform)
{
    char *cpuinfo = host_read_all(host, "/proc/cpuinfo");
    *platform = (struct host_platform){0};
    for (size_t i = 0; cpuinfo && i < ARRAY_SIZE(processors); i++)
        if (!platform->processor && strstr(cpuinfo, processors[i].line))
            platform->processor = processors[i].processor;
    platform->virtual = cpuinfo && has_flag(cpuinfo, "hypervisor");
    free(cpuinfo);
    find_hypervisor(host, platform);
    if (!platform->virtual)
        platform->hypervisor[0] = '\0';
}

void check_platform(const struct passthrough_manager *manager, struct passthrough_check *check)
{
    struct host_platform platform;
    host_platform_find(&manager->host, &platform);
    check->name = "machine";
    if (platform.virtual)
        check_set(check, PASSTHROUGH_CHECK_NOTE, "a virtual machine%s%s, on %s",
                  platform.hypervisor[0] ? " of " : "", platform.hypervisor,
                  processor_names[platform.processor]);
    else
        check_set(check, PASSTHROUGH_CHECK_RIGHT, "a physical machine with %s",
                  processor_names[platform.processor]);
}

/* --- The firmware --- */

void check_firmware(const struct passthrough_manager *manager, struct passthrough_check *check)
{
    struct host_platform platform;
    const struct host *host = &manager->host;
    host_platform_find(host, &platform);
    check->name = "firmware";
    char **units = host_list(host, "/sys/class/iommu");
    bool found = units[0];
    host_list_free(units);
    /* A guest may be given the other maker's. */
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
        if (!host_exists(host, "/sys/firmware/acpi/tables/%s", tables[i]))
            continue;
        check_set(check, PASSTHROUGH_CHECK_RIGHT, "announces an IOMMU (ACPI table %s)", tables[i]);
        return;
    }
    if (found || passthrough_iommu_on(manager)) {
        check_set(check, PASSTHROUGH_CHECK_RIGHT, "announces an IOMMU");
    } else if (platform.virtual) {
        check_set(check, PASSTHROUGH_CHECK_WRONG, "this virtual machine has no IOMMU");
        check_remedy(check, "%s", hypervisor_remedy(&platform));
    } else {
        check_set(check, PASSTHROUGH_CHECK_WRONG, "announces no IOMMU (no ACPI table %s)",
                  tables[platform.processor]);
        check_remedy(check, "%s", firmware_remedies[platform.processor]);
    }
}

/* --- The kernel --- */

/* Whether the command line has the parameter, as a whole word. */
static bool has_parameter(const char *line, const char *word)
{
    size_t length = strlen(word);
    for (const char *place = line; (place = strstr(place, word)); place += length)
        if ((place == line || place[-1] == ' ') &&
            (!place[length] || place[length] == ' ' || place[length] == ','))
            return true;
    return false;
}

static const char *const how_to_set =
    "in /etc/default/grub, GRUB_CMDLINE_LINUX; then update-grub\n(or: grub2-mkconfig -o "
    "/boot/grub2/grub.cfg); with systemd-boot in /etc/kernel/cmdline; reboot";

void check_parameters(const struct passthrough_manager *manager, struct passthrough_check *check)
{
    static const char *const off[] = {"intel_iommu=off", "amd_iommu=off", "iommu=off"};
    struct host_platform platform;
    char line[4096];
    host_platform_find(&manager->host, &platform);
    check->name = "parameters";
    if (!host_read(&manager->host, line, sizeof(line), "/proc/cmdline")) {
        check_set(check, PASSTHROUGH_CHECK_NOTE, "the kernel's command line cannot be read");
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(off); i++) {
        if (!has_parameter(line, off[i]))
            continue;
        check_set(check, PASSTHROUGH_CHECK_WRONG, "%s is among the kernel's", off[i]);
        check_remedy(check, "remove %s: %s", off[i], how_to_set);
        return;
    }
    bool dmar = host_exists(&manager->host, "/sys/firmware/acpi/tables/DMAR");
    bool needed = !passthrough_iommu_on(manager) &&
                  (dmar || (platform.processor == PROCESSOR_INTEL && !platform.virtual));
    if (needed && !has_parameter(line, "intel_iommu=on")) {
        check_set(check, PASSTHROUGH_CHECK_WRONG, "intel_iommu=on is not among the kernel's");
        check_remedy(check, "add intel_iommu=on: %s", how_to_set);
    } else {
        check_set(check, PASSTHROUGH_CHECK_RIGHT, "none switches the IOMMU off");
    }
}

void check_iommu(const struct passthrough_manager *manager, struct passthrough_check *check)
{
    struct passthrough_check firmware = {0}, parameters = {0};
    check->name = "iommu";
    if (passthrough_iommu_on(manager)) {
        size_t count = passthrough_groups(manager, NULL, 0);
        check_set(check, PASSTHROUGH_CHECK_RIGHT, "is on, with %zu groups of PCI devices", count);
        return;
    }
    check_firmware(manager, &firmware);
    check_parameters(manager, &parameters);
    if (firmware.state == PASSTHROUGH_CHECK_WRONG || parameters.state == PASSTHROUGH_CHECK_WRONG) {
        check_set(check, PASSTHROUGH_CHECK_WAITS, "is off, as long as the above is not right");
        return;
    }
    check_set(check, PASSTHROUGH_CHECK_WRONG, "is off, though firmware and parameters look right");
    check_remedy(check, "the kernel's log says why: dmesg | grep -i -e DMAR -e AMD-Vi -e iommu -e "
                        "smmu;\na kernel built without the driver has none (CONFIG_INTEL_IOMMU, "
                        "CONFIG_AMD_IOMMU, CONFIG_ARM_SMMU_V3)");
}

/* --- Interrupts --- */

/* Without remapping a device could send the host any interrupt, so VFIO refuses the group. On x86
 * the names of remapped interrupts begin with IR-. */
void check_interrupts(const struct passthrough_manager *manager, struct passthrough_check *check)
{
    struct host_platform platform;
    const struct host *host = &manager->host;
    char unsafe[8] = "";
    host_platform_find(host, &platform);
    check->name = "interrupts";
    if (platform.processor != PROCESSOR_INTEL && platform.processor != PROCESSOR_AMD) {
        check_set(check, PASSTHROUGH_CHECK_NOTE, "are not looked at on this processor");
        return;
    }
    if (!passthrough_iommu_on(manager)) {
        check_set(check, PASSTHROUGH_CHECK_WAITS, "are not remapped before the IOMMU is on");
        return;
    }
    char *text = host_read_all(host, "/proc/interrupts");
    bool remapped = text && strstr(text, " IR-");
    free(text);
    host_read(host, unsafe, sizeof(unsafe),
              "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts");
    if (remapped) {
        check_set(check, PASSTHROUGH_CHECK_RIGHT, "are remapped by the IOMMU");
    } else if (unsafe[0] == 'Y') {
        check_set(check, PASSTHROUGH_CHECK_NOTE,
                  "are not remapped, which allow_unsafe_interrupts accepts");
    } else {
        check_set(check, PASSTHROUGH_CHECK_WRONG, "are not remapped by the IOMMU");
        check_remedy(check,
                     "%s;\nor, if you trust the guest not to send the host interrupts, as root: "
                     "modprobe vfio_iommu_type1 allow_unsafe_interrupts=1",
                     platform.virtual ? "the hypervisor has to offer it (with QEMU: intremap=on)"
                                      : "remove intremap=off and nointremap from the kernel's "
                                        "parameters; update the firmware");
    }
}
