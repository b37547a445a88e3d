#include "base/error.h"

#include <stdio.h>
#include <string.h>

/* The length of a text that may have been cut within a character of UTF-8, up to that character. */
static size_t whole_characters(const char *text)
{
    size_t length = strlen(text), start = length;
    while (start && length - start < 4 && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
        start--;
    unsigned char lead = start ? (unsigned char)text[start - 1] : 0;
    size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    return size > length - start + 1 ? start - 1 : length;
}

/* Writes the formatted text and then `after`; arguments may point into the old message. */
static void error_write(struct error *err, const char *after, const char *format, va_list arguments)
{
    if (!err)
        return;
    char text[sizeof(err->message)];
    vsnprintf(text, sizeof(text), format, arguments);
    size_t length = whole_characters(text);
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
