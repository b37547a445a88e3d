/*
 * LR and SC.
 *
 * SC is a compare-and-swap of what LR loaded. That is exact as long as nothing between the two can
 * tell a value that stayed from one that changed and changed back (ABA): with only register
 * operations, branches and jumps in between, the LR might as well have been executed right before
 * the SC. It covers every sequence to which the architecture promises success (Unprivileged,
 * "Eventual Success of Store-Conditional Instructions") and every one that compilers and Linux use.
 *
 * A sequence that accesses other memory in between (a lock-free list that loads head->next) could
 * be fooled. The interpreter notices it, since after an LR it dispatches through a table in which
 * such instructions come here first. The first time, the reservation counts as exposed, and its SC
 * fails (which it always may) and leaves the LR's address in a small table. From then on that LR's
 * sequence is made exclusive where it first leaves the registers: all other harts are held between
 * two instructions until the SC, a trap, an access to device registers, a wait, a stop or
 * EXCLUSIVE_BLOCKS taken branches. Then the comparison is exact again: before the section only
 * registers were involved, in the section only this hart acts. Progress: the SC of an exclusive
 * section fails only if another hart changed the word before, which is that hart's progress. DMA is
 * not held.
 *
 * Sections exclude one another by the domain's lock, which their hart holds. Harts that wait for it
 * are not running, so that a section never waits for them.
 */
#include <assert.h>
#include <sched.h>
#include <stdlib.h>

#include "hart/internal.h"

#define EXCLUSIVE_BLOCKS 1000

/* The harts that share a memory. */
struct domain {
    struct memory *memory;
    struct domain *next;
    pthread_mutex_t section; /* held during an exclusive section */
    pthread_mutex_t lock;    /* of harts[], for those that join and leave */
    struct hart *harts[HART_MAX];
    unsigned count;
};

static pthread_mutex_t domains_lock = PTHREAD_MUTEX_INITIALIZER;
static struct domain *domains;

struct domain *domain_join(struct memory *memory, struct hart *hart)
{
    pthread_mutex_lock(&domains_lock);
    struct domain *domain = domains;
    while (domain && domain->memory != memory)
        domain = domain->next;
    if (!domain) {
        domain = xcalloc(1, sizeof(*domain));
        domain->memory = memory;
        pthread_mutex_init(&domain->section, NULL);
        pthread_mutex_init(&domain->lock, NULL);
        domain->next = domains;
        domains = domain;
    }
    pthread_mutex_lock(&domain->lock);
    assert(domain->count < HART_MAX);
    domain->harts[domain->count++] = hart;
    pthread_mutex_unlock(&domain->lock);
    pthread_mutex_unlock(&domains_lock);
    return domain;
}

void domain_leave(struct domain *domain, struct hart *hart)
{
    pthread_mutex_lock(&domains_lock);
    pthread_mutex_lock(&domain->lock);
    unsigned i = 0;
    while (domain->harts[i] != hart)
        i++;
    domain->harts[i] = domain->harts[--domain->count];
    pthread_mutex_unlock(&domain->lock);
    if (domain->count == 0) {
        struct domain **link = &domains;
        while (*link != domain)
            link = &(*link)->next;
        *link = domain->next;
        pthread_mutex_destroy(&domain->section);
        pthread_mutex_destroy(&domain->lock);
        free(domain);
    }
    pthread_mutex_unlock(&domains_lock);
}

void domain_wait(struct hart *hart)
{
    atomic_fetch_and(&hart->attention, ~(uint32_t)ATTENTION_HALT);
    pthread_mutex_lock(&hart->private->domain->section);
    pthread_mutex_unlock(&hart->private->domain->section);
}

static void exclusive_begin(struct hart *hart)
{
    struct domain *domain = hart->private->domain;

    guest_leave(hart);
    pthread_mutex_lock(&domain->section);
    pthread_mutex_lock(&domain->lock);
    for (unsigned i = 0; i < domain->count; i++)
        if (domain->harts[i] != hart)
            atomic_fetch_or(&domain->harts[i]->attention, ATTENTION_HALT);
    for (unsigned i = 0; i < domain->count; i++)
        while (domain->harts[i] != hart && atomic_load(&domain->harts[i]->running))
            sched_yield();
    pthread_mutex_unlock(&domain->lock);

    hart->private->exclusive = true;
    hart->private->exclusive_left = EXCLUSIVE_BLOCKS;
    /* A section before this one may have left us a HALT; we are the one that it was about. */
    atomic_fetch_and(&hart->attention, ~(uint32_t)ATTENTION_HALT);
    atomic_fetch_or(&hart->attention, ATTENTION_EXCLUSIVE);
    atomic_store(&hart->running, true);
}

void exclusive_end(struct hart *hart)
{
    hart->private->exclusive = false;
    hart->reservation_address = RESERVATION_NONE;
    atomic_fetch_and(&hart->attention, ~(uint32_t)ATTENTION_EXCLUSIVE);
    pthread_mutex_unlock(&hart->private->domain->section);
}

/* --- Reservations ---------------------------------------------------------------------------- */

#define EXPOSING (ISA_LOAD | ISA_STORE | ISA_AMO | ISA_SYSTEM | ISA_CSR | ISA_FENCE | ISA_CBO)
#define IS_SC_OR_LR(op)                                                                            \
    ((op) == INSN_sc_w || (op) == INSN_sc_d || (op) == INSN_lr_w || (op) == INSN_lr_d)

const bool reservation_exposes[CODE_OPS] = {
#define INSN(id, mnemonic, mask, match, format, extension, flags)                                  \
    [INSN_##id] = !IS_SC_OR_LR(INSN_##id) && ((flags) & EXPOSING),
#include "isa/instructions.def"
};

static uint64_t *exposed_lr(struct hart *hart)
{
    uint64_t *lrs = hart->private->exposed_lrs;
    return &lrs[hart->reservation_pc / 2 % ARRAY_SIZE(hart->private->exposed_lrs)];
}

void reservation_expose(struct hart *hart)
{
    hart->reservation_exposed = true;
    if (!hart->private->exclusive && *exposed_lr(hart) == hart->reservation_pc)
        exclusive_begin(hart);
}

bool reservation_claim(struct hart *hart, uint64_t va, unsigned size)
{
    if (hart->reservation_address != va || hart->reservation_size != size)
        return false;
    if (!hart->reservation_exposed || hart->private->exclusive)
        return true;
    *exposed_lr(hart) = hart->reservation_pc;
    return false;
}
