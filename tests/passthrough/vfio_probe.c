/*
 * Speaks to VFIO as little as can be, to tell what the kernel and the lab's devices do: the facts
 * that hartvisor's own VFIO device stands on. Built without hartvisor, so that a failure of one is
 * not taken for one of the other.
 *
 *   vfio_probe COMMAND ADDRESS      prints what it saw; the exit status is 0 if all was as expected
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE       4096
#define IOVA       UINT64_C(0x100000)
#define EVENT_TIME 3000 /* ms: the device may be slow to raise it under emulation */
#define QUIET_TIME 300  /* ms in which nothing may come */

struct probe {
    const char *address;
    int container, group, device;
    uint8_t *memory; /* what is mapped at IOVA */
    size_t size;
};

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fputs("vfio_probe: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void must(bool fact, const char *what)
{
    if (!fact)
        fail("not so: %s (errno %d: %s)", what, errno, strerror(errno));
    printf("%s\n", what);
}

/* --- Opening: container, group, device --- */

static int group_number(const char *address)
{
    char path[128], target[256];
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", address);
    ssize_t length = readlink(path, target, sizeof(target) - 1);
    if (length < 0)
        fail("%s is in no IOMMU group", address);
    target[length] = 0;
    return atoi(strrchr(target, '/') + 1);
}

static void open_group(struct probe *probe)
{
    char path[64];
    struct vfio_group_status status = {.argsz = sizeof(status)};
    int number = group_number(probe->address);
    snprintf(path, sizeof(path), "/dev/vfio/%d", number);
    probe->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
    if (probe->container < 0)
        fail("/dev/vfio/vfio: %s", strerror(errno));
    probe->group = open(path, O_RDWR | O_CLOEXEC);
    if (probe->group < 0)
        fail("%s: %s", path, strerror(errno));
    if (ioctl(probe->group, VFIO_GROUP_GET_STATUS, &status))
        fail("VFIO_GROUP_GET_STATUS: %s", strerror(errno));
    printf("group %d viable=%d\n", number, !!(status.flags & VFIO_GROUP_FLAGS_VIABLE));
}

static void open_device(struct probe *probe)
{
    open_group(probe);
    if (ioctl(probe->group, VFIO_GROUP_SET_CONTAINER, &probe->container))
        fail("VFIO_GROUP_SET_CONTAINER: %s", strerror(errno));
    if (ioctl(probe->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
        fail("VFIO_SET_IOMMU: %s", strerror(errno));
    probe->device = ioctl(probe->group, VFIO_GROUP_GET_DEVICE_FD, probe->address);
    if (probe->device < 0)
        fail("VFIO_GROUP_GET_DEVICE_FD: %s", strerror(errno));
}

/* --- Regions --- */

static struct vfio_region_info region_info(struct probe *probe, uint32_t index)
{
    struct vfio_region_info info = {.argsz = sizeof(info), .index = index};
    if (ioctl(probe->device, VFIO_DEVICE_GET_REGION_INFO, &info))
        fail("VFIO_DEVICE_GET_REGION_INFO %u: %s", index, strerror(errno));
    return info;
}

static uint64_t region_read(struct probe *probe, uint32_t index, uint64_t at, size_t width)
{
    uint64_t value = 0;
    if (pread(probe->device, &value, width, region_info(probe, index).offset + at) !=
        (ssize_t)width)
        fail("reading %zu bytes at 0x%" PRIx64 " of region %u: %s", width, at, index,
             strerror(errno));
    return value;
}

static void region_write(struct probe *probe, uint32_t index, uint64_t at, size_t width,
                         uint64_t value)
{
    if (pwrite(probe->device, &value, width, region_info(probe, index).offset + at) !=
        (ssize_t)width)
        fail("writing %zu bytes at 0x%" PRIx64 " of region %u: %s", width, at, index,
             strerror(errno));
}

static uint64_t config_read(struct probe *probe, uint64_t at, size_t width)
{
    return region_read(probe, VFIO_PCI_CONFIG_REGION_INDEX, at, width);
}

static void enable_bus_master(struct probe *probe)
{
    uint64_t command = config_read(probe, PCI_COMMAND, 2);
    region_write(probe, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, 2,
                 command | PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
}

static volatile uint8_t *map_bar(struct probe *probe, uint32_t index)
{
    struct vfio_region_info info = region_info(probe, index);
    void *bar = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, probe->device,
                     (off_t)info.offset);
    if (bar == MAP_FAILED)
        fail("mapping region %u: %s", index, strerror(errno));
    return bar;
}

/* --- Memory for the device --- */

static int map_dma(struct probe *probe, void *memory, uint64_t iova, uint64_t size)
{
    struct vfio_iommu_type1_dma_map map = {
        .argsz = sizeof(map),
        .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        .vaddr = (uintptr_t)memory,
        .iova = iova,
        .size = size,
    };
    return ioctl(probe->container, VFIO_IOMMU_MAP_DMA, &map) ? errno : 0;
}

static void give_memory(struct probe *probe, size_t size)
{
    probe->size = size;
    probe->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (probe->memory == MAP_FAILED)
        fail("no memory");
    int problem = map_dma(probe, probe->memory, IOVA, size);
    if (problem)
        fail("VFIO_IOMMU_MAP_DMA: %s", strerror(problem));
}

static void take_memory(struct probe *probe, uint64_t iova, uint64_t size)
{
    struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof(unmap), .iova = iova, .size = size};
    if (ioctl(probe->container, VFIO_IOMMU_UNMAP_DMA, &unmap))
        fail("VFIO_IOMMU_UNMAP_DMA: %s", strerror(errno));
    printf("unmapped %llu bytes\n", (unsigned long long)unmap.size);
}

static void fill(uint8_t *memory, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++)
        memory[i] = (uint8_t)((i * 31 + seed) ^ (i >> 8));
}

/* --- Interrupts --- */

/* eventfd is -1 to trigger or unmask by the call itself; count 0 turns the index off. */
static int set_irqs(struct probe *probe, uint32_t index, uint32_t flags, uint32_t start,
                    uint32_t count, const int *eventfds)
{
    struct vfio_irq_set *set = calloc(1, sizeof(*set) + count * sizeof(*eventfds));
    set->argsz = (uint32_t)(sizeof(*set) + (eventfds ? count * sizeof(*eventfds) : 0));
    set->flags = flags | (eventfds ? VFIO_IRQ_SET_DATA_EVENTFD : VFIO_IRQ_SET_DATA_NONE);
    set->index = index;
    set->start = start;
    set->count = count;
    if (eventfds)
        memcpy(set->data, eventfds, count * sizeof(*eventfds));
    int problem = ioctl(probe->device, VFIO_DEVICE_SET_IRQS, set) ? errno : 0;
    free(set);
    return problem;
}

static int trigger_by_event(struct probe *probe, uint32_t index)
{
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int problem = set_irqs(probe, index, VFIO_IRQ_SET_ACTION_TRIGGER, 0, 1, &event);
    if (problem)
        fail("VFIO_DEVICE_SET_IRQS of index %u: %s", index, strerror(problem));
    return event;
}

static bool comes(int event, int milliseconds)
{
    struct pollfd wait = {.fd = event, .events = POLLIN};
    uint64_t count;
    if (poll(&wait, 1, milliseconds) != 1)
        return false;
    return read(event, &count, sizeof(count)) == sizeof(count);
}

/* --- info: all that VFIO tells about a device --- */

static void print_region_capabilities(const struct vfio_region_info *info)
{
    if (!(info->flags & VFIO_REGION_INFO_FLAG_CAPS) || !info->cap_offset)
        return;
    for (uint32_t at = info->cap_offset; at;) {
        const struct vfio_info_cap_header *header = (const void *)((const char *)info + at);
        printf(" capability=%u", header->id);
        if (header->id == VFIO_REGION_INFO_CAP_SPARSE_MMAP) {
            const struct vfio_region_info_cap_sparse_mmap *sparse = (const void *)header;
            for (uint32_t i = 0; i < sparse->nr_areas; i++)
                printf(" area=0x%llx+0x%llx", sparse->areas[i].offset, sparse->areas[i].size);
        }
        at = header->next;
    }
}

static void print_region(struct probe *probe, uint32_t index)
{
    struct {
        struct vfio_region_info info;
        char capabilities[1024];
    } answer = {.info = {.argsz = sizeof(answer), .index = index}};
    if (ioctl(probe->device, VFIO_DEVICE_GET_REGION_INFO, &answer)) {
        printf("region %u: %s\n", index, strerror(errno));
        return;
    }
    if (!answer.info.size)
        return;
    printf("region %u: size=0x%llx offset=0x%llx%s%s%s", index, answer.info.size,
           answer.info.offset, answer.info.flags & VFIO_REGION_INFO_FLAG_READ ? " read" : "",
           answer.info.flags & VFIO_REGION_INFO_FLAG_WRITE ? " write" : "",
           answer.info.flags & VFIO_REGION_INFO_FLAG_MMAP ? " mmap" : "");
    print_region_capabilities(&answer.info);
    printf("\n");
}

static void print_interrupts(struct probe *probe, uint32_t index)
{
    static const char *const names[] = {"intx", "msi", "msix", "err", "req"};
    struct vfio_irq_info info = {.argsz = sizeof(info), .index = index};
    const char *name = index < sizeof(names) / sizeof(*names) ? names[index] : "unknown";
    if (ioctl(probe->device, VFIO_DEVICE_GET_IRQ_INFO, &info)) {
        printf("irq %s: %s\n", name, strerror(errno));
        return;
    }
    printf("irq %s: count=%u%s%s%s%s\n", name, info.count,
           info.flags & VFIO_IRQ_INFO_EVENTFD ? " eventfd" : "",
           info.flags & VFIO_IRQ_INFO_MASKABLE ? " maskable" : "",
           info.flags & VFIO_IRQ_INFO_AUTOMASKED ? " automasked" : "",
           info.flags & VFIO_IRQ_INFO_NORESIZE ? " noresize" : "");
}

static void print_iommu(struct probe *probe)
{
    struct {
        struct vfio_iommu_type1_info info;
        char capabilities[1024];
    } answer = {.info = {.argsz = sizeof(answer)}};
    if (ioctl(probe->container, VFIO_IOMMU_GET_INFO, &answer))
        fail("VFIO_IOMMU_GET_INFO: %s", strerror(errno));
    printf("iommu: page-sizes=0x%llx\n", answer.info.iova_pgsizes);
    for (uint32_t at = answer.info.cap_offset; at;) {
        const struct vfio_info_cap_header *header = (const void *)((char *)&answer + at);
        if (header->id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
            const struct vfio_iommu_type1_info_cap_iova_range *ranges = (const void *)header;
            for (uint32_t i = 0; i < ranges->nr_iovas; i++)
                printf("iova: 0x%llx-0x%llx\n", ranges->iova_ranges[i].start,
                       ranges->iova_ranges[i].end);
        } else if (header->id == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL) {
            printf("mappings: %u\n",
                   ((const struct vfio_iommu_type1_info_dma_avail *)header)->avail);
        }
        at = header->next;
    }
}

static void info(struct probe *probe)
{
    struct vfio_device_info device = {.argsz = sizeof(device)};
    static const struct {
        uint32_t extension;
        const char *name;
    } extensions[] = {
        {VFIO_TYPE1_IOMMU, "type1"},           {VFIO_TYPE1v2_IOMMU, "type1v2"},
        {VFIO_DMA_CC_IOMMU, "cache-coherent"}, {VFIO_UPDATE_VADDR, "update-vaddr"},
        {VFIO_UNMAP_ALL, "unmap-all"},         {VFIO_NOIOMMU_IOMMU, "noiommu"},
    };
    open_device(probe);
    printf("api: %d\n", ioctl(probe->container, VFIO_GET_API_VERSION));
    for (size_t i = 0; i < sizeof(extensions) / sizeof(*extensions); i++)
        printf("extension %s: %d\n", extensions[i].name,
               ioctl(probe->container, VFIO_CHECK_EXTENSION, extensions[i].extension));
    if (ioctl(probe->device, VFIO_DEVICE_GET_INFO, &device))
        fail("VFIO_DEVICE_GET_INFO: %s", strerror(errno));
    printf("device: regions=%u irqs=%u%s%s\n", device.num_regions, device.num_irqs,
           device.flags & VFIO_DEVICE_FLAGS_PCI ? " pci" : "",
           device.flags & VFIO_DEVICE_FLAGS_RESET ? " reset" : "");
    for (uint32_t i = 0; i < device.num_regions; i++)
        print_region(probe, i);
    for (uint32_t i = 0; i < device.num_irqs; i++)
        print_interrupts(probe, i);
    print_iommu(probe);
    printf("config: vendor=%04x device=%04x command=%04x\n", (unsigned)config_read(probe, 0, 2),
           (unsigned)config_read(probe, 2, 2), (unsigned)config_read(probe, PCI_COMMAND, 2));
}

/* --- edu: QEMU's device for teaching (docs/specs/edu in QEMU's manual) --- */

#define EDU_BAR         VFIO_PCI_BAR0_REGION_INDEX
#define EDU_ID          0x00
#define EDU_LIVENESS    0x04
#define EDU_RAISE       0x60
#define EDU_ACKNOWLEDGE 0x64
#define EDU_SOURCE      0x80
#define EDU_DESTINATION 0x88
#define EDU_COUNT       0x90
#define EDU_COMMAND     0x98
#define EDU_BUFFER      UINT64_C(0x40000)
/* The buffer has 4096 bytes, but QEMU aborts on a transfer that reaches its end. */
#define EDU_SIZE      2048
#define EDU_START     1
#define EDU_TO_MEMORY 2

static void edu_write(struct probe *probe, uint64_t at, uint32_t value)
{
    region_write(probe, EDU_BAR, at, 4, value);
}

/* Starts a transfer and waits until edu says that it is through, which takes it 100 ms. */
static void edu_transfer(struct probe *probe, uint64_t from, uint64_t to, uint32_t direction)
{
    const struct timespec moment = {.tv_nsec = 5000000};
    region_write(probe, EDU_BAR, EDU_SOURCE, 8, from);
    region_write(probe, EDU_BAR, EDU_DESTINATION, 8, to);
    region_write(probe, EDU_BAR, EDU_COUNT, 8, EDU_SIZE);
    region_write(probe, EDU_BAR, EDU_COMMAND, 8, EDU_START | direction);
    for (int i = 0; i < 1000; i++) {
        if (!(region_read(probe, EDU_BAR, EDU_COMMAND, 8) & EDU_START))
            return;
        nanosleep(&moment, NULL);
    }
    fail("edu does not end a transfer");
}

static void edu_load(struct probe *probe, uint64_t iova)
{
    edu_transfer(probe, iova, EDU_BUFFER, 0);
}

static void edu_store(struct probe *probe, uint64_t iova)
{
    edu_transfer(probe, EDU_BUFFER, iova, EDU_TO_MEMORY);
}

static void edu_mmio(struct probe *probe)
{
    open_device(probe);
    must(region_read(probe, EDU_BAR, EDU_ID, 4) == 0x010000ed, "edu answers to reads of its BAR");
    enable_bus_master(probe);
    volatile uint8_t *bar = map_bar(probe, EDU_BAR);
    volatile uint32_t *liveness = (volatile uint32_t *)(bar + EDU_LIVENESS);
    *liveness = 0x12345678;
    must(*liveness == ~UINT32_C(0x12345678), "edu answers to its mapped BAR");
}

static void edu_dma(struct probe *probe)
{
    uint8_t expected[EDU_SIZE];
    open_device(probe);
    give_memory(probe, 4 * PAGE);
    must(!(config_read(probe, PCI_COMMAND, 2) & PCI_COMMAND_MASTER),
         "an opened device may not start transfers yet");
    enable_bus_master(probe);
    fill(expected, EDU_SIZE, 1);
    memcpy(probe->memory, expected, EDU_SIZE);
    edu_load(probe, IOVA);
    memset(probe->memory, 0, EDU_SIZE);
    edu_store(probe, IOVA + 2 * PAGE);
    must(!memcmp(probe->memory + 2 * PAGE, expected, EDU_SIZE), "data went there and back by DMA");
    must(!probe->memory[2 * PAGE - 1] && !probe->memory[2 * PAGE + EDU_SIZE], "and nowhere else");
}

/* What edu's buffer holds after a read that was blocked is QEMU's choice; the memory is ours. */
static void edu_blocked(struct probe *probe)
{
    uint8_t secret[EDU_SIZE], before[EDU_SIZE];
    open_device(probe);
    give_memory(probe, 4 * PAGE);
    enable_bus_master(probe);
    fill(probe->memory, EDU_SIZE, 7);
    edu_load(probe, IOVA);
    fill(secret, EDU_SIZE, 9);
    memcpy(probe->memory + 2 * PAGE, secret, EDU_SIZE);
    memcpy(before, probe->memory, EDU_SIZE);
    take_memory(probe, IOVA, probe->size);

    edu_store(probe, IOVA + 2 * PAGE);
    must(!memcmp(probe->memory + 2 * PAGE, secret, EDU_SIZE), "a write after the unmap is blocked");
    edu_load(probe, IOVA + 2 * PAGE);

    int problem = map_dma(probe, probe->memory, IOVA, PAGE);
    must(!problem, "the memory can be mapped again");
    edu_store(probe, IOVA);
    must(memcmp(probe->memory, secret, EDU_SIZE) != 0, "a read after the unmap is blocked");
    printf("a blocked read leaves %s\n", !memcmp(probe->memory, before, EDU_SIZE) ? "what was there"
                                         : !probe->memory[EDU_SIZE / 2]           ? "zeros"
                                                                        : "something else");
}

static void edu_intx(struct probe *probe)
{
    const uint32_t index = VFIO_PCI_INTX_IRQ_INDEX;
    open_device(probe);
    enable_bus_master(probe);
    int event = trigger_by_event(probe, index);
    edu_write(probe, EDU_RAISE, 1);
    must(comes(event, EVENT_TIME), "INTx comes as an event");
    must(!comes(event, QUIET_TIME), "INTx is masked while it is up");
    set_irqs(probe, index, VFIO_IRQ_SET_ACTION_UNMASK, 0, 1, NULL);
    must(comes(event, EVENT_TIME), "INTx comes again when it is unmasked and still up");
    edu_write(probe, EDU_ACKNOWLEDGE, 1);
    set_irqs(probe, index, VFIO_IRQ_SET_ACTION_UNMASK, 0, 1, NULL);
    must(!comes(event, QUIET_TIME), "INTx stays away once it is acknowledged");

    int resample = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int problem = set_irqs(probe, index, VFIO_IRQ_SET_ACTION_UNMASK, 0, 1, &resample);
    must(!problem, "INTx takes an event that unmasks it");
    edu_write(probe, EDU_RAISE, 2);
    must(comes(event, EVENT_TIME), "INTx comes with that event set");
    uint64_t one = 1;
    must(write(resample, &one, sizeof(one)) == sizeof(one) && comes(event, EVENT_TIME),
         "the event unmasks INTx, which is still up");
    edu_write(probe, EDU_ACKNOWLEDGE, 2);
    must(!set_irqs(probe, index, VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0, NULL),
         "INTx can be turned off");
}

static void edu_msi(struct probe *probe)
{
    const uint32_t index = VFIO_PCI_MSI_IRQ_INDEX;
    open_device(probe);
    enable_bus_master(probe);
    int event = trigger_by_event(probe, index);
    for (int i = 0; i < 3; i++) {
        edu_write(probe, EDU_RAISE, 1);
        must(comes(event, EVENT_TIME), "MSI comes as an event");
        edu_write(probe, EDU_ACKNOWLEDGE, 1);
    }
    must(!comes(event, QUIET_TIME), "and only as often as it was raised");
    must(!set_irqs(probe, index, VFIO_IRQ_SET_ACTION_TRIGGER, 0, 1, NULL) &&
             comes(event, EVENT_TIME),
         "a program can raise it too");
    must(!set_irqs(probe, index, VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0, NULL), "MSI can be turned off");
}

/* --- nvme: one command of the admin queue, its completion by MSI-X (NVMe base 1.4, 3.1 and 5.15)
 * --- */

#define NVME_BAR                 VFIO_PCI_BAR0_REGION_INDEX
#define NVME_CC                  0x14
#define NVME_CSTS                0x1c
#define NVME_AQA                 0x24
#define NVME_ASQ                 0x28
#define NVME_ACQ                 0x30
#define NVME_SUBMISSION_DOORBELL 0x1000
#define NVME_COMPLETION_DOORBELL 0x1004
#define NVME_IDENTIFY            6

static void nvme_enable(struct probe *probe, bool on)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    /* Entries of 64 and 16 bytes. */
    region_write(probe, NVME_BAR, NVME_CC, 4, on ? 6 << 16 | 4 << 20 | 1 : 0);
    for (int i = 0; i < 5000; i++) {
        if ((region_read(probe, NVME_BAR, NVME_CSTS, 4) & 1) == on)
            return;
        nanosleep(&moment, NULL);
    }
    fail("the controller does not become %s", on ? "ready" : "idle");
}

/* The pages at IOVA: submission queue, completion queue, the answer. */
static void nvme(struct probe *probe)
{
    const uint32_t index = VFIO_PCI_MSIX_IRQ_INDEX;
    open_device(probe);
    give_memory(probe, 3 * PAGE);
    enable_bus_master(probe);
    nvme_enable(probe, false);
    region_write(probe, NVME_BAR, NVME_AQA, 4, 1 << 16 | 1);
    region_write(probe, NVME_BAR, NVME_ASQ, 8, IOVA);
    region_write(probe, NVME_BAR, NVME_ACQ, 8, IOVA + PAGE);
    int event = trigger_by_event(probe, index);
    nvme_enable(probe, true);

    uint32_t *command = (uint32_t *)probe->memory;
    const uint32_t *completion = (const uint32_t *)(probe->memory + PAGE);
    command[0] = NVME_IDENTIFY | 0x1234 << 16;
    command[6] = (uint32_t)IOVA + 2 * PAGE;
    command[10] = 1; /* the controller */
    region_write(probe, NVME_BAR, NVME_SUBMISSION_DOORBELL, 4, 1);
    must(comes(event, EVENT_TIME), "MSI-X comes as an event");
    must(completion[3] == (UINT32_C(1) << 16 | 0x1234), "the command is completed well");
    region_write(probe, NVME_BAR, NVME_COMPLETION_DOORBELL, 4, 1);
    printf("serial number: %.*s\n", (int)strcspn((char *)probe->memory + 2 * PAGE + 4, " "),
           (char *)probe->memory + 2 * PAGE + 4);

    int second = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int problem = set_irqs(probe, index, VFIO_IRQ_SET_ACTION_TRIGGER, 1, 1, &second);
    printf("a second vector while the first is on: %s\n", problem ? strerror(problem) : "taken");
    nvme_enable(probe, false);
}

/* --- What is refused --- */

static void refused(struct probe *probe)
{
    char path[64];
    open_device(probe);
    give_memory(probe, PAGE);
    must(map_dma(probe, probe->memory, 0xfee00000, PAGE) == EINVAL,
         "the MSI window is no place for memory: EINVAL");
    must(map_dma(probe, probe->memory, IOVA, PAGE) == EEXIST,
         "nothing can be mapped over something: EEXIST");
    must(map_dma(probe, probe->memory, IOVA + 2 * PAGE, PAGE / 2) == EINVAL,
         "no half page can be mapped: EINVAL");
    snprintf(path, sizeof(path), "/dev/vfio/%d", group_number(probe->address));
    must(open(path, O_RDWR) < 0 && errno == EBUSY, "a group has one owner at a time: EBUSY");
}

/* --- Resets --- */

static void reset(struct probe *probe)
{
    open_device(probe);
    printf("reset: %s\n", ioctl(probe->device, VFIO_DEVICE_RESET) ? strerror(errno) : "done");
}

static void hot_reset(struct probe *probe)
{
    struct {
        struct vfio_pci_hot_reset_info info;
        struct vfio_pci_dependent_device devices[32];
    } answer = {.info = {.argsz = sizeof(answer)}};
    struct {
        struct vfio_pci_hot_reset head;
        int32_t groups[1];
    } order = {.head = {.argsz = sizeof(order), .count = 1}};
    open_device(probe);
    if (ioctl(probe->device, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &answer))
        fail("VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: %s", strerror(errno));
    for (uint32_t i = 0; i < answer.info.count; i++)
        printf("resets %04x:%02x:%02x.%x of group %u\n", answer.devices[i].segment,
               answer.devices[i].bus, answer.devices[i].devfn >> 3, answer.devices[i].devfn & 7,
               answer.devices[i].group_id);
    memcpy(order.head.group_fds, &probe->group, sizeof(probe->group));
    printf("hot reset: %s\n",
           ioctl(probe->device, VFIO_DEVICE_PCI_HOT_RESET, &order) ? strerror(errno) : "done");
}

/* --- request: holds the device until the host wants it back --- */

static void request(struct probe *probe)
{
    open_device(probe);
    int event = trigger_by_event(probe, VFIO_PCI_REQ_IRQ_INDEX);
    printf("holds\n");
    fflush(stdout);
    must(comes(event, 60000), "the host asks for the device");
}

static void group_only(struct probe *probe)
{
    open_group(probe);
    printf("container: %s\n", ioctl(probe->group, VFIO_GROUP_SET_CONTAINER, &probe->container)
                                  ? strerror(errno)
                                  : "set");
}

static const struct {
    const char *name;
    void (*run)(struct probe *probe);
} commands[] = {
    {"info", info},
    {"group", group_only},
    {"edu-mmio", edu_mmio},
    {"edu-dma", edu_dma},
    {"edu-blocked", edu_blocked},
    {"edu-intx", edu_intx},
    {"edu-msi", edu_msi},
    {"nvme", nvme},
    {"refused", refused},
    {"reset", reset},
    {"hot-reset", hot_reset},
    {"request", request},
};

int main(int argc, char **argv)
{
    struct probe probe = {.container = -1, .group = -1, .device = -1};
    if (argc != 3)
        fail("usage: vfio_probe COMMAND ADDRESS");
    probe.address = argv[2];
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        if (!strcmp(argv[1], commands[i].name)) {
            commands[i].run(&probe);
            return 0;
        }
    }
    fail("unknown command %s", argv[1]);
}
