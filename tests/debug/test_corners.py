"""Where an engine may go wrong: every kind of access to what is watched, and odd breakpoints."""

import struct
import time

from targets import symbols
from test_remote import PC, RAM, RemoteTest, csr_number

CODE = RAM + 0x100000
C_ADDI_A0_1, C_JUMP_HERE, ADDI_A0_1, WFI, ILLEGAL = "0505", "01a0", "13051500", "73005010", "0000"


class Watched(RemoteTest):
    program = "access"

    def accesses(self, group):
        """(address, kind, first byte, size) of the accesses, in the order of the program."""
        found = []
        for name, address in symbols("access").items():
            words = name.split("_")
            if words[0] == group:
                found.append((address, words[1], int(words[2].replace("m", "-")), int(words[3])))
        return sorted(found)

    def check(self, group, base, first, size, kind, letters):
        """Runs both rounds with the watchpoint: it fires exactly where an access overlaps."""
        expected = [address for address, what, offset, length in self.accesses(group)
                    if set(what) & set(letters)
                    and offset < first + size and first < offset + length]
        self.run_to("main")
        point = f"{kind},{self.symbol(base) + first:x},{size:x}"
        self.ok("Z" + point)
        self.ok(f"Z0,{self.symbol('patch'):x},2")
        seen = []
        while True:
            stop = self.client.resume("vCont;c")
            pc = self.register(PC)
            if pc == self.symbol("patch"):
                break
            self.assertTrue({"watch", "rwatch", "awatch"} & set(stop.fields), stop)
            value = int(next(stop.fields[key] for key in ("watch", "rwatch", "awatch")
                             if key in stop.fields), 16)
            self.assertTrue(self.symbol(base) + first <= value < self.symbol(base) + first + size,
                            stop)
            seen.append(pc)
            self.assertLess(len(seen), 200, "the same access again and again")
            # As debuggers do for a server that stops before the access.
            self.ok("z" + point)
            self.client.resume("vCont;s")
            self.ok("Z" + point)
        names = {address: name for name, address in symbols("access").items()
                 if name.startswith(group)}
        self.assertEqual([names.get(pc, hex(pc)) for pc in seen],
                         [names[address] for address in expected] * 2)

    def test_writes(self):
        self.check("access", "block", 72, 8, 2, "w")

    def test_reads(self):
        self.check("access", "block", 72, 8, 3, "r")

    def test_accesses(self):
        self.check("access", "block", 72, 8, 4, "rw")

    def test_one_byte(self):
        self.check("access", "block", 79, 1, 4, "rw")

    def test_two_bytes_across_words(self):
        self.check("access", "block", 75, 2, 4, "rw")

    def test_across_pages(self):
        self.check("cross", "edge", 0, 8, 4, "rw")

    def test_whole_page(self):
        self.check("cross", "edge", 0, 4096, 2, "w")


class Odd(RemoteTest):
    program = "basic"

    def place(self, code, address=CODE):
        """Code for the hart to go on with."""
        self.ok(f"M{address:x},{len(code) // 2:x}:{code}")
        self.ok(f"P20={struct.pack('<Q', address).hex()}")
        self.ok(f"Pa={'00' * 8}")

    def go(self, packet="vCont;c"):
        self.assertEqual(self.client.resume(packet).number, 5)
        return self.register(PC), self.register(10)

    def test_one_behind_the_other(self):
        self.run_to("inner")
        self.place(C_ADDI_A0_1 * 8 + C_JUMP_HERE)
        for index in range(9):
            self.ok(f"Z0,{CODE + 2 * index:x},2")
        # The first too, for the hart did not come there by itself.
        for index in range(9):
            self.assertEqual(self.go(), (CODE + 2 * index, index))

    def test_loop_of_one_instruction(self):
        self.run_to("inner")
        self.place(C_JUMP_HERE)
        self.ok(f"Z0,{CODE:x},2")
        for _ in range(5):
            self.assertEqual(self.go(), (CODE, 0))
        self.ok(f"z0,{CODE:x},2")
        self.client.send("vCont;c")
        time.sleep(0.05)
        self.client.interrupt()
        self.assertEqual(self.client.stop().number, 2)
        # Set while it is hot.
        self.ok(f"Z0,{CODE:x},2")
        self.assertEqual(self.go(), (CODE, 0))

    def test_instruction_across_pages(self):
        self.run_to("inner")
        start = CODE + 0xffc
        self.place(C_ADDI_A0_1 + ADDI_A0_1 + ADDI_A0_1 + C_JUMP_HERE, start)
        self.ok(f"Z0,{start + 2:x},4")
        self.assertEqual(self.go(), (start + 2, 1))
        self.assertEqual(self.go("vCont;s"), (start + 6, 2))
        self.ok(f"Z0,{start + 10:x},2")
        self.assertEqual(self.go(), (start + 10, 3))

    def test_step_over_wfi(self):
        self.run_to("inner")
        self.place(WFI + C_ADDI_A0_1 + C_JUMP_HERE)
        self.assertEqual(self.go("vCont;s"), (CODE + 4, 0))
        self.assertEqual(self.go("vCont;s"), (CODE + 6, 1))

    def test_interrupt_in_wfi(self):
        self.run_to("inner")
        self.place(WFI + C_JUMP_HERE)
        self.client.send("vCont;c")
        time.sleep(0.1)
        self.client.interrupt()
        self.assertEqual(self.client.stop().number, 2)
        self.assertIn(self.register(PC), (CODE, CODE + 4))

    def test_step_into_a_trap(self):
        self.run_to("inner")
        self.place(ILLEGAL)
        self.assertEqual(self.go("vCont;s")[0], self.symbol("trap_entry"))
        self.assertEqual(self.register(csr_number(self, "mcause")), 2)
        self.assertEqual(self.register(csr_number(self, "mepc")), CODE)

    def test_breakpoint_on_what_traps(self):
        self.run_to("inner")
        self.place(C_ADDI_A0_1 + ILLEGAL)
        self.ok(f"Z0,{CODE + 2:x},2")
        self.assertEqual(self.go(), (CODE + 2, 1))
        self.assertEqual(self.go("vCont;s")[0], self.symbol("trap_entry"))

    def test_no_instruction_there(self):
        """A breakpoint in the middle of an instruction never fires, and breaks nothing."""
        self.run_to("inner")
        self.place(ADDI_A0_1 + ADDI_A0_1 + C_JUMP_HERE)
        self.ok(f"Z0,{CODE + 2:x},2")
        self.ok(f"Z0,{CODE + 8:x},2")
        self.assertEqual(self.go(), (CODE + 8, 2))

    def test_range_step_is_one_stop(self):
        self.run_to("inner")
        self.place(C_ADDI_A0_1 * 100 + C_JUMP_HERE)
        self.assertEqual(self.go(f"vCont;r{CODE:x},{CODE + 200:x}:1"), (CODE + 200, 100))


class Patched(RemoteTest):
    """A program that changes its own code, under breakpoints."""

    program = "access"

    def test_breakpoint_on_code_that_changes(self):
        self.run_to("patch")
        self.ok(f"Z0,{self.symbol('patched'):x},2")
        for result in (1, 2):
            self.assertEqual(self.client.resume("vCont;c").number, 5)
            self.assertEqual(self.register(PC), self.symbol("patched"))
            self.client.resume("vCont;s")
            self.assertEqual(self.register(10), result)
        self.assertEqual(self.client.resume("vCont;c").text[:3], "W00")

    def test_breakpoint_beside_code_that_changes(self):
        self.run_to("patch")
        self.ok(f"Z0,{self.symbol('patched') + 2:x},2")
        for result in (1, 2):
            self.assertEqual(self.client.resume("vCont;c").number, 5)
            self.assertEqual(self.register(10), result)
        self.assertEqual(self.client.resume("vCont;c").text[:3], "W00")
