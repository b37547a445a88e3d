/* Errors, allocation, messages on stderr, and traces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"

static void test_messages(void **state)
{
    struct error err = {{0}};
    assert_false(error_set(&err, "--memory %s: not a size", "12Q"));
    assert_string_equal(err.message, "--memory 12Q: not a size");
    assert_false(error_prefix(&err, "board %d", 3));
    assert_string_equal(err.message, "board 3: --memory 12Q: not a size");
    assert_false(error_set_errno(&err, ENOENT, "cannot open '%s'", "x"));
    assert_string_equal(err.message, "cannot open 'x': No such file or directory");
    /* The old message as an argument. */
    error_set(&err, "again: %s", err.message);
    assert_string_equal(err.message, "again: cannot open 'x': No such file or directory");
    assert_false(error_set(NULL, "nobody listens"));
    assert_false(error_set_errno(NULL, EIO, "nobody listens"));
    assert_false(error_prefix(NULL, "nobody listens"));
}

static void test_truncation(void **state)
{
    struct error err;
    char longer[2000];
    memset(longer, 'y', sizeof(longer));
    longer[sizeof(longer) - 1] = '\0';
    error_set(&err, "%s", longer);
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
    error_prefix(&err, "x");
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
    assert_memory_equal(err.message, "x: yyy", 6);
    error_set_errno(&err, EIO, "%s", longer);
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
}

static void test_allocation(void **state)
{
    void *empty = xmalloc(0);
    assert_non_null(empty);
    empty = xrealloc(empty, 100);
    assert_non_null(empty);
    free(empty);
    uint64_t *zeros = xcalloc(100, sizeof(*zeros));
    for (int i = 0; i < 100; i++)
        assert_int_equal(zeros[i], 0);
    free(zeros);
    char *text = xasprintf("%s-%d", "hart", 7);
    char *copy = xstrdup(text);
    assert_string_equal(copy, "hart-7");
    assert_ptr_not_equal(copy, text);
    free(text);
    free(copy);
}

static int saved_stderr;

static int redirect_stderr(void)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(stderr);
    saved_stderr = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    return ends[0];
}

static size_t restore_stderr(int read_end, char *text, size_t size)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    size_t length = 0;
    ssize_t count;
    while ((count = read(read_end, text + length, size - 1 - length)) > 0)
        length += (size_t)count;
    close(read_end);
    text[length] = '\0';
    return length;
}

static void test_overflow_aborts(void **state)
{
    char text[4096];
    int read_end = redirect_stderr();
    pid_t child = fork();
    if (!child) {
        volatile size_t huge = SIZE_MAX / 2;
        free(xcalloc(huge, 4));
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    restore_stderr(read_end, text, sizeof(text));
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
}

static void test_log_lines(void **state)
{
    char text[8192];
    int read_end = redirect_stderr();
    errno = EPIPE;
    log_error("disk '%s': no such file", "a.img");
    int kept = errno;
    log_warning("slow");
    log_info("ready\x1b[31m\n%c", 0x7f);
    log_set_raw_terminal(true);
    log_info("raw");
    log_set_raw_terminal(false);
    restore_stderr(read_end, text, sizeof(text));
    assert_string_equal(text, "hartvisor: error: disk 'a.img': no such file\n"
                              "hartvisor: warning: slow\n"
                              "hartvisor: ready?[31m??\n"
                              "hartvisor: raw\r\n");
    assert_int_equal(kept, EPIPE);
}

static void test_long_log_line(void **state)
{
    char text[8192], longer[5000];
    memset(longer, 'z', sizeof(longer));
    longer[sizeof(longer) - 1] = '\0';
    int read_end = redirect_stderr();
    log_set_raw_terminal(true);
    log_info("%s", longer);
    log_set_raw_terminal(false);
    size_t length = restore_stderr(read_end, text, sizeof(text));
    assert_in_range(length, 1000, 2048);
    assert_string_equal(text + length - 3, "z\r\n");
}

#define WRITERS 4
#define LINES   200

static void *write_lines(void *opaque)
{
    for (int i = 0; i < LINES; i++)
        trace_write(TRACE_SBI, "writer %d line %d end", *(int *)opaque, i);
    return NULL;
}

/* Every line of several threads is whole, in the order of its thread. */
static void check_lines(FILE *file)
{
    int next[WRITERS] = {0};
    int lines = 0, writer, line;
    char text[128], end[8];
    while (fgets(text, sizeof(text), file)) {
        assert_int_equal(sscanf(text, "sbi: writer %d line %d %7s\n", &writer, &line, end), 3);
        assert_string_equal(end, "end");
        assert_in_range(writer, 0, WRITERS - 1);
        assert_int_equal(line, next[writer]++);
        lines++;
    }
    assert_int_equal(lines, WRITERS * LINES);
}

static void test_trace_file(void **state)
{
    char path[] = "/tmp/hartvisor-trace-XXXXXX", specification[128];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    snprintf(specification, sizeof(specification), "sbi,guest-errors:%s", path);
    struct error err;
    assert_true(trace_configure(specification, &err));
    assert_true(trace_on(TRACE_SBI));
    assert_true(trace_on(TRACE_GUEST_ERRORS));
    assert_false(trace_on(TRACE_MMIO));
    pthread_t threads[WRITERS];
    int numbers[WRITERS];
    for (int i = 0; i < WRITERS; i++) {
        numbers[i] = i;
        pthread_create(&threads[i], NULL, write_lines, &numbers[i]);
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    trace_finish();
    assert_false(trace_on(TRACE_SBI));
    FILE *file = fdopen(fd, "r");
    check_lines(file);
    fclose(file);
    unlink(path);
    trace_finish();
}

static void test_trace_stderr(void **state)
{
    char text[1024];
    struct error err;
    assert_true(trace_configure("all", &err));
    assert_false(trace_on(TRACE_EXEC));
    assert_true(trace_on(TRACE_TRAP));
    assert_true(trace_configure("exec", &err));
    assert_true(trace_on(TRACE_EXEC));
    int read_end = redirect_stderr();
    trace_guest_error("uart", "bad divisor %d", 0);
    trace_guest_error("uart", "reserved");
    trace_finish();
    trace_guest_error("uart", "not traced");
    restore_stderr(read_end, text, sizeof(text));
    assert_string_equal(text, "guest-errors: uart: bad divisor 0\nguest-errors: uart: reserved\n");
}

static void test_trace_mistakes(void **state)
{
    static const struct {
        const char *specification, *message;
    } mistakes[] = {
        {"trap,nonsense:x", "unknown category 'nonsense'; valid are trap, sbi, mmio, csr, "
                            "guest-errors, exec, all"},
        {"", "unknown category ''"},
        {"trap,", "unknown category ''"},
        {"tra", "unknown category 'tra'"},
        {"trap:", "no file name"},
        {"trap:/nonexistent/file", "cannot write '/nonexistent/file': No such file"},
    };
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
        struct error err;
        assert_false(trace_configure(mistakes[i].specification, &err));
        assert_non_null(strstr(err.message, mistakes[i].message));
        assert_int_equal(trace_enabled, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),       cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_allocation),     cmocka_unit_test(test_overflow_aborts),
        cmocka_unit_test(test_log_lines),      cmocka_unit_test(test_long_log_line),
        cmocka_unit_test(test_trace_file),     cmocka_unit_test(test_trace_stderr),
        cmocka_unit_test(test_trace_mistakes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
