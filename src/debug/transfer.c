/* qXfer: documents that are read in pieces. */
#include <inttypes.h>
#include <string.h>

#include "debug/session.h"

/* Sends the part of a document that was asked for: 'm' in front if more follows, 'l' if not. */
static void send_part(struct debug_session *session, const struct buffer *document,
                      const struct argument *arguments)
{
    uint64_t offset = arguments[0].number, size = arguments[1].number;
    if (offset > document->size) {
        reply_error(session, REMOTE_EINVAL, "offset %llu is behind the end, %zu",
                    (unsigned long long)offset, document->size);
        return;
    }
    uint64_t left = document->size - offset;
    if (size > PACKET_MAX / 2)
        size = PACKET_MAX / 2;
    buffer_text(&session->reply, size < left ? "m" : "l");
    buffer_bytes(&session->reply, document->data + offset, size < left ? size : left);
}

static void handle_features(struct debug_session *session, const struct argument *arguments,
                            size_t count)
{
    if (!session->target_xml.size)
        target_describe(&session->target_xml, machine_debug_hart(session->machine, 0),
                        session->is_gdb);
    send_part(session, &session->target_xml, arguments);
}

static void handle_no_feature(struct debug_session *session, const struct argument *arguments,
                              size_t count)
{
    buffer_text(&session->reply, "E00"); /* the document is not known */
}

static void handle_threads(struct debug_session *session, const struct argument *arguments,
                           size_t count)
{
    struct buffer text = {0};
    buffer_text(&text, "<?xml version=\"1.0\"?><threads>");
    for (unsigned i = 0; i < session->hart_count; i++) {
        buffer_format(&text, "<thread id=\"%s%x\" core=\"%u\" name=\"hart %u\">",
                      session->multiprocess ? "p1." : "", i + 1, i, i);
        describe_hart(session, i, &text);
        buffer_text(&text, "</thread>");
    }
    buffer_text(&text, "</threads>");
    send_part(session, &text, arguments);
    buffer_finish(&text);
}

static void put_region(struct buffer *text, const char *type, uint64_t first, uint64_t last)
{
    if (first > last)
        return;
    buffer_format(text, "<memory type=\"%s\" start=\"%#" PRIx64 "\" length=\"%#" PRIx64 "\"/>",
                  type, first, last - first + 1);
}

struct map {
    struct buffer text;
    uint64_t next; /* the first address that is in no region yet */
};

/* A region of its own, after what is before it. */
static void put_known(void *opaque, const struct memory_range *range)
{
    struct map *map = opaque;
    if (range->kind == MEMORY_MMIO || range->kind == MEMORY_DEVICE || range->base < map->next)
        return;
    put_region(&map->text, "ram", map->next, range->base - 1);
    put_region(&map->text, range->kind == MEMORY_ROM ? "rom" : "ram", range->base,
               range->base + (range->size - 1));
    map->next = range->base + range->size;
}

/*
 * Addresses are virtual, the client reads the map once, and GDB refuses to access what no region
 * has: so all addresses are RAM. But while nothing is translated, RAM and ROM are seen as they are;
 * GDB then chooses hardware breakpoints in ROM by itself.
 */
static void handle_memory_map(struct debug_session *session, const struct argument *arguments,
                              size_t count)
{
    struct map map = {0};
    struct hart *hart = session_hart(session);
    buffer_text(&map.text,
                "<?xml version=\"1.0\"?><!DOCTYPE memory-map PUBLIC \"+//IDN gnu.org//DTD "
                "GDB Memory Map V1.0//EN\" \"http://sourceware.org/gdb/gdb-memory-map.dtd\">"
                "<memory-map>");
    if (hart->privilege == PRIVILEGE_MACHINE || hart->satp >> 60 == 0)
        memory_list(machine_debug_memory(session->machine), put_known, &map);
    put_region(&map.text, "ram", map.next, INT64_MAX);
    put_region(&map.text, "ram", (uint64_t)INT64_MAX + 1, UINT64_MAX);
    buffer_text(&map.text, "</memory-map>");
    send_part(session, &map.text, arguments);
    buffer_finish(&map.text);
}

const struct command transfer_commands[] = {
    {"qXfer:features:read:target.xml:", "h,h", handle_features},
    {"qXfer:features:read:", "s", handle_no_feature},
    {"qXfer:threads:read::", "h,h", handle_threads},
    {"qXfer:memory-map:read::", "h,h", handle_memory_map, .stands = true},
    {0},
};
