#include "base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static void *check_allocated(void *memory, size_t size)
{
    if (memory)
        return memory;
    log_error("out of host memory (while allocating %zu bytes)", size);
    abort();
}

/* Never zero bytes, so that NULL always means failure. */
static size_t at_least_one(size_t size)
{
    return size ? size : 1;
}

void *xmalloc(size_t size)
{
    return check_allocated(malloc(at_least_one(size)), size);
}

void *xcalloc(size_t count, size_t size)
{
    return check_allocated(calloc(at_least_one(count), at_least_one(size)), size);
}

void *xrealloc(void *old, size_t size)
{
    return check_allocated(realloc(old, at_least_one(size)), size);
}

char *xstrdup(const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(xmalloc(size), text, size);
}

char *xasprintf(const char *format, ...)
{
    char *text;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    return check_allocated(length < 0 ? NULL : text, 0);
}
