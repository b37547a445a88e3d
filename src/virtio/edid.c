#include "virtio/edid.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"

#define BLOCK_SIZE   128
#define YEAR         2025
#define PRODUCT      1
#define GAMMA        (220 - 100) /* 2.2 */
#define DPI          96
#define MAX_MM       2550 /* 255 cm is what a byte holds */
#define REFRESH      60
#define DETAILED_MAX 4095  /* pixels, each way */
#define CLOCK_MAX    65535 /* 10 kHz */
#define CLOCK_MIN    1025u /* 10 kHz; readers take less than 10 MHz for rubbish */
/* What is in the first block where the real size does not fit. */
#define SMALLER_WIDTH  1920u
#define SMALLER_HEIGHT 1080u

/* Where things are in the first block (E-EDID 1.4, table 3.1). */
enum edid_offset {
    EDID_MANUFACTURER = 8,
    EDID_PRODUCT = 10,
    EDID_SERIAL = 12,
    EDID_YEAR = 17,
    EDID_VERSION = 18,
    EDID_INPUT = 20,
    EDID_SIZE = 21,
    EDID_GAMMA = 23,
    EDID_FEATURES = 24,
    EDID_COLOURS = 25,
    EDID_ESTABLISHED = 35,
    EDID_STANDARD = 38,
    EDID_DESCRIPTORS = 54,
    EDID_EXTENSIONS = 126,
};

#define STANDARD_COUNT  8
#define DESCRIPTOR_SIZE 18

/* Reduced blanking (CVT 1.1, section 3.4): what a mode is when no tube needs time to go back. */
#define H_FRONT     48u
#define H_SYNC      32u
#define H_BLANK     160u
#define V_FRONT     3u
#define V_BACK_MIN  6u
#define V_BLANK_US  460u
#define SECOND_US   1000000u
#define CLOCK_STEPS 25u /* of 10 kHz */

struct timing {
    uint32_t width, height;
    uint32_t v_blank, v_sync;
    uint32_t clock; /* 10 kHz */
    uint32_t width_mm, height_mm;
};

/* The width of the vertical sync says what the aspect ratio is. */
static uint32_t sync_lines(uint32_t width, uint32_t height)
{
    static const struct {
        uint8_t x, y, lines;
    } ratios[] = {{4, 3, 4}, {16, 9, 5}, {16, 10, 6}, {5, 4, 7}, {15, 9, 7}};
    for (size_t i = 0; i < ARRAY_SIZE(ratios); i++)
        if (width == height * ratios[i].x / ratios[i].y)
            return ratios[i].lines;
    return 10;
}

static struct timing timing_create(uint32_t width, uint32_t height)
{
    struct timing timing = {.width = width, .height = height};
    timing.v_sync = sync_lines(width, height);
    /* A line takes (1 s / REFRESH - V_BLANK_US) / height; enough of them for V_BLANK_US. */
    timing.v_blank = V_BLANK_US * REFRESH * height / (SECOND_US - V_BLANK_US * REFRESH) + 1;
    if (timing.v_blank < V_FRONT + timing.v_sync + V_BACK_MIN)
        timing.v_blank = V_FRONT + timing.v_sync + V_BACK_MIN;
    uint32_t line = width + H_BLANK, lines = CLOCK_MIN * 10000 / REFRESH / line + 1;
    if (height + timing.v_blank < lines)
        timing.v_blank = lines - height;
    uint64_t clock = (uint64_t)line * (height + timing.v_blank) * REFRESH / 10000;
    timing.clock = (uint32_t)(clock - clock % CLOCK_STEPS);
    uint32_t dpi = DPI;
    while ((uint64_t)width * 254 / (10 * dpi) > MAX_MM ||
           (uint64_t)height * 254 / (10 * dpi) > MAX_MM)
        dpi *= 2;
    timing.width_mm = (width * 254 + 5 * dpi) / (10 * dpi);
    timing.height_mm = (height * 254 + 5 * dpi) / (10 * dpi);
    return timing;
}

static bool timing_fits(const struct timing *timing)
{
    return timing->width <= DETAILED_MAX && timing->height <= DETAILED_MAX &&
           timing->clock <= CLOCK_MAX;
}

/* Section 3.10.2. */
static void put_detailed(uint8_t *bytes, const struct timing *timing)
{
    uint32_t mm_x = timing->width_mm, mm_y = timing->height_mm;
    store_le16(bytes, (uint16_t)timing->clock);
    bytes[2] = (uint8_t)timing->width;
    bytes[3] = (uint8_t)H_BLANK;
    bytes[4] = (uint8_t)(timing->width >> 8 << 4);
    bytes[5] = (uint8_t)timing->height;
    bytes[6] = (uint8_t)timing->v_blank;
    bytes[7] = (uint8_t)(timing->height >> 8 << 4 | timing->v_blank >> 8);
    bytes[8] = H_FRONT;
    bytes[9] = H_SYNC;
    bytes[10] = (uint8_t)(V_FRONT << 4 | timing->v_sync);
    bytes[12] = (uint8_t)mm_x;
    bytes[13] = (uint8_t)mm_y;
    bytes[14] = (uint8_t)(mm_x >> 8 << 4 | mm_y >> 8);
    bytes[17] = 0x1a; /* digital separate sync: horizontal positive, vertical negative */
}

/* Section 3.10.3: up to 13 characters, a line feed where there are fewer, then spaces. */
static void put_text(uint8_t *bytes, uint8_t tag, const char *text)
{
    unsigned at = 5;
    memset(bytes, 0, at);
    bytes[3] = tag;
    memset(bytes + at, ' ', DESCRIPTOR_SIZE - at);
    while (*text && at < DESCRIPTOR_SIZE)
        bytes[at++] = (uint8_t)*text++;
    if (at < DESCRIPTOR_SIZE)
        bytes[at] = '\n';
}

/* Section 3.9: modes that many programs know, as far as they fit. */
static void put_standard(uint8_t *bytes, uint32_t width, uint32_t height)
{
    enum aspect { WIDE_10, NARROW, NARROW_5, WIDE_9 };
    static const struct {
        uint16_t width, height;
        uint8_t aspect;
    } modes[] = {
        {2048, 1152, WIDE_9}, {1920, 1200, WIDE_10}, {1920, 1080, WIDE_9}, {1680, 1050, WIDE_10},
        {1600, 1200, NARROW}, {1600, 900, WIDE_9},   {1440, 900, WIDE_10}, {1280, 1024, NARROW_5},
        {1280, 800, WIDE_10}, {1280, 720, WIDE_9},   {1152, 864, NARROW},
    };
    unsigned count = 0;
    memset(bytes, 0x01, 2 * STANDARD_COUNT); /* unused */
    for (size_t i = 0; i < ARRAY_SIZE(modes) && count < STANDARD_COUNT; i++) {
        bool same = modes[i].width == width && modes[i].height == height;
        if (modes[i].width > width || modes[i].height > height || same)
            continue;
        bytes[2 * count] = (uint8_t)(modes[i].width / 8 - 31);
        bytes[2 * count + 1] = (uint8_t)(modes[i].aspect << 6 | (REFRESH - 60));
        count++;
    }
}

/* Section 3.8: the three of them that run at 60 Hz, as far as they fit and are not the display's
 * own size, which would be listed twice. */
static void put_established(uint8_t *bytes, uint32_t width, uint32_t height)
{
    static const struct {
        uint16_t width, height;
        uint8_t byte, bit;
    } modes[] = {{640, 480, 0, 0x20}, {800, 600, 0, 0x01}, {1024, 768, 1, 0x08}};
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        bool same = modes[i].width == width && modes[i].height == height;
        if (modes[i].width <= width && modes[i].height <= height && !same)
            bytes[modes[i].byte] |= modes[i].bit;
    }
}

static void put_checksum(uint8_t *bytes, size_t size)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + bytes[i]);
    bytes[size] = (uint8_t)-sum;
}

/* Begins a data block of a DisplayID structure; returns its contents, and moves *at behind it. */
static uint8_t *add_block(uint8_t **at, uint8_t tag, uint8_t size)
{
    uint8_t *block = *at;
    block[0] = tag;
    block[2] = size;
    *at = block + 3 + size;
    return block + 3;
}

/* DisplayID 1.3, section 4.4.1: a Type I detailed timing. */
static void put_type_1(uint8_t *bytes, const struct timing *timing)
{
    uint32_t clock = timing->clock - 1;
    store_le16(bytes, (uint16_t)clock);
    bytes[2] = (uint8_t)(clock >> 16);
    bytes[3] = 0x80 | 0x08; /* preferred; the aspect ratio is none of those listed */
    store_le16(bytes + 4, (uint16_t)(timing->width - 1));
    store_le16(bytes + 6, H_BLANK - 1);
    store_le16(bytes + 8, (H_FRONT - 1) | 0x8000); /* positive sync */
    store_le16(bytes + 10, H_SYNC - 1);
    store_le16(bytes + 12, (uint16_t)(timing->height - 1));
    store_le16(bytes + 14, (uint16_t)(timing->v_blank - 1));
    store_le16(bytes + 16, V_FRONT - 1);
    store_le16(bytes + 18, (uint16_t)(timing->v_sync - 1));
}

/* Section 4.2: the display parameters. */
static void put_parameters(uint8_t *bytes, const struct timing *timing)
{
    uint32_t longer = timing->width > timing->height ? timing->width : timing->height;
    uint32_t shorter = timing->width > timing->height ? timing->height : timing->width;
    uint32_t ratio = (uint32_t)((uint64_t)longer * 100 / shorter - 100);
    store_le16(bytes, (uint16_t)(timing->width_mm * 10));
    store_le16(bytes + 2, (uint16_t)(timing->height_mm * 10));
    store_le16(bytes + 4, (uint16_t)timing->width);
    store_le16(bytes + 6, (uint16_t)timing->height);
    bytes[9] = GAMMA;
    bytes[10] = (uint8_t)(ratio < 255 ? ratio : 255);
    bytes[11] = 0x77; /* 8 bits a colour */
}

/* An extension block that is a DisplayID structure (section 3). */
static void put_display_id(uint8_t *block, const struct timing *timing, unsigned index)
{
    block[0] = 0x70;
    static const uint8_t vendor[] = {'H', 'V', 'M'};
    uint8_t *section = block + 1, *at = section + 4, *product;
    section[0] = 0x12;                   /* version 1.2 of the structure */
    section[1] = BLOCK_SIZE - 1 - 1 - 5; /* bytes between here and its checksum */
    section[2] = 0x03;                   /* a display that stands alone */
    product = add_block(&at, 0x00, 12);
    memcpy(product, vendor, sizeof(vendor));
    store_le16(product + 3, PRODUCT);
    store_le32(product + 5, index + 1);
    product[10] = YEAR - 2000;
    put_parameters(add_block(&at, 0x01, 12), timing);
    uint8_t *interface = add_block(&at, 0x0f, 10);
    interface[0] = 0xb1; /* one link of a kind of its own */
    interface[2] = 0x02; /* 8 bits a colour */
    put_type_1(add_block(&at, 0x03, 20), timing);
    put_checksum(section, 5 + section[1] - 1);
    put_checksum(block, BLOCK_SIZE - 1);
}

size_t edid_create(uint8_t edid[EDID_SIZE_MAX], uint32_t width, uint32_t height, unsigned index)
{
    static const uint8_t header[] = {0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00};
    static const uint8_t srgb[] = {0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54};
    struct timing timing = timing_create(width, height), first = timing;
    bool extended = !timing_fits(&timing);
    char serial[14];

    if (extended)
        first = timing_create(width < SMALLER_WIDTH ? width : SMALLER_WIDTH,
                              height < SMALLER_HEIGHT ? height : SMALLER_HEIGHT);
    first.width_mm = timing.width_mm;
    first.height_mm = timing.height_mm;
    memset(edid, 0, EDID_SIZE_MAX);
    memcpy(edid, header, sizeof(header));
    /* "HVM", five bits a letter, big-endian */
    uint16_t maker = ('H' - '@') << 10 | ('V' - '@') << 5 | ('M' - '@');
    edid[EDID_MANUFACTURER] = (uint8_t)(maker >> 8);
    edid[EDID_MANUFACTURER + 1] = (uint8_t)maker;
    store_le16(edid + EDID_PRODUCT, PRODUCT);
    store_le32(edid + EDID_SERIAL, index + 1);
    edid[EDID_YEAR] = YEAR - 1990;
    edid[EDID_VERSION] = 1;
    edid[EDID_VERSION + 1] = 4;
    edid[EDID_INPUT] = 0xa0; /* digital, 8 bits a colour */
    edid[EDID_SIZE] = (uint8_t)((timing.width_mm + 5) / 10);
    edid[EDID_SIZE + 1] = (uint8_t)((timing.height_mm + 5) / 10);
    edid[EDID_GAMMA] = GAMMA;
    edid[EDID_FEATURES] = extended ? 0x04 : 0x06; /* sRGB; the first timing is the native one */
    memcpy(edid + EDID_COLOURS, srgb, sizeof(srgb));
    put_established(edid + EDID_ESTABLISHED, width, height);
    put_standard(edid + EDID_STANDARD, width, height);
    uint8_t *descriptor = edid + EDID_DESCRIPTORS;
    put_detailed(descriptor, &first);
    put_text(descriptor + DESCRIPTOR_SIZE, 0xfc, "hartvisor");
    snprintf(serial, sizeof(serial), "%u", index + 1);
    put_text(descriptor + 2 * DESCRIPTOR_SIZE, 0xff, serial);
    descriptor[3 * DESCRIPTOR_SIZE + 3] = 0x10; /* none */
    edid[EDID_EXTENSIONS] = extended;
    put_checksum(edid, BLOCK_SIZE - 1);
    if (!extended)
        return BLOCK_SIZE;
    put_display_id(edid + BLOCK_SIZE, &timing, index);
    return 2 * BLOCK_SIZE;
}
