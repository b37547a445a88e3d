/* A loop whose speed a benchmark reads from `progress`, and on the same pages what it sets
 * breakpoints and watchpoints on. */
#include "program.h"

volatile uint64_t progress;
/* Written once in a long while, and never written. */
volatile uint64_t neighbour;
volatile uint64_t untouched;
volatile unsigned elsewhere_wanted;

uint64_t trap(uint64_t cause, uint64_t pc)
{
    (void)cause;
    (void)pc;
    finish(72);
}

/* On the loop's page. */
OWN_FRAME void elsewhere(void)
{
    untouched++;
}

OWN_FRAME void step_once(void)
{
    progress++;
}

int main(void)
{
    for (;;) {
        step_once();
        if (elsewhere_wanted)
            elsewhere();
    }
}
