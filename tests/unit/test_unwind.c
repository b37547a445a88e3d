/* debug/unwind.h: real stacks of small programs that crash in a machine, and hostile ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/base.h"
#include "debug/symbols.h"
#include "debug/unwind.h"
#include "hart/hart.h"
#include "machine/machine.h"

#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE (UINT64_C(8) << 20)

/* What a program was when it crashed. */
struct crash {
    struct unwind_registers registers;
    uint8_t *ram;
    bool seen;
};

static struct machine *machine;

static void on_distress(void *opaque, struct hart *hart, enum machine_distress distress)
{
    struct crash *crash = opaque;
    assert_int_equal(distress, MACHINE_LOST);
    crash->registers.pc = hart->pc;
    memcpy(crash->registers.x, hart->x, sizeof(crash->registers.x));
    crash->seen = machine_read_memory(machine, RAM_BASE, crash->ram, RAM_SIZE);
}

static bool read_ram(void *opaque, uint64_t va, void *buffer, size_t size)
{
    const struct crash *crash = opaque;
    if (va < RAM_BASE || va - RAM_BASE > RAM_SIZE || RAM_SIZE - (va - RAM_BASE) < size)
        return false;
    memcpy(buffer, crash->ram + (va - RAM_BASE), size);
    return true;
}

static const char *path_of(const char *program)
{
    static char path[512];
    snprintf(path, sizeof(path), SYMBOLS_GUESTS "/%s", program);
    return path;
}

static void run(const char *program, struct crash *crash)
{
    struct machine_config config;
    struct error err;
    machine_config_init(&config);
    config.memory_size = RAM_SIZE;
    config.serial = "none";
    config.kernel = path_of(program);
    *crash = (struct crash){.ram = malloc(RAM_SIZE)};
    machine = machine_create(&config, &err);
    if (!machine)
        fail_msg("%s", err.message);
    machine_set_distress(machine, on_distress, crash);
    assert_int_equal(machine_run(machine), MACHINE_STATUS_FAILURE);
    machine_destroy(machine);
    assert_true(crash->seen);
}

static struct symbols *load(const char *program)
{
    struct symbols *symbols = symbols_create();
    struct error err;
    if (!symbols_add(symbols, path_of(program), 0, &err))
        fail_msg("%s", err.message);
    return symbols;
}

/* The function of a frame, without what compilers append to a name. */
static void assert_frame(struct symbols *symbols, const struct unwind_frame *frame,
                         const char *name)
{
    struct symbol symbol;
    assert_true(symbols_find(symbols, frame->pc - frame->after_call, &symbol));
    if (strncmp(symbol.name, name, strlen(name)) != 0)
        fail_msg("%s, not %s", symbol.name, name);
}

static const char *const expected[] = {"fail", "outer", "main", "_start"};

static void crashed_programs(void **state)
{
    static const struct {
        const char *program;
        enum unwind_method first, then;
    } cases[] = {
        {"clang-lines", UNWIND_CFI, UNWIND_CFI},
        {"gcc-lines", UNWIND_CFI, UNWIND_CFI},
        {"clang-eh", UNWIND_CFI, UNWIND_CFI},
        {"clang-frames", UNWIND_FRAME_POINTER, UNWIND_FRAME_POINTER},
        {"clang-leaf", UNWIND_RA, UNWIND_FRAME_POINTER},
        {"gcc-frames", UNWIND_RA, UNWIND_FRAME_POINTER},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct crash crash;
        struct unwind_frame frames[32];
        struct symbols *symbols = load(cases[i].program);
        struct unwinder *unwinder = unwind_create(symbols);
        run(cases[i].program, &crash);
        for (unsigned again = 0; again < 2; again++) {
            size_t count =
                unwind_backtrace(unwinder, &crash.registers, read_ram, &crash, frames, 32);
            if (count != ARRAY_SIZE(expected))
                fail_msg("%s: %zu frames", cases[i].program, count);
            for (size_t j = 0; j < count; j++) {
                enum unwind_method method = j == 0   ? UNWIND_START
                                            : j == 1 ? cases[i].first
                                                     : cases[i].then;
                assert_frame(symbols, &frames[j], expected[j]);
                if (j < 3)
                    assert_int_equal(frames[j].method, method);
                assert_int_equal(frames[j].after_call, j > 0);
                assert_true(j == 0 || frames[j].sp >= frames[j - 1].sp);
            }
        }
        for (size_t max = 0; max < 4; max++)
            assert_int_equal(
                unwind_backtrace(unwinder, &crash.registers, read_ram, &crash, frames, max), max);
        unwind_destroy(unwinder);
        symbols_destroy(symbols);
        free(crash.ram);
    }
}

/* Frame pointers do without symbols. */
static void without_symbols(void **state)
{
    struct crash crash;
    struct unwind_frame frames[32];
    struct symbols *symbols = load("clang-frames");
    struct unwinder *unwinder = unwind_create(NULL);
    run("clang-frames", &crash);
    size_t count = unwind_backtrace(unwinder, &crash.registers, read_ram, &crash, frames, 32);
    assert_int_equal(count, ARRAY_SIZE(expected));
    for (size_t i = 0; i < count; i++)
        assert_frame(symbols, &frames[i], expected[i]);
    unwind_destroy(unwinder);
    symbols_destroy(symbols);
    free(crash.ram);
}

/* Callee-saved registers come back step by step. */
static void registers_of_callers(void **state)
{
    struct crash crash;
    struct symbols *symbols = load("clang-lines");
    struct unwinder *unwinder = unwind_create(symbols);
    uint32_t known = UINT32_MAX;
    run("clang-lines", &crash);
    struct unwind_registers registers = crash.registers;
    bool innermost = true;
    for (unsigned i = 0; i < 3; i++, innermost = false) {
        assert_int_equal(unwind_step(unwinder, &registers, &known, innermost, read_ram, &crash),
                         UNWIND_CFI);
        assert_true(known >> 2 & 1);   /* sp */
        assert_true(known >> 8 & 1);   /* s0 */
        assert_false(known >> 10 & 1); /* a0 */
        assert_int_equal(registers.x[8], 0);
    }
    struct unwind_registers before = registers;
    assert_int_equal(unwind_step(unwinder, &registers, &known, false, read_ram, &crash),
                     UNWIND_START);
    assert_memory_equal(&registers, &before, sizeof(registers));
    unwind_destroy(unwinder);
    symbols_destroy(symbols);
    free(crash.ram);
}

/* --- Memory that tests make up --- */

struct words {
    uint64_t base;
    uint64_t values[64];
};

static bool read_words(void *opaque, uint64_t va, void *buffer, size_t size)
{
    const struct words *words = opaque;
    if (va < words->base || va - words->base > sizeof(words->values) ||
        sizeof(words->values) - (va - words->base) < size)
        return false;
    memcpy(buffer, (const uint8_t *)words->values + (va - words->base), size);
    return true;
}

/* Expressions, a signal frame, and saved registers: signal_frame in start.S. */
static void expressions_and_signal_frames(void **state)
{
    struct symbols *symbols = load("clang-lines");
    struct unwinder *unwinder = unwind_create(symbols);
    struct words words = {.base = 0x1000};
    struct unwind_registers registers = {.x[2] = 0x1000};
    struct unwind_frame frames[2];
    uint32_t known = UINT32_MAX;
    assert_true(symbols_address(symbols, "signal_frame", &registers.pc));
    words.values[1] = 0x1100;     /* CFA */
    words.values[2] = 0x80200004; /* ra */
    words.values[(0x100 - 24) / 8] = 77;
    assert_int_equal(unwind_backtrace(unwinder, &registers, read_words, &words, frames, 2), 2);
    assert_int_equal(frames[1].pc, 0x80200004);
    assert_int_equal(frames[1].sp, 0x1100);
    assert_int_equal(frames[1].method, UNWIND_EXCEPTION);
    assert_false(frames[1].after_call);

    assert_int_equal(unwind_step(unwinder, &registers, &known, true, read_words, &words),
                     UNWIND_EXCEPTION);
    assert_int_equal(registers.x[1], 0x80200004);
    assert_int_equal(registers.x[8], (uint64_t)-3);
    assert_int_equal(registers.x[9], 77);

    /* The stack may not go down, nor stay where it is. */
    words.values[1] = 0x0ff0;
    registers = (struct unwind_registers){.x[2] = 0x1000};
    assert_true(symbols_address(symbols, "signal_frame", &registers.pc));
    assert_int_equal(unwind_backtrace(unwinder, &registers, read_words, &words, frames, 2), 1);
    unwind_destroy(unwinder);
    symbols_destroy(symbols);
}

/* CFI that says nobody called a function ends a backtrace, whatever registers hold. */
static void end_of_the_stack(void **state)
{
    struct symbols *symbols = load("clang-lines");
    struct unwinder *unwinder = unwind_create(symbols);
    struct words words = {.base = 0x1000};
    struct unwind_registers registers = {.x[2] = 0x1000, .x[8] = 0x1020};
    struct unwind_frame frames[4];
    assert_true(symbols_address(symbols, "outer", &registers.x[1]));
    registers.x[1] += 4;
    words.values[3] = registers.x[1];
    assert_true(symbols_address(symbols, "_start", &registers.pc));
    assert_int_equal(unwind_backtrace(unwinder, &registers, read_words, &words, frames, 4), 1);
    unwind_destroy(unwinder);
    symbols_destroy(symbols);
}

static struct symbols *load_table(const char *text)
{
    struct symbols *symbols = symbols_create();
    char path[40];
    int fd = memfd_create("table", MFD_CLOEXEC);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    assert_true(symbols_add(symbols, path, 0, NULL));
    close(fd);
    return symbols;
}

/* A Linux that was interrupted: handler, pt_regs, the interrupted function and its caller. */
static void linux_exceptions(void **state)
{
    struct symbols *symbols = load_table("80001000 t handle_exception\n"
                                         "80001100 T ret_from_exception\n"
                                         "80001200 T call_on_irq_stack\n"
                                         "80002000 T do_irq\n"
                                         "80003000 T busy\n"
                                         "80004000 T main_loop\n");
    struct unwinder *unwinder = unwind_create(symbols);
    struct words words = {.base = 0x1000};
    struct unwind_registers registers = {
        .pc = 0x80002010, .x[1] = 0x80002008, .x[2] = 0x1000, .x[8] = 0x1010};
    struct unwind_frame frames[8];
    uint64_t *pt_regs = &words.values[2];
    words.values[0] = 0x1190;     /* do_irq's saved s0 */
    words.values[1] = 0x80001100; /* and ra */
    pt_regs[0] = 0x80003010;
    pt_regs[1] = 0x80003008;
    pt_regs[2] = 0x1180;
    pt_regs[8] = 0x11a0;
    pt_regs[32] = 1 << 8; /* SPP */
    words.values[(0x1a0 - 16) / 8] = 0;
    words.values[(0x1a0 - 8) / 8] = 0x80004010;
    assert_int_equal(unwind_backtrace(unwinder, &registers, read_words, &words, frames, 8), 4);
    assert_int_equal(frames[1].pc, 0x80001100);
    assert_int_equal(frames[2].pc, 0x80003010);
    assert_int_equal(frames[2].method, UNWIND_EXCEPTION);
    assert_false(frames[2].after_call);
    assert_int_equal(frames[3].pc, 0x80004010);

    pt_regs[32] = 0; /* from user mode: the backtrace ends there */
    assert_int_equal(unwind_backtrace(unwinder, &registers, read_words, &words, frames, 8), 2);
    pt_regs[32] = 1 << 8;
    pt_regs[2] = 0x1008; /* a stack that goes down */
    assert_int_equal(unwind_backtrace(unwinder, &registers, read_words, &words, frames, 8), 2);
    unwind_destroy(unwinder);
    symbols_destroy(symbols);
}

/* --- Hostile guests --- */

static uint64_t hostile_state;
static unsigned hostile_reads;

static bool read_hostile(void *opaque, uint64_t va, void *buffer, size_t size)
{
    unsigned kind = *(unsigned *)opaque;
    uint64_t *words = buffer;
    hostile_reads++;
    for (size_t i = 0; i < size / 8; i++) {
        hostile_state = hostile_state * 6364136223846793005 + 1442695040888963407;
        switch (kind) {
        case 0:
            return false;
        case 1:
            words[i] = UINT64_MAX;
            break;
        case 2:
            words[i] = 0;
            break;
        case 3:
            words[i] = va + 16;
            break; /* points to itself */
        case 4:
            words[i] = i ? 0x80200010 : va + 16 + 16;
            break; /* goes up without end */
        case 5:
            words[i] = hostile_state;
            break;
        case 6:
            words[i] = i ? 0x80200010 : va - 64;
            break; /* goes down */
        default:
            words[i] = 0x80200000 + hostile_state % 512 * 2;
            break;
        }
    }
    return true;
}

static void hostile_memory(void **state)
{
    static const char *const programs[] = {NULL, "clang-lines", "gcc-frames", "clang-eh"};
    struct unwind_frame frames[300];
    for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
        struct symbols *symbols = programs[i] ? load(programs[i]) : NULL;
        struct unwinder *unwinder = unwind_create(symbols);
        for (unsigned kind = 0; kind < 8; kind++)
            for (unsigned round = 0; round < 200; round++) {
                struct unwind_registers registers;
                hostile_reads = 0;
                registers.pc = round % 4 ? 0x80200000 + round * 2 : (uint64_t)-2 * round;
                for (unsigned j = 0; j < 32; j++) {
                    hostile_state = hostile_state * 6364136223846793005 + 1442695040888963407;
                    registers.x[j] = round & 1 ? 0x80201000 + round * 8 : hostile_state;
                }
                registers.x[8] &= ~UINT64_C(7);
                size_t count =
                    unwind_backtrace(unwinder, &registers, read_hostile, &kind, frames, 300);
                assert_in_range(count, 1, UNWIND_FRAMES_MAX);
                assert_true(hostile_reads < 64 * UNWIND_FRAMES_MAX);
                if (kind == 0)
                    assert_in_range(count, 1, 3);
            }
        unwind_destroy(unwinder);
        symbols_destroy(symbols);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crashed_programs),     cmocka_unit_test(without_symbols),
        cmocka_unit_test(registers_of_callers), cmocka_unit_test(expressions_and_signal_frames),
        cmocka_unit_test(end_of_the_stack),     cmocka_unit_test(linux_exceptions),
        cmocka_unit_test(hostile_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
