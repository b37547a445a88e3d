"""A client of the GDB remote protocol, for what the debuggers themselves do not send."""

import collections
import re
import socket
import time


class Closed(AssertionError):
    """The server ended the connection."""


class Silent(AssertionError):
    """The server did not answer in time."""


def checksum(data):
    return sum(data) & 0xff


def frame(payload):
    return b"$" + payload + b"#%02x" % checksum(payload)


def escape(data):
    """Binary data as it stands in a packet."""
    out = bytearray()
    for byte in data:
        if byte in b"#$}*":
            out += bytes([ord("}"), byte ^ 0x20])
        else:
            out.append(byte)
    return bytes(out)


def unescape(data):
    """The binary data of a reply whose runs are expanded already."""
    out = bytearray()
    data = iter(data)
    for byte in data:
        out.append(next(data) ^ 0x20 if byte == ord("}") else byte)
    return bytes(out)


def expand(data):
    """Undoes run-length encoding; escapes stay, for an escaped `*` is none."""
    out = bytearray()
    position = 0
    while position < len(data):
        byte = data[position]
        if byte == ord("}"):
            out += data[position:position + 2]
            position += 2
        elif byte == ord("*"):
            if not out or not 32 <= data[position + 1] <= 126:
                raise AssertionError(f"a malformed run in the reply {data[:80]!r}")
            out += out[-1:] * (data[position + 1] - 29)
            position += 2
        else:
            out.append(byte)
            position += 1
    return bytes(out)


class Stop:
    """A stop reply: its kind (S, T, W, X, N), its number, and its fields as a list of pairs."""

    def __init__(self, reply):
        self.text = reply.decode(errors="replace")
        match = re.match(r"([STWXN])([0-9a-fA-F]{2})?;?(.*)", self.text, re.S)
        if not match:
            raise AssertionError(f"no stop reply: {self.text!r}")
        self.kind = match[1]
        self.number = int(match[2] or "0", 16)
        self.pairs = [tuple(pair.partition(":")[::2]) for pair in match[3].split(";") if pair]
        self.fields = dict(self.pairs)

    @property
    def thread(self):
        return self.fields.get("thread")

    def __repr__(self):
        return f"<{self.text}>"


class Remote:
    """A connection to a server. `where` is the path of a socket or (host, port)."""

    def __init__(self, where, timeout=10, connect_timeout=10):
        self.timeout = timeout
        self.acks = True
        self.buffer = bytearray()
        self.notifications = collections.deque()
        self.log = []
        self.console = ""
        self.socket = self.connect(where, connect_timeout)

    @staticmethod
    def connect(where, timeout):
        until = time.monotonic() + timeout
        family = socket.AF_INET if isinstance(where, tuple) else socket.AF_UNIX
        while True:
            client = socket.socket(family)
            try:
                client.connect(where if isinstance(where, tuple) else str(where))
                return client
            except OSError:
                client.close()
                if time.monotonic() > until:
                    raise Silent(f"nothing listens at {where}") from None
                time.sleep(0.02)

    def close(self):
        self.socket.close()

    def note(self, direction, data):
        text = data[:200].decode("latin-1").encode("unicode_escape").decode()
        self.log.append(f"{direction} {text}" + (f"... ({len(data)})" if len(data) > 200 else ""))

    def transcript(self):
        return "\n".join(self.log[-60:])

    # Bytes.

    def write(self, data):
        self.note("->", data)
        try:
            self.socket.settimeout(self.timeout)
            self.socket.sendall(data)
        except TimeoutError:
            raise Silent(f"the server does not read\n{self.transcript()}") from None
        except OSError as error:
            raise Closed(f"{error}\n{self.transcript()}") from None

    def fill(self, until):
        """Reads more into the buffer, or raises."""
        left = until - time.monotonic()
        if left <= 0:
            raise Silent(f"no answer in time\n{self.transcript()}")
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(1 << 20)
        except TimeoutError:
            raise Silent(f"no answer in time\n{self.transcript()}") from None
        except OSError:
            data = b""
        if not data:
            raise Closed(f"the server closed the connection\n{self.transcript()}")
        self.buffer += data

    def read_byte(self, timeout=None):
        until = time.monotonic() + (timeout or self.timeout)
        while not self.buffer:
            self.fill(until)
        byte = self.buffer[:1]
        del self.buffer[:1]
        self.note("<-", byte)
        return bytes(byte)

    # Packets.

    def send(self, payload):
        """Sends a packet and, unless that is switched off, waits for its acknowledgement."""
        payload = payload.encode() if isinstance(payload, str) else payload
        self.write(frame(payload))
        if self.acks:
            self.read_ack()

    def read_ack(self):
        byte = self.read_byte()
        while byte == b"%":
            # A notification may come before the acknowledgement.
            self.buffer[:0] = byte
            self.take_packet(time.monotonic() + self.timeout, notifications_only=True)
            byte = self.read_byte()
        if byte != b"+":
            raise AssertionError(f"{byte!r} instead of an acknowledgement\n{self.transcript()}")

    def take_packet(self, until, notifications_only=False):
        """The next packet's payload, still escaped; notifications on the way are set aside."""
        while True:
            match = re.match(rb"[+-]*([$%])([^#]*)#([0-9a-fA-F]{2})", self.buffer, re.S)
            if not match:
                start = re.match(rb"[+-]*(.)", self.buffer, re.S)
                if start and start[1] not in b"$%":
                    raise AssertionError(f"stray bytes {bytes(self.buffer[:40])!r}\n"
                                         f"{self.transcript()}")
                self.fill(until)
                continue
            raw, kind, body, found = match[0], match[1], match[2], int(match[3], 16)
            del self.buffer[:match.end()]
            self.note("<-", raw)
            if checksum(body) != found:
                raise AssertionError(f"a reply with a wrong checksum\n{self.transcript()}")
            payload = expand(body)
            if kind == b"%":
                self.notifications.append(payload)
                if notifications_only:
                    return None
                continue
            if self.acks:
                self.acknowledge()
            return payload

    def acknowledge(self):
        try:
            self.write(b"+")
        except Closed:  # as the last reply of a session may be followed by its end
            pass

    def receive(self, timeout=None):
        return self.take_packet(time.monotonic() + (timeout or self.timeout))

    def request(self, payload, timeout=None):
        """The reply to a packet, as bytes."""
        self.send(payload)
        return self.receive(timeout)

    def ask(self, payload, timeout=None):
        """The reply as text."""
        return self.request(payload, timeout).decode("latin-1")

    def notification(self, timeout=None):
        """The next notification, as text."""
        until = time.monotonic() + (timeout or self.timeout)
        while not self.notifications:
            if re.match(rb"[+-]*\$", self.buffer):
                raise AssertionError(f"a packet instead of a notification: "
                                     f"{bytes(self.buffer[:80])!r}\n{self.transcript()}")
            if re.match(rb"[+-]*%[^#]*#..", self.buffer, re.S):
                self.take_packet(until, notifications_only=True)
            else:
                self.fill(until)
        return self.notifications.popleft().decode("latin-1")

    def silent(self, seconds):
        """Whether nothing comes for that long."""
        try:
            self.fill(time.monotonic() + seconds)
        except Silent:
            return not self.buffer
        return False

    # What sessions need.

    def no_ack(self):
        reply = self.ask("QStartNoAckMode")
        if reply == "OK":
            self.acks = False
        return reply

    def interrupt(self):
        self.write(b"\x03")

    def resume(self, payload, timeout=None):
        """Resumes; gives the stop that follows."""
        self.send(payload)
        return self.stop(timeout)

    def stop(self, timeout=None):
        """The stop that comes by itself; what the server prints before is in `console`."""
        while re.match(rb"O[0-9a-f]+$", reply := self.receive(timeout)):
            self.console += bytes.fromhex(reply[1:].decode()).decode()
        return Stop(reply)

    def transfer(self, thing, annex="", size=0x1000):
        """A whole object of qXfer:...:read, in pieces of that size."""
        data = bytearray()
        while True:
            reply = self.request(f"qXfer:{thing}:read:{annex}:{len(data):x},{size:x}")
            if reply[:1] not in (b"m", b"l"):
                raise AssertionError(f"qXfer:{thing}: {reply!r}")
            data += unescape(reply[1:])
            if reply[:1] == b"l":
                return data.decode()

    def monitor(self, command, timeout=None):
        """What a monitor command prints."""
        self.send("qRcmd," + command.encode().hex())
        text = ""
        while True:
            reply = self.receive(timeout).decode("latin-1")
            if reply == "OK":
                return text
            if not reply.startswith("O"):
                return text + (bytes.fromhex(reply).decode() if re.fullmatch(
                    r"([0-9a-f]{2})+", reply) else f"[{reply}]")
            text += bytes.fromhex(reply[1:]).decode()

    def read_memory(self, address, size):
        reply = self.ask(f"m{address:x},{size:x}")
        if not re.fullmatch(r"([0-9a-f]{2})*", reply):
            raise AssertionError(f"m{address:x},{size:x}: {reply!r}")
        return bytes.fromhex(reply)

    def read_number(self, address, size=8):
        return int.from_bytes(self.read_memory(address, size), "little")

    def write_number(self, address, value, size=8):
        return self.ask(f"M{address:x},{size:x}:" + value.to_bytes(size, "little").hex())

    def threads(self):
        found = []
        reply = self.ask("qfThreadInfo")
        while reply.startswith("m"):
            found += reply[1:].split(",")
            reply = self.ask("qsThreadInfo")
        if reply != "l":
            raise AssertionError(f"a list of threads that ends with {reply!r}")
        return found
