"""The protocol itself: each packet with a right answer and with malformed input; bad clients."""

import json
import pathlib
import re
import socket
import struct
import tempfile
import time
import xml.etree.ElementTree as ElementTree

from qmp import Qmp
from remote import Closed, Remote, Silent, Stop, escape, expand, frame, unescape
from targets import DebugTest, ON_QEMU, Target, image, line, symbols

RAM = 0x80000000
RAM_SIZE = 64 << 20
NOWHERE = 0x70000000
PC = 32

RESERVED = b"#$}*"


class RemoteTest(DebugTest):
    program = "basic"
    harts = 1
    run_on_qemu = False

    def setUp(self):
        if not self.run_on_qemu:
            self.ours_only("packets of that kind")
        self.machine = self.target(self.program, harts=self.harts)
        self.client = self.connect()

    def connect(self, no_ack=True, features="swbreak+;hwbreak+;vContSupported+;error-message+"):
        client = self.remote(self.machine)
        self.supported = client.ask(f"qSupported:{features}")
        if ON_QEMU:
            # Before, QEMU has no registers by number.
            client.ask("qXfer:features:read:target.xml:0,ffb")
        elif no_ack:
            self.assertEqual(client.no_ack(), "OK")
        return client

    def run(self, result=None):
        """Adds what was sent to the text of a failure."""
        def told(test, error):
            kind, value, trace = error
            if issubclass(kind, AssertionError) and "->" not in str(value) and \
                    getattr(test, "client", None):
                value = kind(f"{value}\nprotocol:\n{test.client.transcript()}")
            return kind, value, trace

        def tell(add):
            return lambda test, error: add(test, told(test, error))

        if result is not None and not hasattr(result, "tells"):
            result.tells = True
            result.addFailure, result.addError = tell(result.addFailure), tell(result.addError)
        return super().run(result)

    def symbol(self, name):
        return symbols(self.program)[name]

    def ok(self, packet, client=None):
        self.assertEqual((client or self.client).ask(packet), "OK", packet)

    def error(self, *packets, client=None):
        for packet in packets:
            reply = (client or self.client).ask(packet)
            self.assertRegex(reply, r"^E([0-9a-fA-F]{2}|\.)", f"the reply to {packet!r}")

    def register(self, number, client=None):
        reply = (client or self.client).ask(f"p{number:x}")
        self.assertRegex(reply, r"^([0-9a-f]{2})+$", f"register {number:x}")
        return int.from_bytes(bytes.fromhex(reply), "little")

    def run_to(self, name, client=None):
        """Runs to the symbol, by a breakpoint that is gone afterwards."""
        client = client or self.client
        address = self.symbol(name) if isinstance(name, str) else name
        self.ok(f"Z0,{address:x},2", client)
        stop = client.resume("vCont;c")
        self.assertEqual(stop.kind, "T", stop)
        self.assertEqual(stop.number, 5, stop)
        self.ok(f"z0,{address:x},2", client)
        self.assertEqual(self.register(PC, client), address)
        return stop

    def still_answers(self):
        """A new client is served, whatever became of the last."""
        client = self.connect()
        self.assertRegex(client.ask("?"), r"^[ST]")
        return client


class Framing(RemoteTest):
    run_on_qemu = True

    def setUp(self):
        super().setUp()
        self.client.close()
        self.client = self.connect(no_ack=False)

    def test_acknowledgements(self):
        self.client.write(frame(b"?"))
        self.assertEqual(self.client.read_byte(), b"+")
        Stop(self.client.receive())

    def test_wrong_checksum(self):
        for _ in range(3):
            self.client.write(b"$?#00")
            self.assertEqual(self.client.read_byte(), b"-")
        self.assertRegex(self.client.ask("?"), r"^[ST]05")

    def test_checksum_that_is_none(self):
        self.ours_only("answer to that")
        self.client.write(b"$?#zz")
        self.assertEqual(self.client.read_byte(), b"-")
        self.assertRegex(self.client.ask("?"), r"^[ST]05")

    def test_reply_again(self):
        self.client.send("qAttached")
        self.client.acks = False
        first = self.client.receive()
        for _ in range(3):
            self.client.write(b"-")
            self.assertEqual(self.client.receive(), first)
        self.client.write(b"+")

    def test_bytes_one_by_one(self):
        for byte in frame(b"qAttached"):
            self.client.write(bytes([byte]))
            time.sleep(0.002)
        self.client.read_ack()
        self.assertEqual(self.client.receive(), b"1")

    def test_noise_between_packets(self):
        self.client.write(b"++noise\r\n+" + frame(b"qAttached"))
        self.client.read_ack()
        self.assertEqual(self.client.receive(), b"1")

    def test_unknown_packets(self):
        for packet in ("vMustReplyEmpty", "qNoSuchPacket", "QNoSuchPacket:1", "vNoSuch;1", "y",
                       "jNoSuch"):
            self.assertEqual(self.client.ask(packet), "", packet)

    def test_no_acknowledgements(self):
        self.ours_only("QStartNoAckMode")
        self.ok("QStartNoAckMode")
        self.client.acks = False
        for _ in range(20):
            self.assertEqual(self.client.ask("qAttached"), "1")
        # A stray acknowledgement is not a packet.
        self.client.write(b"+")
        self.assertEqual(self.client.ask("qAttached"), "1")

    def test_many_packets_at_once(self):
        self.ours_only("QStartNoAckMode")
        self.client.no_ack()
        count = 500
        self.client.write(frame(b"qAttached") * count)
        for _ in range(count):
            self.assertEqual(self.client.receive(), b"1")

    def test_run_length_encoding(self):
        self.ours_only("runs in replies")
        self.client.no_ack()
        address = self.symbol("buffer")
        self.client.write(frame(b"m%x,40" % address))
        until = time.monotonic() + 5
        while not re.search(rb"#..$", bytes(self.client.buffer)):
            self.client.fill(until)
        raw = bytes(self.client.buffer)
        self.client.buffer.clear()
        self.assertLess(len(raw), 40, "128 equal digits as runs")
        self.assertEqual(expand(raw[1:-3]), b"00" * 64)

    def test_too_large_a_packet(self):
        """It may be refused or the connection closed, and nothing else happens."""
        self.ours_only("defence against that")
        try:
            self.client.write(b"$" + b"a" * (8 << 20) + b"#00")
            self.client.read_byte(3)
        except (Closed, Silent):
            pass
        self.client.close()
        self.still_answers()

    def test_packet_without_end(self):
        self.ours_only("notion of that")
        self.client.write(b"$m80000000,")
        self.client.close()
        self.still_answers()

    def test_interrupt_byte_in_a_packet(self):
        """It is data there."""
        self.ours_only("X")
        address = self.symbol("buffer")
        self.ok(b"X%x,3:\x03a\x03" % address)
        self.assertEqual(self.client.read_memory(address, 3), b"\x03a\x03")

    def test_interrupt_of_what_stands(self):
        self.ours_only("certain answer to that")
        self.client.interrupt()
        self.assertEqual(self.client.ask("qAttached"), "1")

    def test_empty_packet(self):
        self.assertEqual(self.client.ask(""), "")


class Registers(RemoteTest):
    run_on_qemu = True

    def test_all(self):
        before = self.client.ask("g")
        self.assertRegex(before, r"^([0-9a-f]{2}|xx)+$")
        self.assertGreaterEqual(len(before), 33 * 16)
        self.ok("G" + before)
        self.assertEqual(self.client.ask("g"), before)

    def test_all_are_as_one_by_one(self):
        self.run_to("inner")
        data = self.client.ask("g")
        for number in range(33):
            self.assertEqual(data[number * 16:][:16], self.client.ask(f"p{number:x}"), number)

    def test_one(self):
        self.ok("P5=8877665544332211")
        self.assertEqual(self.client.ask("p5"), "8877665544332211")
        self.assertEqual(self.client.ask("p0"), "0" * 16)
        self.client.ask("P0=8877665544332211")
        self.assertEqual(self.client.ask("p0"), "0" * 16)
        self.assertIn(self.register(PC), (0x1000, RAM))

    def test_pc(self):
        self.run_to("inner")
        self.ok(f"P20={struct.pack('<Q', self.symbol('outer')).hex()}")
        self.assertEqual(self.register(PC), self.symbol("outer"))
        self.client.resume("vCont;s")
        self.assertIn(self.register(PC) - self.symbol("outer"), (2, 4))

    def test_floating_point(self):
        self.run_to("mean")
        self.ok("P21=000000000000f43f")
        self.assertEqual(self.client.ask("p21"), "000000000000f43f")

    def test_malformed(self):
        self.ours_only("errors of that kind")
        self.error("p", "pzz", "pffffffff", "p0,0", "P", "P5", "P5=", "P5=1", "P5=zz", "P5=00",
                   "P5=" + "00" * 9, "Pffff=" + "00" * 8, "G", "Gzz", "G00", "G" + "0" * 17)
        self.assertRegex(self.client.ask("g"), r"^([0-9a-f]{2}|xx)+$")


class Memory(RemoteTest):
    run_on_qemu = True

    def test_read(self):
        code = self.client.read_memory(RAM, 8)
        self.assertEqual(int.from_bytes(code[:4], "little"), 0xf1402573)
        self.assertEqual(self.client.read_memory(RAM + 1, 3), code[1:4])
        self.assertEqual(self.client.read_number(self.symbol("watched")), 100)

    def test_write(self):
        address = self.symbol("buffer")
        self.ok(f"M{address:x},4:01020304")
        self.assertEqual(self.client.read_memory(address, 6), bytes([1, 2, 3, 4, 0, 0]))
        self.ok(f"M{address + 1:x},1:ff")
        self.assertEqual(self.client.read_memory(address, 4), bytes([1, 0xff, 3, 4]))

    def test_nowhere(self):
        self.ours_only("errors for addresses without memory")
        self.error(f"m{NOWHERE:x},4", f"M{NOWHERE:x},4:01020304", "mffffffffffffffff,4")
        self.client.ask("mfffffffffffffffe,ffff")
        self.assertEqual(len(self.client.read_memory(RAM, 16)), 16)

    def test_across_the_end(self):
        self.ours_only("64 MiB")
        reply = self.client.ask(f"m{RAM + RAM_SIZE - 8:x},10")
        self.assertTrue(reply == "0" * 16 or reply.startswith("E"), reply)
        self.error(f"M{RAM + RAM_SIZE - 4:x},8:0102030405060708")

    def test_malformed(self):
        self.ours_only("errors of that kind")
        self.error("m", "m80000000", "m80000000,", "m,4", "mzz,4", "m80000000,zz", "m80000000,4,4",
                   "m80000000:4", "m123456789123456789,4", "M80000000,4", "M80000000,4:",
                   "M80000000,4:0102", "M80000000,2:010203", "M80000000,2:zzzz", "M80000000,1:1",
                   "X80000000,4:ab", "X80000000,4", "X80000000", "Xzz,1:a", "x80000000", "xzz,4")
        self.assertEqual(len(self.client.read_memory(RAM, 16)), 16)

    def test_huge_lengths(self):
        self.ours_only("answer to that")
        for length in ("7fffffff", "ffffffff", "7fffffffffffffff", "ffffffffffffffff"):
            reply = self.client.ask(f"m80000000,{length}")
            self.assertTrue(reply.startswith("E") or len(reply) % 2 == 0 and len(reply) <= 1 << 24,
                            reply[:40])
            self.error(f"M80000000,{length}:00")
            self.error(f"X80000000,{length}:a")
        self.assertEqual(len(self.client.read_memory(RAM, 16)), 16)

    def test_binary_write(self):
        self.ours_only("X")
        data = bytes(range(256)) * 2
        address = RAM + 0x100000
        self.ok(b"X%x,0:" % address)
        self.ok(b"X%x,%x:" % (address, len(data)) + escape(data))
        self.assertEqual(self.client.read_memory(address, len(data)), data)

    def test_binary_read(self):
        self.ours_only("x")
        probe = self.client.ask("x0,0")
        self.assertIn(probe, ("OK", "b"))
        data = bytes(range(256)) + b"}" * 40 + b"*" * 40 + bytes(500)
        address = RAM + 0x100000
        self.ok(b"X%x,%x:" % (address, len(data)) + escape(data))
        reply = self.client.request(f"x{address:x},{len(data):x}")
        read = unescape(reply)
        self.assertEqual(read[1:] if len(read) > len(data) else read, data)
        self.error(f"x{NOWHERE:x},4")

    def test_large_packets(self):
        self.ours_only("packets of 64 KiB")
        size = int(re.search(r"PacketSize=([0-9a-f]+)", self.supported)[1], 16)
        self.assertGreaterEqual(size, 0x10000)
        data = bytes(i * 7 + (i >> 8) & 0xff for i in range((size - 64) // 2))
        address = RAM + 0x100000
        self.ok(f"M{address:x},{len(data):x}:{data.hex()}")
        self.assertEqual(self.client.read_memory(address, len(data)), data)
        self.ok(b"X%x,%x:" % (address + 1, len(data) // 2) + escape(data[:len(data) // 2]))
        self.assertEqual(self.client.read_memory(address + 1, len(data) // 2),
                         data[:len(data) // 2])

    def test_code_that_is_written(self):
        """The engine executes what a debugger wrote, though it has run the old."""
        self.run_to("factorial")
        address = self.symbol("environment_call")
        # li a0, 42; ret
        self.ok(f"M{address:x},6:1305a0028280")
        self.run_to("environment_call")
        self.client.resume("vCont;s")
        self.assertEqual(self.register(10), 42)

    def test_devices_are_not_touched(self):
        self.ours_only("such care")
        self.error("m10000000,1", "m100000,4", "M100000,4:55550000")
        self.assertIsNone(self.machine.process.poll())

    def test_physical_mode(self):
        self.assertEqual(self.client.ask("qqemu.PhyMemMode"), "0")
        self.ok("Qqemu.PhyMemMode:1")
        self.assertEqual(self.client.ask("qqemu.PhyMemMode"), "1")
        self.assertEqual(len(self.client.read_memory(RAM, 4)), 4)
        self.ok("Qqemu.PhyMemMode:0")
        if not ON_QEMU:
            self.error(f"m{NOWHERE:x},4")
            self.error("Qqemu.PhyMemMode:", "Qqemu.PhyMemMode", "Qqemu.PhyMemMode:zz")

    def test_search(self):
        self.ours_only("qSearch:memory")
        text = self.symbol("text")
        found = self.client.ask(f"qSearch:memory:{text:x};20;needle")
        self.assertEqual(found, f"1,{text + 2:x}")
        self.assertEqual(self.client.ask(f"qSearch:memory:{text:x};20;noodle"), "0")
        # A match must lie wholly within.
        self.assertEqual(self.client.ask(f"qSearch:memory:{text:x};7;needle"), "0")
        self.assertEqual(self.client.ask(f"qSearch:memory:{text:x};8;needle"), f"1,{text + 2:x}")
        address = RAM + 0x100000
        self.ok(b"X%x,6:" % address + escape(b"ab#$}*"))
        reply = self.client.ask(b"qSearch:memory:%x;100;" % (address - 4) + escape(RESERVED))
        self.assertEqual(reply, f"1,{address + 2:x}")
        # Over pages, and all of RAM.
        self.ok(f"M{RAM + 0x200ffd:x},6:f1f2f3f4f5f6")
        reply = self.client.ask(b"qSearch:memory:%x;%x;\xf1\xf2\xf3\xf4\xf5\xf6" % (RAM, RAM_SIZE))
        self.assertEqual(reply, f"1,{RAM + 0x200ffd:x}")
        self.error("qSearch:memory:80000000", "qSearch:memory:80000000;10",
                   "qSearch:memory:zz;10;a", "qSearch:memory:80000000;10;",
                   f"qSearch:memory:{NOWHERE:x};10;a")

    def test_crc(self):
        self.ours_only("qCRC")
        data = self.client.read_memory(RAM, 300)
        self.assertEqual(self.client.ask(f"qCRC:{RAM:x},{300:x}"), f"C{crc(data):08x}")
        self.assertEqual(self.client.ask(f"qCRC:{RAM:x},1"), f"C{crc(data[:1]):08x}")
        self.error("qCRC", "qCRC:", "qCRC:80000000", "qCRC:zz,4", f"qCRC:{NOWHERE:x},4")


def crc(data):
    """GDB's: most significant bit first, beginning with ones."""
    value = 0xffffffff
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04c11db7 if value >> 31 else 0)) & 0xffffffff
    return value


class Queries(RemoteTest):
    harts = 2
    program = "harts"

    def test_supported(self):
        features = set(self.supported.split(";"))
        self.assertLessEqual({
            "swbreak+", "hwbreak+", "vContSupported+", "QStartNoAckMode+", "QNonStop+",
            "QThreadEvents+", "ConditionalBreakpoints+", "qXfer:features:read+",
            "qXfer:threads:read+", "qXfer:memory-map:read+"}, features)
        self.assertNotIn("ReverseStep+", features)

    def test_multiprocess(self):
        client = self.client
        self.assertNotIn(".", ",".join(client.threads()))
        client.close()
        self.client = self.connect(features="multiprocess+;swbreak+")
        self.assertIn("multiprocess+", self.supported)
        self.assertRegex(self.client.ask("qC"), r"^QCp1\.[0-9a-f]+$")
        self.assertEqual(self.client.threads(), ["p1.1", "p1.2"])
        self.assertRegex(self.client.ask("?"), r"thread:p1\.")
        self.ok("Hgp1.2")
        self.ok("Hgp1.-1")
        self.ok("Tp1.2")
        self.error("Tp1.9", "Tp7.1", "Hgp7.1")

    def test_threads(self):
        self.assertEqual(self.client.ask("qC"), "QC1")
        self.assertEqual(self.client.threads(), ["1", "2"])
        self.ok("T1")
        self.ok("T2")
        self.error("T3", "T", "Tzz", "T99", "Tffffffffffffffffff")
        for thread in ("1", "2"):
            text = bytes.fromhex(self.client.ask(f"qThreadExtraInfo,{thread}")).decode()
            self.assertRegex(text, rf"hart {int(thread) - 1}.*M-mode")
        self.error("qThreadExtraInfo", "qThreadExtraInfo,", "qThreadExtraInfo,9",
                   "qThreadExtraInfo,zz")

    def test_thread_choice(self):
        for packet in ("Hg1", "Hg2", "Hg0", "Hc-1", "Hc0", "Hc1", "Hg-1"):
            self.ok(packet)
        self.error("Hg", "Hgzz", "Hg9", "Hc9", "Hg1,1")
        self.run_to("take_turn")
        for thread, hart in (("1", 0), ("2", 1)):
            self.ok(f"Hg{thread}")
            self.assertEqual(self.register(csr_number(self, "mhartid")), hart)

    def test_attached(self):
        self.assertEqual(self.client.ask("qAttached"), "1")
        self.assertEqual(self.client.ask("qAttached:1"), "1")

    def test_symbol(self):
        self.ok("qSymbol::")

    def test_stop_reason(self):
        stop = Stop(self.client.request("?"))
        self.assertEqual((stop.kind, stop.number, stop.thread), ("T", 5, "1"))
        # Asking again changes nothing.
        self.assertEqual(Stop(self.client.request("?")).text, stop.text)

    def test_features(self):
        whole = self.client.transfer("features", "target.xml", 0x8000)
        self.assertEqual(self.client.transfer("features", "target.xml", 0x1f3), whole)
        root = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", whole))
        self.assertEqual(root.findtext("architecture"), "riscv:rv64")
        features = {feature.get("name"): feature for feature in root.iter("feature")}
        self.assertLessEqual({f"org.gnu.gdb.riscv.{name}" for name in
                              ("cpu", "fpu", "csr", "virtual")}, set(features))
        numbers, number = {}, 0
        for register in root.iter("reg"):
            number = int(register.get("regnum", number))
            self.assertNotIn(number, numbers, register.get("name"))
            numbers[number] = register
            number += 1
        self.assertEqual(len(features["org.gnu.gdb.riscv.cpu"].findall("reg")), 33)
        self.assertEqual(numbers[PC].get("name"), "pc")
        self.assertEqual(numbers[PC].get("generic"), "pc")
        self.assertLessEqual({register.get("bitsize") for register in numbers.values()},
                             {"32", "64"})
        names = {register.get("name") for register in numbers.values()}
        self.assertLessEqual({"mstatus", "satp", "mhartid", "priv", "fcsr", "mscratch", "stvec"},
                             names)
        # Every register that is described can be read.
        for number, register in numbers.items():
            reply = self.client.ask(f"p{number:x}")
            self.assertRegex(reply, rf"^([0-9a-fx]{{2}}){{{int(register.get('bitsize')) // 8}}}$",
                             register.get("name"))

    def test_transfers(self):
        size = len(self.client.transfer("features", "target.xml"))
        self.assertEqual(self.client.ask(f"qXfer:features:read:target.xml:{size:x},100"), "l")
        self.assertRegex(self.client.ask("qXfer:features:read:target.xml:0,1"), r"^m.$")
        self.assertRegex(self.client.ask(f"qXfer:features:read:target.xml:{size - 1:x},100"),
                         r"^l.$")
        self.error("qXfer:features:read:nothing.xml:0,100", "qXfer:features:read:target.xml",
                   "qXfer:features:read:target.xml:0", "qXfer:features:read:target.xml:zz,100",
                   "qXfer:features:read:target.xml:0,", "qXfer:threads:read::zz,0",
                   "qXfer:features:read::0,100")
        self.assertIn(self.client.ask("qXfer:nothing:read::0,100"), ("", "E00"))
        for object in ("features", "threads", "memory-map"):
            annex = "target.xml" if object == "features" else ""
            reply = self.client.ask(f"qXfer:{object}:read:{annex}:ffffffffffffff,ffffffffffff")
            self.assertTrue(reply == "l" or reply.startswith("E"), reply)
            reply = self.client.ask(f"qXfer:{object}:read:{annex}:0,ffffffffffffffff")
            self.assertRegex(reply[:1], "[ml]")

    def test_threads_document(self):
        root = ElementTree.fromstring(self.client.transfer("threads"))
        threads = {thread.get("id"): thread for thread in root.iter("thread")}
        self.assertEqual(sorted(threads), ["1", "2"])
        self.assertRegex(threads["2"].get("name") + (threads["2"].text or ""), "hart 1")

    def test_memory_map(self):
        text = self.client.transfer("memory-map")
        root = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", text))
        ram = [area for area in root.iter("memory") if area.get("type") == "ram"
               and int(area.get("start"), 0) == RAM]
        self.assertEqual([int(area.get("length"), 0) for area in ram], [RAM_SIZE])

    def test_monitor(self):
        text = self.client.monitor("help")
        for command in ("info", "reset", "xp"):
            self.assertIn(command, text)
        self.assertTrue(self.client.monitor("no-such-command").strip())
        self.assertTrue(self.client.monitor("info harts").strip())
        self.assertTrue(self.client.monitor("info registers").strip())
        self.error("qRcmd,zz", "qRcmd,6", "qRcmd")
        self.client.monitor("")
        self.client.monitor("x" * 5000)
        self.client.monitor("help\0\xff\n$#")
        self.assertEqual(self.client.ask("qAttached"), "1")

    def test_modes(self):
        self.ok("QThreadEvents:1")
        self.ok("QThreadEvents:0")
        self.error("QThreadEvents", "QThreadEvents:", "QThreadEvents:2", "QThreadEvents:zz",
                   "QNonStop", "QNonStop:", "QNonStop:2", "QNonStop:zz")
        self.ok("QNonStop:1")
        self.ok("QNonStop:0")
        self.assertRegex(self.client.ask("vCont?"), r"^vCont(?=.*;c)(?=.*;C)(?=.*;s)(?=.*;S)"
                                                    r"(?=.*;t)(?=.*;r)")


def csr_number(test, name):
    """The number of a register by its name in target.xml."""
    text = test.client.transfer("features", "target.xml", 0x8000)
    root = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", text))
    number = 0
    for register in root.iter("reg"):
        number = int(register.get("regnum", number))
        if register.get("name") == name:
            return number
        number += 1
    raise AssertionError(f"target.xml has no {name}")


class Running(RemoteTest):
    run_on_qemu = True

    def test_continue_and_step(self):
        self.run_to("outer")
        address = self.register(PC)
        stop = self.client.resume("s")
        self.assertEqual(stop.number, 5)
        self.assertIn(self.register(PC) - address, (2, 4))
        stop = self.client.resume("vCont;s:1")
        self.assertEqual(stop.number, 5)
        self.ok(f"Z0,{self.symbol('inner'):x},2")
        self.assertEqual(self.client.resume("c").number, 5)
        self.assertEqual(self.register(PC), self.symbol("inner"))
        if ON_QEMU:
            return
        # On from a breakpoint, though it is still there.
        self.ok(f"Z0,{self.symbol('count'):x},2")
        self.assertEqual(self.client.resume("vCont;c").number, 5)
        self.assertEqual(self.register(PC), self.symbol("count"))

    def test_where_to_go_on(self):
        self.ours_only("that")
        self.run_to("outer")
        self.client.resume(f"s{self.symbol('count'):x}")
        self.assertIn(self.register(PC) - self.symbol("count"), (2, 4))
        self.client.resume(f"S05;{self.symbol('store'):x}")
        self.assertIn(self.register(PC) - self.symbol("store"), (2, 4))
        self.ok(f"Z0,{self.symbol('store'):x},2")
        self.assertEqual(self.client.resume(f"C05;{self.symbol('store'):x}").number, 5)
        self.ok(f"Z0,{self.symbol('mean'):x},2")
        self.ok(f"z0,{self.symbol('store'):x},2")
        self.client.ask(f"P1={struct.pack('<Q', self.symbol('mean')).hex()}")
        self.assertEqual(self.client.resume("C05").number, 5)

    def test_actions(self):
        self.ours_only("vCont;r")
        self.run_to("count")
        start = self.symbol("count")
        end = self.symbol("write_csr")
        for action in ("vCont;s:1;c", "vCont;S05:1", "vCont;S05"):
            self.assertEqual(self.client.resume(action).number, 5, action)
        # A range step ends where it leaves the range: at the return.
        stop = self.client.resume(f"vCont;r{start:x},{end:x}:1", 20)
        self.assertEqual(stop.number, 5)
        pc = self.register(PC)
        self.assertFalse(start <= pc < end, hex(pc))
        self.assertEqual(self.client.read_number(self.symbol("counter"), 4), 10)
        # One that it is not in is a single step.
        before = self.register(PC)
        self.client.resume("vCont;r1000,1004:1")
        self.assertIn(self.register(PC) - before, (2, 4))

    def test_range_step_meets_a_breakpoint(self):
        self.ours_only("vCont;r")
        self.run_to("outer")
        self.ok(f"Z0,{self.symbol('factorial'):x},2")
        stop = self.client.resume(f"vCont;r{RAM:x},{RAM + 0x10000:x}:1;c", 20)
        self.assertEqual(self.register(PC), self.symbol("factorial"), stop)

    def test_malformed(self):
        self.ours_only("errors of that kind")
        self.error("vCont", "vCont;", "vCont;q", "vCont;s:9", "vCont;s:zz", "vCont;r",
                   "vCont;r1000", "vCont;r1000,zz:1", "vCont;C", "vCont;Czz",
                   "vCont;s:1:2", "vCont;s;;c",
                   "vCont;S", "czz", "szz", "C", "Czz", "S", "S5;zz")
        self.assertRegex(self.client.ask("?"), r"^T05")

    def test_interrupt(self):
        self.client.write_number(self.symbol("rounds"), 0xffffffff, 4)
        self.client.send("vCont;c")
        self.assertTrue(self.client.silent(0.1))
        self.client.interrupt()
        self.assertEqual(self.client.stop().number, 2)
        self.assertGreater(self.client.read_number(self.symbol("traps"), 4), 0)
        for _ in range(20):
            self.client.send("vCont;c")
            self.client.interrupt()
            self.assertEqual(self.client.stop().number, 2)

    def test_end(self):
        self.ours_only("exit status")
        stop = self.client.resume("vCont;c")
        self.assertEqual((stop.kind, stop.number), ("W", 0))
        self.assertEqual(self.machine.wait(10), 0)

    def test_end_with_a_status(self):
        self.ours_only("exit status")
        self.run_to("environment_call")
        # An illegal instruction makes the program's handler fail with 70.
        self.ok(f"M{self.symbol('environment_call'):x},4:00000000")
        stop = self.client.resume("vCont;c")
        self.assertEqual((stop.kind, stop.number), ("W", 70))
        self.assertEqual(self.machine.wait(10), 70)

    def test_machine_is_killed(self):
        self.ours_only("notice of that")
        self.client.write_number(self.symbol("rounds"), 0xffffffff, 4)
        self.client.send("vCont;c")
        time.sleep(0.05)
        self.machine.process.terminate()
        try:
            self.assertIn(self.client.stop().kind, "WX")
        except Closed:
            pass
        self.machine.wait(10)

    def test_kill(self):
        self.client.write(frame(b"k"))
        self.machine.wait(10)

    def test_kill_with_an_answer(self):
        self.ours_only("answer before its end")
        self.error("vKill;zz", "vKill;9")
        self.ok("vKill;1")
        self.machine.wait(10)

    def test_reset(self):
        self.ours_only("R")
        self.run_to("store")
        self.client.ask("!")
        self.client.send("R00")
        self.assertIn(self.register(PC), (0x1000, RAM))
        self.run_to("inner")
        self.assertEqual(self.client.read_number(self.symbol("counter"), 4), 0)

    def test_run(self):
        self.ours_only("vRun")
        self.ok("!")
        self.run_to("store")
        stop = self.client.resume("vRun;")
        self.assertEqual((stop.kind, stop.number), ("T", 5))
        self.assertIn(self.register(PC), (0x1000, RAM))

    def test_detach(self):
        self.client.write_number(self.symbol("rounds"), 0xffffffff, 4)
        self.run_to("outer")
        self.ok(f"Z0,{self.symbol('outer'):x},2")
        if not ON_QEMU:
            self.error("D;zz", "D;9")
        self.ok("D")
        self.client.close()
        if ON_QEMU:
            return
        time.sleep(0.1)
        # The breakpoint went with its client.
        self.client = self.connect()
        traps = self.client.read_number(self.symbol("traps"), 4)
        self.assertGreater(traps, 10)
        self.ok("D;1")


class Points(RemoteTest):
    run_on_qemu = True

    def test_twice(self):
        address = self.symbol("inner")
        for kind in (0, 1):
            for _ in range(3):
                self.ok(f"Z{kind},{address:x},2")
            self.assertEqual(self.client.resume("vCont;c").number, 5)
            self.ok(f"z{kind},{address:x},2")
            for _ in range(2):
                self.assertRegex(self.client.ask(f"z{kind},{address:x},2"), r"^(OK|E..)")
            self.ok(f"P20={struct.pack('<Q', self.symbol('outer')).hex()}")

    def test_removed_ones_are_gone(self):
        self.ours_only("breakpoints that are not counted")
        address = self.symbol("inner")
        for _ in range(2):
            self.ok(f"Z0,{address:x},2")
        self.ok(f"z0,{address:x},2")
        self.ok(f"Z0,{self.symbol('count'):x},2")
        self.client.resume("vCont;c")
        self.assertEqual(self.register(PC), self.symbol("count"))

    def test_reasons(self):
        self.ours_only("reasons of stops")
        self.ok(f"Z0,{self.symbol('inner'):x},2")
        self.assertIn("swbreak", self.client.resume("vCont;c").fields)
        self.ok(f"Z1,{self.symbol('count'):x},2")
        self.assertIn("hwbreak", self.client.resume("vCont;c").fields)

    def test_watchpoints(self):
        address = self.symbol("watched")
        self.run_to("store")
        for kind, name in ((2, "watch"), (3, "rwatch"), (4, "awatch")):
            self.ok(f"Z{kind},{address:x},8")
            stop = self.client.resume("vCont;c")
            self.assertEqual(int(stop.fields[name], 16), address, stop)
            self.ok(f"z{kind},{address:x},8")
            # Back to the beginning of the function, where the registers still do.
            self.ok(f"P20={struct.pack('<Q', self.symbol('store')).hex()}")

    def test_watchpoints_to_the_byte(self):
        self.run_to("store")
        address = self.symbol("watched")
        # All around it, which is written too, and behind what is copied.
        self.ok(f"Z2,{address - 8:x},8")
        self.ok(f"Z2,{self.symbol('buffer') + 25:x},20")
        self.ok(f"Z2,{self.symbol('doubleword_value') + 7:x},1")
        self.ok(f"Z0,{self.symbol('mean'):x},2")
        stop = self.client.resume("vCont;c")
        self.assertEqual(int(stop.fields["watch"], 16) & ~7, self.symbol("doubleword_value") & ~7)
        self.ok(f"z2,{self.symbol('doubleword_value') + 7:x},1")
        stop = self.client.resume("vCont;c")
        self.assertNotIn("watch", stop.fields, stop)
        self.assertEqual(self.register(PC), self.symbol("mean"))

    def test_watchpoint_over_much(self):
        self.ours_only("watchpoints of any length")
        self.run_to("store")
        start = self.symbol("buffer")
        self.ok(f"Z2,{start + 1:x},1000")
        stop = self.client.resume("vCont;c")
        self.assertEqual(int(stop.fields["watch"], 16), start + 1, stop)
        self.assertIn(self.client.read_memory(start, 3), (b"a\0\0", b"a \0"))

    def test_watchpoint_does_not_hide_the_write(self):
        self.run_to("store")
        address = self.symbol("word_value")
        self.ok(f"Z2,{address:x},4")
        self.client.resume("vCont;c")
        value = self.client.read_number(address, 4)
        # The write is done, or is done by the next step: never lost.
        self.ok(f"z2,{address:x},4")
        self.client.resume("vCont;s")
        self.assertEqual(self.client.read_number(address, 4), 21)
        # `before`, as qHostInfo says, or after.
        self.assertIn(value, (0x33333333, 21))

    def test_many(self):
        for address in range(self.symbol("main"), self.symbol("main") + 2000, 2):
            self.ok(f"Z0,{RAM + 0x100000 + address - self.symbol('main'):x},2")
        self.ok(f"Z0,{self.symbol('mean'):x},2")
        self.client.resume("vCont;c")
        self.assertEqual(self.register(PC), self.symbol("mean"))

    def test_breakpoints_do_not_show(self):
        address = self.symbol("inner")
        before = self.client.read_memory(address, 16)
        self.ok(f"Z0,{address:x},2")
        self.assertEqual(self.client.read_memory(address, 16), before)
        self.client.resume("vCont;c")
        self.assertEqual(self.client.read_memory(address, 16), before)

    def test_malformed(self):
        self.ours_only("errors of that kind")
        self.error("Z0", "Z0,", "Z0,zz,2", "Z0,80000000", "Z0,80000000,zz", "Z0,80000000,2,3",
                   "z0", "z0,zz,2", "Z2,80000000,0", "Z2,ffffffffffffffff,8",
                   "Z0,80000000,2;X", "Z0,80000000,2;X5", "Z0,80000000,2;X2,zz",
                   "Z0,80000000,2;X5,27", "Z0,80000000,2;Xffffffff,27", "Z0,80000000,2;q")
        self.assertEqual(self.client.ask("Z9,80000000,2"), "")
        self.assertEqual(self.client.ask("z9,80000000,2"), "")


def bytecode(*parts):
    """An agent expression, as a condition of Z packets has it."""
    code = b"".join(bytes([part]) if isinstance(part, int) else part for part in parts)
    return f";X{len(code):x},{code.hex()}"


class Conditions(RemoteTest):
    ADD, SUB, MUL, LESS, EQUAL, LOG_NOT, REF32, REF64 = 2, 3, 4, 0x15, 0x13, 0x0e, 0x19, 0x1a
    CONST8, CONST64, REG, END, DUP, IF_GOTO, GOTO, POP, SWAP, EXT = (
        0x22, 0x25, 0x26, 0x27, 0x28, 0x20, 0x21, 0x29, 0x2b, 0x16)

    def memory(self, name, size=4):
        return bytes([self.CONST64]) + struct.pack(">Q", self.symbol(name)) + \
            bytes([self.REF32 if size == 4 else self.REF64])

    def stops_with(self, condition, at="factorial"):
        """The value of a0 at the stop; None if there was none."""
        self.ok(f"Z0,{self.symbol(at):x},2{condition}")
        stop = self.client.resume("vCont;c")
        if stop.kind == "W":
            return None
        self.assertEqual(self.register(PC), self.symbol(at))
        return self.register(10)

    def test_register(self):
        self.assertEqual(self.stops_with(bytecode(
            self.REG, b"\0\x0a", self.CONST8, 3, self.EQUAL, self.END)), 3)

    def test_memory(self):
        self.assertEqual(self.stops_with(bytecode(
            self.memory("counter"), self.CONST8, 10, self.EQUAL, self.END)), 5)

    def test_false(self):
        self.assertIsNone(self.stops_with(bytecode(
            self.memory("counter"), self.CONST8, 11, self.EQUAL, self.END)))

    def test_arithmetic(self):
        # a0 * 3 + 1 == 7
        self.assertEqual(self.stops_with(bytecode(
            self.REG, b"\0\x0a", self.CONST8, 3, self.MUL, self.CONST8, 1, self.ADD,
            self.CONST8, 7, self.EQUAL, self.END)), 2)

    def test_jumps(self):
        # a0 < 3 ? 1 : 0
        self.assertEqual(self.stops_with(bytecode(
            self.REG, b"\0\x0a", self.CONST8, 3, self.LESS,       # 0..5
            self.IF_GOTO, b"\0\x0c", self.CONST8, 0, self.END, self.END,  # 6..12
            self.CONST8, 1, self.END)), 2)

    def test_several_are_alternatives(self):
        one = bytecode(self.REG, b"\0\x0a", self.CONST8, 2, self.EQUAL, self.END)
        other = bytecode(self.REG, b"\0\x0a", self.CONST8, 4, self.EQUAL, self.END)
        self.assertEqual(self.stops_with(one + other), 4)
        self.assertEqual(self.client.resume("vCont;c").kind, "T")
        self.assertEqual(self.register(10), 2)

    def test_condition_is_replaced(self):
        self.ok(f"Z0,{self.symbol('factorial'):x},2" +
                bytecode(self.CONST8, 0, self.END))
        self.assertEqual(self.stops_with(bytecode(
            self.REG, b"\0\x0a", self.CONST8, 1, self.EQUAL, self.END)), 1)

    def test_broken_ones_stop(self):
        """What cannot be evaluated is reported by a stop rather than passed over."""
        for code in ((self.ADD, self.END), (0xff, self.END), (self.GOTO, b"\0\0"),
                     (self.CONST64, struct.pack(">Q", NOWHERE), self.REF32, self.END),
                     (self.CONST8, 1, self.CONST8, 0, 5, self.END),
                     (self.REG, b"\xff\xff", self.END), (self.GOTO, b"\xff\xff"), (self.CONST8,)):
            with self.subTest(code=code):
                reply = self.client.ask(f"Z0,{self.symbol('factorial'):x},2" + bytecode(*code))
                if reply.startswith("E"):
                    continue
                self.assertEqual(reply, "OK")
                stop = self.client.resume("vCont;c", 20)
                self.assertEqual(stop.kind, "T")
                self.ok(f"z0,{self.symbol('factorial'):x},2")
                self.ok(f"P20={struct.pack('<Q', self.symbol('main')).hex()}")

    def test_false_conditions_are_cheap(self):
        """A million of them, which round trips would take minutes for."""
        self.client.write_number(self.symbol("rounds"), 20000, 4)
        self.ok(f"Z0,{self.symbol('inner'):x},2" + bytecode(self.CONST8, 0, self.END))
        began = time.monotonic()
        self.assertEqual(self.client.resume("vCont;c", 30).kind, "W")
        self.assertLess(time.monotonic() - began, 10)


class SamePage(RemoteTest):
    program = "speed"
    run_on_qemu = True

    def test_breakpoint_fires_nowhere_else(self):
        self.ok(f"Z0,{self.symbol('elsewhere'):x},2")
        self.client.send("vCont;c")
        self.assertTrue(self.client.silent(0.3), "it fired elsewhere")
        self.client.interrupt()
        self.assertEqual(self.client.stop().number, 2)
        self.assertGreater(self.client.read_number(self.symbol("progress")), 1000)
        self.client.write_number(self.symbol("elsewhere_wanted"), 1, 4)
        self.assertEqual(self.client.resume("vCont;c").number, 5)
        self.assertEqual(self.register(PC), self.symbol("elsewhere"))

    def test_watchpoint_fires_nowhere_else(self):
        self.ok(f"Z4,{self.symbol('untouched'):x},8")
        self.client.send("vCont;c")
        self.assertTrue(self.client.silent(0.3), "it fired elsewhere")
        self.client.interrupt()
        self.assertEqual(self.client.stop().number, 2)
        self.client.write_number(self.symbol("elsewhere_wanted"), 1, 4)
        stop = self.client.resume("vCont;c")
        self.assertEqual(int(stop.fields["awatch"], 16), self.symbol("untouched"), stop)

    def test_points_while_running(self):
        """Set and removed between two runs a thousand times, in code that is hot."""
        address = self.symbol("step_once")
        for _ in range(200):
            self.ok(f"Z0,{address:x},2")
            self.assertEqual(self.client.resume("vCont;c").number, 5)
            self.ok(f"z0,{address:x},2")
            self.assertEqual(self.client.resume("vCont;s").number, 5)


class Clients(RemoteTest):
    program = "speed"

    def progress(self):
        return self.client.read_number(self.symbol("progress"))

    def vanish(self, data=b""):
        if data:
            self.client.write(data)
        self.client.close()
        time.sleep(0.2)
        self.client = self.connect()

    def start(self):
        self.run_to("step_once")
        self.client.send("vCont;c")
        time.sleep(0.1)

    def test_vanishes_while_the_guest_runs(self):
        for half in (b"", b"$m80000000", b"$m80000000,4#", b"$"):
            with self.subTest(half=half):
                self.start()
                self.client.interrupt()
                self.client.stop()
                before = self.progress()
                self.client.send("vCont;c")
                self.vanish(half)
                self.assertGreater(self.progress(), before + 10000)

    def test_vanishes_while_the_guest_stands(self):
        for half in (b"", b"$m80000000", b"$vCont;c", b"$vCont;c#"):
            with self.subTest(half=half):
                self.run_to("step_once")
                before = self.progress()
                self.vanish(half)
                self.assertEqual(self.progress(), before)

    def test_vanishes_with_replies_unread(self):
        self.client.write(frame(b"m80000000,4000") * 2000)
        self.vanish()
        self.assertEqual(len(self.client.read_memory(RAM, 16)), 16)

    def test_vanishes_and_time_stands_still(self):
        # Nor does it begin before a client lets harts run.
        before = self.client.monitor("mmio read 8 0x200bff8")
        self.vanish()
        self.assertEqual(self.client.monitor("mmio read 8 0x200bff8"), before)
        self.run_to("step_once")
        before = self.client.monitor("mmio read 8 0x200bff8")
        self.vanish()
        self.assertEqual(self.client.monitor("mmio read 8 0x200bff8"), before)
        self.ok("D")
        self.vanish()
        self.assertNotEqual(self.client.monitor("mmio read 8 0x200bff8"), before)

    def test_its_breakpoints_go_with_it(self):
        self.run_to("step_once")
        self.ok(f"Z0,{self.symbol('step_once'):x},2")
        self.ok(f"Z2,{self.symbol('progress'):x},8")
        self.vanish()
        self.client.send("vCont;c")
        self.assertTrue(self.client.silent(0.2))

    def test_second_client(self):
        self.run_to("step_once")
        self.client.send("vCont;c")
        other = socket.socket(socket.AF_UNIX)
        self.addCleanup(other.close)
        other.settimeout(10)
        other.connect(str(self.machine.path))
        told = b""
        while True:
            try:
                piece = other.recv(4096)
            except ConnectionResetError:
                piece = b""
            if not piece:
                break
            told += piece
        self.assertRegex(told.decode(), r"(?i)(debugger|client|session|connected|busy)")
        self.client.interrupt()
        self.assertEqual(self.client.stop().number, 2)

    def test_many_one_after_another(self):
        for _ in range(50):
            self.client.close()
            self.client = self.connect()
        self.run_to("step_once")

    def test_commands_while_running(self):
        """Nothing is read of harts that run; the answer is an error, and they run on."""
        self.run_to("step_once")
        self.client.send("vCont;c")
        self.error("g", "m80000000,4", "p20")
        self.client.interrupt()
        self.assertEqual(self.client.stop().number, 2)
        self.assertEqual(len(self.client.read_memory(RAM, 4)), 4)


class NonStop(RemoteTest):
    program = "harts"
    harts = 4

    def setUp(self):
        super().setUp()
        self.ok("QNonStop:1")

    def stops(self, first):
        """The threads of a stop notification and of all that vStopped adds."""
        found = []
        reply = first
        while reply != "OK":
            found.append(Stop(reply.removeprefix("Stop:").encode()))
            reply = self.client.ask("vStopped")
        return found

    def stop_all(self):
        """Stops what runs; gives the stops."""
        self.ok("vCont;t")
        return self.stops(self.client.notification())

    def reported(self):
        """The stops that `?` tells of, then all harts of which are known to stand."""
        reply = self.client.ask("?")
        stops = self.stops(reply) if reply != "OK" else []
        # gdb 13 fails if `?` tells of more than one: the others come by themselves.
        while stops and len(stops) < self.harts:
            stops += self.stops(self.client.notification())
        return stops

    def test_all_are_reported(self):
        stops = self.reported()
        if not stops:
            stops = self.stop_all()
        self.assertEqual(sorted(stop.thread for stop in stops), ["1", "2", "3", "4"])

    def test_one_breakpoint(self):
        if not self.reported():
            self.stop_all()
        self.ok(f"Z0,{self.symbol('take_turn'):x},2")
        self.ok("vCont;c:2")
        stops = self.stops(self.client.notification())
        self.assertEqual([stop.thread for stop in stops], ["2"])
        self.assertEqual(stops[0].number, 5)
        self.ok("Hg2")
        self.assertEqual(self.register(PC), self.symbol("take_turn"))

    def test_one_runs_while_others_stand(self):
        if not self.reported():
            self.stop_all()
        self.ok("vCont;c")
        time.sleep(0.1)
        self.stop_all()
        # Nobody may hold the lock for what comes now.
        self.client.write_number(self.symbol("lock"), 0, 4)
        for thread in ("1", "2", "3", "4"):
            self.ok(f"Hg{thread}")
            self.ok(f"P20={struct.pack('<Q', self.symbol('spin')).hex()}")
            self.ok(f"P0a={struct.pack('<Q', int(thread) - 1).hex()}")
        before = [self.client.read_number(self.symbol("counters") + 8 * hart) for hart in range(4)]
        self.ok("vCont;c:3")
        time.sleep(0.1)
        self.ok("Hg1")
        self.assertRegex(self.client.ask("g"), r"^([0-9a-f]{2}|xx)+$")
        self.ok("vCont;t:3")
        stops = self.stops(self.client.notification())
        self.assertEqual([(stop.thread, stop.number) for stop in stops], [("3", 0)])
        after = [self.client.read_number(self.symbol("counters") + 8 * hart) for hart in range(4)]
        self.assertGreater(after[2], before[2])
        self.assertEqual(after[:2] + after[3:], before[:2] + before[3:])

    def test_breakpoint_that_is_gone(self):
        """It is still why harts stopped that are told of later."""
        if not self.reported():
            self.stop_all()
        place = self.symbol("acquire")
        self.ok(f"Z0,{place:x},2")
        self.ok("vCont;c")
        first = self.client.notification()
        time.sleep(0.1)
        self.ok(f"z0,{place:x},2")
        stops = self.stops(first)
        self.assertGreater(len(stops), 1)
        for stop in stops:
            self.assertIn("swbreak", stop.fields)

    def test_interrupt_all(self):
        if not self.reported():
            self.stop_all()
        self.ok("vCont;c")
        time.sleep(0.05)
        self.ok("vCtrlC")
        stops = self.stops(self.client.notification())
        self.assertGreaterEqual(len(stops), 1)

    def test_steps(self):
        if not self.reported():
            self.stop_all()
        for thread in ("1", "2", "3"):
            self.ok(f"vCont;s:{thread}")
            stops = self.stops(self.client.notification())
            self.assertEqual([(stop.thread, stop.number) for stop in stops], [(thread, 5)])

    def test_running_harts_are_not_read(self):
        if not self.reported():
            self.stop_all()
        self.ok("vCont;c:2")
        self.ok("Hg2")
        self.error("g", "p20")
        self.ok("Hg1")
        self.assertRegex(self.client.ask("g"), r"^([0-9a-f]{2}|xx)+$")
        self.ok("vCont;t:2")
        self.stops(self.client.notification())

    def test_stopped_without_notification(self):
        if not self.reported():
            self.stop_all()
        self.assertEqual(self.client.ask("vStopped"), "OK")
        self.error("vCont;c:9", "vCont;t:9")


class AllStop(RemoteTest):
    program = "harts"
    harts = 4
    run_on_qemu = True

    def test_others_stand_while_one_steps(self):
        self.run_to("take_turn")
        self.assertEqual(len(self.client.threads()), 4)
        before = self.client.read_number(self.symbol("turns"))
        stopped = Stop(self.client.request("?")).thread
        for _ in range(20):
            self.client.resume(f"vCont;s:{stopped}")
        self.assertLessEqual(self.client.read_number(self.symbol("turns")) - before, 1)

    def test_step_one_and_run_the_others(self):
        self.run_to("take_turn")
        before = self.client.read_number(self.symbol("turns"))
        for _ in range(50):
            self.assertEqual(self.client.resume("vCont;s:1;c").number, 5)
        self.assertGreaterEqual(self.client.read_number(self.symbol("turns")), before)

    def test_each_hart_stops_at_its_breakpoint(self):
        self.ok(f"Z0,{self.symbol('take_turn'):x},2")
        seen = set()
        until = time.monotonic() + 20
        while len(seen) < 4 and time.monotonic() < until:
            stop = self.client.resume("vCont;c")
            seen.add(stop.thread)
            self.client.ask(f"Hg{stop.thread}")
            self.assertEqual(self.register(PC), self.symbol("take_turn"))
        self.assertEqual(len(seen), 4, seen)

    def test_time_stands_still(self):
        self.client.send("vCont;c")
        time.sleep(0.1)
        self.client.interrupt()
        self.client.stop()
        number = self.symbol("turns")
        before = self.client.read_number(number)
        time.sleep(0.2)
        self.assertEqual(self.client.read_number(number), before)


class Lldb(RemoteTest):
    program = "harts"
    harts = 2

    def pairs(self, packet):
        return dict(pair.split(":", 1) for pair in self.client.ask(packet).split(";") if pair)

    def test_host(self):
        host = self.pairs("qHostInfo")
        self.assertRegex(bytes.fromhex(host["triple"]).decode(), r"^riscv64-")
        self.assertEqual((host["endian"], host["ptrsize"]), ("little", "8"))
        process = self.pairs("qProcessInfo")
        self.assertRegex(bytes.fromhex(process["triple"]).decode(), r"^riscv64-")
        self.assertEqual(process["ptrsize"], "8")
        self.assertIn("pid", process)

    def test_registers(self):
        names, number = {}, 0
        while not (reply := self.client.ask(f"qRegisterInfo{number:x}")).startswith("E"):
            pairs = [pair.split(":", 1) for pair in reply.split(";") if pair]
            fields = dict(pairs)
            names[fields["name"]] = number
            for key in ("bitsize", "encoding", "format", "set"):
                self.assertIn(key, fields, reply)
            if fields.get("alt-name") == "pc" or fields["name"] == "pc":
                self.assertEqual(fields.get("generic"), "pc")
            number += 1
        # Those of target.xml, which lldb prefers, are more.
        self.assertGreaterEqual(number, 65)
        self.assertIn("pc", names)
        self.error("qRegisterInfo", "qRegisterInfozz", "qRegisterInfoffffffff")

    def test_thread_suffix(self):
        self.ok("QThreadSuffixSupported")
        self.run_to("take_turn")
        number = csr_number(self, "mhartid")
        for thread in (1, 2):
            self.assertEqual(self.client.ask(f"p{number:x};thread:{thread};")[:2],
                             f"{thread - 1:02x}")
            self.assertRegex(self.client.ask(f"g;thread:{thread};"), r"^([0-9a-f]{2}|xx)+$")
        self.ok("P5=8877665544332211;thread:2;")
        self.assertEqual(self.client.ask("p5;thread:2;"), "8877665544332211")
        self.assertNotEqual(self.client.ask("p5;thread:1;"), "8877665544332211")
        self.error("p5;thread:9;", "p5;thread:zz;", "p5;thread:")

    def test_threads_in_stops(self):
        self.ok("QListThreadsInStopReply")
        stop = self.run_to("take_turn")
        self.assertEqual(stop.fields["threads"].split(","), ["1", "2"])
        if "thread-pcs" in stop.fields:
            self.assertEqual(len(stop.fields["thread-pcs"].split(",")), 2)

    def test_threads_info(self):
        self.ok(f"Z0,{self.symbol('take_turn'):x},2")
        stopped = int(self.client.resume("vCont;c").thread)
        threads = json.loads(unescape(self.client.request("jThreadsInfo")))
        self.assertEqual([thread["tid"] for thread in threads], [1, 2])
        self.assertEqual(threads[stopped - 1].get("reason"), "breakpoint", threads)
        for thread in (1, 2):
            stop = Stop(self.client.request(f"qThreadStopInfo{thread}"))
            self.assertEqual(int(stop.thread), thread)
            # One that only stands because others stopped has no reason, or lldb shows it as well.
            if thread == stopped:
                self.assertEqual(stop.number, 5)
                self.assertTrue("swbreak" in stop.fields or
                                stop.fields.get("reason") == "breakpoint", stop)
            elif self.register_of(thread) != self.symbol("take_turn"):
                self.assertEqual((stop.number, stop.fields.get("reason", "none")), (0, "none"))
        self.error("qThreadStopInfo9", "qThreadStopInfozz")

    def register_of(self, thread):
        self.ok(f"Hg{thread}")
        return self.register(PC)

    def test_memory_regions(self):
        region = self.pairs(f"qMemoryRegionInfo:{RAM:x}")
        self.assertEqual((int(region["start"], 16), int(region["size"], 16)), (RAM, RAM_SIZE))
        self.assertEqual(set(region["permissions"]), set("rwx"))
        hole = self.pairs(f"qMemoryRegionInfo:{NOWHERE:x}")
        self.assertNotIn("r", hole.get("permissions", ""))
        self.assertTrue(int(hole["start"], 16) <= NOWHERE <
                        int(hole["start"], 16) + int(hole["size"], 16))
        # From one region to the next, to the end of the address space.
        address, count = 0, 0
        while address < 1 << 64 and count < 200:
            reply = self.client.ask(f"qMemoryRegionInfo:{address:x}")
            if reply.startswith("E"):
                break
            region = dict(pair.split(":", 1) for pair in reply.split(";") if pair)
            self.assertEqual(int(region["start"], 16), address)
            self.assertGreater(int(region["size"], 16), 0)
            address += int(region["size"], 16)
            count += 1
        self.assertLess(count, 200)
        self.error("qMemoryRegionInfo:zz", "qMemoryRegionInfo:")

    def test_several_ranges(self):
        self.assertIn("MultiMemRead+", self.supported)
        reply = self.client.request(f"MultiMemRead:ranges:{RAM:x},4,{NOWHERE:x},8,{RAM + 4:x},2;")
        sizes, _, data = reply.partition(b";")
        self.assertEqual([int(size, 16) for size in sizes.split(b",")], [4, 0, 2])
        self.assertEqual(unescape(data), self.client.read_memory(RAM, 6))
        self.error("MultiMemRead", "MultiMemRead:", "MultiMemRead:ranges:",
                   "MultiMemRead:ranges:zz;", "MultiMemRead:ranges:80000000;",
                   "MultiMemRead:nothing:80000000,4;")

    def test_several_breakpoints(self):
        self.assertIn("jMultiBreakpoint+", self.supported)
        requests = [f"Z0,{self.symbol('take_turn'):x},2", "Z0,zz,2",
                    f"Z1,{self.symbol('release'):x},2", f"z1,{self.symbol('release'):x},2"]
        packet = b"jMultiBreakpoint:" + escape(
            json.dumps({"breakpoint_requests": requests}).encode())
        reply = json.loads(unescape(self.client.request(packet)))
        results = reply["results"] if isinstance(reply, dict) else reply
        self.assertEqual([result[:1] for result in results], ["O", "E", "O", "O"])
        self.client.resume("vCont;c")
        self.assertEqual(self.register(PC), self.symbol("take_turn"))
        self.error("jMultiBreakpoint", "jMultiBreakpoint:", b"jMultiBreakpoint:" + escape(b"{}"),
                   b"jMultiBreakpoint:" + escape(b'{"breakpoint_requests": 5}'),
                   "jMultiBreakpoint:nonsense")

    def test_echo(self):
        self.assertEqual(self.client.ask("qEcho:12"), "qEcho:12")
        self.assertEqual(self.client.ask("qEcho:" + "a" * 1000), "qEcho:" + "a" * 1000)

    def test_error_strings(self):
        self.ok("QEnableErrorStrings")
        reply = self.client.ask(f"m{NOWHERE:x},4")
        match = re.match(r"E[0-9a-fA-F]{2};([0-9a-f]+)$", reply)
        self.assertTrue(match, reply)
        self.assertTrue(bytes.fromhex(match[1]).decode().isprintable())

    def test_probes(self):
        self.assertEqual(self.client.ask("x0,0"), "OK")
        for packet in ("qVAttachOrWaitSupported", "qGetWorkingDir", "qStructuredDataPlugins",
                       "qShlibInfoAddr", "vFile:size:41", "QSetDetachOnError:1", "qC",
                       "qSupportsDetachAndStayStopped:", "jThreadExtendedInfo:{\"thread\":1}]",
                       "qWatchpointSupportInfo:", "QPassSignals:0e;11", "QListThreadsInStopReply",
                       "jGetLoadedDynamicLibrariesInfos:{\"fetch_all_solibs\":true}]",
                       "qModuleInfo:00;00", "qSymbol::", "qfProcessInfo", "qLaunchSuccess", "A0",
                       "QSaveRegisterState"):
            self.client.ask(packet)
        self.assertEqual(self.client.ask("qAttached"), "1")

    def test_saved_registers(self):
        self.run_to("take_turn")
        self.ok("QThreadSuffixSupported")
        identifier = self.client.ask("QSaveRegisterState;thread:1;")
        self.assertRegex(identifier, r"^[0-9]+$")
        before = self.client.ask("p5;thread:1;")
        self.ok("P5=8877665544332211;thread:1;")
        self.ok(f"QRestoreRegisterState:{identifier};thread:1;")
        self.assertEqual(self.client.ask("p5;thread:1;"), before)
        self.error("QRestoreRegisterState:999;thread:1;", "QRestoreRegisterState:zz;thread:1;")


class Kernel(RemoteTest):
    """Address spaces, privileges and traps."""

    program = "kernel"
    run_on_qemu = True

    def test_virtual_addresses(self):
        self.ok(f"Z1,{self.symbol('system_call'):x},2")
        self.client.resume("vCont;c")
        self.assertEqual(self.register(PC), self.symbol("system_call"))
        high = self.client.read_memory(self.symbol("_start"), 16)
        self.error("m80200000,4")
        self.ok("Qqemu.PhyMemMode:1")
        self.assertEqual(self.client.read_memory(0x80200000, 16), high)

    def test_user_memory(self):
        self.ok(f"Z1,{self.symbol('user_work'):x},2")
        seen = set()
        for _ in range(20):
            self.assertEqual(self.client.resume("vCont;c").number, 5)
            self.assertEqual(self.register(PC), self.symbol("user_work"))
            seen.add(self.client.read_number(0x20000))
            # QEMU goes on from a breakpoint only without it.
            self.ok(f"z1,{self.symbol('user_work'):x},2")
            self.client.resume("vCont;s")
            self.ok(f"Z1,{self.symbol('user_work'):x},2")
        self.assertEqual(seen, {0, 1}, "both processes come by")
        self.assertEqual(len(self.client.read_memory(self.symbol("user_work"), 4)), 4)

    def test_stepping_through_a_trap(self):
        self.ok(f"Z1,{self.symbol('user_call'):x},2")
        self.client.resume("vCont;c")
        self.ok(f"z1,{self.symbol('user_call'):x},2")
        if ON_QEMU:
            self.client.ask("Qqemu.sstep=1")
        for _ in range(40):
            self.client.resume("vCont;s")
            if self.register(PC) == self.symbol("trap_entry"):
                break
        self.assertEqual(self.register(PC), self.symbol("trap_entry"))
        self.client.resume("vCont;s")
        self.assertEqual(self.register(PC), self.symbol("trap_entry") + 4)

    def test_priv_and_satp_are_written(self):
        if ON_QEMU:
            return
        self.ok(f"Z1,{self.symbol('user_work'):x},2")
        self.client.resume("vCont;c")
        priv, satp = csr_number(self, "priv"), csr_number(self, "satp")
        self.assertEqual(self.register(priv), 0)
        process = self.client.read_number(0x20000)
        value = self.register(satp)
        other = self.client.read_number(self.symbol("processes") + (1 - process) * 304 + 272)
        self.assertNotEqual(value, other)
        self.ok(f"P{satp:x}={struct.pack('<Q', other).hex()}")
        self.assertEqual(self.client.read_number(0x20000), 1 - process)
        self.ok(f"P{satp:x}={struct.pack('<Q', value).hex()}")
        self.assertEqual(self.client.read_number(0x20000), process)
        self.ok(f"P{priv:x}=" + f"{3:0{2}x}".ljust(len(self.client.ask(f"p{priv:x}")), "0"))
        self.assertEqual(self.register(priv), 3)
        self.assertEqual(len(self.client.read_memory(0x80200000, 4)), 4)

    def test_watchpoint_in_a_process(self):
        self.ok(f"Z1,{self.symbol('user_work'):x},2")
        self.client.resume("vCont;c")
        self.ok(f"z1,{self.symbol('user_work'):x},2")
        self.ok("Z2,20010,8")
        stop = self.client.resume("vCont;c")
        self.assertEqual(int(stop.fields["watch"], 16), 0x20010, stop)


class Shared(RemoteTest):
    """A machine that others pause, reset and end while a debugger has it."""

    program = "harts"
    harts = 4

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="hartvisor-debug-")
        self.addCleanup(folder.cleanup)
        self.control = f"{folder.name}/control"
        self.image = pathlib.Path(folder.name) / "program.elf"
        self.image.write_bytes(image(self.program).read_bytes())
        self.machine = Target(self.program, harts=self.harts,
                              options=["--firmware", self.image, "--control",
                                       f"unix:{self.control}"])
        self.addCleanup(self.machine.close)
        self.machine.listening()
        self.client = self.connect()

    def qmp(self):
        return Qmp(self.control).negotiate()

    def test_paused_at_a_breakpoint(self):
        """It was reported, and is passed by what continues."""
        qmp = self.qmp()
        place = self.symbol("take_turn")
        self.ok(f"Z0,{place:x},2")
        self.client.resume("vCont;c")
        thread = self.client.resume("vCont;c").thread
        for other in sorted({"1", "2", "3", "4"} - {thread}):  # which only spin
            self.ok(f"Hg{other}")
            self.ok(f"P20={struct.pack('<Q', self.symbol('spin')).hex()}")
        for _ in range(10):
            qmp.execute("stop")
            qmp.execute("cont")
            turns = self.client.read_number(self.symbol("turns"))
            self.client.resume(f"vCont;c:{thread}")
            self.assertEqual(self.client.read_number(self.symbol("turns")), turns + 1)

    def test_continues_while_paused(self):
        qmp = self.qmp()
        self.ok(f"Z0,{self.symbol('take_turn'):x},2")
        self.client.resume("vCont;c")
        qmp.execute("stop")
        self.client.send("vCont;c")
        self.assertTrue(self.client.silent(0.2))
        qmp.execute("cont")
        self.assertEqual(self.client.stop().number, 5)

    def test_reset_that_fails(self):
        """The machine ends within the command, and the session with it."""
        self.run_to("take_turn")
        self.image.unlink()
        try:
            self.client.monitor("reset")
        except (Closed, Silent):
            pass
        self.assertEqual(self.machine.process.wait(10), 125)

    def test_end_while_it_stands(self):
        self.run_to("take_turn")
        self.qmp().execute("quit")
        self.assertEqual(self.machine.process.wait(10), 0)

    def test_step_that_ends_the_machine(self):
        for packet in ("vCont;s:2", "vCont;r{0:x},{0:x}:2"):
            with self.subTest(packet=packet):
                self.place_store(2, 0x5555)
                stop = self.client.resume(packet.format(RAM + 0x100000))
                self.assertEqual(stop.text[:3], "W00")
                self.assertEqual(self.machine.process.wait(10), 0)
                self.setUp()

    def test_step_that_resets_the_machine(self):
        for packet in ("vCont;s:2", "vCont;s:2;c"):
            self.place_store(2, 0x7777)
            stop = self.client.resume(packet)
            self.assertEqual(stop.thread, "2")
            if not packet.endswith("c"):
                self.assertEqual(int.from_bytes(bytes.fromhex(stop.fields["20"]), "little"), 0x1000)
            self.ok("Hg1")
            self.client.resume("vCont;s:1")

    def place_store(self, thread, value):
        """The hart is about to tell the finisher something."""
        self.run_to("take_turn")
        self.ok(f"M{RAM + 0x100000:x},4:23a0f500")  # sw a5, 0(a1)
        self.ok(f"Hg{thread}")
        for register, content in ((11, 0x100000), (15, value), (PC, RAM + 0x100000)):
            self.ok(f"P{register:x}={struct.pack('<Q', content).hex()}")

    def test_reset_while_it_runs(self):
        qmp = self.qmp()
        self.run_to("take_turn")
        self.client.send("vCont;c")
        for _ in range(5):
            time.sleep(0.02)
            qmp.execute("system_reset")
        time.sleep(0.1)
        self.client.interrupt()
        self.assertEqual(self.client.stop().number, 2)
        self.assertGreater(self.client.read_number(self.symbol("turns")), 0)


class SeveralStops(RemoteTest):
    """What harts do at the same time is told once, and of the hart that the client asks for."""

    program = "harts"
    harts = 4

    def test_all_step_and_continue(self):
        """Ends of steps that nobody was told of are not told later."""
        self.run_to("take_turn")
        for _ in range(3):
            before = [self.pc_of(thread) for thread in range(1, 5)]
            self.assertEqual(self.client.resume("vCont;s").number, 5)
            after = [self.pc_of(thread) for thread in range(1, 5)]
            self.assertTrue(all(a != b for a, b in zip(after, before)), (before, after))
        place = self.symbol("release")
        self.ok(f"Z0,{place:x},2")
        stop = self.client.resume("vCont;c")
        self.assertEqual(self.register(PC), place, stop)

    def pc_of(self, thread):
        self.ok(f"Hg{thread}")
        return self.register(PC)

    def test_selected_thread_is_that_of_the_stop(self):
        self.run_to("take_turn")
        for thread in ("2", "1", "3"):
            self.ok("Hg4")
            stop = self.client.resume(f"vCont;s:{thread}")
            self.assertEqual(stop.thread, thread)
            self.assertEqual(self.client.ask("qC"), f"QC{thread}")
            self.assertEqual(self.client.ask("p20"), stop.fields["20"])

    def test_interrupt_and_continue_at_once(self):
        """Written in one piece while harts stop all the time: an answer to each."""
        self.ok(f"Z0,{self.symbol('take_turn'):x},2")
        for _ in range(300):
            self.client.write(frame(b"vCont;c") + b"\x03" + frame(b"vCont;c"))
            self.assertIn(self.client.stop().number, (2, 5))
            self.assertIn(self.client.stop().number, (2, 5))

    def test_watchpoint_that_is_gone(self):
        """What several harts were about to do is not told after the client has lost interest."""
        point = f"2,{self.symbol('lock'):x},4"
        for _ in range(20):
            self.ok(f"Z{point}")
            self.assertIn("watch", self.client.resume("vCont;c").fields)
            self.ok(f"z{point}")
            self.client.send("vCont;c")
            self.assertTrue(self.client.silent(0.02))
            self.client.interrupt()
            self.assertEqual(self.client.stop().number, 2)

    def test_many_stops_and_range_steps(self):
        self.ok(f"Z0,{self.symbol('take_turn'):x},2")
        start = self.symbol("acquire")
        for _ in range(200):
            stop = self.client.resume("vCont;c")
            self.ok(f"Hg{stop.thread}")
            self.assertEqual(self.register(PC), self.symbol("take_turn"), stop)
            stop = self.client.resume(f"vCont;r{start:x},{start + 8:x}:{stop.thread};c")
            self.assertEqual(stop.number, 5)


class Bounds(RemoteTest):
    """What a guest's tables can do to a debugger."""

    program = "kernel"

    def test_tables_that_lead_to_themselves(self):
        self.ok(f"Z1,{self.symbol('user_work'):x},2")
        self.client.resume("vCont;c")
        satp = csr_number(self, "satp")
        self.ok("Qqemu.PhyMemMode:1")
        table = 0x83000000
        self.ok(f"M{table:x},1000:" + struct.pack("<Q", table >> 2 | 1).hex() * 512)
        self.ok(f"P{satp:x}={struct.pack('<Q', 10 << 60 | table >> 12).hex()}")
        self.assertIn("more", self.client.monitor("info mappings"))

    def test_regions_between_the_halves(self):
        """From an address that is not canonical to the upper half in one step."""
        self.ok(f"Z1,{self.symbol('user_work'):x},2")
        self.client.resume("vCont;c")
        satp = csr_number(self, "satp")
        half = 1 << {8: 38, 9: 47, 10: 56}[self.register(satp) >> 60]
        for address in (half, (1 << 60) + 0x123):
            self.assertEqual(self.hole_at(address), (half, 2**64 - half))
        # Without a table nothing is mapped.
        self.ok(f"P{satp:x}={struct.pack('<Q', 8 << 60).hex()}")
        self.assertEqual(self.hole_at(0x1000), (0, 1 << 38))
        self.assertEqual(self.hole_at(2**64 - 0x1000), (2**64 - (1 << 38), 2**64))

    def hole_at(self, address):
        reply = dict(pair.split(":") for pair in
                     self.client.ask(f"qMemoryRegionInfo:{address:x}").split(";") if pair)
        self.assertNotIn("permissions", reply)
        return int(reply["start"], 16), int(reply["start"], 16) + int(reply["size"], 16)


class Silence(RemoteTest):
    """A client that never asks for anything is connected."""

    harts = 1

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="hartvisor-debug-")
        self.addCleanup(self.folder.cleanup)

    def test_guest_is_lost_and_the_client_leaves(self):
        """It never knew of the stop: the machine goes on to its end."""
        # Some counting, then an illegal instruction without a handler.
        program = pathlib.Path(self.folder.name) / "program"
        program.write_bytes(struct.pack("<IIII", 0x100002b7, 0xfff28293, 0xfe029ee3, 0))
        self.machine = Target("kernel", options=["--kernel", program])
        self.addCleanup(self.machine.close)
        self.machine.listening()
        self.client = self.connect()
        self.client.ask("?")
        self.assertTrue(self.client.ask("D").startswith("OK"))
        self.client.close()
        other = self.connect()
        time.sleep(3)
        self.assertIsNone(self.machine.process.poll())
        other.close()
        self.assertEqual(self.machine.process.wait(10), 125)
