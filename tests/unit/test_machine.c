/* A whole machine: device tree, lifecycle, exit status, saved state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <libfdt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "hartvisor/machine.h"
#include "isa/isa.h"

#define RAM_BASE UINT64_C(0x80000000)
#define FINISHER 0x100000

/* A program as a file: firmware at the start of RAM. */
static const char *program_file(const uint32_t *code, size_t count)
{
    static char path[] = "/tmp/hartvisor-test-XXXXXX";
    strcpy(path + sizeof(path) - 7, "XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, code, count * 4), count * 4);
    close(fd);
    return path;
}

static uint32_t insn(enum insn_op op, unsigned rd, unsigned rs1, unsigned rs2, int32_t imm)
{
    uint32_t bits =
        isa_encode(&(struct insn){.op = op, .rd = rd, .rs1 = rs1, .rs2 = rs2, .imm = imm});
    assert_int_not_equal(bits, 0);
    return bits;
}

static struct machine *create(const uint32_t *code, size_t count, struct machine_config *config)
{
    struct error err = {0};
    const char *path = program_file(code, count);
    config->firmware = path;
    config->serial = "none";
    struct machine *machine = machine_create(config, &err);
    if (!machine)
        fail_msg("%s", err.message);
    unlink(path);
    return machine;
}

static struct machine_config small_config(void)
{
    struct machine_config config;
    machine_config_init(&config);
    config.memory_size = 16 << 20;
    return config;
}

/* --- Device tree --------------------------------------------------------------------------------
 */

static const void *property(const void *tree, const char *path, const char *name, int *size)
{
    int node = fdt_path_offset(tree, path);
    assert_true(node >= 0);
    return fdt_getprop(tree, node, name, size);
}

static void tree_describes_the_configuration(void **state)
{
    uint32_t code[] = {insn(INSN_jal, 0, 0, 0, 0)};
    struct machine_config config = small_config();
    config.memory_size = UINT64_C(3) << 30;
    config.cpus = 3;
    config.cpu = "rv64gc,zba";
    config.append = "console=ttyS0 quiet";
    struct machine *machine = create(code, 1, &config);
    size_t tree_size;
    int size;
    const void *tree = machine_device_tree(machine, &tree_size);
    assert_int_equal(fdt_check_full(tree, tree_size), 0);

    const fdt64_t *reg = property(tree, "/memory@80000000", "reg", &size);
    assert_int_equal(size, 16);
    assert_int_equal(fdt64_ld(&reg[0]), RAM_BASE);
    assert_int_equal(fdt64_ld(&reg[1]), config.memory_size);
    assert_string_equal(property(tree, "/chosen", "bootargs", &size), config.append);
    assert_null(property(tree, "/chosen", "linux,initrd-start", &size));
    assert_true(fdt_path_offset(tree, "/cpus/cpu@2") >= 0);
    assert_true(fdt_path_offset(tree, "/cpus/cpu@3") < 0);
    const char *isa = property(tree, "/cpus/cpu@0", "riscv,isa", &size);
    assert_memory_equal(isa, "rv64imafdc", 10);
    assert_non_null(strstr(isa, "_zba"));
    assert_null(strstr(isa, "_zbb"));
    assert_null(property(tree, "/cpus/cpu@0", "riscv,cboz-block-size", &size));
    machine_destroy(machine);
}

static void bad_configurations_are_refused(void **state)
{
    static const char no_file[] = "/nonexistent";
    struct {
        struct machine_config config;
        const char *words;
    } rows[8];
    size_t count = 0;
#define ROW(field, value, text)                                                                    \
    rows[count].config = small_config();                                                           \
    rows[count].config.kernel = no_file;                                                           \
    rows[count].config.field = value;                                                              \
    rows[count++].words = text
    ROW(cpus, 0, "--cpus 0");
    ROW(cpus, 65, "--cpus 65");
    ROW(memory_size, 4096, "--memory");
    ROW(memory_size, (16 << 20) + 1, "--memory");
    ROW(kernel, NULL, "nothing to boot");
    ROW(kernel, no_file, "/nonexistent");
    ROW(cpu, "rv64gc,zbz", "--cpu");
    ROW(serial, "carrier-pigeon", "carrier-pigeon");
    for (size_t i = 0; i < count; i++) {
        struct error err = {0};
        assert_null(machine_create(&rows[i].config, &err));
        if (!strstr(err.message, rows[i].words))
            fail_msg("row %zu: '%s' does not say '%s'", i, err.message, rows[i].words);
    }
}

/* --- Running ------------------------------------------------------------------------------------
 */

static void exit_status_is_the_guests(void **state)
{
    static const struct {
        uint32_t word;
        int status;
    } rows[] = {{0x5555, 0}, {0x3333 | 7 << 16, 7}, {0x3333 | 255 << 16, 255}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        uint32_t upper = (rows[i].word + 0x800) & ~0xfff;
        uint32_t code[] = {
            insn(INSN_lui, 5, 0, 0, FINISHER),
            insn(INSN_lui, 6, 0, 0, upper),
            insn(INSN_addiw, 6, 6, 0, (int32_t)(rows[i].word - upper)),
            insn(INSN_sw, 0, 5, 6, 0),
            insn(INSN_jal, 0, 0, 0, 0),
        };
        struct machine_config config = small_config();
        config.cpus = 2;
        struct machine *machine = create(code, ARRAY_SIZE(code), &config);
        assert_int_equal(machine_run(machine), rows[i].status);
        assert_int_equal(machine_get_state(machine), MACHINE_ENDED);
        machine_destroy(machine);
    }
}

/* Counts in RAM for ever. */
static struct machine *create_counter(void)
{
    uint32_t code[] = {
        insn(INSN_auipc, 5, 0, 0, 0x1000), insn(INSN_addi, 6, 0, 0, 0), insn(INSN_addi, 6, 6, 0, 1),
        insn(INSN_sd, 0, 5, 6, 0),         insn(INSN_jal, 0, 0, 0, -8),
    };
    struct machine_config config = small_config();
    return create(code, ARRAY_SIZE(code), &config);
}

static uint64_t counter(struct machine *machine)
{
    uint64_t value = 0;
    assert_true(machine_read_memory(machine, RAM_BASE + 0x1000, &value, sizeof(value)));
    return value;
}

static void *run(void *machine)
{
    return (void *)(intptr_t)machine_run(machine);
}

static void wait_for_progress(struct machine *machine)
{
    uint64_t start = counter(machine);
    while (counter(machine) <= start)
        usleep(1000);
}

static void events_count(void *opaque, const struct machine_event_info *info)
{
    atomic_fetch_add((_Atomic unsigned *)opaque + info->event, 1);
}

static void pause_stops_and_resume_goes_on(void **state)
{
    struct machine *machine = create_counter();
    _Atomic unsigned events[8] = {0};
    pthread_t thread;
    void *status;
    machine_add_listener(machine, events_count, events);
    pthread_create(&thread, NULL, run, machine);
    wait_for_progress(machine);
    for (unsigned round = 0; round < 20; round++) {
        machine_pause(machine);
        assert_int_equal(machine_get_state(machine), MACHINE_PAUSED);
        uint64_t value = counter(machine);
        usleep(1000);
        assert_int_equal(counter(machine), value);
        machine_resume(machine);
        wait_for_progress(machine);
    }
    machine_quit(machine, 42);
    pthread_join(thread, &status);
    assert_int_equal((intptr_t)status, 42);
    assert_int_equal(events[MACHINE_EVENT_STOP], 20);
    assert_int_equal(events[MACHINE_EVENT_RESUME], 21);
    assert_int_equal(events[MACHINE_EVENT_SHUTDOWN], 1);
    machine_destroy(machine);
}

static void state_moves_to_another_machine(void **state)
{
    struct machine *machine = create_counter();
    pthread_t thread;
    void *data, *status;
    size_t size;
    struct error err;
    pthread_create(&thread, NULL, run, machine);
    wait_for_progress(machine);
    assert_false(machine_save(machine, &data, &size, &err)); /* it runs */
    machine_pause(machine);
    uint64_t value = counter(machine);
    assert_true(machine_save(machine, &data, &size, &err));
    machine_quit(machine, 0);
    pthread_join(thread, &status);
    machine_destroy(machine);

    struct machine *other = create_counter();
    if (!machine_load(other, data, size, &err))
        fail_msg("%s", err.message);
    assert_int_equal(counter(other), value);
    pthread_create(&thread, NULL, run, other);
    wait_for_progress(other);
    machine_quit(other, 0);
    pthread_join(thread, &status);
    machine_destroy(other);

    /* Cut short at many places: an error each time, never a crash. */
    for (size_t cut = 0; cut < size; cut += 1 + size / 40) {
        other = create_counter();
        assert_false(machine_load(other, data, cut, &err));
        machine_destroy(other);
    }
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tree_describes_the_configuration),
        cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(exit_status_is_the_guests),
        cmocka_unit_test(pause_stops_and_resume_goes_on),
        cmocka_unit_test(state_moves_to_another_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
