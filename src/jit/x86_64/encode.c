#include "jit/x86_64/encode.h"

static void rex(struct x86 *x, bool w, bool force, unsigned reg, unsigned index, unsigned base)
{
    unsigned byte = 0x40 | w << 3 | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (base >> 3 & 1);
    if (byte != 0x40 || force)
        x86_byte(x, byte);
}

static void opcode_bytes(struct x86 *x, unsigned opcode)
{
    if (opcode >> 8 & 0xff)
        x86_byte(x, opcode >> 8);
    x86_byte(x, opcode);
}

static void modrm(struct x86 *x, unsigned mod, unsigned reg, unsigned rm)
{
    x86_byte(x, mod << 6 | (reg & 7) << 3 | (rm & 7));
}

static void address(struct x86 *x, unsigned reg, struct x86_operand rm)
{
    bool small = rm.displacement == (int8_t)rm.displacement;
    bool none = rm.displacement == 0 && (rm.base & 7) != RBP;
    bool sib = rm.index >= 0 || (rm.base & 7) == RSP;
    modrm(x, none ? 0 : small ? 1 : 2, reg, sib ? RSP : rm.base);
    if (sib)
        modrm(x, rm.scale, rm.index >= 0 ? (unsigned)rm.index : RSP, rm.base);
    if (none)
        return;
    if (small)
        x86_byte(x, (uint8_t)rm.displacement);
    else
        x86_32(x, (uint32_t)rm.displacement);
}

void x86_form(struct x86 *x, unsigned opcode, bool w, bool byte, unsigned reg,
              struct x86_operand rm)
{
    if (opcode >> 16)
        x86_byte(x, opcode >> 16);
    bool low_byte = byte && (reg >= RSP || (!rm.memory && rm.base >= RSP));
    rex(x, w, low_byte, reg, rm.memory && rm.index >= 0 ? (unsigned)rm.index : 0, rm.base);
    opcode_bytes(x, opcode);
    if (rm.memory)
        address(x, reg, rm);
    else
        modrm(x, 3, reg, rm.base);
}

void x86_constant(struct x86 *x, unsigned reg, uint64_t value)
{
    if (value == 0) {
        x86_op32(x, X86_XOR, reg, x86_register(reg));
    } else if (value == (uint32_t)value) {
        rex(x, false, false, 0, 0, reg);
        x86_byte(x, 0xb8 + (reg & 7));
        x86_32(x, (uint32_t)value);
    } else if ((int64_t)value == (int32_t)value) {
        x86_form(x, 0xc7, true, false, 0, x86_register(reg));
        x86_32(x, (uint32_t)value);
    } else {
        rex(x, true, false, 0, 0, reg);
        x86_byte(x, 0xb8 + (reg & 7));
        x86_64(x, value);
    }
}

void x86_arithmetic(struct x86 *x, bool w, enum x86_group group, struct x86_operand rm,
                    int32_t value)
{
    bool small = value == (int8_t)value;
    x86_form(x, small ? 0x83 : 0x81, w, false, group, rm);
    if (small)
        x86_byte(x, (uint8_t)value);
    else
        x86_32(x, (uint32_t)value);
}

void x86_shift(struct x86 *x, bool w, enum x86_group group, unsigned reg, int count)
{
    x86_form(x, count < 0 ? 0xd3 : 0xc1, w, false, group, x86_register(reg));
    if (count >= 0)
        x86_byte(x, (unsigned)count);
}

void x86_vex(struct x86 *x, struct x86_vex opcode, bool w, unsigned reg, unsigned second,
             struct x86_operand rm)
{
    bool index = rm.memory && rm.index >= R8;
    x86_byte(x, 0xc4);
    x86_byte(x, (reg < R8) << 7 | !index << 6 | (rm.base < R8) << 5 | opcode.map);
    x86_byte(x, w << 7 | (~second & 15) << 3 | opcode.prefix);
    x86_byte(x, opcode.opcode);
    if (rm.memory)
        address(x, reg, rm);
    else
        modrm(x, 3, reg, rm.base);
}

void x86_fused(struct x86 *x, unsigned opcode, bool d, unsigned reg, unsigned second,
               struct x86_operand rm)
{
    x86_vex(x, (struct x86_vex){2, 1, (uint8_t)opcode}, d, reg, second, rm);
}

void x86_shift_by(struct x86 *x, bool w, enum x86_group group, unsigned reg, struct x86_operand rm,
                  unsigned count)
{
    uint8_t prefix = group == X86_GROUP_SHL ? 1 : group == X86_GROUP_SAR ? 2 : 3;
    x86_vex(x, (struct x86_vex){2, prefix, 0xf7}, w, reg, count, rm);
}

void x86_rotate(struct x86 *x, bool w, unsigned reg, struct x86_operand rm, unsigned count)
{
    x86_vex(x, (struct x86_vex){3, 3, 0xf0}, w, reg, 0, rm);
    x86_byte(x, count);
}

void x86_swap_bytes(struct x86 *x, unsigned reg)
{
    rex(x, true, false, 0, 0, reg);
    x86_byte(x, 0x0f);
    x86_byte(x, 0xc8 + (reg & 7));
}

void x86_unary(struct x86 *x, bool w, enum x86_group group, struct x86_operand rm)
{
    x86_form(x, 0xf7, w, false, group, rm);
}

void x86_set(struct x86 *x, enum x86_condition condition, unsigned reg)
{
    x86_form(x, 0x0f90 + condition, false, true, 0, x86_register(reg));
    x86_form(x, X86_MOVZX_8, false, true, reg, x86_register(reg));
}

uint8_t *x86_jump(struct x86 *x)
{
    x86_byte(x, 0xe9);
    x86_32(x, 0);
    return x->at - 4;
}

uint8_t *x86_jump_aligned(struct x86 *x)
{
    while (((uintptr_t)x->at + 1) & 3)
        x86_byte(x, 0x90);
    return x86_jump(x);
}

uint8_t *x86_jump_if(struct x86 *x, enum x86_condition condition)
{
    x86_byte(x, 0x0f);
    x86_byte(x, 0x80 + condition);
    x86_32(x, 0);
    return x->at - 4;
}

uint8_t *x86_jump_short(struct x86 *x)
{
    x86_byte(x, 0xeb);
    x86_byte(x, 0);
    return x->at - 1;
}

uint8_t *x86_jump_short_if(struct x86 *x, enum x86_condition condition)
{
    x86_byte(x, 0x70 + condition);
    x86_byte(x, 0);
    return x->at - 1;
}

void x86_patch(uint8_t *field, const uint8_t *target)
{
    int32_t distance = (int32_t)(target - (field + 4));
    memcpy(field, &distance, 4);
}

void x86_here(struct x86 *x, uint8_t *jump)
{
    x86_patch(jump, x->at);
}

void x86_here_short(struct x86 *x, uint8_t *jump)
{
    *jump = (uint8_t)(x->at - (jump + 1));
}

void x86_jump_to(struct x86 *x, const uint8_t *target)
{
    x86_patch(x86_jump(x), target);
}

void x86_call_to(struct x86 *x, const uint8_t *target)
{
    x86_byte(x, 0xe8);
    x86_32(x, 0);
    x86_patch(x->at - 4, target);
}

uint8_t *x86_op_relative(struct x86 *x, enum x86_opcode opcode, unsigned reg)
{
    rex(x, true, false, reg, 0, 0);
    opcode_bytes(x, opcode);
    modrm(x, 0, reg, RBP);
    x86_32(x, 0);
    return x->at - 4;
}

uint8_t *x86_address(struct x86 *x, unsigned reg)
{
    return x86_op_relative(x, X86_LEA, reg);
}
