/* Private to debug/: a session, and what its parts offer one another. */
#pragma once

#include "base/base.h"
#include "debug/packet.h"
#include "hartvisor/debug.h"
#include "machine/debug.h"
#include "machine/machine.h"

struct points;
struct symbols;

/* Threads are harts: hart n is thread n + 1 of process 1. */
#define THREAD_ALL (-1)
#define THREAD_ANY 0

/* What a hart does, as the client knows it. */
struct session_hart {
    bool stopped;             /* the client knows that it stands still */
    bool pending;             /* it stopped, and the client is not told yet */
    bool asked;               /* it was asked to stop: by an interrupt, or by vCont;t */
    struct machine_stop stop; /* why, if it was not asked */
    bool ran;                 /* since the client attached, or the machine was reset */
};

struct debug_session {
    struct machine *machine;
    struct debug_transport transport;
    struct packet_parser parser;
    struct buffer reply;  /* of the packet that is being answered */
    struct buffer output; /* encoded */
    struct buffer last;   /* what was sent last, for a client that wants it again */
    bool ended;           /* detached or killed */
    bool no_ack;
    bool is_gdb;
    bool extended, killed; /* `target extended-remote`; the client has killed the process */
    bool no_reply;         /* the answer to this packet comes later, or never */

    /* What the client said that it can do. */
    bool multiprocess, swbreak, hwbreak, error_strings;
    bool thread_suffix, threads_in_stop; /* LLDB */
    bool bare_binary;                    /* answers to x without a 'b' in front */
    bool thread_events;

    /* All-stop: all harts stand still or none does. Non-stop: each on its own. */
    bool attached; /* harts were asked to stand still, or non-stop mode began */
    bool non_stop;
    bool running;     /* all-stop: the client waits for a stop */
    bool notifying;   /* non-stop: a notification was sent and not answered */
    bool listing;     /* the same for the answer to ? */
    bool freeze_time; /* while all harts stand still */
    struct session_hart harts[MACHINE_MAX_CPUS];
    unsigned hart_count;
    unsigned stopped_hart;               /* the last one that was told of */
    int general_thread, continue_thread; /* of H: a hart + 1, THREAD_ALL or THREAD_ANY */
    unsigned list_at;                    /* of qsThreadInfo */
    unsigned step_mask;                  /* of Qqemu.sstep: STEP_... */

    bool physical;  /* memory packets are about physical addresses */
    bool registers; /* they reach registers of devices too */
    int privilege;  /* of virtual ones; -1: as the hart is */

    struct points *points;
    struct buffer target_xml;
    struct buffer console;   /* what a monitor command has printed */
    struct symbols *symbols; /* may be NULL */

    struct saved_registers *saved; /* QSaveRegisterState */
    unsigned saved_id;
};

enum {
    STEP_ENABLE = 1,
    STEP_NO_INTERRUPTS = 2,
    STEP_NO_TIMERS = 4,
};

/* --- Commands (commands.c): one row a packet ---------------------------------------------------
 */

#define ARGUMENTS_MAX 8

/* What a schema found, in its order. */
struct argument {
    uint64_t number;     /* h, t: what it says (a hart + 1, THREAD_ALL, THREAD_ANY as int64_t) */
    const uint8_t *data; /* b: decoded, in place; s, x: as sent */
    size_t size;
};

struct command {
    const char *name;
    /*
     * The arguments behind the name. h: a hexadecimal number, t: a thread, b: bytes as hex digits,
     * x: binary, s: text; b, x and s take the rest. Every other character stands for itself. What
     * follows a ? may be missing, all of it from there on.
     */
    const char *schema;
    /* count: how many of the arguments were there. */
    void (*handle)(struct debug_session *session, const struct argument *arguments, size_t count);
    bool stands; /* the hart must stand still; in all-stop mode it is made to, the first time */
};

extern const struct command *const command_tables[]; /* NULL behind the last; each ends without name
                                                      */

void commands_dispatch(struct debug_session *session, uint8_t *packet, size_t size);

/* --- Replies (session.c) ---------------------------------------------------------------------- */

void reply_ok(struct debug_session *session);
/* number: an errno value, as the protocol has them; the text is for clients that take one. */
void reply_error(struct debug_session *session, unsigned number, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

enum {
    REMOTE_EPERM = 1,
    REMOTE_ENOENT = 2,
    REMOTE_EIO = 5,
    REMOTE_EBUSY = 16,
    REMOTE_EFAULT = 14,
    REMOTE_EINVAL = 22
};

void session_send(struct debug_session *session, char start, const void *data, size_t size);
/* Text for the user, while the client waits for a stop. */
void session_print(struct debug_session *session, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void session_end(struct debug_session *session);

/* The hart that g, m and the like are about. */
unsigned session_general(const struct debug_session *session);
struct hart *session_hart(const struct debug_session *session);
/* "p1.3", or "3" for a client without processes. */
void reply_thread(struct debug_session *session, unsigned hart);
bool thread_parse(const uint8_t **text, const uint8_t *end, int *thread);

/* --- Running (run.c) -------------------------------------------------------------------------- */

extern const struct command run_commands[];

/* Makes all harts stand still, if this is all-stop mode and they were never asked to. */
void run_attach(struct debug_session *session);
void run_interrupt(struct debug_session *session);
void run_stopped(void *session); /* machine_debug_hooks */
void run_ended(struct debug_session *session, int status);
/* What ? is answered: in non-stop mode the first of all harts that stand still. */
void run_answer_why(struct debug_session *session, const struct argument *arguments, size_t count);
void run_hold_all(struct debug_session *session);
/* Takes from the machine what harts have stopped for by themselves. */
void run_collect(struct debug_session *session);

/* --- Stop replies (stop.c) -------------------------------------------------------------------- */

void stop_reply(struct debug_session *session, unsigned hart);
/* Of a hart that only stands still with the others, for LLDB. */
void stop_idle_reply(struct debug_session *session, unsigned hart);
unsigned stop_signal(const struct debug_session *session, unsigned hart);
const char *stop_reason(const struct debug_session *session, unsigned hart);
/* Prints for the user what no stop reply has a word for. */
void stop_explain(struct debug_session *session, unsigned hart);

/* --- The machine as a process (process.c) ------------------------------------------------------
 */

extern const struct command process_commands[];

bool run_reset(struct debug_session *session);

/* --- Registers (registers.c, target.c) -------------------------------------------------------- */

enum {
    REGISTER_PC = 32,
    REGISTER_F0 = 33,
    REGISTER_CSR = 65, /* + its number */
    REGISTER_PRIV = REGISTER_CSR + 4096,
    REGISTER_FIELDS, /* CSRs again, with their fields for GDB: + a row of csr_fields.def */
    REGISTER_LIMIT = REGISTER_FIELDS + 256,
};

extern const struct command register_commands[];

/* Whether the hart has the register; its bits. */
unsigned register_bits(const struct hart *hart, unsigned number);
bool register_read(struct hart *hart, unsigned number, uint64_t *value);
bool register_write(struct hart *hart, unsigned number, uint64_t value);
/* The name that GDB knows it by. Static, or in `space`. */
const char *register_name(const struct hart *hart, unsigned number);
void registers_forget(struct debug_session *session); /* those that were saved */
/* A register by name or ABI name; REGISTER_LIMIT if there is none. */
unsigned register_find(const struct hart *hart, const char *name);

/* target.xml for the harts of this machine. GDB takes values for a register with fields only if
 * they have its size, as 0 has not: for it CSRs are integers, and NAME_fields are the same ones
 * with fields. */
void target_describe(struct buffer *xml, const struct hart *hart, bool for_gdb);
/* The CSR that register REGISTER_FIELDS + row is; -1: none. */
int target_fields_csr(const struct hart *hart, unsigned row);
/* LLDB's qRegisterInfo; false: there is no such register. */
bool target_register_info(struct buffer *text, const struct hart *hart, unsigned number);

/* --- Memory (memory.c) ------------------------------------------------------------------------ */

extern const struct command memory_commands[];

size_t session_read(struct debug_session *session, uint64_t address, void *buffer, size_t size);
size_t session_write(struct debug_session *session, uint64_t address, const void *data,
                     size_t size);

/* --- Points (points.c, agent.c) --------------------------------------------------------------- */

extern const struct command point_commands[];

struct points *points_create(struct machine *machine);
void points_destroy(struct points *points);
/* Gives the machine what was changed since: before harts run on, or only step. */
void points_apply(struct points *points, bool running);
/* Whether the breakpoint at the address is a hardware one, for the stop's reason. */
bool points_is_hardware(const struct points *points, uint64_t address);

struct points_catch {
    uint64_t exceptions, interrupts;
    bool calls, waits, starts;
    bool events; /* starts, for QThreadEvents */
};
struct points_catch *points_catch(struct points *points); /* to be changed; then points_changed */
void points_changed(struct points *points);
/* Breakpoints at `address` are for address spaces with (satp & mask) == satp only; mask 0: all. */
void points_bind(struct points *points, uint64_t address, uint64_t satp, uint64_t mask);
void points_print(const struct points *points, struct buffer *text);

/* Evaluates an agent expression (GDB manual, "Agent Expressions") on a hart. False if it is not
 * valid or reads what is not there. */
bool agent_evaluate(const uint8_t *code, size_t size, struct hart *hart, uint64_t *value);

/* --- Questions (query.c, lldb.c, transfer.c), monitor ------------------------------------------
 */

extern const struct command query_commands[], transfer_commands[], lldb_commands[];
extern const struct command monitor_commands[];

void describe_hart(struct debug_session *session, unsigned hart, struct buffer *text);
