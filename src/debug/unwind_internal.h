/* Private to unwind.c and unwind_cfi.c. */
#pragma once

#include "debug/unwind.h"

enum rule_kind {
    RULE_SAME,       /* the register keeps its value */
    RULE_UNDEFINED,  /* its value is lost */
    RULE_MEMORY,     /* it is in memory at CFA + offset */
    RULE_CFA,        /* it is CFA + offset */
    RULE_REGISTER,   /* it is register `number` + offset */
    RULE_EXPRESSION, /* operations compute the address that it is at, or */
    RULE_VALUE,      /* itself */
};

struct rule {
    uint8_t kind;
    uint8_t number;    /* of a register */
    uint16_t op_count; /* of ops */
    union {
        int64_t offset;
        const void *ops; /* Dwarf_Op; they belong to the symbols */
    };
};

/* What call frame information says of one address. */
struct rules {
    uint64_t pc;     /* the address; odd: none */
    uint64_t offset; /* of the file that they are from */
    bool found;
    bool signal; /* the frame's caller was interrupted, and called nothing */
    struct rule cfa, return_address, x[32];
};

/* Looks the rules up in the symbols' files. False: there are none. Any thread. */
bool cfi_find(struct symbols *symbols, uint64_t pc, struct rules *rules);

/* What an expression is evaluated with. */
struct cfi_context {
    const struct rules *rules;
    const struct unwind_registers *registers;
    uint32_t known;
    uint64_t cfa;
    unwind_read *read;
    void *opaque;
};

/* Evaluates the operations of a rule. False: they are wrong, or need what is not known. */
bool cfi_evaluate(const struct cfi_context *context, const struct rule *rule, uint64_t *value);
