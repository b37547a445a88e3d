#include "base/error.h"

#include <stdio.h>
#include <string.h>

/* Writes the formatted text and then `after`; arguments may point into the old message. */
static void error_write(struct error *err, const char *after, const char *format, va_list arguments)
{
    if (!err)
        return;
    char text[sizeof(err->message)];
    vsnprintf(text, sizeof(text), format, arguments);
    size_t length = strlen(text);
    size_t more = strnlen(after, sizeof(err->message) - 1 - length);
    memcpy(err->message, text, length);
    memcpy(err->message + length, after, more);
    err->message[length + more] = '\0';
}

bool error_set(struct error *err, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    error_write(err, "", format, arguments);
    va_end(arguments);
    return false;
}

bool error_set_errno(struct error *err, int number, const char *format, ...)
{
    char buffer[128], after[160];
    snprintf(after, sizeof(after), ": %s", strerror_r(number, buffer, sizeof(buffer)));
    va_list arguments;
    va_start(arguments, format);
    error_write(err, after, format, arguments);
    va_end(arguments);
    return false;
}

bool error_prefix(struct error *err, const char *format, ...)
{
    if (!err)
        return false;
    char after[sizeof(err->message) + 2];
    snprintf(after, sizeof(after), ": %s", err->message);
    va_list arguments;
    va_start(arguments, format);
    error_write(err, after, format, arguments);
    va_end(arguments);
    return false;
}
