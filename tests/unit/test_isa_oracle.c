/*
 * Our disassembler and our verdict, legal or illegal, against LLVM's and GNU's: every 16-bit word,
 * random operands of every instruction, and words one bit away from an instruction. The words go
 * into an ELF file that each tool prints in one run. A tool that is not installed is a skip.
 */
#include <ctype.h>
#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "isa/isa.h"

enum { TEXT_MAX = 128, WORDS_MAX = 400000, DIFFERENCES_SHOWN = 40 };

/* Each word is followed by c.nop where it is short, so that word i is at 4 * i whatever a tool
 * makes of it. */
static uint32_t words[WORDS_MAX];
static unsigned word_count;
static char (*answers)[TEXT_MAX]; /* what the tool printed at 4 * i */

static struct isa_extensions all;
static uint64_t random_state;

static uint32_t random_word(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static void add_word(uint32_t word)
{
    assert_true(word_count < WORDS_MAX);
    words[word_count++] = (word & 3) == 3 ? word : (word & 0xffff) | 0x00010000;
}

static void all_16_bits(void)
{
    for (uint32_t word = 0; word < 0x10000; word++)
        if ((word & 3) != 3)
            add_word(word);
}

static void instructions_with_random_operands(void)
{
    for (unsigned op = 1; op < INSN_COUNT; op++) {
        const struct isa_instruction *row = isa_instruction(op);
        for (unsigned i = 0; i < 100; i++)
            add_word((random_word() & ~row->mask) | row->match);
    }
    for (int sets = 0; sets < 256; sets++)
        add_word(isa_encode(&(struct insn){.op = INSN_fence, .imm = sets}));
}

/* Encodings of 48 bits and more, which only the tools know, end in 11111 and stay out. */
static void words_near_instructions(void)
{
    for (unsigned i = 0; i < 250000; i++) {
        const struct isa_instruction *row = isa_instruction(1 + random_word() % (INSN_COUNT - 1));
        uint32_t word = (random_word() & ~row->mask) | row->match;
        word ^= UINT32_C(4) << random_word() % 30;
        if (i % 8 == 0)
            word = random_word() | 3;
        if ((word & 0x1f) != 0x1f)
            add_word(word);
    }
}

/* --- The ELF file --- */

/* The extensions that every tested version of a tool takes in .riscv.attributes; LLVM's others are
 * options. GNU learns its set from nowhere else. */
static const char arch[] =
    "rv64i2p1_m2p0_a2p1_f2p2_d2p2_c2p0_zicsr2p0_zifencei2p0_zihintpause2p0_zicbom1p0_zicbop1p0_"
    "zicboz1p0_zawrs1p0_zfh1p0_zfhmin1p0_zba1p0_zbb1p0_zbc1p0_zbs1p0_zbkb1p0_zbkx1p0_svinval1p0";

static void put_attributes(FILE *file)
{
    enum { TAG_FILE = 1, TAG_ARCH = 5 };
    uint32_t inner = 1 + 4 + 1 + sizeof(arch), outer = 4 + sizeof("riscv") + inner;
    fputc('A', file);
    fwrite(&outer, 4, 1, file);
    fwrite("riscv", 1, sizeof("riscv"), file);
    fputc(TAG_FILE, file);
    fwrite(&inner, 4, 1, file);
    fputc(TAG_ARCH, file);
    fwrite(arch, 1, sizeof(arch), file);
}

static void write_elf(const char *path)
{
    static const char names[] = "\0.text\0.riscv.attributes\0.shstrtab";
    enum { NAME_TEXT = 1, NAME_ATTRIBUTES = 7, NAME_NAMES = 25, SHT_ATTRIBUTES = 0x70000003 };
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    Elf64_Ehdr header = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_REL,
        .e_machine = 243,
        .e_version = EV_CURRENT,
        .e_shoff = sizeof(header),
        .e_flags = 5, /* RVC, double-float ABI */
        .e_ehsize = sizeof(header),
        .e_shentsize = sizeof(Elf64_Shdr),
        .e_shnum = 4,
        .e_shstrndx = 3,
    };
    Elf64_Shdr sections[4] = {
        [1] = {.sh_name = NAME_TEXT,
               .sh_type = SHT_PROGBITS,
               .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
               .sh_offset = sizeof(header) + sizeof(sections),
               .sh_size = 4 * (uint64_t)word_count,
               .sh_addralign = 4},
        [2] = {.sh_name = NAME_ATTRIBUTES,
               .sh_type = SHT_ATTRIBUTES,
               .sh_size = 1 + 4 + sizeof("riscv") + 1 + 4 + 1 + sizeof(arch),
               .sh_addralign = 1},
        [3] = {.sh_name = NAME_NAMES, .sh_type = SHT_STRTAB, .sh_size = sizeof(names)},
    };
    sections[2].sh_offset = sections[1].sh_offset + sections[1].sh_size;
    sections[3].sh_offset = sections[2].sh_offset + sections[2].sh_size;
    fwrite(&header, sizeof(header), 1, file);
    fwrite(sections, sizeof(sections), 1, file);
    fwrite(words, 4, word_count, file);
    put_attributes(file);
    fwrite(names, sizeof(names), 1, file);
    assert_int_equal(fclose(file), 0);
}

/* --- Reading the answers --- */

/* Removes white space and comments, writes every number in decimal and leaves ",dyn" out: what is
 * left of the differences between the tools' styles that say nothing. */
static void normalise(const char *text, char *out)
{
    char *start = out;
    bool in_word = false;
    while (*text && *text != '#' && *text != '<' && out < start + TEXT_MAX - 24) {
        char c = *text;
        bool number = !in_word && (isdigit(c) || (c == '-' && isdigit(text[1])));
        in_word = isalnum(c) || c == '.' || c == '_';
        if (number) {
            char *end;
            long long value =
                c == '-' ? strtoll(text, &end, 0) : (long long)strtoull(text, &end, 0);
            out += sprintf(out, "%lld", value);
            text = end;
            in_word = true;
            continue;
        }
        if (!isspace(c))
            *out++ = c;
        text++;
    }
    *out = '\0';
    if (out - start > 4 && strcmp(out - 4, ",dyn") == 0)
        out[-4] = '\0';
}

static void read_answers(FILE *tool)
{
    char line[512];
    while (fgets(line, sizeof(line), tool)) {
        char *colon = strchr(line, ':'), *end;
        if (!colon)
            continue;
        unsigned long address = strtoul(line, &end, 16);
        if (end != colon || address % 4 || address / 4 >= word_count)
            continue;
        normalise(colon + 1, answers[address / 4]);
    }
}

static bool is_unknown(const char *answer)
{
    static const char *const prefixes[] = {".2byte", ".4byte", ".insn", "c.unimp", "unimp", "0x"};
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
        if (strncmp(answer, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return answer[0] == '\0'; /* <unknown> has become nothing */
}

/* "csrrw a0,mstatus,a1" without the name, which is the hart's business */
static void drop_csr_name(char *text)
{
    char *first = strchr(text, ','), *second = first ? strchr(first + 1, ',') : NULL;
    if (second)
        memmove(first, second, strlen(second) + 1);
}

/* --- The two tools --- */

struct oracle {
    const char *program;
    const char *options;
    bool (*differs)(const struct insn *insn, const struct isa_instruction *row, uint32_t bits,
                    char *ours); /* true for a known, harmless difference; may rewrite our text */
};

/* The manual tells harts to ignore these fields ("Memory Ordering Instructions", "Zifencei"); the
 * tools take only zeros. */
static bool uses_ignored_fields(uint32_t bits, const struct isa_instruction *row)
{
    return (row == isa_instruction(INSN_fence) && bits & 0xf00fff80) ||
           (row == isa_instruction(INSN_fence_tso) && bits & 0x000fff80) ||
           (row == isa_instruction(INSN_fence_i) && bits & 0xffffff80);
}

/* LLVM 19 rejects the reserved rounding modes, which trap only at run time; has pause as an alias;
 * takes c.lui with a zero immediate, which is reserved; and prints the negative immediates of c.lui
 * to x0, a hint, in another way than to other registers. */
static bool llvm_differs(const struct insn *insn, const struct isa_instruction *row, uint32_t bits,
                         char *ours)
{
    if (insn->op == INSN_pause)
        strcpy(ours, "fencew,0");
    return uses_ignored_fields(bits, row) || (bits & 0xf07f) == 0x6001 ||
           (bits & 0xff83) == 0x7001 ||
           (row->operands & ISA_ROUNDS && (insn->rm == 5 || insn->rm == 6));
}

/* GNU 2.40 lacks Zicond and Zacas, knows no rounding mode where a conversion is exact, and takes
 * c.addi16sp with a zero immediate, which is reserved. It writes c.nop as c.addi, and "unknown" for
 * an empty set of fence. */
static bool gnu_differs(const struct insn *insn, const struct isa_instruction *row, uint32_t bits,
                        char *ours)
{
    if (strncmp(ours, "c.nop", 5) == 0)
        sprintf(ours, "c.addizero,%d", atoi(ours + 5));
    if (insn->op == INSN_fence && (!(insn->imm & 0x0f) || !(insn->imm & 0xf0)))
        return true;
    bool exact = row->format == ISA_FORMAT_XTOF_EXACT || row->format == ISA_FORMAT_F2_EXACT;
    return uses_ignored_fields(bits, row) || (bits & 0xffff) == 0x6101 || (exact && insn->rm) ||
           row->extension.first == ISA_EXT_ZICOND || row->extension.first == ISA_EXT_ZACAS;
}

static const struct oracle llvm = {
    "llvm-objdump-19",
    "-d --no-show-raw-insn --no-print-imm-hex -M no-aliases "
    "--mattr=+m,+a,+f,+d,+c,+zicsr,+zifencei,+zihintpause,+zicbom,+zicbop,+zicboz,+zicond,"
    "+experimental-zacas,+zawrs,+zfh,+zba,+zbb,+zbc,+zbs,+zbkb,+zbkx,+svinval",
    llvm_differs,
};

static const struct oracle gnu = {
    "riscv64-linux-gnu-objdump",
    "-d -z --no-show-raw-insn -M no-aliases",
    gnu_differs,
};

static bool installed(const char *program)
{
    char command[256];
    snprintf(command, sizeof(command), "command -v %s >/dev/null 2>&1", program);
    return system(command) == 0;
}

static void ask(const struct oracle *oracle)
{
    if (!installed(oracle->program)) {
        print_message("skipped: %s is not installed\n", oracle->program);
        skip();
    }
    char path[] = "/tmp/test_isa_XXXXXX", command[1024];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_elf(path);
    answers = calloc(word_count, TEXT_MAX);
    snprintf(command, sizeof(command), "%s %s %s", oracle->program, oracle->options, path);
    FILE *tool = popen(command, "r");
    assert_non_null(tool);
    read_answers(tool);
    int status = pclose(tool);
    unlink(path);
    assert_int_equal(status, 0);
}

/* Returns whether word i agrees. */
static bool compare(const struct oracle *oracle, unsigned i)
{
    char text[ISA_TEXT_SIZE], ours[TEXT_MAX], *theirs = answers[i];
    struct insn insn;
    bool legal = isa_decode(words[i], &all, &insn);
    const struct isa_instruction *row = isa_instruction(insn.op);
    isa_disassemble(words[i], 4 * (uint64_t)i, &all, NULL, text, sizeof(text));
    normalise(text, ours);
    if (oracle->differs(&insn, row, words[i], ours))
        return true;
    if (is_unknown(theirs) || !legal)
        return legal == !is_unknown(theirs);
    if (row->flags & ISA_CSR) {
        drop_csr_name(ours);
        drop_csr_name(theirs);
    }
    return strcmp(ours, theirs) == 0;
}

static void compare_all(const struct oracle *oracle)
{
    ask(oracle);
    unsigned differences = 0;
    for (unsigned i = 0; i < word_count; i++) {
        if (compare(oracle, i))
            continue;
        char text[ISA_TEXT_SIZE];
        isa_disassemble(words[i], 4 * (uint64_t)i, &all, NULL, text, sizeof(text));
        if (differences++ < DIFFERENCES_SHOWN)
            print_message("%08x: ours '%s', theirs '%s'\n", words[i], text, answers[i]);
    }
    free(answers);
    if (differences)
        fail_msg("%u of %u words differ from %s", differences, word_count, oracle->program);
}

static int setup(void **state)
{
    word_count = 0;
    random_state = 2024;
    return isa_extensions_parse("max", &all, NULL) ? 0 : -1;
}

static void llvm_agrees_on_16_bits(void **state)
{
    all_16_bits();
    compare_all(&llvm);
}

static void llvm_agrees_on_instructions(void **state)
{
    instructions_with_random_operands();
    compare_all(&llvm);
}

static void llvm_agrees_on_words_near_instructions(void **state)
{
    words_near_instructions();
    compare_all(&llvm);
}

static void gnu_agrees_on_16_bits(void **state)
{
    all_16_bits();
    compare_all(&gnu);
}

static void gnu_agrees_on_instructions(void **state)
{
    instructions_with_random_operands();
    compare_all(&gnu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(llvm_agrees_on_16_bits, setup),
        cmocka_unit_test_setup(llvm_agrees_on_instructions, setup),
        cmocka_unit_test_setup(llvm_agrees_on_words_near_instructions, setup),
        cmocka_unit_test_setup(gnu_agrees_on_16_bits, setup),
        cmocka_unit_test_setup(gnu_agrees_on_instructions, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
