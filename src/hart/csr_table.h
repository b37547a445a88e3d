/*
 * The one list of control and status registers, by privilege and number.
 *
 * FIELD(number, name, extension, guard, field, mask)     storage in struct hart; writes change the
 *                                                        bits in mask
 * VIEW(number, name, extension, guard, read, write)      functions of csr.c; write NULL: constant
 *
 * The privilege that an access needs, and whether writing is illegal, follow from the number
 * (Privileged, "CSR Address Mapping Conventions"); guard adds what else can forbid the access.
 */
/* clang-format off */

/* Unprivileged */
VIEW (0x001, fflags,     F,         FP,       read_fflags,     write_fflags)
VIEW (0x002, frm,        F,         FP,       read_frm,        write_frm)
VIEW (0x003, fcsr,       F,         FP,       read_fcsr,       write_fcsr)
VIEW (0xc00, cycle,      ZICNTR,    COUNTER,  read_counter,    NULL)
VIEW (0xc01, time,       ZICNTR,    COUNTER,  read_counter,    NULL)
VIEW (0xc02, instret,    ZICNTR,    COUNTER,  read_counter,    NULL)

/* Supervisor */
VIEW (0x100, sstatus,    I,         NONE,     read_sstatus,    write_sstatus)
VIEW (0x104, sie,        I,         NONE,     read_sie,        write_sie)
VIEW (0x105, stvec,      I,         NONE,     read_stvec,      write_stvec)
FIELD(0x106, scounteren, I,         NONE,     scounteren,      0xffffffff)
VIEW (0x10a, senvcfg,    I,         ENVCFG,   read_senvcfg,    write_senvcfg)
FIELD(0x10c, sstateen0,  SSSTATEEN, STATEEN,  sstateen[0],     0)
FIELD(0x10d, sstateen1,  SSSTATEEN, STATEEN,  sstateen[1],     0)
FIELD(0x10e, sstateen2,  SSSTATEEN, STATEEN,  sstateen[2],     0)
FIELD(0x10f, sstateen3,  SSSTATEEN, STATEEN,  sstateen[3],     0)
FIELD(0x140, sscratch,   I,         NONE,     sscratch,        UINT64_MAX)
VIEW (0x141, sepc,       I,         NONE,     read_sepc,       write_sepc)
FIELD(0x142, scause,     I,         NONE,     scause,          UINT64_MAX)
FIELD(0x143, stval,      I,         NONE,     stval,           UINT64_MAX)
VIEW (0x144, sip,        I,         NONE,     read_sip,        write_sip)
VIEW (0x14d, stimecmp,   SSTC,      STIMECMP, read_stimecmp,   write_stimecmp)
FIELD(0x150, siselect,   SSAIA,     CSRIND,   siselect,        AIA_SELECT)
VIEW (0x151, sireg,      SSAIA,     SIREG,    aia_read_indirect, aia_write_indirect)
VIEW (0x15c, stopei,     SSAIA,     STOPEI,   aia_read_topei,  aia_write_topei)
VIEW (0x180, satp,       I,         TVM,      read_satp,       write_satp)
VIEW (0xda0, scountovf,  SSCOFPMF,  NONE,     read_scountovf,  NULL)
VIEW (0xdb0, stopi,      SSAIA,     STOPI,    aia_read_topi,   NULL)

/* Machine */
VIEW (0xf11, mvendorid,  I,         NONE,     read_zero,       NULL)
VIEW (0xf12, marchid,    I,         NONE,     read_zero,       NULL)
VIEW (0xf13, mimpid,     I,         NONE,     read_zero,       NULL)
VIEW (0xf14, mhartid,    I,         NONE,     read_mhartid,    NULL)
VIEW (0xf15, mconfigptr, I,         NONE,     read_zero,       NULL)
VIEW (0x300, mstatus,    I,         NONE,     read_mstatus,    write_mstatus)
FIELD(0x301, misa,       I,         NONE,     misa,            0)
FIELD(0x302, medeleg,    I,         NONE,     medeleg,         0xb3ff)
VIEW (0x303, mideleg,    I,         NONE,     read_mideleg,    write_mideleg)
VIEW (0x304, mie,        I,         NONE,     read_mie,        write_mie)
VIEW (0x305, mtvec,      I,         NONE,     read_mtvec,      write_mtvec)
FIELD(0x306, mcounteren, I,         NONE,     mcounteren,      0xffffffff)
VIEW (0x30a, menvcfg,    I,         NONE,     read_menvcfg,    write_menvcfg)
VIEW (0x308, mvien,      SMAIA,     NONE,     aia_read_mvien,  aia_write_mvien)
VIEW (0x309, mvip,       SMAIA,     NONE,     aia_read_mvip,   aia_write_mvip)
VIEW (0x30c, mstateen0,  SMSTATEEN, NONE,     read_mstateen0,  write_mstateen0)
FIELD(0x30d, mstateen1,  SMSTATEEN, NONE,     mstateen[1],     STATEEN_SE)
FIELD(0x30e, mstateen2,  SMSTATEEN, NONE,     mstateen[2],     STATEEN_SE)
FIELD(0x30f, mstateen3,  SMSTATEEN, NONE,     mstateen[3],     STATEEN_SE)
VIEW (0x320, mcountinhibit, I,      NONE,     read_inhibit,    write_inhibit)
FIELD(0x340, mscratch,   I,         NONE,     mscratch,        UINT64_MAX)
VIEW (0x341, mepc,       I,         NONE,     read_mepc,       write_mepc)
FIELD(0x342, mcause,     I,         NONE,     mcause,          UINT64_MAX)
FIELD(0x343, mtval,      I,         NONE,     mtval,           UINT64_MAX)
VIEW (0x344, mip,        I,         NONE,     read_mip,        write_mip)
FIELD(0x350, miselect,   SMAIA,     NONE,     miselect,        AIA_SELECT)
VIEW (0x351, mireg,      SMAIA,     MIREG,    aia_read_indirect, aia_write_indirect)
VIEW (0x35c, mtopei,     SMAIA,     MTOPEI,   aia_read_topei,  aia_write_topei)
VIEW (0xfb0, mtopi,      SMAIA,     NONE,     aia_read_topi,   NULL)
VIEW (0x3a0, pmpcfg0,    I,         NONE,     read_pmpcfg,     write_pmpcfg)
VIEW (0x3a2, pmpcfg2,    I,         NONE,     read_pmpcfg,     write_pmpcfg)
VIEW (0xb00, mcycle,     I,         NONE,     read_counter,    write_counter)
VIEW (0xb02, minstret,   I,         NONE,     read_counter,    write_counter)

/* Sdtrig: there are no triggers */
VIEW (0x7a0, tselect,    I,         NONE,     read_zero,       write_nothing)
VIEW (0x7a1, tdata1,     I,         NONE,     read_zero,       write_nothing)
VIEW (0x7a2, tdata2,     I,         NONE,     read_zero,       write_nothing)
VIEW (0x7a3, tdata3,     I,         NONE,     read_zero,       write_nothing)

#define PMPADDR(i, number) VIEW(number, pmpaddr##i, I, NONE, read_pmpaddr, write_pmpaddr)
PMPADDR(0, 0x3b0)  PMPADDR(1, 0x3b1)  PMPADDR(2, 0x3b2)  PMPADDR(3, 0x3b3)
PMPADDR(4, 0x3b4)  PMPADDR(5, 0x3b5)  PMPADDR(6, 0x3b6)  PMPADDR(7, 0x3b7)
PMPADDR(8, 0x3b8)  PMPADDR(9, 0x3b9)  PMPADDR(10, 0x3ba) PMPADDR(11, 0x3bb)
PMPADDR(12, 0x3bc) PMPADDR(13, 0x3bd) PMPADDR(14, 0x3be) PMPADDR(15, 0x3bf)
#undef PMPADDR

#define HPM(i)                                                                              \
    VIEW(0xc00 + i, hpmcounter##i,  ZIHPM, COUNTER, read_counter, NULL)                     \
    VIEW(0xb00 + i, mhpmcounter##i, ZIHPM, NONE,    read_counter, write_counter)            \
    VIEW(0x320 + i, mhpmevent##i,   ZIHPM, NONE,    read_event,   write_event)
HPM(3)  HPM(4)  HPM(5)  HPM(6)  HPM(7)  HPM(8)  HPM(9)  HPM(10) HPM(11) HPM(12)
HPM(13) HPM(14) HPM(15) HPM(16) HPM(17) HPM(18) HPM(19) HPM(20) HPM(21) HPM(22)
HPM(23) HPM(24) HPM(25) HPM(26) HPM(27) HPM(28) HPM(29) HPM(30) HPM(31)
#undef HPM

/* clang-format on */
#undef FIELD
#undef VIEW
