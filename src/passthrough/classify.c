#include <string.h>

#include "base/suggest.h"
#include "passthrough/internal.h"

static const struct {
    const char *name;
    enum passthrough_type type;
} kinds[PASSTHROUGH_KINDS] = {
    [PASSTHROUGH_GPU_NVIDIA] = {"gpu-nvidia", PASSTHROUGH_GPU},
    [PASSTHROUGH_GPU_AMD] = {"gpu-amd", PASSTHROUGH_GPU},
    [PASSTHROUGH_GPU_INTEL] = {"gpu-intel", PASSTHROUGH_GPU},
    [PASSTHROUGH_GPU_MOBILE] = {"gpu-mobile", PASSTHROUGH_GPU},
    [PASSTHROUGH_GPU_OTHER] = {"gpu-other", PASSTHROUGH_GPU},
    [PASSTHROUGH_NPU_NPU] = {"npu", PASSTHROUGH_NPU},
    [PASSTHROUGH_NPU_ACCELERATOR] = {"accelerator", PASSTHROUGH_NPU},
    [PASSTHROUGH_NETWORK_ETHERNET] = {"ethernet", PASSTHROUGH_NETWORK},
    [PASSTHROUGH_NETWORK_WIFI] = {"wifi", PASSTHROUGH_NETWORK},
    [PASSTHROUGH_NETWORK_INFINIBAND] = {"infiniband", PASSTHROUGH_NETWORK},
    [PASSTHROUGH_NETWORK_OTHER] = {"network-other", PASSTHROUGH_NETWORK},
    [PASSTHROUGH_STORAGE_NVME] = {"nvme", PASSTHROUGH_STORAGE},
    [PASSTHROUGH_STORAGE_SATA] = {"sata", PASSTHROUGH_STORAGE},
    [PASSTHROUGH_STORAGE_OTHER] = {"storage-other", PASSTHROUGH_STORAGE},
    [PASSTHROUGH_KIND_USB] = {"usb", PASSTHROUGH_USB},
    [PASSTHROUGH_KIND_AUDIO] = {"audio", PASSTHROUGH_AUDIO},
    [PASSTHROUGH_KIND_BRIDGE] = {"bridge", PASSTHROUGH_BRIDGE},
    [PASSTHROUGH_KIND_OTHER] = {"other", PASSTHROUGH_OTHER},
};

static const char *const types[PASSTHROUGH_TYPES] = {
    [PASSTHROUGH_GPU] = "gpu",         [PASSTHROUGH_NPU] = "npu",
    [PASSTHROUGH_NETWORK] = "network", [PASSTHROUGH_STORAGE] = "storage",
    [PASSTHROUGH_USB] = "usb",         [PASSTHROUGH_AUDIO] = "audio",
    [PASSTHROUGH_BRIDGE] = "bridge",   [PASSTHROUGH_OTHER] = "other",
};

#define ANY_VENDOR 0
#define ANY_DEVICE 0
#define ANY_CLASS  0

#define INTEL    0x8086
#define AMD      0x1022
#define ATI      0x1002
#define NVIDIA   0x10de
#define QUALCOMM 0x17cb

/*
 * The first row that fits decides. A class row compares the bits of its mask; a device row compares
 * the bits of its mask, too. Parts that report the class of something else come first.
 */
static const struct {
    uint16_t vendor, device, device_mask;
    uint32_t class_code, class_mask; /* without the interface: 16 bits */
    enum passthrough_kind kind;
} rows[] = {
    /* Instinct boards are programmed as GPUs and report "processing accelerator". */
    {ATI, ANY_DEVICE, 0, 0x1200, 0xff00, PASSTHROUGH_GPU_AMD},
    /* The NPU of Ryzen AI reports "signal processing controller". */
    {AMD, 0x1502, 0xffff, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},
    {AMD, 0x17f0, 0xffff, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},
    {INTEL, ANY_DEVICE, 0, 0x1200, 0xffff, PASSTHROUGH_NPU_NPU}, /* Core Ultra */
    /* Intel's neural accelerators and data movers report "system peripheral". */
    {INTEL, 0x4511, 0xffff, 0x0880, 0xffff, PASSTHROUGH_NPU_NPU},         /* GNA, Elkhart Lake */
    {INTEL, 0x9a11, 0xffff, 0x0880, 0xffff, PASSTHROUGH_NPU_NPU},         /* GNA, Tiger Lake */
    {INTEL, 0x464f, 0xffff, 0x0880, 0xffff, PASSTHROUGH_NPU_NPU},         /* GNA, Alder Lake */
    {INTEL, 0xa74f, 0xffff, 0x0880, 0xffff, PASSTHROUGH_NPU_NPU},         /* GNA, Raptor Lake */
    {INTEL, 0x0b25, 0xffff, 0x0880, 0xffff, PASSTHROUGH_NPU_ACCELERATOR}, /* DSA */
    {INTEL, 0x0cfe, 0xffff, 0x0880, 0xffff, PASSTHROUGH_NPU_ACCELERATOR}, /* IAA */
    {0x1ac1, 0x089a, 0xffff, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},          /* Google Edge TPU */
    {0x1ae0, 0x0027, 0xffff, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},          /* Google TPU v2, v3 */
    {0x1ae0, 0x005e, 0xffff, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},          /* v4 */
    {0x1ae0, 0x0062, 0xfffe, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},          /* v5p, v5e */
    {0x1da3, ANY_DEVICE, 0, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},           /* Habana Labs */
    {0x1e60, ANY_DEVICE, 0, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},           /* Hailo */
    {0x1e52, ANY_DEVICE, 0, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},           /* Tenstorrent */
    {0x1ed2, ANY_DEVICE, 0, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},           /* FuriosaAI */
    {0x1eff, ANY_DEVICE, 0, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},           /* Rebellions */
    {0x1fe9, ANY_DEVICE, 0, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},           /* MemryX */
    {0xcabc, ANY_DEVICE, 0, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},           /* Cambricon */
    {0x19e5, 0xd100, 0xff00, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},          /* Huawei Ascend */
    {0x19e5, 0xd800, 0xff00, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},          /* Huawei Ascend */
    {QUALCOMM, 0xa100, 0xffff, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},        /* Cloud AI 100 */
    {0x1d0f, 0x7064, 0xfffc, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},          /* Amazon Inferentia */
    {0x1d0f, 0x7164, 0xffff, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU},          /* Trainium */
    {0x1d0f, 0x7264, 0xfeff, ANY_CLASS, 0, PASSTHROUGH_NPU_NPU}, /* Inferentia 2, Trainium 2 */

    {ANY_VENDOR, ANY_DEVICE, 0, 0x1200, 0xff00, PASSTHROUGH_NPU_ACCELERATOR},
    {ANY_VENDOR, ANY_DEVICE, 0, 0x0b40, 0xffff, PASSTHROUGH_NPU_ACCELERATOR},
    {ANY_VENDOR, ANY_DEVICE, 0, 0x1000, 0xff00, PASSTHROUGH_NPU_ACCELERATOR}, /* cryptography */

    {NVIDIA, ANY_DEVICE, 0, 0x0300, 0xff00, PASSTHROUGH_GPU_NVIDIA},
    {ATI, ANY_DEVICE, 0, 0x0300, 0xff00, PASSTHROUGH_GPU_AMD},
    {INTEL, ANY_DEVICE, 0, 0x0300, 0xff00, PASSTHROUGH_GPU_INTEL},
    {QUALCOMM, ANY_DEVICE, 0, 0x0300, 0xff00, PASSTHROUGH_GPU_MOBILE}, /* Adreno */
    {0x13b5, ANY_DEVICE, 0, 0x0300, 0xff00, PASSTHROUGH_GPU_MOBILE},   /* Arm Mali */
    {0x1010, ANY_DEVICE, 0, 0x0300, 0xff00, PASSTHROUGH_GPU_MOBILE},   /* Imagination PowerVR */
    {0x144d, ANY_DEVICE, 0, 0x0300, 0xff00, PASSTHROUGH_GPU_MOBILE},   /* Samsung Xclipse */
    {0x106b, ANY_DEVICE, 0, 0x0300, 0xff00, PASSTHROUGH_GPU_MOBILE},   /* Apple */
    {ANY_VENDOR, ANY_DEVICE, 0, 0x0300, 0xff00, PASSTHROUGH_GPU_OTHER},
    {ANY_VENDOR, ANY_DEVICE, 0, 0x0001, 0xffff, PASSTHROUGH_GPU_OTHER}, /* VGA before PCI 2.0 */

    {ANY_VENDOR, ANY_DEVICE, 0, 0x0200, 0xffff, PASSTHROUGH_NETWORK_ETHERNET},
    {ANY_VENDOR, ANY_DEVICE, 0, 0x0207, 0xffff, PASSTHROUGH_NETWORK_INFINIBAND},
    {ANY_VENDOR, ANY_DEVICE, 0, 0x0c06, 0xffff, PASSTHROUGH_NETWORK_INFINIBAND},
    {INTEL, ANY_DEVICE, 0, 0x0280, 0xffff, PASSTHROUGH_NETWORK_WIFI},
    {QUALCOMM, ANY_DEVICE, 0, 0x0280, 0xffff, PASSTHROUGH_NETWORK_WIFI},
    {0x168c, ANY_DEVICE, 0, 0x0280, 0xffff, PASSTHROUGH_NETWORK_WIFI},     /* Atheros */
    {0x10ec, ANY_DEVICE, 0, 0x0280, 0xffff, PASSTHROUGH_NETWORK_WIFI},     /* Realtek */
    {0x14c3, ANY_DEVICE, 0, 0x0280, 0xffff, PASSTHROUGH_NETWORK_WIFI},     /* MediaTek */
    {0x14e4, ANY_DEVICE, 0, 0x0280, 0xffff, PASSTHROUGH_NETWORK_WIFI},     /* Broadcom */
    {0x11ab, ANY_DEVICE, 0, 0x0280, 0xffff, PASSTHROUGH_NETWORK_WIFI},     /* Marvell */
    {0x1814, ANY_DEVICE, 0, 0x0280, 0xffff, PASSTHROUGH_NETWORK_WIFI},     /* Ralink */
    {ANY_VENDOR, ANY_DEVICE, 0, 0x0d20, 0xfffe, PASSTHROUGH_NETWORK_WIFI}, /* 802.11 a and b */
    {ANY_VENDOR, ANY_DEVICE, 0, 0x0200, 0xff00, PASSTHROUGH_NETWORK_OTHER},

    {ANY_VENDOR, ANY_DEVICE, 0, 0x0108, 0xffff, PASSTHROUGH_STORAGE_NVME},
    {ANY_VENDOR, ANY_DEVICE, 0, 0x0106, 0xffff, PASSTHROUGH_STORAGE_SATA},
    {ANY_VENDOR, ANY_DEVICE, 0, 0x0100, 0xff00, PASSTHROUGH_STORAGE_OTHER},
    {ANY_VENDOR, ANY_DEVICE, 0, 0x0c04, 0xffff, PASSTHROUGH_STORAGE_OTHER}, /* Fibre Channel */

    {ANY_VENDOR, ANY_DEVICE, 0, 0x0c03, 0xffff, PASSTHROUGH_KIND_USB},
    {ANY_VENDOR, ANY_DEVICE, 0, 0x0401, 0xffff, PASSTHROUGH_KIND_AUDIO},
    {ANY_VENDOR, ANY_DEVICE, 0, 0x0403, 0xffff, PASSTHROUGH_KIND_AUDIO},
    {ANY_VENDOR, ANY_DEVICE, 0, 0x0600, 0xff00, PASSTHROUGH_KIND_BRIDGE},
};

/* The GPUs of AMD's processors, which sit behind a bridge like those on a board. */
static const uint16_t amd_integrated[] = {
    0x13c0, 0x150e, 0x1506, 0x15bf, 0x15c8, 0x15d8, 0x15dd, 0x15e7, 0x1586, 0x1114,
    0x1636, 0x1638, 0x163f, 0x164c, 0x164d, 0x164e, 0x1681, 0x1900, 0x1901,
};

static bool is_integrated(const struct passthrough_info *info)
{
    if (info->kind == PASSTHROUGH_GPU_INTEL)
        return !info->address.domain && !info->address.bus;
    if (info->kind != PASSTHROUGH_GPU_AMD)
        return info->kind == PASSTHROUGH_GPU_MOBILE;
    for (size_t i = 0; i < ARRAY_SIZE(amd_integrated); i++)
        if (info->device == amd_integrated[i])
            return true;
    return false;
}

void classify(struct passthrough_info *info)
{
    uint32_t class_code = info->class_code >> 8;
    info->kind = PASSTHROUGH_KIND_OTHER;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        bool vendor = rows[i].vendor == ANY_VENDOR || rows[i].vendor == info->vendor;
        if (vendor && !((info->device ^ rows[i].device) & rows[i].device_mask) &&
            !((class_code ^ rows[i].class_code) & rows[i].class_mask)) {
            info->kind = rows[i].kind;
            break;
        }
    }
    info->integrated = is_integrated(info);
}

const char *passthrough_type_name(enum passthrough_type type)
{
    return types[type];
}

const char *passthrough_kind_name(enum passthrough_kind kind)
{
    return kinds[kind].name;
}

enum passthrough_type passthrough_kind_type(enum passthrough_kind kind)
{
    return kinds[kind].type;
}

/* The kinds that a word stands for; 0 if it is none. */
static uint32_t word_kinds(const char *word, size_t length)
{
    uint32_t found = 0;
    for (unsigned i = 0; i < PASSTHROUGH_KINDS; i++) {
        const char *names[] = {kinds[i].name, types[kinds[i].type]};
        for (unsigned j = 0; j < ARRAY_SIZE(names); j++)
            if (strlen(names[j]) == length && !strncmp(names[j], word, length))
                found |= UINT32_C(1) << i;
    }
    return found;
}

static bool unknown_type(const char *word, struct error *err)
{
    char all[256] = "";
    struct suggestion nearest;
    suggest_begin(&nearest, word);
    for (unsigned i = 0; i < PASSTHROUGH_TYPES; i++) {
        suggest_offer(&nearest, types[i]);
        snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s%s", i ? ", " : "", types[i]);
    }
    for (unsigned i = 0; i < PASSTHROUGH_KINDS; i++)
        suggest_offer(&nearest, kinds[i].name);
    if (nearest.name)
        return error_set(err, "there is no type '%s': did you mean %s?", word, nearest.name);
    return error_set(err, "there is no type '%s' (types: %s)", word, all);
}

bool passthrough_kinds_parse(const char *text, uint32_t *set, struct error *err)
{
    *set = 0;
    for (const char *word = text;; word++) {
        size_t length = strcspn(word, ",");
        /* "npu" is a type and one of its kinds: the type is meant. */
        uint32_t found = word_kinds(word, length);
        char name[32];
        snprintf(name, sizeof(name), "%.*s", (int)(length < 31 ? length : 31), word);
        if (!found)
            return unknown_type(name, err);
        *set |= found;
        word += length;
        if (!*word)
            return true;
    }
}
