/* qXfer: documents that are read in pieces. */
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
        target_describe(&session->target_xml, machine_debug_hart(session->machine, 0));
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
    buffer_format(text, "<memory type=\"%s\" start=\"%#llx\" length=\"%#llx\"/>", type,
                  (unsigned long long)first, (unsigned long long)(last - first + 1));
}

/*
 * Addresses are virtual, and GDB refuses to access what no region has: so all addresses are RAM,
 * but for ROM while nothing is translated, where GDB then chooses hardware breakpoints by itself.
 */
static void handle_memory_map(struct debug_session *session, const struct argument *arguments,
                              size_t count)
{
    static const struct {
        uint64_t first, last;
    } roms[] = {{0x1000, 0xffff}, {0x20000000, 0x23ffffff}};
    struct buffer text = {0};
    struct hart *hart = session_hart(session);
    bool bare = hart->privilege == PRIVILEGE_MACHINE || hart->satp >> 60 == 0;
    uint64_t next = 0;
    buffer_text(&text, "<?xml version=\"1.0\"?><!DOCTYPE memory-map PUBLIC \"+//IDN gnu.org//DTD "
                       "GDB Memory Map V1.0//EN\" \"http://sourceware.org/gdb/gdb-memory-map.dtd\">"
                       "<memory-map>");
    for (unsigned i = 0; i < ARRAY_SIZE(roms) && bare; i++) {
        put_region(&text, "ram", next, roms[i].first - 1);
        put_region(&text, "rom", roms[i].first, roms[i].last);
        next = roms[i].last + 1;
    }
    put_region(&text, "ram", next, INT64_MAX);
    put_region(&text, "ram", (uint64_t)INT64_MAX + 1, UINT64_MAX);
    buffer_text(&text, "</memory-map>");
    send_part(session, &text, arguments);
    buffer_finish(&text);
}

const struct command transfer_commands[] = {
    {"qXfer:features:read:target.xml:", "h,h", handle_features},
    {"qXfer:features:read:", "s", handle_no_feature},
    {"qXfer:threads:read::", "h,h", handle_threads},
    {"qXfer:memory-map:read::", "h,h", handle_memory_map, .stands = true},
    {0},
};
