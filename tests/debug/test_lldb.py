"""Sessions of the real lldb."""

import time

from targets import DebugTest, ON_QEMU, image, line, lldb

STOPPED = r"Process 1 stopped\n.*"


class LldbTest(DebugTest):
    def session(self, *steps, name="basic", harts=1, wait=True, **options):
        target = self.target(name, harts=harts, wait=wait, tcp=True)
        lldb(self, target, steps, **options)
        return target


class Basics(LldbTest):
    def test_first_instruction(self):
        self.session(
            ("register read pc", r"pc = 0x0*(1000|80000000)\s"),
            ("breakpoint set --address 0x80000000", r"Breakpoint 1: .*0x0*80000000"),
            ("continue", STOPPED + r"stop reason = breakpoint 1.1.*_start"),
            ("disassemble --pc --count 3", r"->  0x80000000 <\+0>:\s+csrr\s+a0, mhartid"),
            ("thread step-inst", r"stop reason = (instruction step into|step)"),
            ("register read pc", r"pc = 0x0*80000004 "),
            ("stepi", r"instruction step into"),
            ("register read pc", r"pc = 0x0*80000008 "))

    def test_breakpoints(self):
        after = line("basic.c", "after outer")
        target = self.session(
            ("b inner", r"Breakpoint 1: where = basic.elf`inner.* at basic.c"),
            ("continue", STOPPED + r"breakpoint 1.1.*inner\(value=12\) at basic.c"),
            ("bt", r"frame #0: .*inner\(value=12\).*frame #1: .*middle\(value=11\).*"
                   r"frame #2: .*outer\(value=1\).*frame #3: .*main.*frame #4: .*_start"),
            ("frame variable", r"\(int\) value = 12\n\(int\) doubled = "),
            ("up", r"frame #1.*middle"), ("frame variable result", r"\(int\) result"),
            ("source list --name factorial", r"factorial\(unsigned n\)"),
            (f"breakpoint set --file basic.c --line {after}", r"Breakpoint 2: .*basic.c"),
            ("breakpoint set --name factorial --condition 'n == 2'", r"Breakpoint 3"),
            ("continue", STOPPED + rf"breakpoint 2.1.*basic.c:{after}"),
            ("continue", STOPPED + r"breakpoint 3.1.*factorial\(n=2\)"),
            ("bt", r"n=2.*n=3.*n=4.*n=5"),
            ("breakpoint list", r"1: name = 'inner'.*hit count = 1.*3: name = 'factorial'"),
            ("breakpoint disable 3", r"1 breakpoints disabled"),
            ("breakpoint delete 1", r"1 breakpoints deleted"),
            ("continue", r"exited with status = 0|Process 1 exited"))
        self.assertEqual(target.wait(10), 0)

    def test_hardware_breakpoint(self):
        self.session(
            ("breakpoint set --hardware --name factorial", r"Breakpoint 1"),
            ("continue", STOPPED + r"breakpoint 1.1.*factorial\(n=5\)"),
            ("breakpoint set --one-shot true --name mean", r"Breakpoint 2"),
            ("breakpoint disable 1", None),
            ("continue", STOPPED + r"mean\("))

    def test_stepping(self):
        self.session(
            ("b outer", None), ("continue", r"breakpoint 1.1"),
            ("thread step-in", rf"stop reason = step in.*middle\(value=11\) at basic.c:"
                               rf"{line('basic.c', 'middle')}"),
            ("thread step-over",
             rf"stop reason = step over.*basic.c:{line('basic.c', 'after inner')}"),
            ("frame variable result", r"result = 25"),
            ("thread step-out", r"stop reason = step out.*outer\("),
            ("next", rf"basic.c:{line('basic.c', 'after middle')}"),
            ("frame variable result", r"result = 75"),
            ("b count", None), ("continue", r"count\(limit=10\)"),
            ("next", rf"basic.c:{line('basic.c', 'count')}"),
            ("thread step-inst", r"instruction step into"),
            ("thread step-inst-over", r"instruction step over"),
            ("thread step-inst --count 4", r"instruction step into"),
            ("breakpoint delete --force", None),
            (f"thread until {line('basic.c', 'count') + 1}", STOPPED + "step until"),
            ("p counter", r"\(unsigned int\) (\$\d+ = )?10|10"))

    def test_optimised_code(self):
        self.session(
            ("b inner", None), ("continue", r"inner\(value=12\)"),
            ("bt", r"#0: .*inner.*#1: .*middle.*#2: .*outer.*#3: .*main"),
            ("finish", r"step out.*middle"),
            ("b mean", None), ("continue", r"mean\("),
            name="basic-o1")

    def test_data(self):
        self.session(
            (f"breakpoint set --file basic.c --line {line('basic.c', 'after mean')}", None),
            ("continue", STOPPED + "breakpoint 1.1"),
            ("target variable point", r'x = \d+.*y = -4.*name = .*"corner".*'
                                      r"weight = 0.5.*colour = GREEN"),
            ("expression average", r"= 3"),
            ("expression point.y = 77", r"= 77"), ("expression point.y * 2", r"= 154"),
            ("expression -f hex -- doubleword_value", r"= 0x0*1c"),
            ("memory read --size 1 --format x --count 4 &buffer", r"0x61 0x20 0x6e 0x65"),
            ("memory read --force 0x80000000 0x80000010", r"0x80000000: ([0-9a-f]{2} ){16}"),
            ("memory write &buffer 0x41 0x42 0x43", r""),
            ("expression (char *)buffer", r'"ABCeedle'),
            ("memory find -s needle -- `&text` `&text + 1`", r"found at location"),
            ("memory write --size 8 &watched 0x1122334455667788", r""),
            ("expression -f hex -- watched", r"0x1122334455667788"),
            ("image list", r"basic.elf"),
            ("image lookup --address 0x80000000", r"basic.elf.*_start"),
            ("source list --name main", r"int main\(void\)"),
            ("target modules dump sections", r"\.text"))

    def test_registers(self):
        self.session(
            ("b inner", None), ("continue", r"inner\(value=12\)"),
            ("register read", r"ra = 0x.*sp = 0x.*pc = 0x0*800"),
            ("register read --all", r"pc = .*f(t)?0 = .*mstatus = "),
            ("register write t3 0x1122334455667788", r""),
            ("register read t3", r"t3 = 0x1122334455667788"),
            ("register read x28", None if ON_QEMU else r"0x1122334455667788"),
            ("register read pc sp fp ra", r"pc = 0x.*\n.*sp = 0x.*\n.*(fp|s0) = 0x.*\n.*ra = 0x"),
            ("register read arg1", r"(a0|arg1|x10) = 0x"),
            ("register write mscratch 0x5a5a", r""),
            ("register read mscratch", r"mscratch = 0x0*5a5a"),
            ("register read mtvec misa mhartid",
             r"mtvec = 0x0*800.*\n.*misa = .*\n.*mhartid = 0x0+"),
            ("register read priv", r"priv = (0x)?0*3"),
            ("register read fcsr", None if ON_QEMU else r"fcsr = 0x0"),
            ("expression $pc", r"= "))

    def test_watchpoints(self):
        self.session(
            ("b store", None), ("continue", r"store\(value=7\)"),
            ("watchpoint set variable watched", r"Watchpoint created: Watchpoint 1: addr = 0x"),
            ("watchpoint set variable byte_value", r"Watchpoint 2"),
            ("continue", STOPPED + r"stop reason = watchpoint 2"),
            ("expression (int)byte_value", r"= 7"),
            ("watchpoint delete 2", None),
            ("continue", STOPPED + r"stop reason = watchpoint 1"),
            ("expression watched", r"= 111"), ("expression neighbour", r"= 201"),
            ("watchpoint list", r"Number of supported hardware watchpoints|Current watchpoints"),
            ("watchpoint delete --force", None),
            ("watchpoint set expression --size 1 -- &buffer[3]", r"Watchpoint 3: addr = 0x"),
            ("continue", STOPPED + r"stop reason = watchpoint 3"),
            ("bt", r"frame #0: .*copy"),
            ("watchpoint delete --force", None),
            ("continue", r"exited"))

    def test_read_watchpoint(self):
        self.session(
            ("b store", None), ("continue", r"store\(value=7\)"),
            ("watchpoint set variable --watch read watched", r"Watchpoint 1"),
            ("continue", STOPPED + r"stop reason = watchpoint 1"),
            ("expression watched", r"= 100"),
            ("watchpoint modify -c 'watched == 111'", None),
            ("watchpoint delete --force", None),
            ("watchpoint set variable --watch read_write neighbour", None),
            ("continue", STOPPED + r"stop reason = watchpoint 2"))

    def test_memory_regions(self):
        self.ours_only("qMemoryRegionInfo")
        self.session(
            ("memory region 0x80000000", r"\[0x0*80000000-0x[0-9a-f]+\) rwx"),
            ("memory region 0x70000000", r"---"),
            ("memory read --force 0x70000000", r"error: |failed"))

    def test_server_says_what_it_is(self):
        self.ours_only("LLDB packets")
        self.session(
            ("target list", r"arch=riscv64-"),
            ("process status", STOPPED),
            ("process plugin packet send qHostInfo", r"response: .*triple:"),
            ("process plugin packet send qEcho:5", r"response: qEcho:5"),
            ("thread list", r"thread #1"))

    def test_without_a_file(self):
        self.ours_only("a triple for lldb")
        self.session(
            ("target list", r"arch=riscv64-"),
            ("breakpoint set --address 0x80000000", r"Breakpoint 1"),
            ("continue", STOPPED + "breakpoint 1.1"),
            ("register read pc", r"pc = 0x0*80000000"),
            ("disassemble --start-address 0x80000000 --count 2", r"csrr\s+a0, mhartid"),
            (f"target modules add {image('basic')}", None),
            ("target modules load --file basic.elf --slide 0", r"section|loaded|^$"),
            ("b middle", r"Breakpoint 2"),
            ("continue", r"middle"), file=False)

    def test_ends(self):
        self.ours_only("exit status")
        target = self.session(("continue", r"Process 1 exited with status = 0"))
        self.assertEqual(target.wait(10), 0)

    def test_kill(self):
        target = self.session(("b main", None), ("continue", r"breakpoint 1.1"),
                              ("process kill", r"Process 1 (exited|killed)"))
        target.wait(10)


class Machine(LldbTest):
    def test_detach_and_come_back(self):
        self.ours_only("way to connect to a running machine that lldb takes")
        target = self.session(
            ("b step_once", None), ("continue", STOPPED + "breakpoint 1.1"),
            ("expression progress", r"= \d+"),
            ("process detach", r"Process 1 detached"), name="speed")
        time.sleep(0.2)
        lldb(self, target, [("expression progress > 100000", r"= (true|1)"),
                            ("bt", r"step_once|main"), ("process detach", r"detached")])

    def test_attach_to_a_running_machine(self):
        self.ours_only("way to connect to a running machine that lldb takes")
        target = self.target("speed", wait=False, tcp=True)
        time.sleep(0.2)
        lldb(self, target, [("expression progress > 0", r"= (true|1)"), ("bt", r"frame #0"),
                            ("thread step-inst", r"instruction step into")])

    def test_interrupt(self):
        target = self.target("speed", tcp=True)
        lldb(self, target, [
            ("script lldb.debugger.SetAsync(True)", None),
            ("process continue", None),
            ("script import time; time.sleep(0.5)", None),
            ("process interrupt", None),
            ("script time.sleep(0.5)", None),
            ("script print(lldb.debugger.GetSelectedTarget().process.state == lldb.eStateStopped)",
             r"True"),
            ("script lldb.debugger.SetAsync(False)", None),
            ("expression progress > 0", r"= (true|1)")])

    def test_machine_ends_unexpectedly(self):
        target = self.target("speed", tcp=True)
        lldb(self, target, [
            ("script import os, threading, signal", None),
            (f"script end = [{target.process.pid}, signal.SIGTERM]", None),
            ("script threading.Timer(0.5, os.kill, end).start()", None),
            ("continue", r"Process 1 exited"),
            ("register read pc", r"error")])


class Harts(LldbTest):
    def test_threads(self):
        self.session(
            ("thread list", r"thread #1.*thread #2.*thread #3.*thread #4"),
            ("process plugin packet monitor info harts", r"hart 3 M-mode stopped, pc 0x1000"),
            ("breakpoint set --name take_turn --condition 'hart == 2'", r"Breakpoint 1"),
            ("continue", STOPPED + r"thread #3.*breakpoint 1.1.*take_turn\(hart=2\)"),
            ("thread list", r"\* thread #3"),
            ("thread select 1", None), ("register read mhartid", r"= 0x0+\b"),
            ("thread select 4", None), ("register read mhartid", r"= 0x0*3"),
            ("thread backtrace all", r"thread #1.*frame #0.*thread #4.*frame #0"),
            ("thread select 3", None), ("breakpoint delete --force", None),
            ("thread step-inst", r"thread #3.*instruction step into.*take_turn"),
            name="harts", harts=4)

    def test_watch_over_harts(self):
        self.session(
            ("b spin", None), ("continue", r"breakpoint 1.1"), ("breakpoint delete --force", None),
            ("watchpoint set expression --size 8 -- &counters[3]", r"Watchpoint 1"),
            ("continue", STOPPED + r"thread #4.*stop reason = watchpoint 1"),
            ("register read mhartid", r"= 0x0*3"), name="harts", harts=4)

    def test_thread_breakpoint(self):
        self.session(
            ("breakpoint set --name take_turn --thread-index 2", None),
            ("continue", STOPPED + r"thread #2.*take_turn\(hart=1\)"),
            ("continue", STOPPED + r"thread #2.*take_turn\(hart=1\)"),
            name="harts", harts=4)

    def test_idle_harts(self):
        self.session(
            ("breakpoint set --name call_others", None),
            ("continue", r"breakpoint 1.1"),
            ("thread backtrace 2 3 4", r"sleep.*sleep.*sleep"), name="idle", harts=4)

    def test_names(self):
        self.ours_only("thread names of that kind")
        self.session(("thread list", r"hart 0.*hart 1.*hart 2.*hart 3"), name="harts", harts=4)


class Kernel(LldbTest):
    def test_kernel(self):
        self.session(
            ("breakpoint set --hardware --name kernel_main", None),
            ("continue", STOPPED + r"breakpoint 1.1.*kernel_main"),
            ("register read priv", r"priv = (0x)?0*1"),
            ("bt", r"kernel_main.*_start"),
            ("breakpoint set --name system_call", None),
            ("continue", STOPPED + r"system_call\("),
            ("bt", r"frame #0: .*system_call.*frame #1: .*trap"),
            ("finish", r"step out.*Return value"),
            ("breakpoint delete --force", None),
            ("breakpoint set --name user_work", r"Breakpoint 3"),
            ("continue", STOPPED + r"user_work\(user=0x0*20000\)"),
            ("register read priv", r"priv = (0x)?0*0\s"),
            ("frame variable *user", r"number = [01]"),
            name="kernel")
