/* Integer programs: records and strings, sorting, a byte-code interpreter, calls, branches. */

#include "bench.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/*
 * records: a small shop. Orders name articles by text; each is looked up in a table of linked
 * records and changes a few fields through small functions. The string functions are here so that
 * every machine executes the same ones.
 */

enum { ARTICLES = 1000, BUCKETS = 256, NAME_SIZE = 24 };

enum record_kind { RECORD_ARTICLE, RECORD_SERVICE, RECORD_GIFT };

struct record {
    struct record *next;
    enum record_kind kind;
    int number;
    union {
        struct {
            int price, stock;
        } article;
        struct {
            int minutes, hours;
        } service;
        struct {
            int given;
            char last[NAME_SIZE];
        } gift;
    };
    char name[NAME_SIZE];
};

static struct record records[ARTICLES];
static struct record *buckets[BUCKETS];

static CALLED char *append_text(char *to, const char *from)
{
    while ((*to = *from++)) {
        to++;
    }
    return to;
}

static CALLED char *append_number(char *to, unsigned number)
{
    char digits[12];
    int count = 0;

    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    while (count) {
        *to++ = digits[--count];
    }
    *to = 0;
    return to;
}

static CALLED bool same_text(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

static CALLED unsigned hash_text(const char *text)
{
    unsigned hash = 5381;

    while (*text) {
        hash = hash * 33 ^ (unsigned char)*text++;
    }
    return hash;
}

static CALLED void name_record(char *name, enum record_kind kind, int number)
{
    static const char *const words[] = {"article-", "service-", "gift-"};

    append_number(append_text(name, words[kind]), (unsigned)number);
}

static void records_prepare(uint64_t amount)
{
    for (int i = 0; i < ARTICLES; i++) {
        struct record *record = &records[i];
        record->kind = (enum record_kind)(i % 3);
        record->number = i;
        name_record(record->name, record->kind, i);
        if (record->kind == RECORD_ARTICLE) {
            record->article.price = 100 + i * 7 % 900;
        }
        struct record **bucket = &buckets[hash_text(record->name) % BUCKETS];
        record->next = *bucket;
        *bucket = record;
    }
}

static CALLED struct record *find_record(const char *name)
{
    struct record *record = buckets[hash_text(name) % BUCKETS];

    while (record && !same_text(record->name, name)) {
        record = record->next;
    }
    return record;
}

static CALLED int sell_article(struct record *record, int count)
{
    if (record->article.stock < count) {
        record->article.stock += 50;
    }
    record->article.stock -= count;
    return count * record->article.price;
}

static CALLED int do_service(struct record *record, int count)
{
    record->service.minutes += count * 15;
    while (record->service.minutes >= 60) {
        record->service.minutes -= 60;
        record->service.hours++;
    }
    return record->service.hours & 1 ? 80 : 60;
}

static CALLED int give_gift(struct record *record, const struct record *with)
{
    append_text(record->gift.last, with->name);
    return ++record->gift.given % 10 == 0 ? -1 : 0;
}

static uint64_t records_run(uint64_t orders)
{
    uint64_t random = 1, sum = 0;
    const struct record *last = &records[0];

    for (uint64_t i = 0; i < orders; i++) {
        char name[NAME_SIZE];
        unsigned pick = (unsigned)(random_next(&random) >> 20);
        int number = (int)(pick % ARTICLES), count = 1 + (int)(pick >> 28) % 5;
        name_record(name, (enum record_kind)(number % 3), number);
        struct record *record = find_record(name);
        int value = 0;
        switch (record->kind) {
        case RECORD_ARTICLE:
            value = sell_article(record, count);
            break;
        case RECORD_SERVICE:
            value = do_service(record, count);
            break;
        case RECORD_GIFT:
            value = give_gift(record, last);
            break;
        }
        last = record;
        sum = mix(sum, (uint64_t)value);
    }
    return sum;
}

/* sort: quicksort with a comparison by pointer, as qsort has it. */

static int32_t *numbers;

static void sort_prepare(uint64_t amount)
{
    uint64_t random = 2;

    numbers = need_memory(amount * sizeof *numbers);
    for (uint64_t i = 0; i < amount; i++) {
        numbers[i] = (int32_t)(random_next(&random) >> 30);
    }
}

static CALLED int compare_numbers(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

    return (x > y) - (x < y);
}

static inline void swap(int32_t *a, int32_t *b)
{
    int32_t kept = *a;

    *a = *b;
    *b = kept;
}

static CALLED void insertion_sort(int32_t *first, int32_t *end,
                                  int (*compare)(const void *, const void *))
{
    for (int32_t *next = first + 1; next < end; next++) {
        int32_t value = *next, *place = next;
        while (place > first && compare(place - 1, &value) > 0) {
            *place = place[-1];
            place--;
        }
        *place = value;
    }
}

static CALLED void sort(int32_t *first, int32_t *end, int (*compare)(const void *, const void *))
{
    while (end - first > 12) {
        /* The median of three to the front, then a partition around it from both ends. */
        int32_t *middle = first + (end - first) / 2, *low = first, *high = end;
        if (compare(middle, end - 1) > 0) {
            swap(middle, end - 1);
        }
        if (compare(first, middle) < 0) {
            swap(first, middle);
        }
        if (compare(first, end - 1) > 0) {
            swap(first, end - 1);
        }
        int32_t pivot = *first;
        for (;;) {
            do {
                low++;
            } while (low < end && compare(low, &pivot) < 0);
            do {
                high--;
            } while (compare(high, &pivot) > 0);
            if (low >= high) {
                break;
            }
            swap(low, high);
        }
        swap(first, high);
        /* The shorter half by recursion: the stack stays small. */
        if (high - first < end - high) {
            sort(first, high, compare);
            first = high + 1;
        } else {
            sort(high + 1, end, compare);
            end = high;
        }
    }
    insertion_sort(first, end, compare);
}

static uint64_t sort_run(uint64_t amount)
{
    uint64_t sum = 0;

    sort(numbers, numbers + amount, compare_numbers);
    for (uint64_t i = 1; i < amount; i++) {
        if (numbers[i - 1] > numbers[i]) {
            return 0;
        }
    }
    for (uint64_t i = 0; i < amount; i += 101) {
        sum = mix(sum, (uint64_t)numbers[i]);
    }
    return sum;
}

/* bytecode: a register machine that looks for long Collatz sequences. */

enum operation { SET, MOVE, ADD, SUB, MUL, AND, SHIFT, XOR, LESS, JUMP, IF_ZERO, LOAD, STORE, END };

struct instruction {
    uint8_t operation, to, a, b;
    int32_t value;
};

static const struct instruction collatz[] = {
    /* r0 the limit, r1 the start, r2 the number, r3 the length, r4 the sum, r15 scratch */
    {SET, 1, 0, 0, 1},
    {SET, 10, 0, 0, 1},
    {SET, 11, 0, 0, 3},
    {SET, 12, 0, 0, 255},
    {SET, 13, 0, 0, 0},
    /* 5: the next start */
    {LESS, 15, 1, 0, 0},
    {IF_ZERO, 0, 15, 0, 31},
    {MOVE, 2, 1, 0, 0},
    {SET, 3, 0, 0, 0},
    /* 9: one step, until the number is 1 */
    {LESS, 15, 10, 2, 0},
    {IF_ZERO, 0, 15, 0, 20},
    {AND, 15, 2, 10, 0},
    {IF_ZERO, 0, 15, 0, 16},
    {MUL, 2, 2, 11, 0},
    {ADD, 2, 2, 10, 0},
    {JUMP, 0, 0, 0, 17},
    {SHIFT, 2, 2, 10, 0},
    {ADD, 3, 3, 10, 0},
    {JUMP, 0, 0, 0, 9},
    {END, 0, 0, 0, 0},
    /* 20: counts the lengths in memory */
    {AND, 14, 3, 12, 0},
    {LOAD, 15, 14, 0, 0},
    {ADD, 15, 15, 10, 0},
    {STORE, 0, 14, 15, 0},
    {MUL, 4, 4, 11, 0},
    {XOR, 4, 4, 3, 0},
    {ADD, 4, 4, 15, 0},
    {SUB, 13, 13, 4, 0},
    {ADD, 1, 1, 10, 0},
    {JUMP, 0, 0, 0, 5},
    {END, 0, 0, 0, 0},
    /* 31 */
    {XOR, 4, 4, 13, 0},
    {END, 0, 0, 0, 0},
};

static CALLED uint64_t interpret(const struct instruction *code, uint64_t limit)
{
    uint64_t r[16] = {limit}, memory[256] = {0};
    const struct instruction *next = code;

    for (;;) {
        const struct instruction *now = next++;
        switch ((enum operation)now->operation) {
        case SET:
            r[now->to] = (uint64_t)(int64_t)now->value;
            break;
        case MOVE:
            r[now->to] = r[now->a];
            break;
        case ADD:
            r[now->to] = r[now->a] + r[now->b];
            break;
        case SUB:
            r[now->to] = r[now->a] - r[now->b];
            break;
        case MUL:
            r[now->to] = r[now->a] * r[now->b];
            break;
        case AND:
            r[now->to] = r[now->a] & r[now->b];
            break;
        case SHIFT:
            r[now->to] = r[now->a] >> (r[now->b] & 63);
            break;
        case XOR:
            r[now->to] = r[now->a] ^ r[now->b];
            break;
        case LESS:
            r[now->to] = r[now->a] < r[now->b];
            break;
        case JUMP:
            next = code + now->value;
            break;
        case IF_ZERO:
            if (r[now->a] == 0) {
                next = code + now->value;
            }
            break;
        case LOAD:
            r[now->to] = memory[r[now->a] % 256];
            break;
        case STORE:
            memory[r[now->a] % 256] = r[now->b];
            break;
        case END:
            return r[4];
        }
    }
}

static uint64_t bytecode_run(uint64_t limit)
{
    return interpret(collatz, limit);
}

/* fib: calls and returns, and little else. */

CALLED uint64_t fib(unsigned n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t fib_run(uint64_t n)
{
    return fib((unsigned)n);
}

/*
 * branchy: walks through a search tree by random keys. No branch on the way down can be foreseen,
 * and each side of it does something of its own.
 */

enum { TREE = 1 << 12 };

static struct branch {
    uint32_t key, less, more;
} tree[TREE];

static void branchy_prepare(uint64_t amount)
{
    uint64_t random = 3;

    tree[0].key = 0x80000000;
    for (uint32_t i = 1; i < TREE; i++) {
        uint32_t key = (uint32_t)(random_next(&random) >> 32), at = 0;
        tree[i].key = key;
        for (;;) {
            uint32_t *way = key < tree[at].key ? &tree[at].less : &tree[at].more;
            if (!*way) {
                *way = i;
                break;
            }
            at = *way;
        }
    }
}

static uint64_t branchy_run(uint64_t amount)
{
    uint64_t random = 4, lefts = 0, sum = 0;
    volatile uint32_t turns = 0;

    for (uint64_t i = 0; i < amount; i++) {
        uint32_t key = (uint32_t)(random_next(&random) >> 32), at = 0;
        do {
            /* The volatile keeps these from becoming conditional moves. */
            if (key < tree[at].key) {
                turns = turns + at;
                at = tree[at].less;
                lefts++;
            } else if (key & 1) {
                turns = turns ^ key;
                at = tree[at].more;
            } else {
                turns = turns - 1;
                at = tree[at].more;
                key = key >> 1 | 0x80000000;
            }
        } while (at);
        sum = mix(sum, turns);
    }
    return mix(sum, lefts);
}

const struct program integer_programs[] = {
    {"records", "orders", 3000000, 1000, records_prepare, records_run},
    {"sort", "integers", 1200000, 5000, sort_prepare, sort_run},
    {"bytecode", "starts", 40000, 1000, NULL, bytecode_run},
    {"fib", "argument", 38, 16, NULL, fib_run},
    {"sha256", "MiB", 64, 1, digest_prepare, sha256_run},
    {"crc32", "MiB", 192, 1, digest_prepare, crc32_run},
    {"mixed", "rounds", 5000, 5, mixed_prepare, mixed_run},
    {"branchy", "walks", 7000000, 1000, branchy_prepare, branchy_run},
    {NULL, NULL, 0, 0, NULL, NULL},
};
