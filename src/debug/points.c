/*
 * Breakpoints, watchpoints and catches as the client sets them. The machine gets them when harts
 * are about to run: a client that takes all out at a stop and puts them back before it goes on, as
 * GDB does, changes nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "debug/session.h"

enum { TYPE_SOFTWARE, TYPE_HARDWARE, TYPE_WRITE, TYPE_READ, TYPE_ACCESS };

/* Several expressions: the point counts if any of them holds. */
struct condition {
    struct condition *next;
    size_t size;
    uint8_t code[];
};

struct point {
    struct point *next;
    unsigned type;
    uint64_t address, kind; /* kind: of watchpoints, the size */
    struct condition *conditions;
};

struct binding {
    struct binding *next;
    uint64_t address, satp, mask;
};

struct points {
    struct machine *machine;
    struct point *points;
    struct point *removed; /* that harts may still look at */
    struct binding *bindings;
    struct points_catch catch;
    bool changed, watches_changed; /* the latter: or catches */

    struct hart_point *breaks; /* as the machine has them */
    size_t break_count;
};

/* --- The table ----------------------------------------------------------------------------------
 */

struct points *points_create(struct machine *machine)
{
    struct points *points = xcalloc(1, sizeof(*points));
    points->machine = machine;
    return points;
}

static void point_free(struct point *point)
{
    while (point->conditions) {
        struct condition *condition = point->conditions;
        point->conditions = condition->next;
        free(condition);
    }
    free(point);
}

static void list_free(struct point **list)
{
    while (*list) {
        struct point *point = *list;
        *list = point->next;
        point_free(point);
    }
}

void points_destroy(struct points *points)
{
    list_free(&points->points);
    list_free(&points->removed);
    while (points->bindings) {
        struct binding *binding = points->bindings;
        points->bindings = binding->next;
        free(binding);
    }
    free(points->breaks);
    free(points);
}

static struct point **find(struct points *points, unsigned type, uint64_t address, uint64_t kind)
{
    struct point **link = &points->points;
    while (*link && ((*link)->type != type || (*link)->address != address || (*link)->kind != kind))
        link = &(*link)->next;
    return link;
}

static void note_change(struct points *points, unsigned type)
{
    points->changed = true;
    points->watches_changed |= type >= TYPE_WRITE;
}

static void unlink_point(struct points *points, struct point **link)
{
    struct point *point = *link;
    *link = point->next;
    point->next = points->removed;
    points->removed = point;
    note_change(points, point->type);
}

bool points_is_hardware(const struct points *points, uint64_t address)
{
    const struct point *point = points->points;
    while (point && (point->address != address || point->type > TYPE_HARDWARE))
        point = point->next;
    return point && point->type == TYPE_HARDWARE;
}

struct points_catch *points_catch(struct points *points)
{
    return &points->catch;
}

void points_changed(struct points *points)
{
    note_change(points, TYPE_WRITE);
}

void points_bind(struct points *points, uint64_t address, uint64_t satp, uint64_t mask)
{
    struct binding **link = &points->bindings;
    while (*link && (*link)->address != address)
        link = &(*link)->next;
    if (!*link) {
        *link = xcalloc(1, sizeof(**link));
        (*link)->address = address;
    }
    (*link)->satp = satp & mask;
    (*link)->mask = mask;
    points_changed(points);
}

static const struct binding *binding_of(const struct points *points, uint64_t address)
{
    const struct binding *binding = points->bindings;
    while (binding && binding->address != address)
        binding = binding->next;
    return binding;
}

void points_print(const struct points *points, struct buffer *text)
{
    static const char *const types[] = {"breakpoint", "hardware breakpoint", "write watchpoint",
                                        "read watchpoint", "access watchpoint"};
    if (!points->points)
        buffer_text(text, "no breakpoints or watchpoints\n");
    for (const struct point *point = points->points; point; point = point->next) {
        const struct binding *binding = binding_of(points, point->address);
        buffer_format(text, "%-19s %#llx", types[point->type], (unsigned long long)point->address);
        if (point->type >= TYPE_WRITE)
            buffer_format(text, ", %llu bytes", (unsigned long long)point->kind);
        if (point->conditions)
            buffer_text(text, ", with a condition");
        if (binding && binding->mask)
            buffer_format(text, ", where satp & %#llx is %#llx", (unsigned long long)binding->mask,
                          (unsigned long long)binding->satp);
        buffer_text(text, "\n");
    }
}

/* --- To the machine ------------------------------------------------------------------------------
 */

/* On a hart's thread. An expression that cannot be evaluated stops the hart, so that the user sees
 * it. */
static bool condition_holds(void *opaque, struct hart *hart)
{
    const struct point *point = opaque;
    for (const struct condition *at = point->conditions; at; at = at->next) {
        uint64_t value;
        if (!agent_evaluate(at->code, at->size, hart, &value) || value)
            return true;
    }
    return false;
}

static struct hart_point describe(const struct points *points, struct point *point)
{
    static const uint8_t accesses[] = {
        [TYPE_SOFTWARE] = 1 << ACCESS_FETCH,
        [TYPE_HARDWARE] = 1 << ACCESS_FETCH,
        [TYPE_WRITE] = 1 << ACCESS_STORE,
        [TYPE_READ] = 1 << ACCESS_LOAD,
        [TYPE_ACCESS] = 1 << ACCESS_LOAD | 1 << ACCESS_STORE,
    };
    const struct binding *binding = binding_of(points, point->address);
    return (struct hart_point){
        .address = point->address,
        .size = point->type >= TYPE_WRITE ? point->kind : 0,
        .accesses = accesses[point->type],
        .satp = binding ? binding->satp : 0,
        .satp_mask = binding ? binding->mask : 0,
        .condition = point->conditions ? condition_holds : NULL,
        .opaque = point,
    };
}

static size_t collect(const struct points *points, bool watches, struct hart_point **list)
{
    size_t count = 0;
    for (const struct point *point = points->points; point; point = point->next)
        count += (point->type >= TYPE_WRITE) == watches;
    struct hart_point *next = *list = xcalloc(count + 1, sizeof(*next));
    for (struct point *point = points->points; point; point = point->next)
        if ((point->type >= TYPE_WRITE) == watches)
            *next++ = describe(points, point);
    return count;
}

/* For steps alone breakpoints stay as they are, since a step passes them: GDB takes them out for
 * it. */
void points_apply(struct points *points, bool running)
{
    if (!(running ? points->changed : points->watches_changed))
        return;
    struct hart_point *before = points->breaks, *watches;
    if (running)
        points->break_count = collect(points, false, &points->breaks);
    size_t watch_count = collect(points, true, &watches);
    const struct hart_points set = {
        .breaks = points->breaks,
        .break_count = points->break_count,
        .watches = watches,
        .watch_count = watch_count,
        .exceptions = points->catch.exceptions,
        .interrupts = points->catch.interrupts,
        .calls = points->catch.calls,
        .waits = points->catch.waits,
    };
    machine_debug_set_points(points->machine, &set, points->catch.starts || points->catch.events);
    free(watches);
    points->watches_changed = false;
    if (!running)
        return;
    free(before);
    list_free(&points->removed);
    points->changed = false;
}

/* --- Packets -------------------------------------------------------------------------------------
 */

/* In non-stop mode harts may be running, and are to see it now. */
static void applied(struct debug_session *session)
{
    if (session->non_stop || session->running)
        points_apply(session->points, true);
    reply_ok(session);
}

/* ";Xlength,code..." any number of times; ";cmds:..." is for clients' own servers. */
static bool parse_conditions(const struct argument *argument, struct point *point)
{
    const uint8_t *at = argument->data, *end = at + argument->size;
    while (at < end && *at == ';') {
        at++;
        while (at < end && *at == 'X') {
            size_t size = 0;
            for (at++; at < end && hex_digit(*at) >= 0 && size <= PACKET_MAX; at++)
                size = size << 4 | (unsigned)hex_digit(*at);
            if (at == end || *at != ',' || !size || 2 * size > (size_t)(end - at - 1))
                return false;
            at++;
            struct condition *condition = xmalloc(sizeof(*condition) + size);
            condition->size = size;
            condition->next = point->conditions;
            point->conditions = condition;
            for (size_t i = 0; i < size; i++, at += 2) {
                int high = hex_digit(at[0]), low = hex_digit(at[1]);
                if (high < 0 || low < 0)
                    return false;
                condition->code[i] = (uint8_t)(high << 4 | low);
            }
        }
        if (end - at >= 5 && !memcmp(at, "cmds:", 5))
            return true;
    }
    return at == end;
}

static bool parse_point(struct debug_session *session, const struct argument *arguments)
{
    uint64_t size = arguments[2].number;
    if (arguments[0].number > TYPE_ACCESS)
        return false; /* not known: no reply */
    bool watch = arguments[0].number >= TYPE_WRITE;
    if (watch && (!size || arguments[1].number + (size - 1) < arguments[1].number)) {
        reply_error(session, REMOTE_EINVAL, "a watchpoint has 1 byte or more, and does not wrap");
        return false;
    }
    return true;
}

static void handle_insert(struct debug_session *session, const struct argument *arguments,
                          size_t count)
{
    struct points *points = session->points;
    if (!parse_point(session, arguments))
        return;
    struct point *point = xcalloc(1, sizeof(*point));
    point->type = (unsigned)arguments[0].number;
    point->address = arguments[1].number;
    point->kind = arguments[2].number;
    if (count > 3 && !parse_conditions(&arguments[3], point)) {
        point_free(point);
        reply_error(session, REMOTE_EINVAL, "the breakpoint's conditions are malformed");
        return;
    }
    struct point **old = find(points, point->type, point->address, point->kind);
    if (*old)
        unlink_point(points, old);
    point->next = points->points;
    points->points = point;
    note_change(points, point->type);
    applied(session);
}

static void handle_remove(struct debug_session *session, const struct argument *arguments,
                          size_t count)
{
    struct points *points = session->points;
    if (!parse_point(session, arguments))
        return;
    struct point **link =
        find(points, (unsigned)arguments[0].number, arguments[1].number, arguments[2].number);
    if (*link)
        unlink_point(points, link);
    applied(session);
}

const struct command point_commands[] = {
    {"Z", "h,h,h?x", handle_insert, .stands = false},
    {"z", "h,h,h?x", handle_remove, .stands = false},
    {0},
};
