"""Virtio network devices: the user network in both directions, forwarded ports, tap."""

import ctypes
import hashlib
import http.server
import os
import random
import shutil
import socket
import subprocess
import threading
import unittest

from guest import GuestTest, KERNEL, LONG, free_port, run_hartvisor

SIZE = (64 if LONG else 6) << 20


class Server(http.server.ThreadingHTTPServer):
    """Serves DATA at every path and keeps the digests of what is sent to it."""

    daemon_threads = True

    def __init__(self, address="127.0.0.1"):
        self.data = random.Random(7).randbytes(SIZE)
        self.received = []
        super().__init__((address, 0), Handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.data)))
        self.end_headers()
        self.wfile.write(self.server.data)

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(hashlib.sha256(data).hexdigest())
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


class _UserNetwork:
    bus = "pci"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = Server()
        cls.addClassCleanup(cls.server.server_close)
        cls.addClassCleanup(cls.server.shutdown)
        cls.forwarded = free_port()
        bus = f",bus={cls.bus}" if cls.bus != "pci" else ""
        cls.guest = cls.boot_for_class(
            "--net", f"user,hostfwd=tcp:127.0.0.1:{cls.forwarded}-:8080{bus}")

    def test_address_comes_by_dhcp(self):
        self.assertRegex(self.guest.check("ip -4 address show dev eth0"), r"inet 10\.0\.2\.15/24")
        self.assertIn("default via 10.0.2.2", self.guest.check("ip route"))

    def test_transport(self):
        path = self.guest.check("readlink -f /sys/class/net/eth0/device")
        self.assertIn("virtio_mmio" if self.bus == "mmio" else "pci", path)

    def test_download(self):
        output = self.guest.check(f"wget -q -O - http://10.0.2.2:{self.server.port}/data "
                                  "| sha256sum", timeout=600)
        self.assertEqual(output.split()[0], hashlib.sha256(self.server.data).hexdigest())

    def test_upload(self):
        output = self.guest.check(
            f"head -c {SIZE} /dev/urandom | base64 > /tmp/upload; sha256sum < /tmp/upload; "
            f"wget -q -O - --post-file /tmp/upload http://10.0.2.2:{self.server.port}/; "
            "rm /tmp/upload", timeout=600)
        self.assertIn(output.split()[0], self.server.received)

    def test_many_connections_at_once(self):
        self.guest.check(
            "for i in 1 2 3 4 5 6; do "
            f"wget -q -O - http://10.0.2.2:{self.server.port}/ | sha256sum > /tmp/sum$i & done; "
            "wait", timeout=900)
        sums = set(self.guest.check("cat /tmp/sum*").split()) - {"-"}
        self.assertEqual(sums, {hashlib.sha256(self.server.data).hexdigest()})

    def test_forwarded_port_reaches_the_guest(self):
        # The guest sends back what it gets, with its digest computed inside behind it.
        self.guest.check("cat > /tmp/serve << 'END'\n"
                         "head -c 1000000 > /tmp/got\ncat /tmp/got\nsha256sum < /tmp/got\nEND\n"
                         "nc -l -p 8080 -e sh /tmp/serve > /dev/null 2>&1 &\n"
                         "until netstat -l -t -n | grep -q :8080; do sleep 0.1; done")
        sent = random.Random(3).randbytes(1000000)
        with socket.create_connection(("127.0.0.1", self.forwarded), timeout=120) as stream:
            threading.Thread(target=stream.sendall, args=(sent,), daemon=True).start()
            back = bytearray()
            while piece := stream.recv(65536):
                back += piece
        self.assertEqual(bytes(back[:1000000]), sent)
        self.assertEqual(back[1000000:].split()[0].decode(), hashlib.sha256(sent).hexdigest())

    def test_large_pings_of_the_gateway(self):
        output = self.guest.check("ping -c 5 -i 0.2 -s 1400 10.0.2.2")
        self.assertIn("5 packets received", output)


class Pci(_UserNetwork, GuestTest):
    bus = "pci"


class Mmio(_UserNetwork, GuestTest):
    bus = "mmio"


CLONE_NEWNET = 0x40000000


class Tap(GuestTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
            raise unittest.SkipTest("a tap interface needs root and /dev/net/tun")
        if not shutil.which("ip"):
            raise unittest.SkipTest("ip (iproute2) is not installed")
        # A network of its own: whatever addresses the host has, these are free in it.
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            raise unittest.SkipTest(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        for command in ("ip link set lo up", "ip tuntap add dev hvtap mode tap",
                        "ip address add 198.51.100.1/30 dev hvtap", "ip link set hvtap up"):
            subprocess.run(command.split(), check=True)

    def test_host_and_guest_talk(self):
        server = Server("198.51.100.1")
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        # Nobody answers DHCP there.
        guest = self.boot("--net", "tap,ifname=hvtap", files={"etc/no-network": ""})
        guest.check("ip address add 198.51.100.2/30 dev eth0; ip link set eth0 up")
        self.assertIn("3 packets received", guest.check("ping -c 3 -i 0.2 198.51.100.1"))
        output = guest.check(f"wget -q -O - http://198.51.100.1:{server.port}/ | sha256sum",
                             timeout=300)
        self.assertEqual(output.split()[0], hashlib.sha256(server.data).hexdigest())
        guest.check("nc -l -p 7 -e cat > /dev/null 2>&1 &\n"
                    "until netstat -l -t -n | grep -q :7; do sleep 0.1; done")
        with socket.create_connection(("198.51.100.2", 7), timeout=60) as stream:
            stream.sendall(b"from the host\n")
            self.assertEqual(stream.recv(100), b"from the host\n")
        self.assertEqual(guest.leave(), 0)


class Refused(GuestTest):
    def test_port_already_taken(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = run_hartvisor("run", "--kernel", KERNEL, "--net",
                                 f"user,hostfwd=tcp:127.0.0.1:{port}-:80")
        self.assertEqual(done.returncode, 125, done.stderr)
        self.assertIn(str(port), done.stderr)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
