"""The control socket: a QMP session, its events, its errors, and `hartvisor ctl`."""

import json
import subprocess
import time

from guest import GuestTest, HARTVISOR, KERNEL, run_hartvisor
from qmp import Qmp


class Session(GuestTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.path = cls.class_folder / "control"
        cls.guest = cls.boot_for_class("--control", f"unix:{cls.path}")

    def connect(self):
        client = Qmp(self.path)
        self.addCleanup(client.close)
        return client

    def ctl(self, *arguments):
        return subprocess.run([HARTVISOR, "ctl", f"unix:{self.path}", *arguments],
                              capture_output=True, text=True, timeout=30)

    def test_greeting(self):
        greeting = self.connect().greeting["QMP"]
        self.assertIn("qemu", greeting["version"])
        self.assertIsInstance(greeting["capabilities"], list)

    def test_capabilities_come_first(self):
        client = self.connect()
        self.assertEqual(client.execute("query-status")["error"]["class"], "CommandNotFound")
        self.assertEqual(client.execute("qmp_capabilities"), {"return": {}})
        self.assertEqual(client.execute("query-status")["return"]["status"], "running")

    def test_commands_are_listed(self):
        listed = self.connect().negotiate().execute("query-commands")["return"]
        names = {command["name"] for command in listed}
        self.assertLessEqual({"qmp_capabilities", "query-status", "query-version",
                              "query-commands", "stop", "cont", "system_reset",
                              "system_powerdown", "quit"}, names)

    def test_version(self):
        version = self.connect().negotiate().execute("query-version")["return"]
        self.assertLessEqual({"major", "minor", "micro"}, set(version["qemu"]))

    def test_identifiers_come_back(self):
        client = self.connect().negotiate()
        for identifier in (7, "seven", {"a": [1]}):
            client.send({"execute": "query-status", "id": identifier})
            self.assertEqual(client.answer()["id"], identifier)

    def test_errors(self):
        client = self.connect().negotiate()
        for request, kind in (
                ({"execute": "no-such-command"}, "CommandNotFound"),
                ({"execute": 5}, "GenericError"),
                ({"arguments": {}}, "GenericError"),
                ([1, 2], "GenericError"),
                ({"execute": "query-status", "arguments": 5}, "GenericError"),
                ({"execute": "stop", "arguments": {"surplus": 1}}, "GenericError")):
            client.send(request)
            answer = client.answer()
            self.assertEqual(answer["error"]["class"], kind, request)
            self.assertTrue(answer["error"]["desc"])
        client.send(b"{this is no json}\n")
        self.assertEqual(client.answer()["error"]["class"], "GenericError")
        self.assertEqual(client.execute("query-status")["return"]["status"], "running")

    def test_requests_in_pieces_and_together(self):
        client = self.connect().negotiate()
        for byte in b'{"execute": "query-status"}\n':
            client.send(bytes([byte]))
        self.assertIn("return", client.answer())
        client.send(b'{"execute":"query-status"}{"execute":"query-version"}\n')
        self.assertIn("status", client.answer()["return"])
        self.assertIn("qemu", client.answer()["return"])

    def test_stop_and_continue(self):
        client = self.connect().negotiate()
        first = float(self.guest.check("cat /proc/uptime").split()[0])
        client.execute("stop")
        client.event("STOP")
        status = client.execute("query-status")["return"]
        self.assertEqual((status["status"], status["running"]), ("paused", False))
        self.guest.send("echo heard-while-stopped\n")
        time.sleep(4)
        self.assertNotIn("heard-while-stopped", self.guest.output.text())
        client.execute("cont")
        client.event("RESUME")
        self.guest.expect("heard-while-stopped", 60)
        # Guest time stood still.
        second = float(self.guest.check("cat /proc/uptime").split()[0])
        self.assertLess(second - first, 3.9)

    def test_large_request_is_bounded(self):
        client = self.connect().negotiate()
        try:
            for _ in range(64):
                client.send(b" " * (1 << 20))
                client.send(b'{"execute": "' + b"x" * (1 << 20))
        except OSError:
            pass  # hanging up on such a client is fine
        other = self.connect().negotiate()
        self.assertEqual(other.execute("query-status")["return"]["status"], "running")

    def test_our_own_client(self):
        done = self.ctl("query-status")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("running", done.stdout)
        done = self.ctl("no-such-command")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no-such-command", done.stderr)

    def test_our_own_client_in_json(self):
        done = self.ctl("query-status", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["status"], "running")


class Ends(GuestTest):
    def machine(self):
        path = self.folder / "control"
        guest = self.boot("--control", f"unix:{path}")
        client = Qmp(path).negotiate()
        self.addCleanup(client.close)
        return guest, client

    def test_reset(self):
        guest, client = self.machine()
        first = guest.check("cat /proc/sys/kernel/random/boot_id")
        client.execute("system_reset")
        client.event("RESET")
        guest.booted()
        self.assertNotEqual(guest.check("cat /proc/sys/kernel/random/boot_id"), first)
        client.execute("quit")
        client.event("SHUTDOWN")
        self.assertEqual(guest.wait(30), 0)

    def test_reset_while_stopped(self):
        guest, client = self.machine()
        client.execute("stop")
        client.event("STOP")
        client.execute("system_reset")
        client.event("RESET")
        client.execute("cont")
        guest.booted()
        self.assertEqual(guest.leave(), 0)

    def test_shutdown_of_the_guest_is_an_event(self):
        guest, client = self.machine()
        guest.send("poweroff -f\n")
        event = client.event("SHUTDOWN")
        self.assertTrue(event["data"]["guest"])
        self.assertEqual(guest.wait(60), 0)
        self.assertFalse((self.folder / "control").exists())

    def test_powerdown_button(self):
        guest, client = self.machine()
        answer = client.execute("system_powerdown")
        if "error" in answer:
            # A board without a power button says so, and what to do instead.
            self.assertTrue(answer["error"]["desc"])
            self.assertEqual(guest.leave(), 0)
            return
        client.event("POWERDOWN")
        guest.check("true")


class Refused(GuestTest):
    def test_no_such_socket(self):
        done = run_hartvisor("ctl", f"unix:{self.folder}/absent", "query-status")
        self.assertEqual(done.returncode, 125, done.stderr)
        self.assertIn("absent", done.stderr)

    def test_socket_in_a_missing_folder(self):
        done = run_hartvisor("run", "--kernel", KERNEL, "--control",
                             f"unix:{self.folder}/absent/control")
        self.assertEqual(done.returncode, 125, done.stderr)
        self.assertIn("absent/control", done.stderr)

    def test_socket_in_use(self):
        path = self.folder / "control"
        first = self.start("run", "--kernel", KERNEL, "--append", "console=ttyS0",
                           "--control", f"unix:{path}")
        Qmp(path).close()
        done = run_hartvisor("run", "--kernel", KERNEL, "--control", f"unix:{path}")
        self.assertEqual(done.returncode, 125, done.stderr)
        self.assertIn(str(path), done.stderr)
        first.close()
        # A socket that a killed machine left behind is no obstacle.
        again = self.start("run", "--kernel", KERNEL, "--append", "console=ttyS0",
                           "--control", f"unix:{path}")
        Qmp(path).close()
        again.close()
