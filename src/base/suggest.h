/*
 * What the user probably meant: the nearest of some names to a word that is none of them.
 *
 *     struct suggestion nearest;
 *     suggest_begin(&nearest, word);
 *     for (each known name)
 *         suggest_offer(&nearest, name);
 *     if (nearest.name)
 *         "did you mean nearest.name?"
 */
#pragma once

struct suggestion {
    const char *word;  /* the caller's, as are the names */
    const char *name;  /* the nearest so far, NULL if nothing is near enough to be meant */
    unsigned distance; /* of `name`; the next one must be nearer */
};

void suggest_begin(struct suggestion *suggestion, const char *word);
void suggest_offer(struct suggestion *suggestion, const char *name);
