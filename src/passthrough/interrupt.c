/*
 * Interrupts: eventfds of the device become INTx levels and messages of the guest.
 *
 * Vectors are set up when the guest unmasks them, on its thread, so that none can fire before. A
 * kernel that cannot add vectors to those in use has them all taken away and given anew; as one
 * might have fired between, the guest gets all of them once, which drivers expect of shared lines
 * and of messages that crossed.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "passthrough/vfio_parts.h"

enum interrupt_mode {
    INTERRUPT_NONE,
    INTERRUPT_INTX,
    INTERRUPT_VECTORS_MSI,
    INTERRUPT_VECTORS_MSIX,
};

static const unsigned indexes[] = {
    [INTERRUPT_INTX] = VFIO_IRQ_INTX,
    [INTERRUPT_VECTORS_MSI] = VFIO_IRQ_MSI,
    [INTERRUPT_VECTORS_MSIX] = VFIO_IRQ_MSIX,
};

/* --- Signals ---------------------------------------------------------------------------------- */

static bool drain(const struct vfio_signal *signal)
{
    uint64_t count;
    return read(signal->fd, &count, sizeof(count)) == sizeof(count);
}

static void vector_fired(void *opaque, uint32_t events)
{
    struct vfio_signal *signal = opaque;
    struct vfio_device *self = signal->device;

    if (!drain(signal))
        return;
    if (self->mode == INTERRUPT_VECTORS_MSIX)
        pci_msix_send(&self->msix, signal->vector);
    else if (self->mode == INTERRUPT_VECTORS_MSI)
        pci_msi_send(&self->msi, signal->vector);
}

/* The kernel has masked it, until vfio_device_end_intx. */
static void intx_fired(void *opaque, uint32_t events)
{
    struct vfio_signal *signal = opaque;
    struct vfio_device *self = signal->device;

    if (!drain(signal) || self->mode != INTERRUPT_INTX)
        return;
    self->intx_asserted = true;
    pci_set_intx(&self->pci, true);
}

void vfio_device_end_intx(struct vfio_device *self, unsigned line)
{
    if (!self->pci.bus || pci_intx_line(&self->pci) != line ||
        !atomic_exchange(&self->intx_asserted, false))
        return;
    pci_set_intx(&self->pci, false);
    self->vfio->ops->unmask_intx(self->vfio);
}

static void request_fired(void *opaque, uint32_t events)
{
    struct vfio_signal *signal = opaque;
    struct vfio_device *self = signal->device;

    if (drain(signal))
        self->config.event(self->config.opaque, self->vfio->name, VFIO_EVENT_REQUESTED);
}

static void error_fired(void *opaque, uint32_t events)
{
    struct vfio_signal *signal = opaque;
    struct vfio_device *self = signal->device;

    if (drain(signal))
        self->config.event(self->config.opaque, self->vfio->name, VFIO_EVENT_FAILED);
}

static struct vfio_signal *signal_create(struct vfio_device *self, unsigned vector,
                                         loop_fd_callback *callback, struct error *err)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        error_set_errno(err, errno, "%s: no eventfd for an interrupt; 'ulimit -n' limits them",
                        self->vfio->name);
        return NULL;
    }
    struct vfio_signal *signal = xcalloc(1, sizeof(*signal));
    *signal = (struct vfio_signal){.device = self, .vector = vector, .fd = fd};
    signal->source = loop_add_fd(self->config.loop, fd, EPOLLIN, callback, signal, err);
    if (signal->source)
        return signal;
    close(fd);
    free(signal);
    return NULL;
}

static void signal_destroy(struct vfio_signal *signal)
{
    if (!signal)
        return;
    loop_remove_fd(signal->source);
    close(signal->fd);
    free(signal);
}

/* --- Vectors; irq_lock held ------------------------------------------------------------------- */

/* Interrupts that cannot be delivered hang a guest: say why, once. */
static void complain(struct vfio_device *self, const struct error *err)
{
    if (!self->complained)
        log_error("%s; the guest will miss interrupts", err->message);
    self->complained = true;
}

static bool set_vectors(struct vfio_device *self, unsigned start, unsigned count, const int *fds)
{
    struct error err;
    unsigned index = indexes[self->mode];
    if (self->vfio->ops->set_vectors(self->vfio, index, start, count, fds, &err))
        return true;
    complain(self, &err);
    return false;
}

/* The file for a vector, -1 where there is none. */
static int vector_file(struct vfio_device *self, unsigned vector)
{
    struct error err;
    if (!self->signals[vector])
        self->signals[vector] = signal_create(self, vector, vector_fired, &err);
    if (self->signals[vector])
        return self->signals[vector]->fd;
    complain(self, &err);
    return -1;
}

/* Gives the kernel all wanted vectors at once, of `count`. */
static bool give_vectors(struct vfio_device *self, unsigned count)
{
    int *fds = xcalloc(count, sizeof(*fds));
    for (unsigned i = 0; i < count; i++)
        fds[i] = self->wanted[i] ? vector_file(self, i) : -1;
    bool given = set_vectors(self, 0, count, fds);
    free(fds);
    self->allocated = given ? count : 0;
    return given;
}

/* Room for `vector`, and then some: each time costs as much as the first. Where the host has not so
 * many, those stay that there were. */
static void grow(struct vfio_device *self, unsigned vector)
{
    unsigned before = self->allocated, count = 2 * before > vector ? 2 * before : vector + 1;
    count = count < self->msix.count ? count : self->msix.count;
    if (before)
        set_vectors(self, 0, 0, NULL);
    if (!give_vectors(self, count) && !(count > vector + 1 && give_vectors(self, vector + 1)) &&
        before)
        give_vectors(self, before);
    for (unsigned i = 0; i < self->vectors; i++)
        if (self->wanted[i] && i != vector)
            pci_msix_send(&self->msix, i);
}

static void want_vector(struct vfio_device *self, unsigned vector)
{
    self->wanted[vector] = true;
    if (vector >= self->allocated && !self->irqs[VFIO_IRQ_MSIX].dynamic) {
        grow(self, vector);
        return;
    }
    int fd = vector_file(self, vector);
    if (fd >= 0)
        set_vectors(self, vector, 1, &fd);
}

/* MSI-X is enabled with one vector at least, since with none the device would use its line. */
static void begin_msix(struct vfio_device *self)
{
    unsigned count = 1;
    for (unsigned i = 0; i < self->vectors; i++) {
        self->wanted[i] = pci_msix_unmasked(&self->msix, i);
        count = self->wanted[i] ? i + 1 : count;
    }
    give_vectors(self, count);
}

/* A guest may grant more than the device asks for. */
static unsigned msi_count(const struct vfio_device *self)
{
    unsigned there = self->irqs[VFIO_IRQ_MSI].count;
    return self->msi.vectors < there ? self->msi.vectors : there;
}

static void begin_msi(struct vfio_device *self)
{
    unsigned count = msi_count(self);
    for (unsigned i = 0; i < count; i++)
        self->wanted[i] = true;
    give_vectors(self, count);
}

static void begin_intx(struct vfio_device *self)
{
    drain(self->intx);
    set_vectors(self, 0, 1, &self->intx->fd);
}

static void end_mode(struct vfio_device *self)
{
    if (self->mode == INTERRUPT_NONE)
        return;
    set_vectors(self, 0, 0, NULL);
    self->mode = INTERRUPT_NONE;
    self->allocated = 0;
    memset(self->wanted, 0, self->vectors * sizeof(*self->wanted));
    if (atomic_exchange(&self->intx_asserted, false))
        pci_set_intx(&self->pci, false);
}

/* --- What the guest wants --------------------------------------------------------------------- */

static enum interrupt_mode wanted_mode(const struct vfio_device *self)
{
    if (self->pci.msix && pci_msix_enabled(&self->msix))
        return INTERRUPT_VECTORS_MSIX;
    if (self->pci.msi && pci_msi_enabled(&self->msi))
        return INTERRUPT_VECTORS_MSI;
    return self->intx ? INTERRUPT_INTX : INTERRUPT_NONE;
}

void interrupt_follow(struct vfio_device *self)
{
    static void (*const begin[])(struct vfio_device *self) = {
        [INTERRUPT_INTX] = begin_intx,
        [INTERRUPT_VECTORS_MSI] = begin_msi,
        [INTERRUPT_VECTORS_MSIX] = begin_msix,
    };
    enum interrupt_mode mode = wanted_mode(self);

    pthread_mutex_lock(&self->irq_lock);
    /* Once it has failed, it is not tried at every write. */
    bool other =
        mode == INTERRUPT_VECTORS_MSI && self->allocated && self->allocated != msi_count(self);
    if (mode != self->mode || other) {
        end_mode(self);
        self->mode = mode;
        if (begin[mode])
            begin[mode](self);
    }
    pthread_mutex_unlock(&self->irq_lock);
}

void interrupt_unmasked(struct vfio_device *self, unsigned vector)
{
    pthread_mutex_lock(&self->irq_lock);
    if (self->mode == INTERRUPT_VECTORS_MSIX && vector < self->vectors && !self->wanted[vector] &&
        pci_msix_unmasked(&self->msix, vector))
        want_vector(self, vector);
    pthread_mutex_unlock(&self->irq_lock);
}

void interrupt_stop(struct vfio_device *self)
{
    pthread_mutex_lock(&self->irq_lock);
    end_mode(self);
    pthread_mutex_unlock(&self->irq_lock);
}

/* --- Beginning and end ------------------------------------------------------------------------ */

bool interrupt_init(struct vfio_device *self, struct error *err)
{
    for (unsigned i = 0; i < VFIO_IRQS; i++)
        if (!self->vfio->ops->irq(self->vfio, i, &self->irqs[i], err))
            return false;
    return true;
}

/* A device without the notice is only worse off. */
static struct vfio_signal *notice(struct vfio_device *self, unsigned index,
                                  loop_fd_callback *callback)
{
    struct vfio_signal *signal =
        self->irqs[index].count ? signal_create(self, 0, callback, NULL) : NULL;
    if (signal && !self->vfio->ops->set_vectors(self->vfio, index, 0, 1, &signal->fd, NULL)) {
        signal_destroy(signal);
        return NULL;
    }
    return signal;
}

void interrupt_begin(struct vfio_device *self)
{
    unsigned msi = self->pci.msi ? self->irqs[VFIO_IRQ_MSI].count : 0;
    self->vectors = self->pci.msix && self->msix.count > msi ? self->msix.count : msi;
    self->signals = xcalloc(self->vectors + 1, sizeof(*self->signals));
    self->wanted = xcalloc(self->vectors + 1, sizeof(*self->wanted));
    if (self->pci.config[0x3d])
        self->intx = signal_create(self, 0, intx_fired, NULL);
    self->error = notice(self, VFIO_IRQ_ERROR, error_fired);
    self->request = notice(self, VFIO_IRQ_REQUEST, request_fired);
}

void interrupt_finish(struct vfio_device *self)
{
    for (unsigned i = 0; i < self->vectors; i++)
        signal_destroy(self->signals[i]);
    signal_destroy(self->intx);
    signal_destroy(self->error);
    signal_destroy(self->request);
    free(self->signals);
    free(self->wanted);
}
