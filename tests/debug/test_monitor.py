"""Monitor commands: what they print and what they do."""

import re
import time

from targets import DebugTest, image, line, symbols
from test_remote import PC, RemoteTest, csr_number

USER_DATA = 0x20000
LSR, MSIP, MTIME, FINISHER = 0x10000005, 0x2000000, 0x200bff8, 0x100000


class MonitorTest(RemoteTest):
    def monitor(self, command, pattern=None):
        text = self.client.monitor(command)
        if pattern:
            self.assertRegex(text, pattern, f"monitor {command}")
        return text

    def go(self, number=5):
        stop = self.client.resume("vCont;c")
        self.assertEqual((stop.kind, stop.number), ("T", number), stop)
        return stop


class Kernel(MonitorTest):
    program = "kernel"

    def to_user(self):
        self.ok(f"Z1,{self.symbol('user_work'):x},2")
        self.go()
        self.ok(f"z1,{self.symbol('user_work'):x},2")

    def test_translate(self):
        self.to_user()
        text = self.monitor(f"translate {USER_DATA:#x}", r"Sv39.*level 2.*level 1.*level 0"
                            .replace(".*", r"[\s\S]*"))
        physical = int(re.search(r"physical (0x[0-9a-f]+)", text)[1], 16)
        before = self.client.read_number(USER_DATA)
        self.ok("Qqemu.PhyMemMode:1")
        self.assertEqual(self.client.read_number(physical), before)
        self.ok("Qqemu.PhyMemMode:0")
        self.monitor("translate 0x123456789", r"(?i)not|no |fault|invalid")
        self.monitor("info mappings", r"0*20000-0*20fff")
        self.monitor("info tlb", r"10000")

    def test_physical_memory(self):
        self.to_user()
        self.monitor("xp /4xb 0x80200000", r"80200000.*(0x)?[0-9a-f]{2}\b")
        self.monitor("xp /2i 0x80200000", None)
        self.monitor("physical on")
        self.assertEqual(len(self.client.read_memory(0x80200000, 8)), 8)
        self.monitor("physical off")
        self.error("m80200000,8")

    def test_privilege(self):
        self.to_user()
        self.monitor("privilege s")
        self.assertEqual(len(self.client.read_memory(self.symbol("_start"), 4)), 4)
        self.monitor("privilege m")
        self.assertEqual(len(self.client.read_memory(0x80200000, 4)), 4)
        self.monitor("privilege u")
        self.error(f"m{self.symbol('_start'):x},4")
        # What a debugger sees unless told otherwise is the kernel's view, in a process too.
        self.monitor("privilege auto")
        self.assertEqual(len(self.client.read_memory(self.symbol("_start"), 4)), 4)

    def processes(self, count=6):
        """Which processes come by the breakpoint."""
        seen = set()
        for _ in range(count):
            self.go()
            self.assertEqual(self.register(PC), self.symbol("user_work"))
            seen.add(self.client.read_number(USER_DATA))
        return seen

    def test_breakpoints_of_an_address_space(self):
        address = self.symbol("user_work")
        self.ok(f"Z1,{address:x},2")
        self.assertEqual(self.processes(), {0, 1})
        self.monitor(f"bind {address:#x} asid 2")
        self.assertEqual(self.processes(), {1})
        self.monitor(f"bind {address:#x} any")
        while self.processes(1) != {0}:
            pass
        self.monitor(f"bind {address:#x} here")
        self.assertEqual(self.processes(), {0})
        self.monitor("info breakpoints", rf"{address:x}")

    def test_catch_exceptions(self):
        self.to_user()
        self.monitor("catch exception 8")
        self.go()
        self.monitor("info stop", r"(?i)exception|ecall|environment call")
        self.assertIn(self.register(PC), (self.symbol("trap_entry"),
                                          *range(self.symbol("user_call"),
                                                 self.symbol("user_work"), 2)))
        self.monitor("catch", r"exception")
        self.monitor("uncatch exception 8")
        self.ok(f"Z1,{self.symbol('system_call'):x},2")
        self.go()
        self.assertEqual(self.register(PC), self.symbol("system_call"))

    def test_catch_interrupts(self):
        self.to_user()
        self.monitor("catch interrupt 5")
        self.go()
        self.monitor("info stop", r"(?i)interrupt")
        self.monitor("uncatch interrupt")

    def test_catch_sbi_calls(self):
        self.monitor("catch sbi")
        self.go()
        self.monitor("info stop", r"(?i)sbi")
        self.assertEqual(self.register(17), 0x54494d45)
        self.monitor("uncatch sbi")

    def test_bad_commands(self):
        self.to_user()
        for command in ("translate", "translate zz", "xp", "xp /99999999999xw 0x80000000",
                        "xp /4xw zz", "xp /4xw 0x80000000 0x1", "catch nothing",
                        "catch exception 99", "catch exception -1", "uncatch", "bind", "bind 0x1000",
                        "bind 0x1000 asid",
                        "bind zz any", "privilege", "privilege x", "physical",
                        "physical maybe", "mmio", "mmio read", "mmio read 3 0x10000000",
                        "mmio read 1", "mmio write 1 0x10000000",
                        "mmio read 4 0x80000000", "save", "save /dev/null", "save /nowhere/x 0 10",
                        "time", "time zz", "log", "log nothing", "info", "info nothing", "bt 99",
                        "bt zz", "list zz zz", "info registers 99", "info tlb 99",
                        "info harts " + "x" * 300, "\x01\x02", " ", "info  harts"):
            with self.subTest(command=command):
                self.assertTrue(self.monitor(command).strip())
        self.assertEqual(self.client.ask("qAttached"), "1")


class Devices(MonitorTest):
    program = "basic"

    def test_mmio(self):
        self.monitor(f"mmio read 1 {LSR:#x}", r"60")
        self.monitor("mmio read 4 0x2000000", r"0")
        self.monitor("mmio write 4 0x2000000 1")
        self.monitor("mmio read 4 0x2000000", r"1")

    def test_mmio_by_memory_packets(self):
        self.error(f"m{MSIP:x},4", f"M{MSIP:x},4:01000000")
        self.monitor("mmio memory on")
        self.ok(f"M{MSIP:x},4:01000000")
        self.assertEqual(self.client.read_memory(MSIP, 4), b"\1\0\0\0")
        self.assertEqual(len(self.client.read_memory(MTIME, 8)), 8)
        self.monitor("mmio memory off")
        self.error(f"m{MSIP:x},4")
        # It ends with its session.
        self.monitor("mmio memory on")
        self.client.close()
        self.client = self.connect()
        self.error(f"m{MSIP:x},4")

    def test_mmio_ends_the_machine(self):
        self.client.send("qRcmd," + f"mmio write 4 {FINISHER:#x} 0x153333".encode().hex())
        self.assertEqual(self.machine.wait(10), 0x15)

    def time(self):
        text = self.monitor(f"mmio read 8 {MTIME:#x}")
        return int(re.findall(r"(?:0x)?([0-9a-f]+)", text)[-1], 16)

    def test_time(self):
        self.run_to("inner")
        before = self.time()
        time.sleep(0.1)
        self.assertEqual(self.time(), before)
        self.monitor("time run")
        time.sleep(0.1)
        self.assertGreater(self.time(), before)
        self.monitor("time freeze")
        before = self.time()
        time.sleep(0.1)
        self.assertEqual(self.time(), before)

    def test_save(self):
        self.run_to("mean")
        path = f"{self.machine.folder.name}/memory"
        address = self.symbol("buffer")
        self.monitor(f"save {path} {address:#x} 0x20")
        with open(path, "rb") as file:
            self.assertEqual(file.read(), self.client.read_memory(address, 0x20))
        # It overwrites nothing.
        self.assertTrue(self.monitor(f"save {path} {address:#x} 0x20").strip())

    def test_reset(self):
        self.run_to("store")
        self.monitor("reset")
        self.assertEqual(self.register(PC), 0x1000)
        self.run_to("store")
        self.assertEqual(self.client.read_number(self.symbol("counter"), 4), 10)

    def test_quit(self):
        self.client.send("qRcmd," + b"quit".hex())
        self.machine.wait(10)

    def test_information(self):
        self.monitor("info mem", r"80000000.*RAM")
        self.monitor("info devices", r"plic")
        self.monitor("info pci", r"00:00\.0")
        self.monitor("info registers", r"mstatus")
        self.monitor("info harts", r"hart 0 M-mode")
        self.run_to("inner")
        self.monitor("info stop", r"hart 0")

    def test_log(self):
        path = f"{self.machine.folder.name}/log"
        self.monitor(f"log trap:{path}")
        self.run_to("environment_call")
        self.ok(f"Z0,{self.symbol('trap'):x},2")
        self.go()
        self.monitor("log off")
        with open(path) as file:
            self.assertRegex(file.read(), r"trap|ecall|exception")


class Idle(MonitorTest):
    program = "idle"
    harts = 4

    def test_catch_wfi(self):
        self.monitor("catch wfi")
        stop = self.go()
        self.assertNotEqual(stop.thread, "1")
        self.monitor("info stop", r"(?i)wfi")
        self.monitor("uncatch wfi")

    def test_registers_of_another_hart(self):
        self.ok(f"Z0,{self.symbol('call_others'):x},2")
        self.go()
        for hart in range(4):
            self.monitor(f"info registers {hart}", rf"mhartid 0*{hart}\s")


class Symbols(DebugTest):
    def setUp(self):
        self.ours_only("symbols")

    def test_names_and_lines(self):
        machine = self.target("basic", options=["--symbols", image("basic")])
        client = self.remote(machine)
        client.no_ack()
        client.ask(f"Z0,{symbols('basic')['inner']:x},2")
        client.resume("c")
        text = client.monitor("bt")
        self.assertRegex(text, r"#0.*inner[\s\S]*#1.*middle[\s\S]*#2.*outer[\s\S]*#3.*main")
        text = client.monitor("list inner")
        self.assertRegex(text, rf"->\s*{line('basic.c', 'inner') - 1}\b")
        self.assertIn(f"basic.c:{line('basic.c', 'middle')}", text + client.monitor(
            f"list {symbols('basic')['middle'] + 12:#x}") + client.monitor("bt"))
