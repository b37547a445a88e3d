/* Private to memory/: holding a region while one of its register functions runs. */
#pragma once

#include "memory/internal.h"

/* On the stack of the thread that makes the access. */
struct visit {
    struct region *region;
    struct visit *outer;
};

/* Holds the region that gpa lies in; false if there is none. */
bool region_enter(struct memory *memory, uint64_t gpa, struct visit *visit);
void region_leave(struct memory *memory, struct visit *visit);
