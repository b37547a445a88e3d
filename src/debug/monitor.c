#include "debug/session.h"
const struct command monitor_commands[] = {{0}};
