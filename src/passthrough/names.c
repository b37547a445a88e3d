#include <stdlib.h>

#include "passthrough/internal.h"

#ifdef HAVE_LIBPCI

#    include <setjmp.h>

#    include "passthrough/libpci.h"

struct pci_names {
    struct pci_access *access;
    int flags;
    bool broken; /* the list of names is: it is not looked at again */
};

/* libpci wants to end the program over a list with a mistake in it; we do without names instead. */
static _Thread_local jmp_buf on_error;

static void __attribute__((noreturn)) handle_error(char *message, ...)
{
    longjmp(on_error, 1);
}

static void ignore(char *message, ...)
{
}

struct pci_names *pci_names_create(const struct host *host)
{
    struct pci_names *names = xcalloc(1, sizeof(*names));
    names->access = pci_alloc();
    names->access->error = handle_error;
    names->access->warning = names->access->debug = ignore;
    names->flags = PCI_LOOKUP_NO_NUMBERS;
    /* A recorded tree may bring its own names, so that what is printed does not depend on ours. */
    if (host->root[0] && host_exists(host, "/usr/share/misc/pci.ids")) {
        pci_set_name_list_path(names->access, host_path(host, "/usr/share/misc/pci.ids"), 1);
        names->flags |= PCI_LOOKUP_NO_HWDB;
    }
    return names;
}

void pci_names_destroy(struct pci_names *names)
{
    if (!names)
        return;
    pci_cleanup(names->access);
    free(names);
}

static void look_up(struct pci_names *names, struct passthrough_info *info)
{
    char text[256];
    if (pci_lookup_name(names->access, text, sizeof(text), PCI_LOOKUP_VENDOR | names->flags,
                        info->vendor))
        snprintf(info->vendor_name, sizeof(info->vendor_name), "%.63s", text);
    if (pci_lookup_name(names->access, text, sizeof(text), PCI_LOOKUP_DEVICE | names->flags,
                        info->vendor, info->device))
        snprintf(info->device_name, sizeof(info->device_name), "%.95s", text);
}

void pci_names_find(struct pci_names *names, struct passthrough_info *info)
{
    if (!names->broken && setjmp(on_error) == 0)
        look_up(names, info);
    else
        names->broken = true;
}

#else

struct pci_names *pci_names_create(const struct host *host)
{
    return NULL;
}

void pci_names_destroy(struct pci_names *names)
{
}

void pci_names_find(struct pci_names *names, struct passthrough_info *info)
{
}

#endif
