/*
 * Decoded code: one array of slots per page of guest code, filled as instructions are reached.
 *
 * Coherence is the architecture's own: a hart sees stores to code after its fence.i (Unprivileged,
 * "Zifencei"), so fence.i is the only event that matters. It starts a new epoch; the first time
 * that a page of an older epoch is entered, its source bytes are compared with the copy that was
 * decoded (about 0.2 us) and the decoded page is dropped if they differ. Nothing tracks writes, so
 * stores cost nothing, and DMA, other harts and devices that write past us need no hooks.
 *
 * Pages are found by host address: two guest addresses of one page share their slots.
 */
#include <stdlib.h>

#include "hart/internal.h"

/* Guest memory changes under us: word by word, as relaxed atomics. */
static void source_copy(uint8_t *to, const uint8_t *from)
{
    for (unsigned i = 0; i < PAGE_SIZE; i += 8)
        *(uint64_t *)(to + i) = __atomic_load_n((const uint64_t *)(from + i), __ATOMIC_RELAXED);
}

static bool source_equal(const uint8_t *copy, const uint8_t *host)
{
    uint64_t difference = 0;
    for (unsigned i = 0; i < PAGE_SIZE; i += 8)
        difference |= *(const uint64_t *)(copy + i) ^
                      __atomic_load_n((const uint64_t *)(host + i), __ATOMIC_RELAXED);
    return difference == 0;
}

static void page_start(struct code_page *page, const uint8_t *host, uint64_t epoch)
{
    page->host = host;
    page->epoch = epoch;
    page->used = true;
    source_copy(page->source, host);
    memset(page->slots, 0, sizeof(page->slots));
    page->slots[CODE_PAGE_SLOTS].op = CODE_END;
    page->slots[CODE_PAGE_SLOTS + 1].op = CODE_END;
}

static void page_unlink(struct code_cache *code, struct code_page *page)
{
    struct code_page **link = &code->buckets[code_bucket(page->host)];
    while (*link != page)
        link = &(*link)->next;
    *link = page->next;
}

/* A page to use: a new one, or else the one the clock's hand finds unused. */
static struct code_page *page_obtain(struct code_cache *code)
{
    if (code->count < CODE_PAGES)
        return code->pages[code->count++] = xmalloc(sizeof(struct code_page));
    for (;;) {
        struct code_page *page = code->pages[code->hand++ % CODE_PAGES];
        if (!page->used) {
            page_unlink(code, page);
            return page;
        }
        page->used = false;
    }
}

struct code_page *code_find_slow(struct code_cache *code, const uint8_t *host)
{
    struct code_page **bucket = &code->buckets[code_bucket(host)];
    struct code_page *page = *bucket;
    while (page && page->host != host)
        page = page->next;
    if (!page) {
        page = page_obtain(code);
        page_start(page, host, code->epoch);
        page->next = *bucket;
        *bucket = page;
    } else if (page->epoch != code->epoch) {
        if (source_equal(page->source, host))
            page->epoch = code->epoch;
        else
            page_start(page, host, code->epoch);
    }
    page->used = true;
    return page;
}

void code_forget(struct code_cache *code)
{
    for (unsigned i = 0; i < code->count; i++)
        free(code->pages[i]);
    memset(code->buckets, 0, sizeof(code->buckets));
    code->count = 0;
}

void code_undecode(struct code_cache *code, unsigned half)
{
    for (unsigned i = 0; i < code->count; i++)
        code->pages[i]->slots[half].op = CODE_UNDECODED;
}

/* offset is the instruction's in its page, or CODE_ALONE for a slot that is not in a page. */
void code_fill(const struct hart *hart, struct code_slot *slot, uint32_t bits, unsigned offset)
{
    struct insn insn;
    bool legal = isa_decode(bits, &hart->extensions, &insn);
    const struct isa_instruction *info = isa_instruction(insn.op);

    *slot = (struct code_slot){
        .op = insn.op,
        .rd = insn.rd,
        .rs1 = insn.rs1,
        .rs2 = insn.rs2,
        .rs3 = insn.rs3,
        .rm = insn.rm,
        .advance = insn.length / 2 * sizeof(*slot),
        .imm = insn.imm,
    };
    if (!legal) {
        slot->op = CODE_ILLEGAL;
        slot->imm = bits;
        return;
    }
    if (insn.rd == 0 && !(info->operands & ISA_FP_RD))
        slot->rd = 32;
    if (insn.op == INSN_auipc && offset != CODE_ALONE)
        slot->imm |= offset;
    if (insn.op == INSN_jal || (info->flags & ISA_BRANCH)) {
        bool near = offset != CODE_ALONE && (uint64_t)(int64_t)insn.imm + offset < PAGE_SIZE &&
                    !(insn.imm & hart->private->jump_mask);
        slot->far = !near;
        if (near)
            slot->imm = insn.imm / 2 * (int)sizeof(*slot);
    }
}

void code_decode(struct hart *hart, struct code_page *page, struct code_slot *slot)
{
    unsigned offset = (unsigned)(slot - page->slots) * 2;
    if (unlikely(hart->points) &&
        hart->private->break_offsets[offset / 128] >> offset / 2 % 64 & 1) {
        slot->op = CODE_BREAK;
        return;
    }
    uint32_t bits = load_le16(page->source + offset);
    if ((bits & 3) == 3) {
        if (offset == PAGE_SIZE - 2) {
            slot->op = CODE_STRADDLES;
            return;
        }
        bits |= (uint32_t)load_le16(page->source + offset + 2) << 16;
    }
    code_fill(hart, slot, bits, offset);
}

void hart_fence_i(struct hart *hart)
{
    hart->private->counts.fences_code++;
    atomic_thread_fence(memory_order_seq_cst);
    hart->private->code.epoch++;
    if (hart->code_fenced)
        hart->code_fenced(hart);
}
