/* What LLDB asks beside GDB's packets (LLDB, "GDB Remote Protocol Extensions"). */
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "debug/session.h"

static void put_text(struct buffer *reply, const char *key, const char *value)
{
    buffer_format(reply, "%s:", key);
    buffer_hex(reply, value, strlen(value));
    buffer_text(reply, ";");
}

/* --- Modes ---------------------------------------------------------------------------------------
 */

static void handle_suffix(struct debug_session *session, const struct argument *arguments,
                          size_t count)
{
    session->thread_suffix = true;
    reply_ok(session);
}

static void handle_threads_in_stop(struct debug_session *session, const struct argument *arguments,
                                   size_t count)
{
    session->threads_in_stop = true;
    reply_ok(session);
}

static void handle_error_strings(struct debug_session *session, const struct argument *arguments,
                                 size_t count)
{
    session->error_strings = true;
    reply_ok(session);
}

static void handle_ok(struct debug_session *session, const struct argument *arguments, size_t count)
{
    reply_ok(session);
}

static void handle_echo(struct debug_session *session, const struct argument *arguments,
                        size_t count)
{
    buffer_text(&session->reply, "qEcho:");
    buffer_bytes(&session->reply, arguments[0].data, arguments[0].size);
}

/* --- The machine as a host and a process
 * ---------------------------------------------------------- */

static const char triple[] = "riscv64-unknown-unknown-elf";

static void handle_host(struct debug_session *session, const struct argument *arguments,
                        size_t count)
{
    put_text(&session->reply, "triple", triple);
    buffer_text(&session->reply, "ptrsize:8;endian:little;watchpoint_exceptions_received:before;"
                                 "vm-page-size:4096;default_packet_timeout:10;");
    put_text(&session->reply, "hostname", "hartvisor");
}

static void handle_process(struct debug_session *session, const struct argument *arguments,
                           size_t count)
{
    buffer_text(&session->reply, "pid:1;parent-pid:0;ptrsize:8;endian:little;");
    put_text(&session->reply, "triple", triple);
}

static void handle_register_info(struct debug_session *session, const struct argument *arguments,
                                 size_t count)
{
    struct hart *hart = machine_debug_hart(session->machine, 0);
    unsigned number =
        arguments[0].number < REGISTER_LIMIT ? (unsigned)arguments[0].number : REGISTER_LIMIT;
    if (!target_register_info(&session->reply, hart, number))
        buffer_text(&session->reply, "E45"); /* the end of the list */
}

/* --- Threads
 * --------------------------------------------------------------------------------------- */

static struct json_object *thread_object(struct debug_session *session, unsigned index)
{
    struct json_object *object = json_object_new_object(), *registers = json_object_new_object();
    struct hart *hart = machine_debug_hart(session->machine, index);
    char name[16];
    snprintf(name, sizeof(name), "hart %u", index);
    json_object_object_add(object, "tid", json_object_new_int((int)index + 1));
    json_object_object_add(object, "name", json_object_new_string(name));
    bool told = index == session->stopped_hart;
    if (told)
        json_object_object_add(object, "signal",
                               json_object_new_int((int)stop_signal(session, index)));
    json_object_object_add(object, "reason",
                           json_object_new_string(told ? stop_reason(session, index) : "none"));
    static const uint8_t expedited[] = {1, 2, 8, REGISTER_PC};
    for (unsigned i = 0; i < sizeof(expedited); i++) {
        struct buffer text = {0};
        char key[8];
        uint64_t value;
        register_read(hart, expedited[i], &value);
        buffer_value(&text, value, 8);
        snprintf(key, sizeof(key), "%u", expedited[i]);
        json_object_object_add(registers, key,
                               json_object_new_string_len((char *)text.data, (int)text.size));
        buffer_finish(&text);
    }
    json_object_object_add(object, "registers", registers);
    return object;
}

static void reply_json(struct debug_session *session, struct json_object *object)
{
    buffer_text(&session->reply,
                json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN |
                                                           JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(object);
}

static void handle_threads(struct debug_session *session, const struct argument *arguments,
                           size_t count)
{
    struct json_object *array = json_object_new_array();
    for (unsigned i = 0; i < session->hart_count; i++)
        json_object_array_add(array, thread_object(session, i));
    reply_json(session, array);
}

static void handle_stop_info(struct debug_session *session, const struct argument *arguments,
                             size_t count)
{
    int64_t thread = (int64_t)arguments[0].number;
    if (thread < 1 || thread > (int)session->hart_count)
        reply_error(session, REMOTE_EINVAL, "there is no such thread");
    else if (thread == (int)session->stopped_hart + 1)
        stop_reply(session, (unsigned)thread - 1);
    else
        stop_idle_reply(session, (unsigned)thread - 1);
}

/* --- Memory
 * ----------------------------------------------------------------------------------------- */

/* The part of the address space around an address that one entry of a page table describes. */
static void handle_region(struct debug_session *session, const struct argument *arguments,
                          size_t count)
{
    uint64_t address = arguments[0].number;
    struct hart_walk walk;
    bool mapped = hart_debug_walk(session_hart(session), address, session->privilege, &walk);
    unsigned shift = walk.shift;
    if (!mapped && walk.count)
        shift = 12 + 9 * (walk.scheme - 5 - walk.count);
    uint64_t base = address & ~((UINT64_C(1) << shift) - 1), size = UINT64_C(1) << shift;
    uint64_t pte = walk.count ? walk.steps[walk.count - 1].pte : 15;
    if (mapped && !walk.count) { /* no translation: what RAM there is */
        size_t regions;
        const struct memory_ram *ram =
            memory_ram_regions(machine_debug_memory(session->machine), &regions);
        uint64_t next = UINT64_MAX;
        mapped = false;
        base = address;
        for (size_t i = 0; i < regions && !mapped; i++) {
            mapped = address - ram[i].base < ram[i].size;
            next = mapped                                        ? ram[i].base + ram[i].size
                   : ram[i].base > address && ram[i].base < next ? ram[i].base
                                                                 : next;
            base = mapped ? ram[i].base : base;
        }
        size = next == UINT64_MAX ? -base : next - base;
    } else if (!mapped && !walk.count) { /* all of a half, or what is between the halves */
        uint64_t half = UINT64_C(1) << (11 + 9 * (walk.scheme - 5));
        base = address < half ? 0 : address >= -half ? -half : half;
        size = base == half ? -half - half : half;
    }
    buffer_format(&session->reply, "start:%llx;size:%llx;", (unsigned long long)base,
                  (unsigned long long)size);
    if (mapped)
        buffer_format(&session->reply, "permissions:%s%s%s;", pte & 2 ? "r" : "",
                      pte & 4 ? "w" : "", pte & 8 ? "x" : "");
}

/* --- Several breakpoints at once
 * ---------------------------------------------------------------------- */

/* {"breakpoint_requests": ["Z0,80000000,4", ...]}: their replies in an array. */
static void handle_breakpoints(struct debug_session *session, const struct argument *arguments,
                               size_t count)
{
    struct json_tokener *tokener = json_tokener_new();
    struct json_object *request =
        json_tokener_parse_ex(tokener, (const char *)arguments[0].data, (int)arguments[0].size);
    struct json_object *list = NULL, *results = json_object_new_array();
    json_tokener_free(tokener);
    if (!request || !json_object_object_get_ex(request, "breakpoint_requests", &list) ||
        !json_object_is_type(list, json_type_array)) {
        json_object_put(request);
        json_object_put(results);
        reply_error(session, REMOTE_EINVAL, "breakpoint_requests is missing");
        return;
    }
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        const char *text = json_object_get_string(json_object_array_get_idx(list, i));
        char *packet = xstrdup(text ? text : "");
        session->reply.size = 0;
        if (packet[0] == 'Z' || packet[0] == 'z')
            commands_dispatch(session, (uint8_t *)packet, strlen(packet));
        json_object_array_add(results, json_object_new_string_len((char *)session->reply.data,
                                                                  (int)session->reply.size));
        free(packet);
    }
    json_object_put(request);
    struct json_object *reply = json_object_new_object();
    json_object_object_add(reply, "results", results);
    session->reply.size = 0;
    reply_json(session, reply);
}

const struct command lldb_commands[] = {
    {"QThreadSuffixSupported", "", handle_suffix},
    {"QListThreadsInStopReply", "", handle_threads_in_stop},
    {"QEnableErrorStrings", "", handle_error_strings},
    {"qVAttachOrWaitSupported", "", handle_ok},
    {"qEcho", ":s", handle_echo},
    {"qHostInfo", "", handle_host},
    {"qProcessInfo", "", handle_process},
    {"qRegisterInfo", "h", handle_register_info},
    {"jThreadsInfo", "", handle_threads, .stands = true},
    {"qThreadStopInfo", "t", handle_stop_info, .stands = true},
    {"qMemoryRegionInfo", ":h", handle_region, .stands = true},
    {"jMultiBreakpoint", ":s", handle_breakpoints},
    {0},
};
