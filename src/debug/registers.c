/* Registers by the numbers that clients know them by, and the packets about them. */
#include <stdlib.h>
#include <string.h>

#include "debug/session.h"
#include "isa/isa.h"

static bool has_fp(const struct hart *hart)
{
    return isa_extensions_test(&hart->extensions, ISA_EXT_F);
}

unsigned register_bits(const struct hart *hart, unsigned number)
{
    if (number <= REGISTER_PC)
        return 64;
    if (number < REGISTER_CSR)
        return !has_fp(hart) ? 0 : isa_extensions_test(&hart->extensions, ISA_EXT_D) ? 64 : 32;
    if (number < REGISTER_PRIV)
        return hart_csr_find(hart, number - REGISTER_CSR) ? 64 : 0;
    if (number >= REGISTER_FIELDS)
        return target_fields_csr(hart, number - REGISTER_FIELDS) >= 0 ? 64 : 0;
    return 64; /* REGISTER_PRIV */
}

/* Its number, or that of the CSR that it shows. */
static unsigned shown(const struct hart *hart, unsigned number)
{
    return number < REGISTER_FIELDS
               ? number
               : REGISTER_CSR + (unsigned)target_fields_csr(hart, number - REGISTER_FIELDS);
}

bool register_read(struct hart *hart, unsigned number, uint64_t *value)
{
    if (!register_bits(hart, number))
        return false;
    number = shown(hart, number);
    if (number < REGISTER_PC)
        *value = number ? hart->x[number] : 0;
    else if (number == REGISTER_PC)
        *value = hart->pc;
    else if (number < REGISTER_CSR)
        *value = hart->f[number - REGISTER_F0];
    else if (number == REGISTER_PRIV)
        *value = hart->privilege;
    else
        return hart_csr_read(hart, number - REGISTER_CSR, value);
    return true;
}

static bool write_privilege(struct hart *hart, uint64_t value)
{
    if (value > PRIVILEGE_MACHINE || value == 2)
        return false;
    hart_set_privilege(hart, (enum privilege)value);
    return true;
}

bool register_write(struct hart *hart, unsigned number, uint64_t value)
{
    if (!register_bits(hart, number))
        return false;
    number = shown(hart, number);
    if (number == REGISTER_PRIV)
        return write_privilege(hart, value);
    if (number >= REGISTER_CSR)
        return hart_csr_write(hart, number - REGISTER_CSR, value);
    if (number == REGISTER_PC)
        hart->pc = value & ~UINT64_C(1);
    else if (number > REGISTER_PC)
        hart->f[number - REGISTER_F0] = value;
    else if (number)
        hart->x[number] = value;
    return true;
}

const char *register_name(const struct hart *hart, unsigned number)
{
    if (number < REGISTER_PC)
        return isa_register_name(number);
    if (number == REGISTER_PC)
        return "pc";
    if (number < REGISTER_CSR)
        return isa_fp_register_name(number - REGISTER_F0);
    return number == REGISTER_PRIV ? "priv" : hart_csr_name(number - REGISTER_CSR);
}

unsigned register_find(const struct hart *hart, const char *name)
{
    char *end;
    if ((name[0] == 'x' || name[0] == 'f') && name[1] >= '0' && name[1] <= '9') {
        unsigned long index = strtoul(name + 1, &end, 10);
        if (!*end && index < 32)
            return (unsigned)index + (name[0] == 'f' ? REGISTER_F0 : 0);
    }
    if (!strcmp(name, "fp"))
        return 8;
    for (unsigned number = 0; number < REGISTER_FIELDS; number++)
        if (register_bits(hart, number) && !strcmp(register_name(hart, number), name))
            return number;
    return REGISTER_LIMIT;
}

/* --- Packets -----------------------------------------------------------------------------------
 */

/* pc has changed: a breakpoint there counts. */
static void changed(struct debug_session *session, unsigned number)
{
    if (number == REGISTER_PC)
        machine_debug_pass(session->machine, session_general(session), false);
}

static void handle_read_all(struct debug_session *session, const struct argument *arguments,
                            size_t count)
{
    struct hart *hart = session_hart(session);
    for (unsigned number = 0; number <= REGISTER_PC; number++) {
        uint64_t value;
        register_read(hart, number, &value);
        buffer_value(&session->reply, value, 8);
    }
}

static void handle_write_all(struct debug_session *session, const struct argument *arguments,
                             size_t count)
{
    struct hart *hart = session_hart(session);
    size_t registers = arguments[0].size / 8;
    if (arguments[0].size % 8 || registers > REGISTER_PC + 1 || !registers) {
        reply_error(session, REMOTE_EINVAL, "G has %zu bytes, not those of x0 to x31 and pc",
                    arguments[0].size);
        return;
    }
    for (unsigned number = 0; number < registers; number++) {
        uint64_t value = load_le64(arguments[0].data + 8 * number);
        if (number == REGISTER_PC && value != hart->pc)
            changed(session, number);
        register_write(hart, number, value);
    }
    reply_ok(session);
}

static void handle_read(struct debug_session *session, const struct argument *arguments,
                        size_t count)
{
    struct hart *hart = session_hart(session);
    unsigned number =
        arguments[0].number < REGISTER_LIMIT ? (unsigned)arguments[0].number : REGISTER_LIMIT;
    uint64_t value;
    if (!register_read(hart, number, &value))
        reply_error(session, REMOTE_EINVAL, "there is no register %llu",
                    (unsigned long long)arguments[0].number);
    else
        buffer_value(&session->reply, value, register_bits(hart, number) / 8);
}

static void handle_write(struct debug_session *session, const struct argument *arguments,
                         size_t count)
{
    struct hart *hart = session_hart(session);
    unsigned number =
        arguments[0].number < REGISTER_LIMIT ? (unsigned)arguments[0].number : REGISTER_LIMIT;
    uint64_t value = 0;
    unsigned bits = register_bits(hart, number);
    if (bits && arguments[1].size != bits / 8) {
        reply_error(session, REMOTE_EINVAL, "register %u has %u bytes, not %zu", number, bits / 8,
                    arguments[1].size);
        return;
    }
    for (size_t i = 0; i < bits / 8; i++)
        value |= (uint64_t)arguments[1].data[i] << 8 * i;
    if (!register_write(hart, number, value)) {
        reply_error(session, REMOTE_EINVAL, "register %llu is not to be written, or not so",
                    (unsigned long long)arguments[0].number);
        return;
    }
    changed(session, number);
    reply_ok(session);
}

/* --- Saving and restoring, around expressions that LLDB evaluates in the guest ------------------
 */

struct saved_registers {
    struct saved_registers *next;
    unsigned id;
    uint64_t x[32], f[32], pc;
};

enum { SAVED_MOST = 64 };

void registers_forget(struct debug_session *session)
{
    while (session->saved) {
        struct saved_registers *saved = session->saved;
        session->saved = saved->next;
        free(saved);
    }
}

static void handle_save(struct debug_session *session, const struct argument *arguments,
                        size_t count)
{
    const struct hart *hart = session_hart(session);
    unsigned kept = 0;
    for (struct saved_registers **link = &session->saved; *link; link = &(*link)->next)
        if (++kept == SAVED_MOST) { /* the client has forgotten it */
            free(*link);
            *link = NULL;
            break;
        }
    struct saved_registers *saved = xcalloc(1, sizeof(*saved));
    saved->next = session->saved;
    saved->id = ++session->saved_id;
    memcpy(saved->x, hart->x, sizeof(saved->x));
    memcpy(saved->f, hart->f, sizeof(saved->f));
    saved->pc = hart->pc;
    session->saved = saved;
    buffer_format(&session->reply, "%u", saved->id);
}

static void handle_restore(struct debug_session *session, const struct argument *arguments,
                           size_t count)
{
    struct hart *hart = session_hart(session);
    char text[12] = "";
    memcpy(text, arguments[0].data, arguments[0].size < 11 ? arguments[0].size : 11);
    struct saved_registers **link = &session->saved;
    while (*link && (*link)->id != strtoul(text, NULL, 10))
        link = &(*link)->next;
    struct saved_registers *saved = *link;
    if (!saved) {
        reply_error(session, REMOTE_EINVAL, "there are no registers saved as '%s'", text);
        return;
    }
    memcpy(hart->x, saved->x, sizeof(saved->x));
    memcpy(hart->f, saved->f, sizeof(saved->f));
    hart->pc = saved->pc;
    *link = saved->next;
    free(saved);
    reply_ok(session);
}

const struct command register_commands[] = {
    {"g", "", handle_read_all, .stands = true},
    {"G", "b", handle_write_all, .stands = true},
    {"p", "h", handle_read, .stands = true},
    {"P", "h=b", handle_write, .stands = true},
    {"QSaveRegisterState", "", handle_save, .stands = true},
    {"QRestoreRegisterState", ":s", handle_restore, .stands = true},
    {0},
};
