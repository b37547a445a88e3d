/* Memory ordering: litmus tests on HARTS harts. Each shape is a few accesses by each of some harts
 * to shared variables, run over and over with the harts in step or adrift; how often each outcome
 * came is printed, and an outcome that RVWMO forbids is a failure. After the shapes come contests:
 * harts that work on one thing with LR/SC, AMOs or locks, where the result says whether each step
 * was atomic.
 *
 * HARTS (2 to 4) takes the shapes of that many harts, SEED chooses the delays, and each shape runs
 * for MILLISECONDS.
 *
 * "MP ss_plain+ll_plain [1a=2 1b=0]: 00 123, 20 4" are outcomes of "1a 1b": what hart 1 loaded
 * first and second. The outcome in brackets is the interesting one: "never" is forbidden. */
#include "runtime.h"

typedef void body(volatile uint64_t *p, volatile uint64_t *q, uint64_t *loaded);

/* --- what one hart does: accesses to p (a0) and q (a1); a and b (a4 and a5) are what it loads ---
 */

#define BODY(name, text)                                                                           \
    __attribute__((naked, aligned(64), unused)) static void name(                                  \
        volatile uint64_t *p, volatile uint64_t *q, uint64_t *loaded)                              \
    {                                                                                              \
        __asm__(".option push\n.option arch, +zacas\n"                                             \
                "li a5, 0\nli a4, 0\nli a6, 1\nli a7, 2\nli t3, 3\n" text                          \
                "\nsd a4, (a2)\nsd a5, 8(a2)\nret\n.option pop\n");                                \
    }

BODY(store1, "sd a6, (a0)")
BODY(store3, "sd t3, (a0)")

/* p = 1, then q = 2. */
#define STORE_STORE(name, between) BODY(name, "sd a6, (a0)\n" between "\nsd a7, (a1)")
STORE_STORE(ss_plain, "")
STORE_STORE(ss_fence_w_w, "fence w, w")
STORE_STORE(ss_fence_rw_w, "fence rw, w")
STORE_STORE(ss_fence_rw_rw, "fence rw, rw")
STORE_STORE(ss_fence_tso, "fence.tso")
BODY(ss_narrow, "sb a6, (a0)\nfence w, w\nsh a7, (a1)")
BODY(ss_swap_rl, "sd a6, (a0)\namoswap.d.rl zero, a7, (a1)")
BODY(ss_swap_aq, "amoswap.d.aq zero, a6, (a0)\nsd a7, (a1)")
BODY(ss_add_aqrl, "sd a6, (a0)\namoadd.d.aqrl t0, a7, (a1)")
BODY(ss_cas_rl, "sd a6, (a0)\nli t0, 0\n1: mv t1, t0\namocas.d.rl t0, a7, (a1)\nbne t0, t1, 1b")
BODY(ss_sc_rl, "sd a6, (a0)\n1: lr.d t0, (a1)\nsc.d.rl t0, a7, (a1)\nbnez t0, 1b")

/* p = 1, then a = q. */
#define STORE_LOAD(name, between) BODY(name, "sd a6, (a0)\n" between "\nld a4, (a1)")
STORE_LOAD(sl_plain, "")
STORE_LOAD(sl_fence_w_w, "fence w, w\nfence r, r")
STORE_LOAD(sl_fence_tso, "fence.tso")
STORE_LOAD(sl_fence_w_r, "fence w, r")
STORE_LOAD(sl_fence_rw_r, "fence rw, r")
STORE_LOAD(sl_fence_w_rw, "fence w, rw")
STORE_LOAD(sl_fence_rw_rw, "fence rw, rw")
STORE_LOAD(sl_fence_iorw_iorw, "fence iorw, iorw")
BODY(sl_narrow, "sb a6, (a0)\nfence rw, rw\nlbu a4, (a1)")
BODY(sl_swap_aq, "amoswap.d.aq t0, a6, (a0)\nld a4, (a1)")
BODY(sl_swap_aq_zero, "amoswap.d.aq zero, a6, (a0)\nld a4, (a1)")
BODY(sl_or_word_aq, "amoor.w.aq zero, a6, (a0)\nlw a4, (a1)")
BODY(sl_cas_aq, "li t0, 0\n1: mv t1, t0\namocas.d.aq t0, a6, (a0)\nbne t0, t1, 1b\nld a4, (a1)")
BODY(sl_add_rl, "sd a6, (a0)\namoadd.d.rl a4, zero, (a1)")
BODY(sl_swap_rl_or_aq, "amoswap.d.rl zero, a6, (a0)\namoor.d.aq a4, zero, (a1)")
BODY(sl_sc_rl_lr_aq, "1: lr.d t0, (a0)\nsc.d.rl t0, a6, (a0)\nbnez t0, 1b\nlr.d.aq a4, (a1)")

/* a = p, then b = q. */
#define LOAD_LOAD(name, between) BODY(name, "ld a4, (a0)\n" between "\nld a5, (a1)")
LOAD_LOAD(ll_plain, "")
LOAD_LOAD(ll_fence_r_r, "fence r, r")
LOAD_LOAD(ll_fence_r_rw, "fence r, rw")
LOAD_LOAD(ll_fence_rw_rw, "fence rw, rw")
LOAD_LOAD(ll_fence_tso, "fence.tso")
LOAD_LOAD(ll_address, "xor t0, a4, a4\nadd a1, a1, t0")
BODY(ll_narrow, "lhu a4, (a0)\nfence r, r\nlbu a5, (a1)")
BODY(ll_or_aq, "amoor.d.aq a4, zero, (a0)\nld a5, (a1)")
BODY(ll_lr_aq, "lr.d.aq a4, (a0)\nld a5, (a1)")
BODY(ll_add_rl, "ld a4, (a0)\namoadd.d.rl a5, zero, (a1)")

/* a = p, then q = 3. */
#define LOAD_STORE(name, between) BODY(name, "ld a4, (a0)\n" between "\nsd t3, (a1)")
LOAD_STORE(ls_plain, "")
LOAD_STORE(ls_fence_r_w, "fence r, w")
LOAD_STORE(ls_fence_rw_w, "fence rw, w")
LOAD_STORE(ls_fence_tso, "fence.tso")
LOAD_STORE(ls_address, "xor t0, a4, a4\nadd a1, a1, t0")
LOAD_STORE(ls_data, "xor t0, a4, a4\nadd t3, t3, t0")
LOAD_STORE(ls_control, "bnez a4, 1f\nnop\n1:")
BODY(ls_or_aq, "amoor.d.aq a4, zero, (a0)\nsd t3, (a1)")
BODY(ls_swap_rl, "ld a4, (a0)\namoswap.d.rl zero, t3, (a1)")

/* --- shapes --- */

enum verdict { NEVER, MAYBE };

/* Role n's p and q are the variables (x, y, z) that `on` names. */
struct role {
    body *body;
    const char *name, *on;
};

struct shape {
    const char *name;
    struct role roles[4];
    enum verdict verdict;
    const char *outcome; /* terms: "1a=2", what role 1 loaded first; "x=1", what is left in x */
};

#define ROLE(body, on) {body, #body, on}

/* Two roles with variables in opposite order. */
#define CROSSED(name, a, b, verdict, outcome)                                                      \
    {name, {ROLE(a, "xy"), ROLE(b, "yx")}, verdict, outcome}
#define MP(a, b)    CROSSED("MP", ss_##a, ll_##b, NEVER, "1a=2 1b=0")
#define SB(a, b)    CROSSED("SB", sl_##a, sl_##b, NEVER, "0a=0 1a=0")
#define LB(a, b)    CROSSED("LB", ls_##a, ls_##b, NEVER, "0a=3 1a=3")
#define S(a, b)     CROSSED("S", ss_##a, ls_##b, NEVER, "1a=2 x=1")
#define R(a, b)     CROSSED("R", ss_##a, sl_##b, NEVER, "1a=0 y=1")
#define TWO_W(a, b) CROSSED("2+2W", ss_##a, ss_##b, NEVER, "x=1 y=1")

/* Two roles with one variable. */
#define COHERENT(name, a, b, outcome) {name, {ROLE(a, "xx"), ROLE(b, "xx")}, NEVER, outcome}

#define THREE(name, a, on_a, b, on_b, c, on_c, verdict, outcome)                                   \
    {name, {ROLE(a, on_a), ROLE(b, on_b), ROLE(c, on_c)}, verdict, outcome}
#define SB3(a, b, c, verdict)                                                                      \
    THREE("3SB", sl_##a, "xy", sl_##b, "yz", sl_##c, "zx", verdict, "0a=0 1a=0 2a=0")
#define WRC(b, c) THREE("WRC", store1, "xx", ls_##b, "xy", ll_##c, "yx", NEVER, "1a=1 2a=3 2b=0")
#define ISA2(a, b, c)                                                                              \
    THREE("ISA2", ss_##a, "xy", ls_##b, "yz", ll_##c, "zx", NEVER, "1a=2 2a=3 2b=0")
#define RWC(b, c) THREE("RWC", store1, "xx", ll_##b, "xy", sl_##c, "yx", NEVER, "1a=1 1b=0 2a=0")
#define W_RWC(a, b, c)                                                                             \
    THREE("W+RWC", ss_##a, "xy", ll_##b, "yz", sl_##c, "zx", NEVER, "1a=2 1b=0 2a=0")

#define IRIW(c, d)                                                                                 \
    {"IRIW",                                                                                       \
     {ROLE(store1, "xx"), ROLE(store1, "yy"), ROLE(ll_##c, "xy"), ROLE(ll_##d, "yx")},             \
     NEVER,                                                                                        \
     "2a=1 2b=0 3a=1 3b=0"}

static const struct shape shapes[] = {
#if HARTS == 2
    CROSSED("MP", ss_plain, ll_plain, MAYBE, "1a=2 1b=0"),
    MP(fence_w_w, fence_r_r),
    MP(fence_rw_w, fence_r_rw),
    MP(fence_rw_rw, fence_rw_rw),
    MP(fence_tso, fence_tso),
    MP(fence_w_w, address),
    MP(narrow, narrow),
    MP(swap_rl, or_aq),
    MP(swap_aq, add_rl),
    MP(add_aqrl, lr_aq),
    MP(sc_rl, lr_aq),
    MP(cas_rl, or_aq),

    CROSSED("SB", sl_plain, sl_plain, MAYBE, "0a=0 1a=0"),
    CROSSED("SB", sl_fence_w_w, sl_fence_w_w, MAYBE, "0a=0 1a=0"),
    CROSSED("SB", sl_fence_tso, sl_fence_tso, MAYBE, "0a=0 1a=0"),
    CROSSED("SB", sl_plain, sl_fence_rw_rw, MAYBE, "0a=0 1a=0"),
    SB(fence_rw_rw, fence_rw_rw),
    SB(fence_w_r, fence_w_r),
    SB(fence_rw_r, fence_w_rw),
    SB(fence_iorw_iorw, fence_iorw_iorw),
    SB(narrow, narrow),
    SB(swap_aq, swap_aq),
    SB(swap_aq_zero, fence_w_r),
    SB(or_word_aq, or_word_aq),
    SB(cas_aq, cas_aq),
    SB(add_rl, add_rl),
    SB(swap_rl_or_aq, swap_rl_or_aq),
    SB(sc_rl_lr_aq, sc_rl_lr_aq),
    SB(sc_rl_lr_aq, fence_rw_rw),

    CROSSED("LB", ls_plain, ls_plain, MAYBE, "0a=3 1a=3"),
    LB(data, data),
    LB(control, control),
    LB(address, fence_r_w),
    LB(fence_rw_w, fence_tso),
    LB(or_aq, swap_rl),

    S(fence_w_w, data),
    S(fence_rw_rw, control),
    S(swap_rl, or_aq),
    S(sc_rl, fence_r_w),

    CROSSED("R", ss_fence_w_w, sl_plain, MAYBE, "1a=0 y=1"),
    R(fence_w_w, fence_rw_rw),
    R(fence_rw_rw, fence_w_r),
    R(swap_rl, swap_aq),
    R(sc_rl, sc_rl_lr_aq),

    CROSSED("2+2W", ss_plain, ss_plain, MAYBE, "x=1 y=1"),
    TWO_W(fence_w_w, fence_w_w),
    TWO_W(fence_rw_rw, fence_tso),
    TWO_W(swap_rl, swap_aq),
    TWO_W(sc_rl, cas_rl),

    COHERENT("CoRR", store1, ll_plain, "1a=1 1b=0"),
    COHERENT("CoRR of two stores", ss_plain, ll_plain, "1a=2 1b=1"),
    COHERENT("CoWW", ss_plain, ll_plain, "x=1"),
    COHERENT("CoWR", sl_plain, store3, "0a=3 x=1"),
    COHERENT("CoWR of its own", sl_plain, store3, "0a=0"),
    COHERENT("CoRW", ls_plain, store1, "0a=1 x=1"),
    COHERENT("CoRW of its own", ls_plain, store1, "0a=3"),
#elif HARTS == 3
    SB3(plain, plain, plain, MAYBE),
    SB3(fence_rw_rw, fence_w_r, swap_aq, NEVER),
    WRC(data, address),
    WRC(swap_rl, or_aq),
    ISA2(fence_w_w, control, fence_r_r),
    ISA2(sc_rl, or_aq, lr_aq),
    RWC(fence_r_r, fence_rw_rw),
    RWC(address, swap_aq),
    W_RWC(swap_rl, or_aq, fence_w_r),
#elif HARTS == 4
    IRIW(fence_rw_rw, fence_rw_rw),
    IRIW(fence_r_r, fence_r_r),
    IRIW(address, address),
    IRIW(or_aq, lr_aq),
#endif
};

/* --- harts in step --- */

#define LINE  __attribute__((aligned(64)))
#define PAUSE ".insn 0x0100000f\n" /* for a hart that may wait for this host CPU */

static struct {
    LINE uint64_t arrived;
    LINE uint64_t generation;
} gate;

static void barrier(void)
{
    uint64_t generation = __atomic_load_n(&gate.generation, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&gate.arrived, 1, __ATOMIC_SEQ_CST) == HARTS) {
        gate.arrived = 0;
        __atomic_store_n(&gate.generation, generation + 1, __ATOMIC_SEQ_CST);
    }
    while (__atomic_load_n(&gate.generation, __ATOMIC_ACQUIRE) == generation)
        __asm__ volatile(PAUSE ::: "memory");
    __asm__ volatile("fence rw, rw" ::: "memory");
}

/* xorshift64 */
static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* --- running a shape --- */

#define INSTANCES 128
#define WORDS     32
#define TERMS     4

struct term {
    unsigned role, index; /* what a role loaded; or role HARTS: what a variable has in the end */
    uint64_t value;
};

static uint64_t variables[INSTANCES][WORDS] __attribute__((aligned(4096)));

/* Progress and results of a role, apart from those of others. */
static struct {
    LINE volatile uint64_t progress;
    LINE uint64_t loaded[INSTANCES][2];
} roles[HARTS];

/* What hart 0 decides for the next round. */
static struct {
    LINE const struct shape *shape;
    void (*work)(unsigned hart, unsigned step);
    unsigned first_role; /* of hart 0 */
    unsigned places[3];  /* of x, y and z */
    bool in_step;        /* the harts meet before each instance */
    unsigned delay_mask;
    bool over;
} round;

static uint64_t random_states[HARTS];
static uint64_t counts[256]; /* by outcome, two bits a term */
static bool failed;

static void run_role(unsigned hart)
{
    unsigned number = (hart + round.first_role) % HARTS;
    const struct role *role = &round.shape->roles[number];
    unsigned p = round.places[role->on[0] - 'x'], q = round.places[role->on[1] - 'x'];
    uint64_t state = random_states[hart];

    for (unsigned i = 0; i < INSTANCES; i++) {
        if (round.in_step) {
            roles[number].progress = i + 1;
            for (unsigned other = 0; other < HARTS; other++)
                for (unsigned spins = 1; roles[other].progress <= i; spins++)
                    if (HARTS > 2 || spins % 64 == 0)
                        __asm__ volatile(PAUSE ::: "memory");
        }
        for (unsigned left = random_next(&state) & round.delay_mask; left > 0; left--)
            __asm__ volatile("");
        role->body(&variables[i][p], &variables[i][q], roles[number].loaded[i]);
    }
    random_states[hart] = state;
}

static unsigned parse(const char *text, struct term *terms)
{
    unsigned count = 0;
    while (*text) {
        struct term *term = &terms[count++];
        if (*text >= 'x') {
            term->role = HARTS;
            term->index = *text++ - 'x';
        } else {
            term->role = *text++ - '0';
            term->index = *text++ - 'a';
        }
        term->value = text[1] - '0';
        text += text[2] ? 3 : 2;
    }
    return count;
}

static void print_number(uint64_t number)
{
    print(label("", "", number));
}

static void count_outcomes(const struct term *terms, unsigned term_count)
{
    for (unsigned i = 0; i < INSTANCES; i++) {
        unsigned key = 0;
        for (unsigned t = 0; t < term_count; t++) {
            const struct term *term = &terms[t];
            uint64_t value = term->role == HARTS ? variables[i][round.places[term->index]]
                                                 : roles[term->role].loaded[i][term->index];
            if (value > 3) {
                print("a value from nowhere: ");
                print_hex(value);
                print_char('\n');
                finish(2);
            }
            key = key << 2 | value;
        }
        counts[key]++;
    }
}

static void prepare_round(uint64_t *state)
{
    static const unsigned layouts[][3] = {{0, 1, 2}, {0, 8, 16}, {2, 0, 1}, {16, 8, 0}, {24, 3, 9}};

    for (unsigned i = 0; i < INSTANCES; i++)
        for (unsigned variable = 0; variable < 3; variable++)
            variables[i][round.places[variable]] = 0;
    for (unsigned i = 0; i < HARTS; i++)
        roles[i].progress = 0;
    memcpy(round.places, layouts[random_next(state) % 5], sizeof round.places);
    round.first_role = random_next(state) % HARTS;
    round.in_step = random_next(state) % 4 != 0;
    round.delay_mask = (1U << random_next(state) % 8) - 1;
}

static uint64_t deadline(void)
{
    return csr_read("time") + MILLISECONDS * 10000UL;
}

static void print_outcome(unsigned key, unsigned term_count)
{
    for (unsigned t = 0; t < term_count; t++)
        print_char('0' + (key >> 2 * (term_count - 1 - t) & 3));
}

static void run_shape(const struct shape *shape, uint64_t *state)
{
    struct term terms[TERMS];
    unsigned term_count = parse(shape->outcome, terms), wanted = 0;

    for (unsigned t = 0; t < term_count; t++)
        wanted = wanted << 2 | terms[t].value;
    memset(counts, 0, sizeof counts);
    round.shape = shape;
    for (uint64_t end = deadline(); csr_read("time") < end;) {
        prepare_round(state);
        barrier();
        run_role(0);
        barrier();
        count_outcomes(terms, term_count);
    }

    print(shape->name);
    for (unsigned i = 0; i < HARTS; i++) {
        print_char(i ? '+' : ' ');
        print(shape->roles[i].name);
    }
    print(shape->verdict == NEVER ? " [never " : " [maybe ");
    print(shape->outcome);
    print("]");
    const char *separator = ": ";
    for (unsigned key = 0; key < 256; key++)
        if (counts[key]) {
            print(separator);
            print_outcome(key, term_count);
            print_char(' ');
            print_number(counts[key]);
            separator = ", ";
        }
    if (shape->verdict == NEVER && counts[wanted]) {
        print(" FORBIDDEN ");
        print_outcome(wanted, term_count);
        failed = true;
    }
    print_char('\n');
}

/* --- contests --- */

#define STEPS 400

/* Rounds of STEPS for each hart; between them `check` says what is wrong, or NULL. */
struct contest {
    const char *name;
    void (*work)(unsigned hart, unsigned step);
    const char *(*check)(void);
};

static struct {
    LINE volatile uint64_t counter;
    LINE volatile uint64_t first;
    LINE volatile uint64_t second;
    LINE volatile uint64_t lock;
    LINE volatile uint64_t ticket, serving;
    LINE volatile uint64_t wants[2];
    LINE volatile uint64_t turn;
    LINE volatile uint64_t wrong; /* times that a hart saw what must not be */
} shared;
static unsigned __int128 shared_pair LINE;

static void add_reserved(void)
{
    uint64_t value, rejected;
    __asm__ volatile("1: lr.d %0, (%2)\naddi %0, %0, 1\nsc.d %1, %0, (%2)\nbnez %1, 1b"
                     : "=&r"(value), "=&r"(rejected)
                     : "r"(&shared.counter)
                     : "memory");
}

static void add_reserved_word(void)
{
    uint64_t value, rejected;
    __asm__ volatile("1: lr.w %0, (%2)\naddi %0, %0, 1\nsc.w %1, %0, (%2)\nbnez %1, 1b"
                     : "=&r"(value), "=&r"(rejected)
                     : "r"(&shared.counter)
                     : "memory");
}

static void add_amo(void)
{
    __asm__ volatile("amoadd.d zero, %0, (%1)" ::"r"(1UL), "r"(&shared.counter) : "memory");
}

static void add_amo_word(void)
{
    uint64_t old;
    __asm__ volatile("amoadd.w %0, %1, (%2)"
                     : "=r"(old)
                     : "r"(1UL), "r"(&shared.counter)
                     : "memory");
}

static void add_cas(void)
{
    uint64_t expected, seen = shared.counter;
    do {
        expected = seen;
        __asm__ volatile(".option push\n.option arch, +zacas\namocas.d %0, %1, (%2)\n.option pop"
                         : "+&r"(seen)
                         : "r"(expected + 1), "r"(&shared.counter)
                         : "memory");
    } while (seen != expected);
}

#define WORK(name, action)                                                                         \
    static void name(unsigned hart, unsigned step)                                                 \
    {                                                                                              \
        (void)hart;                                                                                \
        (void)step;                                                                                \
        action;                                                                                    \
    }
WORK(work_reserved, add_reserved())
WORK(work_reserved_word, add_reserved_word())
WORK(work_amo, add_amo())
WORK(work_cas, add_cas())

static void work_mixed(unsigned hart, unsigned step)
{
    static void (*const ways[])(void) = {add_reserved, add_amo, add_cas, add_reserved_word,
                                         add_amo_word};
    ways[(hart + step) % 5]();
}

static const char *check_counter(void)
{
    uint64_t counter = shared.counter;
    shared.counter = 0;
    return counter == HARTS * STEPS ? NULL : label("the sum is ", "", counter);
}

/* Each bit of a word belongs to a hart, and AMOs on it never meet. */
static void work_bits(unsigned hart, unsigned step)
{
    uint64_t bit = 1UL << (hart + step % 16 * 4), old[3];
    __asm__ volatile("amoor.d %0, %3, (%4)\namoand.d %1, %5, (%4)\namoxor.d %2, %3, (%4)\n"
                     "amoxor.d zero, %3, (%4)"
                     : "=&r"(old[0]), "=&r"(old[1]), "=&r"(old[2])
                     : "r"(bit), "r"(&shared.counter), "r"(~bit)
                     : "memory");
    if (old[0] & bit || !(old[1] & bit) || old[2] & bit)
        __atomic_fetch_add(&shared.wrong, 1, __ATOMIC_RELAXED);
}

static const char *check_wrong(void)
{
    uint64_t wrong = shared.wrong;
    shared.wrong = 0;
    return wrong ? label("seen what must not be, times ", "", wrong) : NULL;
}

/* Bytes of one word that different harts store keep out of each other's way. */
static void work_bytes(unsigned hart, unsigned step)
{
    volatile uint8_t *byte = (volatile uint8_t *)&shared.counter + hart;
    (void)step;
    *byte = (uint8_t)(*byte + 1);
}

static const char *check_whole(void)
{
    shared.first = 0;
    return check_wrong();
}

static const char *check_bytes(void)
{
    uint64_t expected = 0;
    for (unsigned hart = 0; hart < HARTS; hart++)
        expected |= (uint64_t)(uint8_t)STEPS << 8 * hart;
    uint64_t counter = shared.counter;
    shared.counter = 0;
    return counter == expected ? NULL : label("the bytes are ", "", counter);
}

/* A double word is stored and loaded as a whole. */
static void work_whole(unsigned hart, unsigned step)
{
    uint64_t value = shared.first;
    if (value != (value & 0xff) * 0x0101010101010101UL)
        __atomic_fetch_add(&shared.wrong, 1, __ATOMIC_RELAXED);
    shared.first = ((step * HARTS + hart) & 0xff) * 0x0101010101010101UL;
}

/* Two words that only amocas.q touches: the second is the first's complement. */
static void work_pair(unsigned hart, unsigned step)
{
    register uint64_t low __asm__("a2") = 0, high __asm__("a3") = 0;
    register uint64_t new_low __asm__("a4"), new_high __asm__("a5");
    uint64_t expected_low, expected_high;
    (void)hart;
    (void)step;
    do {
        expected_low = low;
        expected_high = high;
        new_low = low + 1;
        new_high = ~new_low;
        __asm__ volatile(".option push\n.option arch, +zacas\namocas.q a2, a4, (%4)\n.option pop"
                         : "+r"(low), "+r"(high)
                         : "r"(new_low), "r"(new_high), "r"(&shared_pair)
                         : "memory");
        if (high != ~low)
            __atomic_fetch_add(&shared.wrong, high | low ? 1 : 0, __ATOMIC_RELAXED);
    } while (low != expected_low || high != expected_high);
}

static const char *check_pair(void)
{
    uint64_t count = (uint64_t)shared_pair;
    shared_pair = 0;
    return count == HARTS * STEPS ? check_wrong() : label("the first word is ", "", count);
}

/* Plain data that a lock guards: both words and the flag of who is inside. */
static void inside(void)
{
    uint64_t first = shared.first, second = shared.second;
    shared.first = first + 1;
    if (first != second)
        shared.wrong++;
    shared.second = second + 1;
}

static const char *check_locked(void)
{
    uint64_t first = shared.first, second = shared.second;
    shared.first = shared.second = 0;
    if (first != HARTS * STEPS)
        return label("the first word is ", "", first);
    if (second != HARTS * STEPS)
        return label("the second word is ", "", second);
    return check_wrong();
}

static void work_swap_lock(unsigned hart, unsigned step)
{
    uint64_t old;
    (void)hart;
    (void)step;
    __asm__ volatile("j 2f\n1: " PAUSE "2: amoswap.d.aq %0, %1, (%2)\nbnez %0, 1b"
                     : "=&r"(old)
                     : "r"(1UL), "r"(&shared.lock)
                     : "memory");
    inside();
    __asm__ volatile("amoswap.d.rl zero, zero, (%0)" ::"r"(&shared.lock) : "memory");
}

static void work_reserved_lock(unsigned hart, unsigned step)
{
    uint64_t old;
    (void)hart;
    (void)step;
    __asm__ volatile("j 2f\n1: " PAUSE
                     "2: lr.w.aq %0, (%2)\nbnez %0, 1b\nsc.w %0, %1, (%2)\nbnez %0, 2b"
                     : "=&r"(old)
                     : "r"(1UL), "r"(&shared.lock)
                     : "memory");
    inside();
    __asm__ volatile("fence rw, w\nsw zero, (%0)" ::"r"(&shared.lock) : "memory");
}

static void work_ticket_lock(unsigned hart, unsigned step)
{
    uint64_t mine, serving;
    (void)hart;
    (void)step;
    __asm__ volatile("amoadd.d %0, %2, (%3)\nj 2f\n1: " PAUSE "2: ld %1, (%4)\nbne %0, %1, 1b\n"
                     "fence r, rw"
                     : "=&r"(mine), "=&r"(serving)
                     : "r"(1UL), "r"(&shared.ticket), "r"(&shared.serving)
                     : "memory");
    inside();
    __asm__ volatile("fence rw, w\nsd %0, (%1)" ::"r"(mine + 1), "r"(&shared.serving) : "memory");
}

#if HARTS == 2
/* Peterson's lock is made of plain accesses; it needs stores ordered before loads. */
static void work_peterson(unsigned hart, unsigned step)
{
    (void)step;
    shared.wants[hart] = 1;
    __asm__ volatile("fence w, w" ::: "memory");
    shared.turn = !hart;
    __asm__ volatile("fence rw, rw" ::: "memory");
    while (shared.wants[!hart] && shared.turn == !hart)
        __asm__ volatile(PAUSE ::: "memory");
    __asm__ volatile("fence r, rw" ::: "memory");
    inside();
    __asm__ volatile("fence rw, w" ::: "memory");
    shared.wants[hart] = 0;
}
#endif

/* A list without lock: popping loads head->next between LR and SC, so that an SC which only
 * compares would take a node that left and came back in between. */
#define NODES (2 * HARTS)
static struct node {
    LINE struct node *volatile next;
    volatile uint64_t owned;
} nodes[NODES];
static struct node *volatile head LINE;

static struct node *pop(void)
{
    struct node *node, *next;
    uint64_t rejected;
    __asm__ volatile("1: lr.d.aq %0, (%3)\nbeqz %0, 2f\nld %1, (%0)\nsc.d %2, %1, (%3)\n"
                     "bnez %2, 1b\n2:"
                     : "=&r"(node), "=&r"(next), "=&r"(rejected)
                     : "r"(&head)
                     : "memory");
    return node;
}

static void push(struct node *node)
{
    struct node *old;
    uint64_t rejected;
    __asm__ volatile("1: lr.d %0, (%2)\nsd %0, (%3)\nsc.d.rl %1, %3, (%2)\nbnez %1, 1b"
                     : "=&r"(old), "=&r"(rejected)
                     : "r"(&head), "r"(node)
                     : "memory");
}

static void work_list(unsigned hart, unsigned step)
{
    struct node *taken[2];
    (void)hart;
    unsigned wanted = 1 + step % 2;
    for (unsigned i = 0; i < wanted; i++) {
        taken[i] = pop();
        if (taken[i] && taken[i]->owned++)
            __atomic_fetch_add(&shared.wrong, 1, __ATOMIC_RELAXED);
    }
    /* The first goes back first: then the order changes. */
    for (unsigned i = 0; i < wanted; i++)
        if (taken[i]) {
            taken[i]->owned--;
            push(taken[i]);
        }
}

static const char *check_list(void)
{
    unsigned count = 0;
    for (struct node *node = head; node && count <= NODES; node = node->next)
        count++;
    if (count != NODES)
        return label("the length of the list is ", "", count);
    return check_wrong();
}

static void fill_list(void)
{
    head = NULL;
    for (unsigned i = 0; i < NODES; i++)
        push(&nodes[i]);
}

static const struct contest contests[] = {
    {"LR/SC", work_reserved, check_counter},
    {"LR/SC of words", work_reserved_word, check_counter},
    {"AMO", work_amo, check_counter},
    {"amocas", work_cas, check_counter},
    {"LR/SC, AMO, amocas, words and double words", work_mixed, check_counter},
    {"bits of one word by AMOs", work_bits, check_wrong},
    {"bytes of one word by stores", work_bytes, check_bytes},
    {"a double word is stored whole", work_whole, check_whole},
    {"amocas.q", work_pair, check_pair},
    {"lock by amoswap", work_swap_lock, check_locked},
    {"lock by LR/SC", work_reserved_lock, check_locked},
    {"lock by tickets", work_ticket_lock, check_locked},
#if HARTS == 2
    {"Peterson's lock", work_peterson, check_locked},
#endif
    {"list without lock", work_list, check_list},
};

static void run_work(unsigned hart)
{
    for (unsigned step = 0; step < STEPS; step++)
        round.work(hart, step);
}

static void run_contest(const struct contest *contest)
{
    uint64_t rounds = 0;
    const char *problem = NULL;

    round.shape = NULL;
    round.work = contest->work;
    for (uint64_t end = deadline(); !problem && csr_read("time") < end; rounds++) {
        barrier();
        run_work(0);
        barrier();
        problem = contest->check();
    }
    print(contest->name);
    print(": steps ");
    print_number(rounds * HARTS * STEPS);
    if (problem) {
        print(" FORBIDDEN ");
        print(problem);
        failed = true;
    }
    print_char('\n');
}

/* --- the whole --- */

/* Where harts other than 0 begin. */
void hart_main(unsigned hart)
{
    for (;;) {
        barrier();
        if (round.over)
            return;
        if (round.shape)
            run_role(hart);
        else
            run_work(hart);
        barrier();
    }
}

int main(void)
{
    uint64_t state = SEED * 0x9e3779b97f4a7c15UL + 1;
    for (unsigned i = 0; i < HARTS; i++)
        random_states[i] = random_next(&state) | 1;
    fill_list();
    for (unsigned i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        run_shape(&shapes[i], &state);
    for (unsigned i = 0; i < sizeof contests / sizeof contests[0]; i++)
        run_contest(&contests[i]);
    round.over = true;
    barrier();
    finish(failed ? 1 : 0);
}
