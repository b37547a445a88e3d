/* The encoder: one function a form of x86-64 instruction (Intel SDM, volume 2). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum x86_reg {
    RAX,
    RCX,
    RDX,
    RBX,
    RSP,
    RBP,
    RSI,
    RDI,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15, /* clang-format off */
};
/* clang-format on */

/* Code is written at `at`; where it will run does not matter, as all of it is position-independent.
 * The caller sees to it that there is room. */
struct x86 {
    uint8_t *at;
};

/* A register or memory operand. */
struct x86_operand {
    bool memory;
    uint8_t base;  /* or the register */
    int8_t index;  /* -1: none */
    uint8_t scale; /* log2 */
    int32_t displacement;
};

static inline struct x86_operand x86_register(unsigned reg)
{
    return (struct x86_operand){.base = (uint8_t)reg, .index = -1};
}

static inline struct x86_operand x86_memory(unsigned base, int32_t displacement)
{
    return (struct x86_operand){
        .memory = true, .base = (uint8_t)base, .index = -1, .displacement = displacement};
}

static inline struct x86_operand x86_indexed(unsigned base, unsigned index, unsigned scale,
                                             int32_t displacement)
{
    return (struct x86_operand){.memory = true,
                                .base = (uint8_t)base,
                                .index = (int8_t)index,
                                .scale = (uint8_t)scale,
                                .displacement = displacement};
}

/* Opcodes of the form "register, register or memory". Two-byte ones have 0x0f in front; a mandatory
 * prefix is in bits 16..23. */
enum x86_opcode {
    X86_ADD = 0x03,
    X86_OR = 0x0b,
    X86_AND = 0x23,
    X86_SUB = 0x2b,
    X86_XOR = 0x33,
    X86_CMP = 0x3b,
    X86_MOVSXD = 0x63,
    X86_TEST = 0x85,
    X86_STORE_8 = 0x88,
    X86_STORE = 0x89,
    X86_STORE_16 = 0x660089,
    X86_LOAD = 0x8b,
    X86_LEA = 0x8d,
    X86_XCHG = 0x87,
    X86_IMUL = 0x0faf,
    X86_MOVZX_8 = 0x0fb6,
    X86_MOVZX_16 = 0x0fb7,
    X86_MOVSX_8 = 0x0fbe,
    X86_MOVSX_16 = 0x0fbf,
    X86_CMOVE = 0x0f44,
    X86_CMOVNE = 0x0f45,
    X86_CMOVL = 0x0f4c,
    X86_CMOVG = 0x0f4f,
    X86_CMOVB = 0x0f42,
    X86_CMOVA = 0x0f47,
    X86_XADD = 0x0fc1,
    X86_CMPXCHG = 0x0fb1,
    X86_MOVSD_LOAD = 0xf20f10,
    X86_MOVSS_LOAD = 0xf30f10,
    X86_MOVSD_STORE = 0xf20f11,
    X86_MOVSS_STORE = 0xf30f11,
    X86_ADDSD = 0xf20f58,
    X86_MULSD = 0xf20f59,
    X86_SUBSD = 0xf20f5c,
    X86_DIVSD = 0xf20f5e,
    X86_SQRTSD = 0xf20f51,
    X86_MINSD = 0xf20f5d,
    X86_MAXSD = 0xf20f5f,
    X86_MULSS = 0xf30f59,
    X86_DIVSS = 0xf30f5e,
    X86_UCOMISD = 0x660f2e,
    X86_UCOMISS = 0x0f2e,
    X86_COMISD = 0x660f2f,
    X86_COMISS = 0x0f2f,
    X86_POPCNT = 0xf30fb8,
    X86_TZCNT = 0xf30fbc,
    X86_LZCNT = 0xf30fbd,
    X86_MOVUPS_STORE = 0x0f11,
    X86_CVTSI2SD = 0xf20f2a,
    X86_CVTTSD2SI = 0xf20f2c,
    X86_CVTSD2SI = 0xf20f2d,
    X86_CVTSD2SS = 0xf20f5a,
    X86_CVTSS2SD = 0xf30f5a,
    X86_MOVQ_TO_XMM = 0x660f6e,
};

/* /digit of the groups 81 (arithmetic), C1 (shifts) and F7. */
enum x86_group {
    X86_GROUP_ADD = 0,
    X86_GROUP_OR = 1,
    X86_GROUP_AND = 4,
    X86_GROUP_SUB = 5,
    X86_GROUP_XOR = 6,
    X86_GROUP_CMP = 7,
    X86_GROUP_ROL = 0,
    X86_GROUP_ROR = 1,
    X86_GROUP_SHL = 4,
    X86_GROUP_SHR = 5,
    X86_GROUP_SAR = 7,
    X86_GROUP_NOT = 2,
    X86_GROUP_NEG = 3,
    X86_GROUP_MUL = 4,
    X86_GROUP_IMUL = 5,
    X86_GROUP_DIV = 6,
    X86_GROUP_IDIV = 7,
};

enum x86_condition {
    X86_O = 0,
    X86_B = 2,
    X86_AE = 3,
    X86_E = 4,
    X86_NE = 5,
    X86_A = 7,
    X86_P = 10,
    X86_NP = 11,
    X86_L = 12,
    X86_GE = 13,
    X86_G = 15,
};

static inline void x86_byte(struct x86 *x, unsigned byte)
{
    *x->at++ = (uint8_t)byte;
}

static inline void x86_32(struct x86 *x, uint32_t value)
{
    memcpy(x->at, &value, 4);
    x->at += 4;
}

static inline void x86_64(struct x86 *x, uint64_t value)
{
    memcpy(x->at, &value, 8);
    x->at += 8;
}

/* The general form. w: 64-bit operands; byte: reg is an 8-bit register. */
void x86_form(struct x86 *x, unsigned opcode, bool w, bool byte, unsigned reg,
              struct x86_operand rm);

static inline void x86_op(struct x86 *x, enum x86_opcode opcode, unsigned reg,
                          struct x86_operand rm)
{
    x86_form(x, opcode, true, false, reg, rm);
}

static inline void x86_op32(struct x86 *x, enum x86_opcode opcode, unsigned reg,
                            struct x86_operand rm)
{
    x86_form(x, opcode, false, opcode == X86_STORE_8 || opcode == X86_MOVZX_8, reg, rm);
}

/* reg = value in the shortest way. */
void x86_constant(struct x86 *x, unsigned reg, uint64_t value);
/* Group 81 or 83. */
void x86_arithmetic(struct x86 *x, bool w, enum x86_group group, struct x86_operand rm,
                    int32_t value);
/* Group C1, or D3 (by cl) where count is negative. */
void x86_shift(struct x86 *x, bool w, enum x86_group group, unsigned reg, int count);
/* The form with a VEX prefix and three operands. map: 2 is 0f38, 3 is 0f3a; prefix: 1 is 66, 2 is
 * f3, 3 is f2. */
struct x86_vex {
    uint8_t map, prefix, opcode;
};

void x86_vex(struct x86 *x, struct x86_vex opcode, bool w, unsigned reg, unsigned second,
             struct x86_operand rm);
/* FMA3, the 213 forms: reg = +-(second * reg) +- rm. */
void x86_fused(struct x86 *x, unsigned opcode, bool d, unsigned reg, unsigned second,
               struct x86_operand rm);
/* BMI2: reg = rm shifted by the register `count`; flags stay. */
void x86_shift_by(struct x86 *x, bool w, enum x86_group group, unsigned reg, struct x86_operand rm,
                  unsigned count);
/* BMI2: reg = rm rotated to the right; flags stay. */
void x86_rotate(struct x86 *x, bool w, unsigned reg, struct x86_operand rm, unsigned count);
/* Reverses the bytes of a 64-bit register. */
void x86_swap_bytes(struct x86 *x, unsigned reg);
/* Group F7. */
void x86_unary(struct x86 *x, bool w, enum x86_group group, struct x86_operand rm);
/* reg (zero-extended) = condition; its flags stay. */
void x86_set(struct x86 *x, enum x86_condition condition, unsigned reg);

/* Jumps forward, to where x86_here is called with what they return. */
uint8_t *x86_jump(struct x86 *x);
/* Its field can be patched while the code runs. */
uint8_t *x86_jump_aligned(struct x86 *x);
uint8_t *x86_jump_if(struct x86 *x, enum x86_condition condition);
uint8_t *x86_jump_short(struct x86 *x);
uint8_t *x86_jump_short_if(struct x86 *x, enum x86_condition condition);
void x86_here(struct x86 *x, uint8_t *jump);
void x86_here_short(struct x86 *x, uint8_t *jump);
/* To code that exists. */
void x86_jump_to(struct x86 *x, const uint8_t *target);
void x86_call_to(struct x86 *x, const uint8_t *target);
void x86_patch(uint8_t *field, const uint8_t *target);
/* reg = the address of what x86_patch will say. */
uint8_t *x86_address(struct x86 *x, unsigned reg);
/* opcode reg, [the address that x86_patch will say] */
uint8_t *x86_op_relative(struct x86 *x, enum x86_opcode opcode, unsigned reg);
