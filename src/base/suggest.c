#include "base/suggest.h"

#include <stdbool.h>
#include <string.h>

#define LENGTH_MAX   40
#define DISTANCE_MAX 3

static unsigned minimum(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Insertions, deletions, replacements and swaps of neighbours that turn one word into the other. */
static unsigned edit_distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    unsigned rows[3][LENGTH_MAX + 1];
    for (size_t j = 0; j <= b_length; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= a_length; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_length; j++) {
            row[j] = minimum(above[j], row[j - 1]) + 1;
            row[j] = minimum(row[j], above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = minimum(row[j], two_above[j - 2] + 1);
        }
    }
    return rows[a_length % 3][b_length];
}

void suggest_begin(struct suggestion *suggestion, const char *word)
{
    size_t allowed = (strlen(word) + 2) / 3;
    *suggestion = (struct suggestion){
        .word = word,
        .distance = (allowed < DISTANCE_MAX ? (unsigned)allowed : DISTANCE_MAX) + 1,
    };
}

void suggest_offer(struct suggestion *suggestion, const char *name)
{
    const char *word = suggestion->word;
    size_t word_length = strlen(word), name_length = strlen(name);
    if (word_length > LENGTH_MAX || name_length > LENGTH_MAX)
        return;
    unsigned distance = edit_distance(word, word_length, name, name_length);
    /* The beginning of a long name is meant as that name. */
    if (word_length >= 3 && strncmp(word, name, word_length) == 0)
        distance = minimum(distance, 1);
    if (distance < suggestion->distance) {
        suggestion->distance = distance;
        suggestion->name = name;
    }
}
