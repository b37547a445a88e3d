/*
 * A client of the GDB remote protocol that does one thing as fast as it can, so that the server is
 * what a benchmark measures.
 *
 *     debug_client SOCKET SECONDS step             single steps
 *     debug_client SOCKET SECONDS stop ADDRESS     stops at a breakpoint that the server steps over
 * by itself debug_client SOCKET SECONDS stop-by-client ADDRESS the same, with the client taking the
 * breakpoint out for a step, as debuggers do debug_client SOCKET SECONDS read ADDRESS     bytes of
 * memory, in the largest pieces that the server takes debug_client SOCKET SECONDS run ADDRESS
 * [POINT] how much the doubleword at ADDRESS grows while the program runs with POINT (as
 * Z0,80000000,2) set
 *
 * It prints how many of them there were in a second. The harts must be waiting for a debugger.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define LARGEST (1u << 20)

static int server;
static bool acknowledge = true;
static char out[LARGEST], in[2 * LARGEST], reply[2 * LARGEST];
static size_t in_size;
static bool owes_ack;

__attribute__((format(printf, 1, 2))) static _Noreturn void fail(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fputs("debug_client: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void write_all(const char *data, size_t size)
{
    while (size) {
        ssize_t done = write(server, data, size);
        if (done <= 0)
            fail("the server is gone");
        data += done;
        size -= done;
    }
}

/* The acknowledgement of the last reply travels with the next packet. */
static void send_packet(const char *text)
{
    size_t size = strlen(text);
    unsigned char sum = 0;
    for (size_t i = 0; i < size; i++)
        sum += text[i];
    int length = snprintf(out, sizeof out, "%s$%s#%02x", owes_ack ? "+" : "", text, sum);
    owes_ack = false;
    write_all(out, length);
}

static void read_more(void)
{
    ssize_t size = read(server, in + in_size, sizeof in - in_size);
    if (size <= 0)
        fail("the server is gone");
    in_size += size;
}

/* Undoes runs and escapes. */
static size_t decode(const char *data, size_t size)
{
    size_t length = 0;
    for (size_t i = 0; i < size; i++) {
        if (data[i] == '}' && i + 1 < size) {
            reply[length++] = data[++i] ^ 0x20;
        } else if (data[i] == '*' && i + 1 < size && length) {
            int count = data[++i] - 29;
            if (length + count >= sizeof reply)
                fail("a reply is too large");
            memset(reply + length, reply[length - 1], count);
            length += count;
        } else {
            reply[length++] = data[i];
        }
    }
    reply[length] = 0;
    return length;
}

/* The next reply is in `reply`; its size. */
static size_t receive(void)
{
    size_t searched = 0;
    for (;;) {
        char *start = memchr(in, '$', in_size);
        if (start) {
            size_t before = start - in;
            size_t from = searched > before ? searched : before;
            char *end = memchr(in + from, '#', in_size - from);
            if (end && end + 3 <= in + in_size) {
                size_t size = decode(start + 1, end - start - 1);
                in_size -= end + 3 - in;
                memmove(in, end + 3, in_size);
                owes_ack = acknowledge;
                return size;
            }
            searched = end ? (size_t)(end - in) : in_size;
        }
        read_more();
    }
}

__attribute__((format(printf, 1, 2))) static size_t ask(const char *format, ...)
{
    char text[256];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    send_packet(text);
    return receive();
}

static void want_ok(const char *what)
{
    if (strcmp(reply, "OK") != 0)
        fail("%s: the server says '%s'", what, reply);
}

static void want_stop(const char *what)
{
    if (*reply != 'T' && *reply != 'S')
        fail("%s: the server says '%.40s'", what, reply);
}

static size_t open_session(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    server = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(server, (struct sockaddr *)&address, sizeof address) < 0)
        fail("nothing listens at %s", path);
    ask("qSupported:swbreak+;hwbreak+;vContSupported+");
    const char *size = strstr(reply, "PacketSize=");
    size_t largest = size ? strtoul(size + 11, NULL, 16) : 1024;
    ask("QStartNoAckMode");
    if (strcmp(reply, "OK") == 0)
        acknowledge = owes_ack = false;
    ask("?");
    want_stop("?");
    return largest > LARGEST ? LARGEST : largest;
}

static double count_steps(double seconds)
{
    double began = now();
    uint64_t count = 0;
    while (now() - began < seconds) {
        for (int i = 0; i < 16; i++)
            ask("vCont;s");
        want_stop("vCont;s");
        count += 16;
    }
    return count / (now() - began);
}

static double count_stops(double seconds, uint64_t address, bool by_client)
{
    ask("Z0,%" PRIx64 ",2", address);
    want_ok("Z0");
    ask("vCont;c");
    want_stop("vCont;c");
    double began = now();
    uint64_t count = 0;
    for (; now() - began < seconds; count++) {
        if (by_client) {
            ask("z0,%" PRIx64 ",2", address);
            ask("vCont;s");
            ask("Z0,%" PRIx64 ",2", address);
        }
        ask("vCont;c");
        want_stop("vCont;c");
    }
    return count / (now() - began);
}

static double count_bytes(double seconds, uint64_t address, size_t largest)
{
    /* Binary where there is such a thing. */
    bool binary = (ask("x0,0"), strcmp(reply, "OK") == 0 || strcmp(reply, "b") == 0);
    size_t size = (binary ? largest / 2 : largest / 2 - 16) & ~(size_t)15;
    /* Some servers take less than they say. */
    for (;; size /= 2) {
        ask("%c%" PRIx64 ",%zx", binary ? 'x' : 'm', address, size);
        if (*reply && !(reply[0] == 'E' && strlen(reply) == 3))
            break;
        if (size < 16)
            fail("memory at %" PRIx64 " cannot be read", address);
    }
    double began = now();
    uint64_t count = 0;
    for (; now() - began < seconds; count += size) {
        size_t got = ask("%c%" PRIx64 ",%zx", binary ? 'x' : 'm', address, size);
        if (got < (binary ? size : 2 * size))
            fail("a reply of %zu bytes for %zu bytes of memory", got, size);
    }
    return count / (now() - began);
}

static uint64_t read_doubleword(uint64_t address)
{
    ask("m%" PRIx64 ",8", address);
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--) {
        unsigned byte;
        if (sscanf(reply + 2 * i, "%2x", &byte) != 1)
            fail("memory at %" PRIx64 ": '%s'", address, reply);
        value = value << 8 | byte;
    }
    return value;
}

/* Runs for a while; how much it grew in a second. */
static double growth(double seconds, uint64_t address)
{
    uint64_t before = read_doubleword(address);
    double began = now();
    send_packet("vCont;c");
    usleep(seconds * 1e6);
    write_all("\3", 1);
    double took = now() - began;
    receive();
    want_stop("an interrupt");
    return (read_doubleword(address) - before) / took;
}

static double run(double seconds, uint64_t address, const char *point)
{
    /* First so that all is translated and the entry code is done. */
    growth(0.2, address);
    if (point) {
        ask("%s", point);
        want_ok(point);
        growth(0.2, address);
    }
    return growth(seconds, address);
}

int main(int count, char **arguments)
{
    if (count < 4)
        fail("SOCKET SECONDS WHAT [ADDRESS [POINT]]");
    double seconds = atof(arguments[2]);
    const char *what = arguments[3];
    uint64_t address = count > 4 ? strtoull(arguments[4], NULL, 16) : 0;
    size_t largest = open_session(arguments[1]);
    double result;
    if (strcmp(what, "step") == 0)
        result = count_steps(seconds);
    else if (strcmp(what, "stop") == 0)
        result = count_stops(seconds, address, false);
    else if (strcmp(what, "stop-by-client") == 0)
        result = count_stops(seconds, address, true);
    else if (strcmp(what, "read") == 0)
        result = count_bytes(seconds, address, largest);
    else if (strcmp(what, "run") == 0)
        result = run(seconds, address, count > 5 ? arguments[5] : NULL);
    else
        fail("there is no %s", what);
    printf("%.1f\n", result);
    return 0;
}
