/* A tap device: an Ethernet interface of the host whose other end is the guest. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "virtio/net_backend.h"

#define FRAMES_AT_ONCE 64 /* before other devices on the loop get their turn */
#define IOVECS_MAX     1024

#define ALL_OFFLOADS                                                                               \
    (NET_SEND_CSUM | NET_SEND_TSO4 | NET_SEND_TSO6 | NET_SEND_ECN | NET_RECEIVE_CSUM |             \
     NET_RECEIVE_TSO4 | NET_RECEIVE_TSO6 | NET_RECEIVE_ECN)

struct tap_backend {
    struct net_backend base;
    int fd;
    char name[IFNAMSIZ];
    struct loop_fd *source;
    bool vnet_header; /* each frame is preceded by a struct net_header */
    bool send_blocked;
    bool dead;
    size_t pending; /* bytes of the frame that the guest had no room for; 0: none */
    struct net_header header;
    uint8_t frame[NET_FRAME_MAX];
};

static struct tap_backend *tap_of(struct net_backend *backend)
{
    return container_of(backend, struct tap_backend, base);
}

static void on_event(void *opaque, uint32_t events)
{
    struct tap_backend *tap = opaque;
    if (tap->base.receiver.ready)
        tap->base.receiver.ready(tap->base.receiver.opaque);
}

static void update_events(struct tap_backend *tap)
{
    uint32_t events = (tap->pending ? 0 : EPOLLIN) | (tap->send_blocked ? EPOLLOUT : 0);
    loop_update_fd(tap->source, tap->dead ? 0 : events);
}

static bool deliver_pending(struct tap_backend *tap)
{
    const struct net_receiver *receiver = &tap->base.receiver;
    if (tap->pending && receiver->receive &&
        !receiver->receive(receiver->opaque, &tap->header, tap->frame, tap->pending))
        return false;
    tap->pending = 0;
    return true;
}

/* Reads a frame into `pending`; false if there is none. */
static bool read_frame(struct tap_backend *tap)
{
    struct iovec iov[2] = {{&tap->header, sizeof(tap->header)}, {tap->frame, sizeof(tap->frame)}};
    size_t header = tap->vnet_header ? sizeof(tap->header) : 0;
    iov[0].iov_len = header;
    ssize_t size;
    do
        size = readv(tap->fd, iov, 2);
    while (size < 0 && errno == EINTR);
    if (size >= 0) {
        tap->pending = (size_t)size >= header + NET_FRAME_MIN ? (size_t)size - header : 0;
        return true;
    }
    if (errno != EAGAIN) {
        tap->dead = true;
        log_error("network interface %s is gone: %s; the guest is no longer connected", tap->name,
                  strerror(errno));
    }
    return false;
}

static void tap_process(struct net_backend *backend)
{
    struct tap_backend *tap = tap_of(backend);
    if (tap->send_blocked) {
        tap->send_blocked = false;
        if (backend->receiver.writable)
            backend->receiver.writable(backend->receiver.opaque);
    }
    for (unsigned n = 0; n < FRAMES_AT_ONCE && !tap->dead && deliver_pending(tap); n++)
        if (!read_frame(tap))
            break;
    deliver_pending(tap);
    update_events(tap);
}

static void tap_resume(struct net_backend *backend)
{
    struct tap_backend *tap = tap_of(backend);
    if (tap->pending && deliver_pending(tap))
        update_events(tap);
}

static bool tap_send(struct net_backend *backend, const struct net_header *header,
                     const struct iovec *iov, unsigned count, size_t size)
{
    struct tap_backend *tap = tap_of(backend);
    struct iovec parts[IOVECS_MAX];
    unsigned used = 0;
    if (tap->dead)
        return true;
    if (tap->vnet_header)
        parts[used++] = (struct iovec){(void *)(uintptr_t)header, sizeof(*header)};
    if (count > IOVECS_MAX - used) /* no driver cuts a frame into that many parts */
        return true;
    memcpy(parts + used, iov, count * sizeof(*iov));
    ssize_t written;
    do
        written = writev(tap->fd, parts, (int)(used + count));
    while (written < 0 && errno == EINTR);
    if (written < 0 && errno == EAGAIN) {
        tap->send_blocked = true;
        update_events(tap);
        return false;
    }
    return true; /* other errors (interface down, header refused) lose the frame, as a cable would
                  */
}

static void tap_set_offloads(struct net_backend *backend, unsigned offloads)
{
    static const struct {
        unsigned offload, flag;
    } flags[] = {
        {NET_RECEIVE_CSUM, TUN_F_CSUM},
        {NET_RECEIVE_TSO4, TUN_F_TSO4},
        {NET_RECEIVE_TSO6, TUN_F_TSO6},
        {NET_RECEIVE_ECN, TUN_F_TSO_ECN},
    };
    struct tap_backend *tap = tap_of(backend);
    unsigned value = 0;
    for (size_t n = 0; n < ARRAY_SIZE(flags); n++)
        if (offloads & flags[n].offload)
            value |= flags[n].flag;
    if (tap->vnet_header && ioctl(tap->fd, TUNSETOFFLOAD, value) < 0)
        log_warning("network interface %s: offloads %#x refused: %s", tap->name, value,
                    strerror(errno));
}

static void tap_destroy(struct net_backend *backend)
{
    struct tap_backend *tap = tap_of(backend);
    loop_remove_fd(tap->source);
    if (tap->fd >= 0)
        close(tap->fd);
    free(tap);
}

static const struct net_backend_type tap_type = {
    .name = "tap",
    .send = tap_send,
    .process = tap_process,
    .resume = tap_resume,
    .set_offloads = tap_set_offloads,
    .destroy = tap_destroy,
};

static bool open_failed(int error, struct error *err)
{
    if (error == ENOENT || error == ENODEV || error == ENXIO)
        return error_set_errno(err, error, "/dev/net/tun (load its module: modprobe tun)");
    if (error == EACCES || error == EPERM)
        return error_set_errno(err, error,
                               "/dev/net/tun (run as root, or use 'user', which needs no "
                               "privileges)");
    return error_set_errno(err, error, "/dev/net/tun");
}

static bool attach_failed(const char *name, int error, struct error *err)
{
    if (!*name)
        name = "tap0";
    switch (error) {
    case EPERM:
        return error_set_errno(err, error,
                               "no right to use interface %s (as root: ip tuntap add dev %s mode "
                               "tap user NAME)",
                               name, name);
    case EBUSY:
        return error_set_errno(err, error,
                               "interface %s is used by another program (stop it, or choose "
                               "another ifname)",
                               name);
    case EINVAL:
        return error_set_errno(err, error,
                               "interface %s exists and is not a single-queue tap device (choose "
                               "another ifname)",
                               name);
    default:
        return error_set_errno(err, error, "interface %s", name);
    }
}

/* The header of virtio 1 is 12 bytes, little-endian; without one there are no offloads. */
static bool set_up_header(struct tap_backend *tap, struct error *err)
{
    int size = sizeof(struct net_header), little = 1;
    if (!tap->vnet_header)
        return true;
    if (ioctl(tap->fd, TUNSETVNETHDRSZ, &size) < 0 || ioctl(tap->fd, TUNSETVNETLE, &little) < 0)
        return error_set_errno(err, errno, "interface %s: its header format cannot be set",
                               tap->name);
    if (!ioctl(tap->fd, TUNSETOFFLOAD, 0))
        tap->base.offloads = ALL_OFFLOADS;
    return true;
}

/* An interface made just now is down. One that an administrator made stays as it is. */
static void bring_up(const char *name)
{
    struct ifreq request = {0};
    int socket_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memcpy(request.ifr_name, name, sizeof(request.ifr_name));
    bool known = socket_fd >= 0 && !ioctl(socket_fd, SIOCGIFFLAGS, &request);
    request.ifr_flags |= IFF_UP;
    if (!known || ioctl(socket_fd, SIOCSIFFLAGS, &request) < 0)
        log_warning("network interface %s cannot be brought up: %s (ip link set %s up)", name,
                    strerror(errno), name);
    if (socket_fd >= 0)
        close(socket_fd);
}

static bool attach(struct tap_backend *tap, const char *name, struct error *err)
{
    struct ifreq request = {0};
    unsigned features = 0;
    bool existed = *name && if_nametoindex(name);
    memcpy(request.ifr_name, name, strlen(name));
    if (ioctl(tap->fd, TUNGETFEATURES, &features) < 0)
        features = 0;
    tap->vnet_header = features & IFF_VNET_HDR;
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    if (tap->vnet_header)
        request.ifr_flags |= IFF_VNET_HDR;
    if (ioctl(tap->fd, TUNSETIFF, &request) < 0)
        return attach_failed(name, errno, err);
    memcpy(tap->name, request.ifr_name, sizeof(tap->name));
    tap->name[sizeof(tap->name) - 1] = 0;
    if (!existed)
        bring_up(tap->name);
    return set_up_header(tap, err);
}

static bool tap_start(struct tap_backend *tap, const struct net_option *options, struct loop *loop,
                      struct error *err)
{
    const char *name = "";
    for (const struct net_option *option = options; option->name; option++) {
        if (strcmp(option->name, "ifname"))
            return error_set(err, "'tap' has no option '%s' (it has ifname and mac)", option->name);
        name = option->value ? option->value : "";
        if (!*name || strlen(name) >= IFNAMSIZ || strchr(name, '/') || strchr(name, '%'))
            return error_set(err, "ifname=%s is not the name of an interface (1 to %d characters)",
                             name, IFNAMSIZ - 1);
    }
    tap->fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (tap->fd < 0)
        return open_failed(errno, err);
    if (!attach(tap, name, err))
        return false;
    tap->source = loop_add_fd(loop, tap->fd, EPOLLIN, on_event, tap, err);
    return tap->source;
}

struct net_backend *net_tap_create(const struct net_option *options, struct loop *loop,
                                   struct error *err)
{
    struct tap_backend *tap = xcalloc(1, sizeof(*tap));
    tap->base.type = &tap_type;
    tap->fd = -1;
    if (tap_start(tap, options, loop, err))
        return &tap->base;
    tap_destroy(&tap->base);
    return NULL;
}
