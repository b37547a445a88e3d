/*
 * Pictures for VNC viewers, by libvncserver. Sockets are accepted here and watched by the display's
 * loop; the library is called when there is something to read or to send, and never waits for long.
 */
#ifdef HAVE_LIBVNCSERVER

#    include <rfb/rfb.h>

#    include <arpa/inet.h>
#    include <errno.h>
#    include <linux/input-event-codes.h>
#    include <netdb.h>
#    include <stdio.h>
#    include <stdlib.h>
#    include <string.h>
#    include <sys/epoll.h>
#    include <sys/random.h>
#    include <unistd.h>

#    include "display/internal.h"

#    define MAX_CLIENTS   16 /* of a scanout */
#    define MAX_ADDRESSES 4
#    define PASSWORD_SIZE 8 /* all that VNC uses */
#    define WAIT_MS       2000

struct vnc;

struct vnc_screen {
    struct vnc *vnc;
    unsigned number;
    rfbScreenInfoPtr rfb;
    struct gpu_frame *frame; /* what rfb->frameBuffer is */
    struct {
        int fd;
        struct loop_fd *source;
    } listeners[MAX_ADDRESSES];
    unsigned listener_count, client_count;
    struct loop_task *task; /* the library has something to do */
    bool watched;
};

struct vnc_client {
    struct vnc_screen *screen;
    rfbClientPtr rfb;
    int fd; /* a duplicate, as the library closes its own when it likes */
    struct loop_fd *source;
    uint8_t held[(KEY_MAX + 8) / 8]; /* keys, for when it goes */
    int buttons;
};

struct vnc {
    struct sink sink;
    char password[PASSWORD_SIZE + 1];
    char *passwords[2];
    unsigned count;
    struct vnc_screen screens[GPU_MAX_SCANOUTS];
};

struct vnc_options {
    char *host; /* NULL: loopback */
    unsigned port;
    char password[PASSWORD_SIZE + 1];
    bool none; /* no password */
};

static const struct display_devices *devices_of(struct vnc_screen *screen)
{
    return display_devices(screen->vnc->sink.display);
}

/* --- Input -------------------------------------------------------------------------------------
 */

static void send_key(struct vnc_client *client, uint16_t key, bool down)
{
    uint8_t bit = (uint8_t)(1u << key % 8);
    if (key > KEY_MAX || (!down && !(client->held[key / 8] & bit)))
        return;
    client->held[key / 8] =
        (uint8_t)(down ? client->held[key / 8] | bit : client->held[key / 8] & ~bit);
    input_key(devices_of(client->screen), key, down);
}

/* Modifiers come as keys of their own, so a keysym stands for its key alone. */
static void key_event(rfbBool down, rfbKeySym keysym, rfbClientPtr rfb)
{
    bool shift;
    uint16_t key = key_by_keysym(keysym, &shift);
    if (key)
        send_key(rfb->clientData, key, down);
}

static void release_buttons(struct vnc_client *client, int mask);

static void release_all(rfbClientPtr rfb)
{
    struct vnc_client *client = rfb->clientData;
    for (uint16_t key = 0; key <= KEY_MAX; key++)
        send_key(client, key, false);
    release_buttons(client, 0);
}

/* Bits of the mask: a button, or a turn of a wheel. */
static const struct {
    uint16_t button;
    int8_t vertical, horizontal;
} buttons[] = {{BTN_LEFT, 0, 0}, {BTN_MIDDLE, 0, 0}, {BTN_RIGHT, 0, 0}, {0, 1, 0},
               {0, -1, 0},       {0, 0, -1},         {0, 0, 1},         {BTN_SIDE, 0, 0}};

static void release_buttons(struct vnc_client *client, int mask)
{
    const struct display_devices *devices = devices_of(client->screen);
    int changed = client->buttons ^ mask;
    client->buttons = mask;
    for (unsigned i = 0; i < ARRAY_SIZE(buttons); i++) {
        bool down = mask >> i & 1;
        if (!(changed >> i & 1))
            continue;
        if (buttons[i].button)
            input_button(devices, buttons[i].button, down, false);
        else if (down)
            input_wheel(devices, buttons[i].vertical, buttons[i].horizontal);
    }
}

static void pointer_event(int mask, int x, int y, rfbClientPtr rfb)
{
    struct vnc_client *client = rfb->clientData;
    int width = rfb->screen->width, height = rfb->screen->height;
    x = x < 0 ? 0 : x >= width ? width - 1 : x;
    y = y < 0 ? 0 : y >= height ? height - 1 : y;
    input_pointer(devices_of(client->screen), (uint32_t)x, (uint32_t)y, (uint32_t)width,
                  (uint32_t)height);
    release_buttons(client, mask & 0xff);
}

/* The guest decides: viewers get the new size when its picture has it. */
static int set_desktop_size(int width, int height, int count, struct rfbExtDesktopScreen *screens,
                            rfbClientPtr rfb)
{
    struct vnc_client *client = rfb->clientData;
    if (count != 1 || width < 64 || height < 64 || width > GPU_MAX_SIZE || height > GPU_MAX_SIZE)
        return rfbExtDesktopSize_InvalidScreenLayout;
    virtio_gpu_resize(devices_of(client->screen)->gpu, client->screen->number, (uint32_t)width,
                      (uint32_t)height);
    return rfbExtDesktopSize_Success;
}

/* --- Clients -----------------------------------------------------------------------------------
 */

/* The oldest client that is past its password, or that is not; NULL if there is none. */
static rfbClientPtr find_client(struct vnc_screen *screen, bool normal)
{
    rfbClientIteratorPtr iterator = rfbGetClientIterator(screen->rfb);
    rfbClientPtr found = NULL, rfb;
    while ((rfb = rfbClientIteratorNext(iterator)))
        if ((rfb->state == RFB_NORMAL) == normal)
            found = rfb; /* the newest comes first */
    rfbReleaseClientIterator(iterator);
    return found;
}

static void process(void *opaque)
{
    struct vnc_screen *screen = opaque;
    rfbProcessEvents(screen->rfb, 0);
    bool watched = find_client(screen, true);
    if (watched && !screen->watched)
        display_look(screen->vnc->sink.display, screen->number);
    screen->watched = watched;
}

static void client_ready(void *opaque, uint32_t events)
{
    struct vnc_client *client = opaque;
    loop_schedule(client->screen->task);
}

static void client_gone(rfbClientPtr rfb)
{
    struct vnc_client *client = rfb->clientData;
    if (!client)
        return;
    release_all(rfb);
    loop_remove_fd(client->source);
    close(client->fd);
    client->screen->client_count--;
    rfb->clientData = NULL;
    free(client);
}

static enum rfbNewClientAction new_client(rfbClientPtr rfb)
{
    struct vnc_screen *screen = rfb->screen->screenData;
    struct vnc_client *client = xcalloc(1, sizeof(*client));
    client->screen = screen;
    client->rfb = rfb;
    client->fd = dup(rfb->sock);
    client->source = client->fd < 0 ? NULL
                                    : loop_add_fd(display_loop(screen->vnc->sink.display),
                                                  client->fd, EPOLLIN, client_ready, client, NULL);
    rfb->clientGoneHook = client_gone;
    if (!client->source) {
        if (client->fd >= 0)
            close(client->fd);
        free(client);
        return RFB_CLIENT_REFUSE;
    }
    rfb->clientData = client;
    screen->client_count++;
    return RFB_CLIENT_ACCEPT;
}

static void listener_ready(struct vnc_screen *screen, int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    /* One that does not get past its password makes room for the next. */
    rfbClientPtr stale = screen->client_count < MAX_CLIENTS ? NULL : find_client(screen, false);
    if (stale) {
        rfbCloseClient(stale);
        process(screen);
    }
    /* The library keeps sockets in an fd_set. */
    if (screen->client_count >= MAX_CLIENTS || fd >= FD_SETSIZE)
        close(fd);
    else
        rfbNewClient(screen->rfb, fd);
    loop_schedule(screen->task);
}

static void accept_client(void *opaque, uint32_t events)
{
    struct vnc_screen *screen = opaque;
    for (unsigned i = 0; i < screen->listener_count; i++)
        listener_ready(screen, screen->listeners[i].fd);
}

/* --- Pictures ----------------------------------------------------------------------------------
 */

static void set_format(rfbScreenInfoPtr rfb)
{
    rfb->serverFormat.redShift = 16;
    rfb->serverFormat.greenShift = 8;
    rfb->serverFormat.blueShift = 0;
    rfb->serverFormat.depth = 24;
}

/* Takes over the reference. */
static void set_frame(struct vnc_screen *screen, struct gpu_frame *frame)
{
    rfbScreenInfoPtr rfb = screen->rfb;
    rfbNewFramebuffer(rfb, (char *)frame->pixels, (int)frame->width, (int)frame->height, 8, 3, 4);
    set_format(rfb);
    rfbClientIteratorPtr iterator = rfbGetClientIterator(rfb);
    rfbClientPtr client;
    /* The library has chosen for the format that it makes up. */
    while ((client = rfbClientIteratorNext(iterator)))
        rfb->setTranslateFunction(client);
    rfbReleaseClientIterator(iterator);
    gpu_frame_put(screen->frame);
    screen->frame = frame;
}

static void vnc_show(struct sink *sink, unsigned scanout, struct gpu_frame *frame,
                     const struct gpu_rect *rect)
{
    struct vnc_screen *screen = &container_of(sink, struct vnc, sink)->screens[scanout];
    if (frame) {
        if (frame != screen->frame)
            set_frame(screen, gpu_frame_get(frame));
    } else {
        frame = gpu_frame_create(screen->frame->width, screen->frame->height, NULL);
        if (!frame)
            return;
        set_frame(screen, frame);
    }
    rfbMarkRectAsModified(screen->rfb, (int)rect->x, (int)rect->y, (int)(rect->x + rect->width),
                          (int)(rect->y + rect->height));
    process(screen);
}

static bool vnc_watched(struct sink *sink, unsigned scanout)
{
    return container_of(sink, struct vnc, sink)->screens[scanout].watched;
}

static void finish_screen(struct vnc_screen *screen)
{
    for (unsigned i = 0; i < screen->listener_count; i++) {
        loop_remove_fd(screen->listeners[i].source);
        close(screen->listeners[i].fd);
    }
    if (screen->rfb) {
        rfbShutdownServer(screen->rfb, TRUE);
        screen->rfb->frameBuffer = NULL;
        rfbScreenCleanup(screen->rfb);
    }
    loop_remove_task(screen->task);
    gpu_frame_put(screen->frame);
}

static void vnc_destroy(struct sink *sink)
{
    struct vnc *vnc = container_of(sink, struct vnc, sink);
    for (unsigned i = 0; i < vnc->count; i++)
        finish_screen(&vnc->screens[i]);
    explicit_bzero(vnc->password, sizeof(vnc->password));
    free(vnc);
}

static const struct sink_ops vnc_ops = {vnc_watched, vnc_show, vnc_destroy};

/* --- The specification -------------------------------------------------------------------------
 */

static bool set_password(struct vnc_options *options, const char *password, const char *where,
                         struct error *err)
{
    size_t length = strlen(password);
    if (!length || length > PASSWORD_SIZE)
        return error_set(err, "the password %s has %zu characters; VNC uses 1 to %u, so shorten it",
                         where, length, PASSWORD_SIZE);
    memcpy(options->password, password, length + 1);
    return true;
}

static bool read_password(struct vnc_options *options, const char *path, struct error *err)
{
    FILE *file = fopen(path, "re");
    char line[256];
    if (!file)
        return error_set_errno(err, errno, "cannot read the password file '%s'", path);
    bool good = fgets(line, sizeof(line), file);
    fclose(file);
    if (!good)
        return error_set(err, "the password file '%s' is empty; its first line is the password",
                         path);
    line[strcspn(line, "\r\n")] = '\0';
    char *where = xasprintf("in '%s'", path);
    good = set_password(options, line, where, err);
    free(where);
    explicit_bzero(line, sizeof(line));
    return good;
}

static bool make_password(char password[PASSWORD_SIZE + 1], struct error *err)
{
    /* Without what looks alike. */
    static const char letters[] = "abcdefghjkmnpqrstuvwxyzACDEFHJKLMNPQRTUVWXY34679";
    const unsigned count = sizeof(letters) - 1;
    for (unsigned i = 0; i < PASSWORD_SIZE;) {
        uint8_t byte;
        if (getrandom(&byte, 1, 0) != 1)
            return error_set_errno(err, errno, "no random numbers for a password");
        if (byte < 256 / count * count) /* each letter as often */
            password[i++] = letters[byte % count];
    }
    password[PASSWORD_SIZE] = '\0';
    return true;
}

static bool parse_option(struct vnc_options *options, const char *option, struct error *err)
{
    if (!strncmp(option, "password=", 9))
        return set_password(options, option + 9, "of the display", err);
    if (!strncmp(option, "password-file=", 14))
        return read_password(options, option + 14, err);
    if (strcmp(option, "no-password"))
        return error_set(err,
                         "display vnc: '%s' is unknown; use password=TEXT, password-file=FILE "
                         "or no-password",
                         option);
    return options->none = true;
}

static bool parse_address(struct vnc_options *options, const char *text, unsigned count,
                          struct error *err)
{
    const char *colon = strrchr(text, ':'), *port = colon ? colon + 1 : text;
    char *stop;
    errno = 0;
    unsigned long number = strtoul(port, &stop, 10);
    if (*port < '0' || *port > '9' || *stop || errno || !number || number + count - 1 > 65535)
        return error_set(err,
                         "display vnc: the port '%s' must be a number from 1 to %u; use "
                         "vnc:PORT, as vnc:5900",
                         port, 65536 - count);
    options->port = (unsigned)number;
    if (!colon)
        return true;
    size_t length = (size_t)(colon - text);
    if (length > 2 && *text == '[' && colon[-1] == ']') {
        text++;
        length -= 2;
    }
    if (!length)
        return error_set(err,
                         "display vnc: no address before ':%s'; use vnc:PORT for this "
                         "machine only",
                         port);
    options->host = xasprintf("%.*s", (int)length, text);
    return true;
}

static bool parse(struct vnc_options *options, const char *arguments, unsigned count,
                  struct error *err)
{
    if (!arguments || !*arguments)
        return error_set(err, "display vnc needs a port; use vnc:PORT, as vnc:5900");
    char *copy = xstrdup(arguments), *rest = copy, *part = strsep(&rest, ",");
    bool good = parse_address(options, part, count, err);
    while (good && (part = strsep(&rest, ",")))
        good = parse_option(options, part, err);
    explicit_bzero(copy, strlen(arguments));
    free(copy);
    if (good && options->none && *options->password)
        good = error_set(err, "display vnc: no-password and a password exclude each other");
    return good;
}

/* --- Creation ----------------------------------------------------------------------------------
 */

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
    return address->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

/* Returns an errno value. */
static int add_listener(struct vnc_screen *screen, const struct addrinfo *address)
{
    int one = 1;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (address->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    struct loop_fd *source = NULL;
    if (!bind(fd, address->ai_addr, address->ai_addrlen) && !listen(fd, MAX_CLIENTS))
        source = loop_add_fd(display_loop(screen->vnc->sink.display), fd, EPOLLIN, accept_client,
                             screen, NULL);
    if (!source) {
        int number = errno;
        close(fd);
        return number ? number : ENOMEM;
    }
    screen->listeners[screen->listener_count].fd = fd;
    screen->listeners[screen->listener_count++].source = source;
    return 0;
}

static bool listen_at(struct vnc_screen *screen, const struct vnc_options *options,
                      const char *host, bool needed, struct error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    unsigned port = options->port + screen->number;
    char service[8];
    snprintf(service, sizeof(service), "%u", port);
    struct addrinfo *list;
    int status = getaddrinfo(host, service, &hints, &list);
    if (status)
        return !needed || error_set(err, "display vnc: the address '%s' is not to be had: %s", host,
                                    gai_strerror(status));
    bool good = true;
    for (struct addrinfo *address = list; good && address; address = address->ai_next) {
        if (screen->listener_count == MAX_ADDRESSES)
            break;
        if (options->none && !is_loopback(address->ai_addr)) {
            good = error_set(err,
                             "display vnc: '%s' can be reached from other machines, so it "
                             "needs a password; leave no-password out, or the address",
                             host);
            break;
        }
        int number = add_listener(screen, address);
        if (number && needed)
            good = error_set_errno(err, number,
                                   "display vnc: cannot listen on port %u of '%s'; choose another "
                                   "port",
                                   port, host);
    }
    freeaddrinfo(list);
    return good;
}

static bool create_screen(struct vnc_screen *screen, const struct vnc_options *options,
                          struct error *err)
{
    struct vnc *vnc = screen->vnc;
    screen->frame = gpu_frame_create(640, 480, err);
    if (!screen->frame)
        return false;
    rfbScreenInfoPtr rfb = rfbGetScreen(NULL, NULL, 640, 480, 8, 3, 4);
    if (!rfb)
        return error_set(err, "display vnc: no memory for a screen");
    screen->rfb = rfb;
    set_format(rfb);
    rfb->frameBuffer = (char *)screen->frame->pixels;
    rfb->screenData = screen;
    rfb->desktopName = "hartvisor";
    rfb->port = 0; /* listened on here */
    rfb->ipv6port = 0;
    rfb->autoPort = FALSE;
    rfb->alwaysShared = TRUE;
    rfb->maxClientWait = WAIT_MS;
    rfb->deferUpdateTime = 0;
    rfb->deferPtrUpdateTime = 0;
    rfb->cursor = NULL; /* the guest's is in the picture */
    rfb->kbdAddEvent = key_event;
    rfb->kbdReleaseAllKeys = release_all;
    rfb->ptrAddEvent = pointer_event;
    rfb->newClientHook = new_client;
    rfb->setDesktopSizeHook = set_desktop_size;
    if (!options->none) {
        rfb->authPasswdData = vnc->passwords;
        rfb->passwordCheck = rfbCheckPasswordByList;
    }
    rfbInitServer(rfb);
    screen->task = loop_add_task(display_loop(vnc->sink.display), process, screen);
    if (options->host)
        return listen_at(screen, options, options->host, true, err);
    return listen_at(screen, options, "127.0.0.1", true, err) &&
           listen_at(screen, options, "::1", false, err);
}

static void say_nothing(const char *format, ...)
{
}

static void tell(const struct vnc *vnc, const struct vnc_options *options, bool made_up)
{
    char ports[32] = "";
    if (vnc->count > 1)
        snprintf(ports, sizeof(ports), " to %u", options->port + vnc->count - 1);
    log_info("VNC listens on %s, port %u%s%s%s", options->host ? options->host : "127.0.0.1",
             options->port, ports, made_up ? "; password " : "", made_up ? vnc->password : "");
}

static bool create_screens(struct vnc *vnc, const struct vnc_options *options, struct error *err)
{
    unsigned count = display_devices(vnc->sink.display)->scanout_count;
    while (vnc->count < count) {
        struct vnc_screen *screen = &vnc->screens[vnc->count];
        screen->vnc = vnc;
        screen->number = vnc->count++;
        if (!create_screen(screen, options, err))
            return false;
    }
    return true;
}

struct sink *vnc_create(struct display *display, const char *arguments, struct error *err)
{
    struct vnc_options options = {0};
    struct vnc *vnc = xcalloc(1, sizeof(*vnc));
    vnc->sink = (struct sink){&vnc_ops, display};
    rfbLog = rfbErr = say_nothing;
    bool good = parse(&options, arguments, display_devices(display)->scanout_count, err);
    bool made_up = good && !options.none && !*options.password;
    if (made_up)
        good = make_password(options.password, err);
    memcpy(vnc->password, options.password, sizeof(vnc->password));
    vnc->passwords[0] = vnc->password;
    good = good && create_screens(vnc, &options, err);
    if (good)
        tell(vnc, &options, made_up);
    else
        vnc_destroy(&vnc->sink);
    explicit_bzero(options.password, sizeof(options.password));
    free(options.host);
    return good ? &vnc->sink : NULL;
}

#endif
