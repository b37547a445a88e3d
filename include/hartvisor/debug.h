/*
 * The debugger's side of a machine: a server for GDB and LLDB, which both speak the GDB remote
 * serial protocol, and the session behind a connection for programs that bring their own.
 *
 *     struct debug_server *server = debug_server_create(machine, "1234", false, &err);
 *     int status = machine_run(machine);
 *     debug_server_destroy(server);
 *
 * All functions belong to the thread that runs the machine, or that created it, before it runs.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "hartvisor/error.h"

struct machine;

/* --- A server: it listens, and serves one client after another -------------------------------- */

struct debug_server;

/*
 * Listens at "PORT" or "HOST:PORT" (TCP; the loopback address unless HOST says otherwise, any free
 * port for 0; "[ADDRESS]:PORT" for IPv6) or "unix:PATH". With `wait` no hart executes anything, and
 * guest time stands still, until a client lets it. NULL if the address is not to be had; the
 * message says why.
 */
struct debug_server *debug_server_create(struct machine *machine, const char *address, bool wait,
                                         struct error *err);

/* Ends the connection. The machine goes on as it is, without breakpoints. Accepts NULL. */
void debug_server_destroy(struct debug_server *server);

/* Where it listens, as a client is told it: "127.0.0.1:1234" or "unix:PATH". */
const char *debug_server_address(const struct debug_server *server);

/* --- A session: what one client says, and the answers ----------------------------------------- */

struct debug_session;

struct debug_transport {
    void *opaque;
    /* Sends bytes to the client, all of them or as many as it still takes. */
    void (*send)(void *opaque, const void *data, size_t size);
    /* The client has detached, or the machine was told to end: nothing more will come. May be
     * called from within debug_session_receive; not to destroy the session in it. */
    void (*end)(void *opaque);
    bool plain; /* runs of one character are sent as they are, not shortened to "0*~" */
};

/* NULL if another session has the machine. Harts are not stopped before the client asks for
 * something that they must stand still for. */
struct debug_session *debug_session_create(struct machine *machine,
                                           const struct debug_transport *transport,
                                           struct error *err);

/* What the client sent, in pieces of any size. */
void debug_session_receive(struct debug_session *session, const void *data, size_t size);

/* The client is gone. Harts that ran run on, harts that stood still stay so. Accepts NULL. */
void debug_session_destroy(struct debug_session *session);
