/* The habits of QEMU's users. */
#pragma once

/* What to write instead of an option of qemu-system-riscv64 ("-kernel", "--nographic"); NULL if it
 * is none. */
const char *qemu_advice(const char *word);
