/* What the assembly and the C of the test programs share. */
#pragma once

#define UART     0x10000000
#define FINISHER 0x100000
#define CLINT    0x2000000
#define PLIC     0xc000000

/* struct outcome */
#define OUTCOME_CAUSE  0
#define OUTCOME_EPC    8
#define OUTCOME_TVAL   16
#define OUTCOME_STATUS 24
#define OUTCOME_A0     32
#define OUTCOME_A1     40

/* struct supervisor_outcome */
#define SUPERVISOR_TAKEN  0
#define SUPERVISOR_CAUSE  8
#define SUPERVISOR_EPC    16
#define SUPERVISOR_TVAL   24
#define SUPERVISOR_STATUS 32
#define SUPERVISOR_VECTOR 40
