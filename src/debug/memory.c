/* Packets about memory. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "debug/session.h"

/* --- Access ------------------------------------------------------------------------------------
 */

/* One access to registers of the width that address and size allow. Returns its width, or 0. */
static size_t access_registers(struct memory *memory, uint64_t gpa, uint8_t *buffer, size_t size,
                               bool write)
{
    unsigned width = 8;
    uint64_t value = 0;
    while (width > size || gpa % width)
        width /= 2;
    memcpy(&value, buffer, width);
    if (!(write ? memory_write(memory, gpa, width, value)
                : memory_read(memory, gpa, width, &value)))
        return 0;
    memcpy(buffer, &value, width);
    return width;
}

/* The address that one is translated to, as the session's mode wants it. */
static bool translate(struct debug_session *session, uint64_t va, bool write, uint64_t *gpa)
{
    struct hart *hart = session_hart(session);
    struct hart_walk walk;
    *gpa = va;
    if (session->physical)
        return true;
    if (session->privilege >= 0) /* a mode that the user has chosen: with its permissions */
        return hart_translate(hart, va, write ? ACCESS_STORE : ACCESS_LOAD, session->privilege,
                              gpa) == TRAP_NONE;
    bool mapped = hart_debug_walk(hart, va, -1, &walk);
    *gpa = walk.gpa;
    return mapped;
}

/* Page by page; how many bytes there were before the first that cannot be accessed. */
static size_t copy(struct debug_session *session, uint64_t address, uint8_t *buffer, size_t size,
                   bool write)
{
    struct memory *memory = machine_debug_memory(session->machine);
    size_t done = 0;
    while (done < size) {
        uint64_t gpa, va = address + done;
        size_t part = MEMORY_PAGE_SIZE - va % MEMORY_PAGE_SIZE;
        if (part > size - done)
            part = size - done;
        if (!translate(session, va, write, &gpa))
            break;
        if (!(write ? memory_dma_write(memory, gpa, buffer + done, part)
                    : memory_dma_read(memory, gpa, buffer + done, part)))
            part =
                session->registers ? access_registers(memory, gpa, buffer + done, part, write) : 0;
        if (!part)
            break;
        done += part;
    }
    return done;
}

size_t session_read(struct debug_session *session, uint64_t address, void *buffer, size_t size)
{
    return copy(session, address, buffer, size, false);
}

size_t session_write(struct debug_session *session, uint64_t address, const void *data, size_t size)
{
    size_t done = copy(session, address, (uint8_t *)data, size, true);
    if (done)
        machine_debug_fence_code(session->machine);
    return done;
}

/* Why an address cannot be accessed. */
static void refuse(struct debug_session *session, uint64_t address, const char *what)
{
    struct hart_walk walk;
    unsigned long long shown = address;
    if (session->physical)
        reply_error(session, REMOTE_EFAULT, "cannot %s physical address %#llx: not RAM", what,
                    shown);
    else if (!hart_debug_walk(session_hart(session), address, session->privilege, &walk))
        reply_error(session, REMOTE_EFAULT, "cannot %s %#llx: %s", what, shown, walk.failure);
    else if (session->privilege >= 0)
        reply_error(session, REMOTE_EFAULT,
                    "cannot %s %#llx with the permissions of `monitor privilege`, or it is not RAM",
                    what, shown);
    else
        reply_error(session, REMOTE_EFAULT,
                    "cannot %s %#llx: physical address %#llx is not RAM (registers of devices: "
                    "monitor mmio)",
                    what, shown, (unsigned long long)walk.gpa);
}

/* --- Packets -----------------------------------------------------------------------------------
 */

/* Reads into the reply's end what fits a packet; false, with the error as the reply, if the first
 * byte cannot be read. */
static size_t fetch(struct debug_session *session, const struct argument *arguments, uint8_t *data,
                    size_t most)
{
    size_t size = arguments[1].number < most ? arguments[1].number : most;
    size_t done = session_read(session, arguments[0].number, data, size);
    if (!done && size)
        refuse(session, arguments[0].number, "read");
    return done;
}

static void handle_read_hex(struct debug_session *session, const struct argument *arguments,
                            size_t count)
{
    uint8_t data[PACKET_MAX / 2];
    buffer_hex(&session->reply, data, fetch(session, arguments, data, sizeof(data)));
}

/* GDB wants a 'b' in front. LLDB asks with x0,0 whether the packet is known, and does not. */
static void handle_read_binary(struct debug_session *session, const struct argument *arguments,
                               size_t count)
{
    uint8_t data[PACKET_MAX / 2]; /* all of which may have to be escaped */
    if (arguments[0].number == 0 && arguments[1].number == 0) {
        session->bare_binary = true;
        reply_ok(session);
        return;
    }
    size_t size = fetch(session, arguments, data, sizeof(data));
    if (!size && arguments[1].number)
        return;
    if (!session->bare_binary)
        buffer_text(&session->reply, "b");
    buffer_bytes(&session->reply, data, size);
}

static void handle_write(struct debug_session *session, const struct argument *arguments,
                         size_t count)
{
    const struct argument *data = &arguments[2];
    if (data->size != arguments[1].number) {
        reply_error(session, REMOTE_EINVAL, "%llu bytes were announced, %zu came",
                    (unsigned long long)arguments[1].number, data->size);
        return;
    }
    size_t done = session_write(session, arguments[0].number, data->data, data->size);
    if (done < data->size)
        refuse(session, arguments[0].number + done, "write");
    else
        reply_ok(session);
}

/* --- Searches and sums --------------------------------------------------------------------------
 */

enum { CHUNK = 64 * 1024 };

/* The bytes in front of a chunk that may begin what ends in it: less than a pattern. */
static void handle_search(struct debug_session *session, const struct argument *arguments,
                          size_t count)
{
    uint64_t address = arguments[0].number, left = arguments[1].number;
    const struct argument *pattern = &arguments[2];
    uint8_t *window = xmalloc(CHUNK + pattern->size);
    size_t kept = 0;
    bool readable = true;
    const uint8_t *found = NULL;
    if (!pattern->size) {
        reply_error(session, REMOTE_EINVAL, "there is nothing to search for");
        free(window);
        return;
    }
    while (left && !found && readable) {
        size_t size = left < CHUNK ? left : CHUNK;
        size_t done = session_read(session, address, window + kept, size);
        readable = done == size;
        found = memmem(window, kept + done, pattern->data, pattern->size);
        if (found)
            break;
        address += done;
        left -= done;
        size_t have = kept + done;
        kept = have < pattern->size - 1 ? have : pattern->size - 1;
        memmove(window, window + have - kept, kept);
    }
    if (found)
        buffer_format(&session->reply, "1,%" PRIx64, address - kept + (uint64_t)(found - window));
    else if (!readable)
        refuse(session, address, "read");
    else
        buffer_text(&session->reply, "0");
    free(window);
}

/* GDB's CRC: polynomial 0x04c11db7, most significant bit first, starting with all ones. */
static uint32_t crc32_update(uint32_t crc, const uint8_t *data, size_t size)
{
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i << 24;
            for (unsigned bit = 0; bit < 8; bit++)
                value = value << 1 ^ (value >> 31 ? 0x04c11db7 : 0);
            table[i] = value;
        }
    for (size_t i = 0; i < size; i++)
        crc = crc << 8 ^ table[(crc >> 24 ^ data[i]) & 255];
    return crc;
}

static void handle_crc(struct debug_session *session, const struct argument *arguments,
                       size_t count)
{
    uint64_t address = arguments[0].number, left = arguments[1].number;
    uint32_t crc = UINT32_MAX;
    uint8_t data[4096];
    while (left) {
        size_t size = left < sizeof(data) ? left : sizeof(data);
        size_t done = session_read(session, address, data, size);
        crc = crc32_update(crc, data, done);
        address += done;
        left -= done;
        if (done == size)
            continue;
        refuse(session, address, "read");
        return;
    }
    buffer_format(&session->reply, "C%x", crc);
}

/* --- Physical mode ------------------------------------------------------------------------------
 */

static void handle_physical(struct debug_session *session, const struct argument *arguments,
                            size_t count)
{
    buffer_format(&session->reply, "%d", session->physical);
}

static void handle_set_physical(struct debug_session *session, const struct argument *arguments,
                                size_t count)
{
    session->physical = arguments[0].number;
    reply_ok(session);
}

/* --- Several at once (LLDB) ---------------------------------------------------------------------
 */

/* Numbers with commas between them, then a semicolon; how many, or 0 if it is something else. */
static unsigned parse_numbers(const struct argument *argument, uint64_t *numbers, unsigned most)
{
    const uint8_t *at = argument->data, *end = at + argument->size;
    unsigned count = 0;
    while (at < end && count < most) {
        const uint8_t *first = at;
        for (numbers[count] = 0; at < end && hex_digit(*at) >= 0; at++)
            numbers[count] = numbers[count] << 4 | (unsigned)hex_digit(*at);
        if (at == first || at - first > 16 || at == end)
            return 0;
        count++;
        if (*at++ == ';')
            return count;
        if (at[-1] != ',')
            return 0;
    }
    return 0;
}

/* "ADDRESS,LENGTH,ADDRESS,LENGTH,...;": the lengths that could be read, then the bytes. */
static void handle_read_several(struct debug_session *session, const struct argument *arguments,
                                size_t count)
{
    enum { NUMBERS_MOST = 2048 };
    uint64_t numbers[NUMBERS_MOST];
    struct buffer bytes = {0};
    unsigned total = parse_numbers(&arguments[0], numbers, NUMBERS_MOST);
    if (!total || total % 2) {
        reply_error(session, REMOTE_EINVAL, "the ranges are malformed, or more than %u",
                    NUMBERS_MOST / 2);
        return;
    }
    for (unsigned i = 0; i < total; i += 2) {
        size_t room = PACKET_MAX / 2 - bytes.size;
        size_t size = numbers[i + 1] < room ? numbers[i + 1] : room;
        size_t done = session_read(session, numbers[i], buffer_extend(&bytes, size), size);
        bytes.size -= size - done;
        buffer_format(&session->reply, "%s%zx", i ? "," : "", done);
    }
    buffer_text(&session->reply, ";");
    buffer_bytes(&session->reply, bytes.data, bytes.size);
    buffer_finish(&bytes);
}

const struct command memory_commands[] = {
    {"m", "h,h", handle_read_hex, .stands = true},
    {"M", "h,h:b", handle_write, .stands = true},
    {"x", "h,h", handle_read_binary, .stands = true},
    {"X", "h,h:x", handle_write, .stands = true},
    {"MultiMemRead:ranges:", "s", handle_read_several, .stands = true},
    {"qSearch:memory", ":h;h;x", handle_search, .stands = true},
    {"qCRC", ":h,h", handle_crc, .stands = true},
    {"qqemu.PhyMemMode", "", handle_physical},
    {"Qqemu.PhyMemMode", ":h", handle_set_physical},
    {0},
};
