#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"

uint32_t trace_enabled;

static const char *const category_names[TRACE_CATEGORIES] = {
    [TRACE_TRAP] = "trap",
    [TRACE_SBI] = "sbi",
    [TRACE_MMIO] = "mmio",
    [TRACE_CSR] = "csr",
    [TRACE_GUEST_ERRORS] = "guest-errors",
    [TRACE_EXEC] = "exec",
};

static _Atomic bool raw_terminal;

/* The file of --trace, or NULL for stderr. Its own lock keeps lines whole. */
static FILE *trace_file;

struct line {
    char text[2048];
    size_t length;
};

/*
 * "prefix" and the formatted text, cut to fit. Control characters, which may come from the guest,
 * would break the line or command the terminal: they become '?'.
 */
static void line_format(struct line *line, const char *prefix, const char *format,
                        va_list arguments)
{
    const size_t room = sizeof(line->text) - sizeof("\r\n");
    size_t start = strlen(prefix);
    memcpy(line->text, prefix, start);
    int length = vsnprintf(line->text + start, room - start, format, arguments);
    line->length = start + (length > 0 ? strlen(line->text + start) : 0);
    for (size_t i = start; i < line->length; i++) {
        unsigned char c = (unsigned char)line->text[i];
        if ((c < ' ' && c != '\t') || c == 0x7f)
            line->text[i] = '?';
    }
}

static void line_end(struct line *line, bool carriage_return)
{
    if (carriage_return)
        line->text[line->length++] = '\r';
    line->text[line->length++] = '\n';
}

/* One write(2) a line; a terminal that the serial console made non-blocking is waited for. */
static void line_to_stderr(struct line *line)
{
    line_end(line, raw_terminal);
    size_t done = 0;
    while (done < line->length) {
        ssize_t count = write(STDERR_FILENO, line->text + done, line->length - done);
        if (count >= 0) {
            done += (size_t)count;
        } else if (errno == EAGAIN) {
            struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
            if (poll(&ready, 1, 1000) <= 0)
                return;
        } else if (errno != EINTR) {
            return;
        }
    }
}

static void log_line(const char *prefix, const char *format, va_list arguments)
{
    int saved_errno = errno;
    struct line line;
    line_format(&line, prefix, format, arguments);
    line_to_stderr(&line);
    errno = saved_errno;
}

void log_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    log_line("hartvisor: error: ", format, arguments);
    va_end(arguments);
}

void log_warning(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    log_line("hartvisor: warning: ", format, arguments);
    va_end(arguments);
}

void log_info(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    log_line("hartvisor: ", format, arguments);
    va_end(arguments);
}

void log_set_raw_terminal(bool raw)
{
    raw_terminal = raw;
}

void trace_write(enum trace_category category, const char *format, ...)
{
    char prefix[32];
    snprintf(prefix, sizeof(prefix), "%s: ", category_names[category]);
    struct line line;
    va_list arguments;
    va_start(arguments, format);
    line_format(&line, prefix, format, arguments);
    va_end(arguments);
    if (trace_file) {
        line_end(&line, false);
        fwrite(line.text, 1, line.length, trace_file);
    } else {
        line_to_stderr(&line);
    }
}

static bool unknown_category(const char *name, size_t length, struct error *err)
{
    char valid[128] = "";
    for (size_t i = 0; i < TRACE_CATEGORIES; i++) {
        strcat(valid, category_names[i]);
        strcat(valid, ", ");
    }
    return error_set(err, "--trace: unknown category '%.*s'; valid are %sall (all but exec)",
                     (int)length, name, valid);
}

static bool parse_category(const char *name, size_t length, uint32_t *enabled, struct error *err)
{
    if (length == strlen("all") && !memcmp(name, "all", length)) {
        *enabled |= (uint32_t)(BIT(TRACE_CATEGORIES) - 1) & ~(uint32_t)BIT(TRACE_EXEC);
        return true;
    }
    for (unsigned i = 0; i < TRACE_CATEGORIES; i++) {
        if (length == strlen(category_names[i]) && !memcmp(name, category_names[i], length)) {
            *enabled |= (uint32_t)BIT(i);
            return true;
        }
    }
    return unknown_category(name, length, err);
}

bool trace_configure(const char *specification, struct error *err)
{
    uint32_t enabled = 0;
    const char *name = specification;
    size_t length;
    for (;;) {
        length = strcspn(name, ",:");
        if (!parse_category(name, length, &enabled, err))
            return false;
        if (name[length] != ',')
            break;
        name += length + 1;
    }
    if (name[length] == ':') {
        const char *path = name + length + 1;
        if (!*path)
            return error_set(err, "--trace %s: no file name after ':'", specification);
        FILE *file = fopen(path, "we");
        if (!file)
            return error_set_errno(err, errno, "--trace: cannot write '%s'", path);
        if (trace_file)
            fclose(trace_file);
        trace_file = file;
        setvbuf(file, NULL, _IOFBF, 1 << 16);
    }
    trace_enabled |= enabled;
    return true;
}

void trace_finish(void)
{
    trace_enabled = 0;
    if (trace_file && fclose(trace_file))
        log_warning("the trace file is incomplete: %s", strerror(errno));
    trace_file = NULL;
}
