/*
 * Agent expressions: conditions of breakpoints, compiled by GDB to a small byte code (GDB manual,
 * "The GDB Agent Expression Mechanism"). They run on the hart's thread while the guest runs, so
 * that a condition that does not hold costs no round trip to the client.
 */
#include <string.h>

#include "base/bits.h"
#include "debug/session.h"

enum { STACK_MOST = 64, STEPS_MOST = 10000 };

struct agent {
    const uint8_t *code;
    size_t size, at;
    struct hart *hart;
    uint64_t stack[STACK_MOST];
    unsigned depth;
    bool failed, ended;
};

static uint64_t pop(struct agent *agent)
{
    if (agent->depth == 0) {
        agent->failed = true;
        return 0;
    }
    return agent->stack[--agent->depth];
}

static void push(struct agent *agent, uint64_t value)
{
    if (agent->depth == STACK_MOST)
        agent->failed = true;
    else
        agent->stack[agent->depth++] = value;
}

/* An operand in the code, most significant byte first. */
static uint64_t operand(struct agent *agent, unsigned bytes)
{
    uint64_t value = 0;
    if (bytes > agent->size - agent->at) {
        agent->failed = true;
        return 0;
    }
    while (bytes-- > 0)
        value = value << 8 | agent->code[agent->at++];
    return value;
}

/* --- Operations with two operands: a is below b -------------------------------------------------
 */

enum binary {
    ADD = 0x02,
    SUB,
    MUL,
    DIV_SIGNED,
    DIV_UNSIGNED,
    REM_SIGNED,
    REM_UNSIGNED,
    LSH,
    RSH_SIGNED,
    RSH_UNSIGNED,
    BIT_AND = 0x0f,
    BIT_OR,
    BIT_XOR,
    EQUAL = 0x13,
    LESS_SIGNED,
    LESS_UNSIGNED,
};

static uint64_t divide(struct agent *agent, unsigned operation, uint64_t a, uint64_t b)
{
    bool overflow = (int64_t)a == INT64_MIN && (int64_t)b == -1;
    if (b == 0) {
        agent->failed = true;
        return 0;
    }
    switch (operation) {
    case DIV_SIGNED:
        return overflow ? a : (uint64_t)((int64_t)a / (int64_t)b);
    case REM_SIGNED:
        return overflow ? 0 : (uint64_t)((int64_t)a % (int64_t)b);
    case DIV_UNSIGNED:
        return a / b;
    default:
        return a % b;
    }
}

static uint64_t binary(struct agent *agent, unsigned operation, uint64_t a, uint64_t b)
{
    switch (operation) {
    case ADD:
        return a + b;
    case SUB:
        return a - b;
    case MUL:
        return a * b;
    case LSH:
        return b < 64 ? a << b : 0;
    case RSH_SIGNED:
        return (uint64_t)((int64_t)a >> (b < 63 ? b : 63));
    case RSH_UNSIGNED:
        return b < 64 ? a >> b : 0;
    case BIT_AND:
        return a & b;
    case BIT_OR:
        return a | b;
    case BIT_XOR:
        return a ^ b;
    case EQUAL:
        return a == b;
    case LESS_SIGNED:
        return (int64_t)a < (int64_t)b;
    case LESS_UNSIGNED:
        return a < b;
    default:
        return divide(agent, operation, a, b);
    }
}

static bool is_binary(unsigned operation)
{
    return (operation >= ADD && operation <= RSH_UNSIGNED) ||
           (operation >= BIT_AND && operation <= BIT_XOR) ||
           (operation >= EQUAL && operation <= LESS_UNSIGNED);
}

/* --- All others ----------------------------------------------------------------------------------
 */

enum {
    LOG_NOT = 0x0e,
    BIT_NOT = 0x12,
    EXT = 0x16,
    REF8,
    REF16,
    REF32,
    REF64,
    IF_GOTO = 0x20,
    GOTO,
    CONST8,
    CONST16,
    CONST32,
    CONST64,
    REG,
    END,
    DUP,
    POP,
    ZERO_EXT,
    SWAP,
    PICK = 0x32,
    ROT,
};

static uint64_t load(struct agent *agent, uint64_t address, unsigned bytes)
{
    uint8_t data[8] = {0};
    if (hart_debug_read(agent->hart, address, data, bytes, -1) != bytes)
        agent->failed = true;
    return load_le64(data);
}

static void jump(struct agent *agent, bool taken)
{
    uint64_t target = operand(agent, 2);
    if (!taken)
        return;
    agent->at = target;
    agent->failed |= target >= agent->size;
}

static void pick(struct agent *agent, uint64_t below)
{
    if (below >= agent->depth)
        agent->failed = true;
    else
        push(agent, agent->stack[agent->depth - 1 - below]);
}

/* a b c becomes c a b, c on top before */
static void rotate(struct agent *agent)
{
    uint64_t c = pop(agent), b = pop(agent), a = pop(agent);
    push(agent, c);
    push(agent, a);
    push(agent, b);
}

static void extend(struct agent *agent, bool sign)
{
    uint64_t bits = operand(agent, 1), value = pop(agent);
    if (bits == 0 || bits > 64)
        agent->failed = true;
    else
        push(agent, sign        ? (uint64_t)sign_extend(value, (unsigned)bits)
                    : bits < 64 ? value & (BIT(bits) - 1)
                                : value);
}

static void other(struct agent *agent, unsigned operation)
{
    uint64_t value;
    switch (operation) {
    case LOG_NOT:
        push(agent, !pop(agent));
        break;
    case BIT_NOT:
        push(agent, ~pop(agent));
        break;
    case EXT:
    case ZERO_EXT:
        extend(agent, operation == EXT);
        break;
    case REF8:
    case REF16:
    case REF32:
    case REF64:
        push(agent, load(agent, pop(agent), 1u << (operation - REF8)));
        break;
    case IF_GOTO:
        jump(agent, pop(agent));
        break;
    case GOTO:
        jump(agent, true);
        break;
    case CONST8:
    case CONST16:
    case CONST32:
    case CONST64:
        push(agent, operand(agent, 1u << (operation - CONST8)));
        break;
    case REG:
        agent->failed |= !register_read(agent->hart, (unsigned)operand(agent, 2), &value);
        push(agent, agent->failed ? 0 : value);
        break;
    case END:
        agent->ended = true;
        break;
    case DUP:
        pick(agent, 0);
        break;
    case POP:
        pop(agent);
        break;
    case SWAP:
        pick(agent, 1); /* a b a */
        rotate(agent);  /* a a b */
        rotate(agent);  /* b a a */
        pop(agent);
        break;
    case PICK:
        pick(agent, operand(agent, 1));
        break;
    case ROT:
        rotate(agent);
        break;
    default:
        agent->failed = true;
    }
}

bool agent_evaluate(const uint8_t *code, size_t size, struct hart *hart, uint64_t *value)
{
    struct agent agent = {.code = code, .size = size, .hart = hart};
    for (unsigned steps = 0; !agent.ended && !agent.failed; steps++) {
        unsigned operation = (unsigned)operand(&agent, 1);
        if (steps == STEPS_MOST || agent.failed)
            return false;
        if (is_binary(operation)) {
            uint64_t b = pop(&agent), a = pop(&agent);
            push(&agent, binary(&agent, operation, a, b));
        } else {
            other(&agent, operation);
        }
    }
    *value = agent.failed ? 0 : pop(&agent);
    return !agent.failed;
}
