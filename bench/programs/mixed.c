/*
 * mixed: what small embedded programs do, in turn: a linked list is searched, reversed and sorted,
 * small matrices are multiplied, a state machine reads numbers, and a CRC goes over the results.
 */

#include "bench.h"

#include <stdbool.h>

enum { NODES = 200, SIDE = 18, TEXT = 1200 };

struct node {
    struct node *next;
    int16_t value, place;
};

static struct node nodes[NODES];
static int16_t left[SIDE][SIDE], right[SIDE][SIDE];
static int32_t product[SIDE][SIDE];
static char text[TEXT];

static CALLED uint16_t crc16(uint32_t value, uint16_t crc)
{
    for (int i = 0; i < 32; i++) {
        bool odd = (value ^ crc) & 1;
        value >>= 1;
        crc >>= 1;
        if (odd) {
            crc ^= 0xa001;
        }
    }
    return crc;
}

void mixed_prepare(uint64_t amount)
{
    static const char *const words[] = {"12",   "-7",  "+300.25", "1.5e3", "9e-2", "0.0",
                                        "4x",   ".e1", "--1",     "77777", "1e",   "-0.5E+2",
                                        "word", "3.",  "2.2.2",   "+"};
    uint64_t random = 6;

    for (int i = 0; i < NODES; i++) {
        nodes[i].value = (int16_t)(random_next(&random) >> 20);
        nodes[i].place = (int16_t)i;
        nodes[i].next = i + 1 < NODES ? &nodes[i + 1] : NULL;
    }
    for (int i = 0; i < SIDE * SIDE; i++) {
        left[i / SIDE][i % SIDE] = (int16_t)(random_next(&random) >> 24);
        right[i / SIDE][i % SIDE] = (int16_t)(random_next(&random) >> 24);
    }
    /* The last byte stays 0. */
    for (int at = 0; at < TEXT - 10;) {
        const char *word = words[random_next(&random) >> 13 & 15];
        while (*word) {
            text[at++] = *word++;
        }
        text[at++] = ',';
    }
}

static CALLED struct node *find_value(struct node *list, int16_t value)
{
    while (list && list->value != value) {
        list = list->next;
    }
    return list;
}

static CALLED struct node *reverse(struct node *list)
{
    struct node *done = NULL;

    while (list) {
        struct node *next = list->next;
        list->next = done;
        done = list;
        list = next;
    }
    return done;
}

static CALLED int by_value(const struct node *a, const struct node *b)
{
    return a->value - b->value;
}

static CALLED int by_place(const struct node *a, const struct node *b)
{
    return a->place - b->place;
}

/* Merges runs of 1, 2, 4... until one is left. */
static CALLED struct node *sort_list(struct node *list,
                                     int (*compare)(const struct node *, const struct node *))
{
    for (int run = 1;; run *= 2) {
        struct node *rest = list, **end = &list;
        int merges = 0;
        while (rest) {
            struct node *a = rest;
            int in_a = 0, in_b = run;
            for (; in_a < run && rest; in_a++) {
                rest = rest->next;
            }
            merges++;
            while (in_a || (in_b && rest)) {
                bool from_a = in_a && (!in_b || !rest || compare(a, rest) <= 0);
                struct node **from = from_a ? &a : &rest;
                *(from_a ? &in_a : &in_b) -= 1;
                *end = *from;
                *from = (*from)->next;
                end = &(*end)->next;
            }
        }
        *end = NULL;
        if (merges <= 1) {
            return list;
        }
    }
}

static CALLED uint16_t list_work(uint64_t round, uint16_t crc)
{
    struct node *list = &nodes[0];

    for (int i = 0; i < 16; i++) {
        struct node *found = find_value(list, nodes[(round * 7 + (uint64_t)i * 11) % NODES].value);
        crc = crc16((uint32_t)found->place, crc);
        list = reverse(list);
    }
    list = sort_list(list, by_value);
    for (struct node *node = list; node; node = node->next) {
        crc = (uint16_t)(crc * 31 + node->value);
    }
    sort_list(list, by_place);
    return crc;
}

static CALLED uint16_t matrix_work(uint64_t round, uint16_t crc)
{
    int32_t total = 0;

    for (int i = 0; i < SIDE; i++) {
        left[i][round % SIDE] = (int16_t)(left[i][round % SIDE] + (int16_t)crc);
    }
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            uint32_t sum = 0;
            for (int k = 0; k < SIDE; k++) {
                sum += (uint32_t)(left[i][k] * right[k][j]);
            }
            product[i][j] = (int32_t)sum;
        }
    }
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            int32_t bits = product[i][j] >> 4 & 0x7f;
            total = bits > 64 ? total + bits : total ^ bits;
        }
    }
    return crc16((uint32_t)total, crc);
}

enum state { BEGIN, SIGN, WHOLE, POINT, FRACTION, EXPONENT, EXPONENT_SIGN, POWER, WRONG, STATES };

static CALLED enum state step(enum state state, char c)
{
    bool digit = c >= '0' && c <= '9', sign = c == '-' || c == '+';

    switch (state) {
    case BEGIN:
        return digit ? WHOLE : sign ? SIGN : c == '.' ? POINT : WRONG;
    case SIGN:
        return digit ? WHOLE : c == '.' ? POINT : WRONG;
    case WHOLE:
        return digit ? WHOLE : c == '.' ? FRACTION : c == 'e' || c == 'E' ? EXPONENT : WRONG;
    case POINT:
        return digit ? FRACTION : WRONG;
    case FRACTION:
        return digit ? FRACTION : c == 'e' || c == 'E' ? EXPONENT : WRONG;
    case EXPONENT:
        return digit ? POWER : sign ? EXPONENT_SIGN : WRONG;
    case EXPONENT_SIGN:
    case POWER:
        return digit ? POWER : WRONG;
    default:
        return WRONG;
    }
}

static CALLED uint16_t text_work(uint64_t round, uint16_t crc)
{
    uint32_t ends[STATES] = {0}, visits[STATES] = {0};
    enum state state = BEGIN;

    text[round * 13 % (TEXT - 10)] ^= 1;
    for (const char *at = text; *at; at++) {
        if (*at == ',') {
            ends[state]++;
            state = BEGIN;
        } else {
            state = step(state, *at);
            visits[state]++;
        }
    }
    text[round * 13 % (TEXT - 10)] ^= 1;
    for (int i = 0; i < STATES; i++) {
        crc = crc16(ends[i] << 16 | visits[i], crc);
    }
    return crc;
}

uint64_t mixed_run(uint64_t rounds)
{
    uint16_t crc = 0;
    uint64_t sum = 0;

    for (uint64_t round = 0; round < rounds; round++) {
        crc = list_work(round, crc);
        crc = matrix_work(round, crc);
        crc = text_work(round, crc);
        sum = mix(sum, crc);
    }
    return sum;
}
