"""Sessions of the real gdb."""

import time

from targets import DebugTest, ON_QEMU, gdb, line, symbols

HEX = r"0x[0-9a-f]+"


class Basics(DebugTest):
    def session(self, *steps, name="basic", **options):
        harts = options.pop("harts", 1)
        wait = options.pop("wait", True)
        machine = options.pop("options", ())
        target = self.target(name, harts=harts, wait=wait, options=machine)
        gdb(self, target, steps, **options)
        return target

    def test_first_instruction(self):
        self.session(
            ("info registers pc", r"pc\s+0x(1000|80000000)\s"),
            ("info program", None),
            ("break *0x80000000", r"Breakpoint 1 at 0x80000000"),
            ("continue", r"Breakpoint 1, .*_start"),
            ("x/3i $pc", rf"=> 0x80000000 <_start>:\s+csrr\s+a0,mhartid\n.*<_start\+4>"),
            ("stepi", rf"{HEX}.*in _start|_start \(\)|\d+\s+la sp"),
            ("info registers pc", r"pc\s+0x80000004"),
            ("stepi 3", None),
            ("p $pc > 0x80000004", r"= 1"))

    def test_breakpoints(self):
        after = line("basic.c", "after outer")
        target = self.session(
            ("break inner", rf"Breakpoint 1 at {HEX}: file .*basic.c, "
                            rf"line {line('basic.c', 'inner')}"),
            (f"tbreak basic.c:{after}", r"Temporary breakpoint 2"),
            ("hbreak factorial", r"Hardware assisted breakpoint 3"),
            ("continue", r"Breakpoint 1, inner \(value=12\)"),
            ("bt", r"#0\s+inner \(value=12\).*#1\s+\S+ in middle \(value=11\).*"
                   r"#2\s+\S+ in outer \(value=1\).*#3\s+\S+ in main \(\)"),
            ("info locals", r"doubled = "),
            ("up", r"#1 .*middle"),
            ("info locals", r"result = "),
            ("continue", rf"Temporary breakpoint 2, main \(\).*{after}"),
            ("continue", r"Breakpoint 3, factorial \(n=5\)"),
            ("condition 3 n == 2", None),
            ("continue", r"Breakpoint 3, factorial \(n=2\)"),
            ("bt 4", r"n=2.*n=3.*n=4.*n=5"),
            ("info breakpoints", r"breakpoint already hit 1 time.*hw breakpoint.*hit 2 times"),
            ("delete", None),
            ("continue", r"exited normally|Remote connection closed|\[Inferior"))
        self.assertEqual(target.wait(10), 0)

    # gdb takes a file without an OS for one of Linux, for which it steps by breakpoints of its
    # own, unless the server knows better.

    def test_stepping(self):
        self.stepping("set osabi GNU/Linux")

    def test_stepping_by_the_machine(self):
        self.stepping("set osabi none")

    def stepping(self, setting):
        self.session(
            ("break outer", None), ("continue", r"Breakpoint 1, outer"),
            ("step", rf"middle \(value=11\).*{line('basic.c', 'middle')}"),
            ("next", rf"^{line('basic.c', 'after inner')}\s"),
            ("p result", r"= 25"),
            ("finish", r"in outer.*Value returned is \$\d+ = 75"),
            ("next", rf"^{line('basic.c', 'after middle')}\s"),
            ("p result", r"= 75"),
            ("break count", None), ("continue", r"count \(limit=10\)"),
            ("next", rf"^{line('basic.c', 'count')}\s"),
            ("next", None), ("next", None), ("next", None),
            ("p counter", r"= [12]$"),
            ("until", r"count \(|^\d+\s"),
            ("p counter", r"= 10$"),
            ("advance store", rf"store \(value=7\)"),
            ("stepi", None), ("nexti", None),
            ("x/i $pc", r"=> "),
            ("display/i $pc", None),
            ("stepi", r"1: x/i \$pc\n=> "),
            ("info display", r"1:.*\$pc"), settings=[setting])

    def test_watchpoints(self):
        self.session(
            ("break store", None), ("continue", r"store \(value=7\)"),
            ("watch watched", r"Hardware watchpoint 2: watched"),
            ("watch byte_value", r"Hardware watchpoint 3"),
            ("watch half_value", r"Hardware watchpoint 4"),
            ("watch word_value", r"Hardware watchpoint 5"),
            ("watch doubleword_value", r"Hardware watchpoint 6"),
            ("continue", r"watchpoint 3: byte_value.*Old value = 17 .*New value = 7 "),
            ("continue", r"watchpoint 4: half_value.*Old value = 8738.*New value = 14"),
            ("continue", r"watchpoint 5: word_value.*Old value = 858993459.*New value = 21"),
            ("continue", r"watchpoint 6: doubleword_value.*Old value = 4919131752989213764.*"
                         r"New value = 28"),
            # Between them the neighbours are written, which must not stop it.
            ("continue", r"watchpoint 2: watched.*Old value = 100.*New value = 111"),
            ("p neighbour", r"= 201"), ("p between", r"= 201"),
            ("delete", None),
            ("continue", r"exited normally|Remote connection closed|\[Inferior"))

    def test_read_and_access_watchpoints(self):
        self.session(
            ("break store", None), ("continue", r"store \(value=7\)"),
            ("rwatch watched", r"Hardware read watchpoint 2: watched"),
            ("continue", r"read watchpoint 2: watched.*Value = 100"),
            ("delete 2", None),
            ("awatch neighbour", r"Hardware access \(read/write\) watchpoint 3: neighbour"),
            ("continue", r"access \(read/write\) watchpoint 3: neighbour.*Value = 201"),
            ("continue", r"access \(read/write\) watchpoint 3: neighbour.*Old value = 201.*"
                         r"New value = 202"),
            ("delete 3", None),
            ("watch buffer[3]", r"Hardware watchpoint 4"),
            ("continue", r"watchpoint 4: buffer\[3\].*Old value = 0 .*New value = 101 'e'"),
            ("bt 1", r"#0\s.*copy \("))

    def test_conditional_watchpoint(self):
        self.session(
            ("break count", None), ("continue", None),
            ("watch counter if counter == 6", r"Hardware watchpoint 2: counter"),
            ("continue", r"Old value = 5.*New value = 6"))

    def test_conditions_and_commands(self):
        self.session(
            (f"break basic.c:{line('basic.c', 'count')} if i == 7", r"Breakpoint 1"),
            ("continue", r"Breakpoint 1, count \(limit=10\)"),
            ("p i", r"= 7"), ("p counter", r"= [67]"),
            ("set breakpoint condition-evaluation target", None),
            (f"break basic.c:{line('basic.c', 'sum')} if values[i] > 4.0", None),
            ("continue", r"mean \("),
            ("p values[i]", r"= 5$"),
            ("ignore 2 1", None),
            ("disable 2", None),
            ("continue", r"exited normally|Remote connection closed|\[Inferior"))

    def test_data(self):
        self.session(
            (f"break basic.c:{line('basic.c', 'after mean')}", None),
            ("continue", r"Breakpoint 1, main"),
            ("p point", r'\{x = \d+, y = -4, name = 0x[0-9a-f]+ "corner", weight = 0.5, '
                        r"colour = GREEN\}"),
            ("p average", r"= 3$"),
            ("p/x doubleword_value", r"= 0x1c"),
            ("set var point.y = 77", None), ("p point.y", r"= 77"),
            ("set var point.weight = 2.25", None), ("p point.weight * 2", r"= 4.5"),
            ("set var byte_value = 200", None), ("p/d byte_value", r"= -?(200|56)"),
            ("x/s buffer", r'"a needle in the haystack"'),
            ("x/4xb buffer", r"0x61\s+0x20\s+0x6e\s+0x65"),
            ("find buffer, +sizeof(buffer), 'n', 'e', 'e', 'd', 'l', 'e'",
             r"<buffer\+2>\n1 pattern found"),
            ("find &text[0], +sizeof(text), 'z', 'z'", r"Pattern not found"),
            ("p factorial(6)", r"= 720"),
            ("p mean(&average, 1)", r"= 3$"),
            ("dump binary memory /dev/null &buffer[0] &buffer[64]", None),
            ("compare-sections .text", r'Section .text, range .*: matched'),
            ("compare-sections .rodata", r'matched'))

    def test_registers(self):
        self.session(
            ("break inner", None), ("continue", None),
            ("info registers", r"ra\s+0x.*sp\s+0x.*t6\s+0x.*pc\s+0x800"),
            ("set $t3 = 0x1122334455667788", None), ("p/x $t3", r"= 0x1122334455667788"),
            ("p/x $x28", r"= 0x1122334455667788"),
            ("info registers float", r"ft0\s+.*fa0\s+"),
            ("set $ft3 = 1.25", None),
            ("p $ft3", r"1.25"),
            ("p/x $zero", r"= 0x0"),
            ("p $pc", r"\(void \(\*\)\(\)\) 0x800.*<inner"),
            ("set var $saved = $pc", None),
            ("set $pc = &outer", None), ("info registers pc", r"<outer>"),
            ("stepi", None), ("p (long)$pc - (long)&outer > 0", r"= 1"),
            ("set $pc = $saved", None),
            ("info all-registers sp", r"sp\s+0x"))

    def test_csrs(self):
        self.session(
            (f"break basic.c:{line('basic.c', 'csr')}", None), ("continue", None),
            ("p/x $misa", r"= .*"), ("p $mhartid", r"= 0"),
            ("p/x $mstatus", r"= "),
            ("p/x $mtvec", r"= 0x800"),
            ("set $mscratch = 0x5a5a", None), ("p/x $mscratch", r"= 0x5a5a"),
            ("next", None),
            ("p/x $mscratch", r"= 0x1234567890abcdef"),
            ("p/x $satp", r"= 0x0"),
            ("p/x $mcause", r"="),
            ("p $priv", r"= .*(3|[mM]achine)"))

    def test_csr_fields(self):
        self.ours_only("CSRs with fields")
        self.session(
            (f"break basic.c:{line('basic.c', 'csr')}", None), ("continue", None),
            ("p $mstatus_fields", r"= \[ .*FS=[123] .*\]"),
            ("info registers fcsr", r"fcsr\s+0x"),
            ("set $mstatus = $mstatus | (1 << 17)", None),
            ("p $mstatus_fields", r"= \[ .*MPRV.*\]"),
            ("p $satp_fields", r"= \[ .*MODE=0"),
            ("info registers satp", r"satp\s+0x0\s"),
            ("info registers mtvec", r"mtvec\s+0x80"),
            ("info registers csr", r"mstatus.*mhartid|mhartid.*mstatus"))

    def test_csr_writes(self):
        """Plain numbers, as scripts for every other server write them."""
        self.session(
            (f"break basic.c:{line('basic.c', 'csr')}", None), ("continue", None),
            ("set $mstatus = 0x3880", None), ("p/x $mstatus & 0x3880", r"= 0x3880"),
            ("set $satp = 0", None), ("p/x $satp", r"= 0x0"),
            ("p/x $satp = 0x8000100000080207", r"= 0x8000100000080207"),
            ("set $mtvec = 0x80000100", None), ("p/x $mtvec", r"= 0x80000100"),
            ("set $mie = 1 << 7", None), ("p/x $mie", r"= 0x80"),
            ("set $mstatus |= 1 << 3", None), ("p/x $mstatus & 8", r"= 0x8"))

    def test_traps_are_walked_through(self):
        self.session(
            (f"break basic.c:{line('basic.c', 'ecall')}", None), ("break trap", None),
            ("continue", r"Breakpoint 1, environment_call"),
            ("stepi", r"trap_entry"),
            ("p $mcause", r"= .*11"),
            ("continue", r"Breakpoint 2, trap \(cause=11"),
            ("finish", r"trap_entry.*Value returned is"),
            ("p traps", r"= 1"), ("p last_cause", r"= 11"),
            settings=["set osabi none"] if ON_QEMU else [])

    def test_optimised_code(self):
        self.session(
            ("break inner", r"Breakpoint 1"), ("continue", r"Breakpoint 1, inner \(value=.*12"),
            ("bt", r"#0\s+inner.*#1.*middle.*#2.*outer.*#3.*main"),
            ("finish", r"Value returned is \$\d+ = 25"),
            ("break mean", None), ("continue", r"mean \("),
            ("finish", r"Value returned is \$\d+ = 3\n"), name="basic-o1")

    def test_kill(self):
        target = self.session(("break main", None), ("continue", None),
                              ("kill", None))
        target.wait(10)


class Machine(DebugTest):
    """What is a machine's rather than a program's."""

    def test_detach_and_come_back(self):
        target = self.target("speed")
        address = symbols("speed")["progress"]
        gdb(self, target, [("break step_once", None), ("continue", r"Breakpoint 1, step_once"),
                           ("p progress", r"= \d+"), ("detach", r"[Dd]etach")])
        time.sleep(0.2)
        gdb(self, target, [("bt", r"(step_once|main).*"), ("p progress > 100000", r"= 1"),
                           ("detach", None)])
        # Without `detach` too: gdb detaches when it ends.
        gdb(self, target, [("p progress > 1000", r"= 1")])
        if ON_QEMU:
            return
        client = self.remote(target)
        before = client.read_number(address)
        client.ask("D")
        client.close()
        time.sleep(0.2)
        again = self.remote(target)
        self.assertGreater(again.read_number(address), before)

    def test_attach_to_a_running_machine(self):
        target = self.target("speed", wait=False)
        time.sleep(0.2)
        gdb(self, target, [("p progress > 0", r"= 1"), ("bt", r"#0"),
                           ("finish", None)])

    def test_interrupt(self):
        target = self.target("speed")
        gdb(self, target, [
            ("python import threading, time, os, signal", None),
            ("python threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()", None),
            ("continue", r"received signal SIGINT|Program stopped"),
            ("p progress > 0", r"= 1")])

    def test_physical_memory(self):
        target = self.target("kernel")
        gdb(self, target, [
            ("hbreak system_call", None), ("continue", r"system_call \("),
            ("x/2xw 0xffffffff80200000", r"0x[0-9a-f]{8}\s+0x[0-9a-f]{8}"),
            ("p/x *(unsigned *)0x80200000", r"Cannot access memory"),
            ("maintenance packet qqemu.PhyMemMode", r'received: "0"'),
            ("maintenance packet Qqemu.PhyMemMode:1", r'received: "OK"'),
            ("p *(unsigned *)0x80200000 != 0", r"= 1"),
            ("maintenance packet qqemu.PhyMemMode", r'received: "1"'),
            ("maintenance packet Qqemu.PhyMemMode:0", r'received: "OK"'),
            ("p/x *(unsigned *)0x80200000", r"Cannot access memory|\$\d+ =")])

    def test_monitor(self):
        self.ours_only("such monitor commands")
        target = self.target("harts", harts=2)
        gdb(self, target, [
            ("monitor help", r"reset.*|help.*"),
            ("monitor info harts", r"0.*1"),
            ("monitor info registers", r"pc"),
            ("monitor info mem", r"."),
            ("monitor no-such-command", r"no-such-command|unknown|Unknown"),
            ("monitor xp 0x80000000", r"80000000"),
            ("monitor translate 0x80000000", r"80000000")])

    def test_reset(self):
        target = self.target("basic")
        reset = "system_reset" if target.argv[0].endswith("riscv64") else "reset"
        gdb(self, target, [
            ("break store", None), ("continue", r"store \(value=7\)"),
            ("p counter", r"= 10"),
            (f"monitor {reset}", None),
            ("maintenance flush register-cache", None),
            ("info registers pc", r"pc\s+0x(1000|80000000)\s"),
            ("continue", r"store \(value=7\)"),
            ("p counter", r"= 10")])

    def test_run_again(self):
        self.ours_only("vRun")
        target = self.target("basic")
        gdb(self, target, [
            ("break store", None), ("continue", r"store \(value=7\)"),
            ("set var counter = 5000", None),
            ("run", r"store \(value=7\)|Breakpoint"),
            ("p counter", r"= 10"),
            ("kill", None)], connect="target extended-remote")

    def test_memory_map(self):
        self.ours_only("memory map")
        target = self.target("basic")
        gdb(self, target, [
            ("info mem", r"0x0*80000000\s+0x0*84000000.*rw"),
            ("x/xw 0x70000000", r"Cannot access memory"),
            ("x/xw 0x80000000", r"0x80000000.*:\s+0x")])

    def test_tcp(self):
        target = self.target("basic", tcp=True)
        gdb(self, target, [("break main", None), ("continue", r"Breakpoint 1, main")])


class Harts(DebugTest):
    def session(self, *steps, name="harts", **options):
        target = self.target(name, harts=4)
        gdb(self, target, steps, **options)

    def test_threads(self):
        self.session(
            ("info threads", r"\* 1 .*\n\s+2 .*\n\s+3 .*\n\s+4 "),
            ("break take_turn if hart == 2", None),
            ("continue", r"Thread 3 .*hit Breakpoint 1, take_turn \(hart=2\)"),
            ("info threads", r"\* 3 "),
            ("thread 1", r"Switching to thread 1"),
            ("p $mhartid", r"= 0"),
            ("thread 4", r"Switching to thread 4"),
            ("p $mhartid", r"= 3"), ("bt -1", r"_start|#\d"),
            ("thread apply all p $mhartid", r"= 3.*= 2.*= 1.*= 0"),
            ("thread apply all bt 1", r"Thread 4.*#0.*Thread 1.*#0"),
            ("thread 3", None),
            ("finish", r"spin \("))

    def test_scheduler_locking(self):
        self.session(
            ("break take_turn if hart == 1", None), ("continue", r"hart=1"),
            ("delete", None),
            ("set scheduler-locking on", None),
            ("p counters", r"="),
            ("set var $others = counters[0] + counters[2] + counters[3]", None),
            ("stepi 5", None), ("next", None),
            ("p $_thread", r"= 2"),
            ("p counters[0] + counters[2] + counters[3] == $others", r"= 1"),
            ("set scheduler-locking step", None), ("stepi", None), ("p $_thread", r"= 2"),
            ("set scheduler-locking off", None),
            ("break take_turn if hart == 3", None), ("continue", r"hart=3"))

    def test_watch_over_harts(self):
        self.session(
            ("break take_turn if hart == 0", None), ("continue", r"hart=0"), ("delete", None),
            ("watch counters[3]", r"Hardware watchpoint 2"),
            ("continue", r"Thread 4 .*watchpoint 2.*New value"),
            ("p $mhartid", r"= 3"),
            ("delete", None),
            ("watch counters[1]", None), ("continue", r"Thread 2 .*watchpoint 3"))

    def test_thread_breakpoint(self):
        self.session(
            ("break take_turn thread 2", None), ("continue", r"Thread 2 .*hart=1"),
            ("continue", r"Thread 2 .*hart=1"))

    def test_idle_harts(self):
        self.session(
            ("break call_others", None), ("continue", r"call_others"), ("delete", None),
            ("thread apply 2 3 4 bt", r"sleep.*sleep.*sleep"),
            ("break take_turn if hart == 2", None),
            ("set var ring = 2", None),
            ("continue", r"Thread 3 .*take_turn \(hart=2\)"),
            ("bt", r"take_turn.*sleep"), name="idle")

    def test_names(self):
        self.ours_only("thread names of that kind")
        self.session(("info threads", r"hart 0.*hart 1.*hart 2.*hart 3"))

    def test_non_stop(self):
        self.ours_only("non-stop mode")
        self.session(
            0.5,
            # gdb takes in one stop between two commands.
            ("info threads", None), ("p 1", None), ("p 2", None), 0.5,
            ("info threads", r"\* 1 .*\n\s+2 .*\n\s+3 .*\n\s+4 (?!.*running)"),
            ("break take_turn thread 2", r"Breakpoint 1"),
            ("continue -a &", None),
            1,
            ("info threads", r"1 .*\(running\)\n.*2 .*take_turn.*\n.*3 .*\(running\)\n"
                             r".*4 .*\(running\)"),
            ("thread 2", r"Switching to thread 2"),
            ("p $mhartid", r"= 1"),
            ("bt", r"take_turn.*spin"),
            ("delete", None),
            ("stepi", r"take_turn|acquire"),
            ("continue &", None),
            0.5,
            ("interrupt -a", None),
            1,
            ("info threads", r"1 .*\n.*2 .*\n.*3 .*\n.*4 (?!.*running)"),
            ("thread 1", None), ("p $mhartid", r"= 0"),
            ("thread 4", None), ("p $mhartid", r"= 3"),
            ("stepi", None),
            ("kill", None), typed=True,
            settings=["set non-stop on"])


class Kernel(DebugTest):
    def session(self, *steps, **options):
        target = self.target("kernel")
        gdb(self, target, steps, **options)
        return target

    def test_boot(self):
        self.session(
            ("hbreak kernel_main", r"Hardware assisted breakpoint 1 at 0xffffffff802"),
            ("continue", r"Breakpoint 1, kernel_main"),
            ("p $priv", r"= .*(1|[sS]upervisor)"),
            ("p/x $satp", r"= (0x80000000000\w+|.*MODE = .*)"),
            ("bt", r"#0\s+kernel_main \(\).*#1.*_start"),
            ("next", rf"{line('kernel.c', 'processes') + 1}"),
            ("p processes[0].frame.pc", r"= 65536"),
            ("p/x processes[0]", r"satp = 0x80001000000"))

    def test_system_calls(self):
        target = self.session(
            ("break system_call", None), ("continue", r"system_call \(process=0x.*<processes>"),
            ("p *process", r"number = 0, calls = "),
            ("bt", r"#0\s+system_call.*#1.*trap"),
            ("finish", r"Value returned is"),
            ("delete", None),
            (f"break kernel.c:{line('kernel.c', 'tick')}", None),
            ("continue", r"Breakpoint 2, trap"), ("p ticks > 0", r"= 1"),
            ("p/x $scause", r"= (0x8000000000000005|.*5)"),
            ("delete", None),
            ("set var limit = calls + 20", None),
            ("continue", r"exited normally|Remote connection closed|\[Inferior"))
        self.assertEqual(target.wait(10), 0)

    def test_user_process(self):
        self.session(
            ("hbreak user_work", r"at 0x10"),
            ("continue", r"user_work \(user=0x20000\)"),
            ("p $priv", r"= .*(0|[uU]ser)"),
            ("p *user", r"number = [01]"),
            ("bt", r"#0\s+user_work.*#1.*user_main"),
            # The other process comes by, too.
            ("delete", None),
            ("finish", r"Value returned is"),
            ("next", None),
            ("stepi", None), ("x/i $pc", r"=> 0x10"),
            ("watch ((struct user_data *)0x20000)->answer", r"ardware watchpoint"),
            ("continue", r"New value|user_work"))

    def test_step_into_the_kernel(self):
        self.session(
            ("break user_call", None), ("continue", r"user_call \(number="),
            ("delete", None),
            ("break trap", None),
            ("continue", r"trap \(frame="),
            ("p $priv", r"= .*(1|[sS]upervisor)"),
            ("next", None), ("next", None), ("p cause", r"= 8"))
