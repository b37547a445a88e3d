"""A guest's screen: what its DRM driver draws is what screendump shows, on each back end."""

import json
import os
import pathlib
import re
import signal
import subprocess
import time
import unittest

from guest import GuestTest, HARTVISOR, free_port, run_hartvisor
from qmp import Qmp

SIZES = ((640, 480), (800, 600))
SOURCES = pathlib.Path(__file__).parent
RENDERER = pathlib.Path(HARTVISOR).parent / "hartvisor-gpu"


def compile_for_guest(folder, name):
    program = folder / name
    subprocess.run(["riscv64-linux-gnu-gcc", "-O2", "-static", "-o", program,
                    SOURCES / f"{name}.c"], check=True)
    return program.read_bytes()


class Picture:
    """Pixels as bytes, red, green and blue."""

    def __init__(self, width, height, data):
        self.width, self.height, self.data = width, height, bytearray(data)

    @classmethod
    def read(cls, path):
        magic, width, height, most, data = path.read_bytes().split(maxsplit=4)
        assert (magic, most) == (b"P6", b"255")
        return cls(int(width), int(height), data)

    @classmethod
    def drawn(cls, number):
        """What draw.c draws first."""
        width, height = SIZES[number]
        return cls(width, height, b"".join(
            bytes((x & 255, y & 255, ((number << 6) + (x >> 8 << 3) + (y >> 8)) & 255))
            for y in range(height) for x in range(width)))

    def fill(self, x, y, width, height, colour):
        for row in range(y, y + height):
            start = (row * self.width + x) * 3
            self.data[start:start + width * 3] = colour * width

    def put_cursor(self, left, top):
        """The cursor of draw.c, with its upper left corner there."""
        for y in range(64):
            for x in range(64):
                column, row = left + x, top + y
                if not (0 <= column < self.width and 0 <= row < self.height):
                    continue
                alpha = 255 if x > y else 0 if y & 1 else 128
                over = (min(4 * x, alpha), min(4 * y, alpha), 0)
                at = (row * self.width + column) * 3
                for channel in range(3):
                    part = self.data[at + channel] * (255 - alpha) + 128
                    self.data[at + channel] = min(255, over[channel] + ((part + (part >> 8)) >> 8))


class Screen:
    """Two displays of one guest. Test cases with it say by what they are drawn."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.path = cls.class_folder / "control"
        cls.programs = {name: compile_for_guest(cls.class_folder, name) for name in ("draw",)}
        cls.guest = cls.boot_for_class(
            "--gpu", cls.backend, "--display-size", ",".join("%dx%d" % size for size in SIZES),
            "--control", f"unix:{cls.path}", files=cls.programs)
        cls.guest.check("mkfifo /tmp/orders; touch /tmp/answers")

    def setUp(self):
        super().setUp()
        self.control = Qmp(self.path).negotiate()
        self.addCleanup(self.control.close)
        self.answers = 0
        # Something holds the pipe open for as long as there may be orders.
        self.guest.check("sleep 99999 > /tmp/orders & echo $! > /tmp/holder; "
                         "/draw /dev/dri/card0 < /tmp/orders > /tmp/answers 2>&1 &")
        self.addCleanup(self.guest.check, "kill $(cat /tmp/holder); "
                                          "while pidof draw; do sleep 0.05; done")
        self.wait_for("ready")

    def wait_for(self, word, count=1):
        self.guest.check(f"until [ $(grep -c '^{word}$' /tmp/answers) -ge {count} ] || "
                         f"! pidof draw > /dev/null; do sleep 0.05; done")
        answers = self.guest.check("cat /tmp/answers")
        self.assertGreaterEqual(answers.split().count(word), count, answers)
        return answers

    def order(self, line):
        self.answers += 1
        self.guest.check(f"echo '{line}' > /tmp/orders")
        return self.wait_for("done", self.answers)

    def execute(self, command, **arguments):
        answer = self.control.execute(command, **arguments)
        self.assertIn("return", answer)
        return answer["return"]

    def shot(self, head):
        path = self.folder / f"{head}.ppm"
        self.execute("screendump", filename=str(path), head=head)
        return Picture.read(path)

    def assert_shown(self, head, expected):
        picture = self.shot(head)
        self.assertEqual((picture.width, picture.height), (expected.width, expected.height))
        if picture.data != expected.data:
            at = next(i for i, (a, b) in enumerate(zip(picture.data, expected.data)) if a != b)
            pixel = at // 3
            self.fail(f"display {head}: pixel {pixel % picture.width},{pixel // picture.width} is "
                      f"{picture.data[pixel * 3:pixel * 3 + 3].hex()}, not "
                      f"{expected.data[pixel * 3:pixel * 3 + 3].hex()}")

    def statistics(self, **arguments):
        return self.execute("query-gpu-stats", **arguments)

    def test_pictures(self):
        for head in range(2):
            self.assert_shown(head, Picture.drawn(head))

    def test_rectangles(self):
        expected = Picture.drawn(0)
        self.order("fill 0 10 20 30 40 ff8000")
        expected.fill(10, 20, 30, 40, b"\xff\x80\0")
        self.assert_shown(0, expected)
        self.order("fill 0 639 479 1 1 ffffff")
        self.order("fill 0 0 0 640 1 0000ff")
        expected.fill(639, 479, 1, 1, b"\xff\xff\xff")
        expected.fill(0, 0, 640, 1, b"\0\0\xff")
        self.assert_shown(0, expected)
        self.assert_shown(1, Picture.drawn(1))

    def test_cursor(self):
        for x, y in ((100, 100), (-20, 30), (610, 470)):
            expected = Picture.drawn(0)
            # Linux moves a cursor's upper left corner.
            self.order(f"cursor 0 {max(x, 0)} {max(y, 0)} 0 0")
            self.order(f"move 0 {x} {y}")
            expected.put_cursor(x, y)
            self.assert_shown(0, expected)
        self.order("hide 0")
        self.assert_shown(0, Picture.drawn(0))

    def test_turned_off(self):
        self.order("off 1")
        self.assertIn("error", self.control.execute("screendump", filename=str(self.folder / "x"),
                                                    head=1))
        self.assert_shown(0, Picture.drawn(0))

    def test_statistics(self):
        self.shot(0)
        self.statistics(reset=True)
        self.order("fill 0 10 20 30 40 ff8000")
        self.order("fill 0 12 20 30 40 ff8000")
        self.shot(0)
        stats = self.statistics()
        screen = stats["scanouts"][0]
        self.assertEqual((screen["frames_presented"], screen["frames_dropped"]), (1, 1))
        # Guest memory is a blob: what Linux flushes, all of it, is read once, when it is shown.
        self.assertEqual(screen["bytes_uploaded"], 640 * 480 * 4)
        self.assertEqual(stats["total"]["bytes_uploaded"], 640 * 480 * 4)
        self.assertEqual(stats["scanouts"][1]["frames_presented"], 0)
        self.assertGreater(stats["adapters"][0]["memory"], 640 * 480 * 4)

    def test_statistics_as_a_table(self):
        done = run_hartvisor("gpus", "stats", f"unix:{self.path}")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("frames presented", done.stdout)
        done = run_hartvisor("gpus", "stats", f"unix:{self.path}", "--json")
        self.assertEqual(json.loads(done.stdout)["backend"], self.backend.split(",")[0])

    def test_timeline(self):
        path = self.folder / "trace.json"
        self.execute("gpu-trace-start")
        self.order("fill 1 0 0 8 8 ff8000")
        self.shot(1)
        self.execute("gpu-trace-stop", filename=str(path))
        events = json.loads(path.read_text())["traceEvents"]
        frames = [event for event in events if event["name"] == "frame"]
        self.assertEqual([event["tid"] for event in frames], [3])
        self.assertTrue(all(event["dur"] >= 0 for event in events if event["ph"] == "X"))

    def test_resize(self):
        """The display tells of another size, and the guest's driver offers it first."""
        self.execute("set-display-size", head=1, width=1024, height=600)
        self.addCleanup(self.execute, "set-display-size", head=1, width=SIZES[1][0],
                        height=SIZES[1][1])
        for _ in range(100):
            self.guest.check("echo detect > /sys/class/drm/card0-Virtual-2/status")
            modes = self.guest.check("cat /sys/class/drm/card0-Virtual-2/modes").split()
            if modes[0] == "1024x600":
                break
            time.sleep(0.1)
        self.assertEqual(modes[0], "1024x600")

    def test_png(self):
        path = self.folder / "screen.png"
        self.execute("screendump", filename=str(path))
        self.assertEqual(path.read_bytes()[:8], b"\x89PNG\r\n\x1a\n")


class Screen2d(Screen, GuestTest):
    backend = "2d"


class RendererProcess(Screen):
    @classmethod
    def setUpClass(cls):
        if not RENDERER.exists():
            raise unittest.SkipTest("this build has no wgpu-native")
        super().setUpClass()

    def renderer(self):
        """The process that draws."""
        children = pathlib.Path(f"/proc/{self.guest.process.pid}/task")
        pids = [pid for task in children.iterdir()
                for pid in (task / "children").read_text().split()]
        return int(pids[0]) if len(pids) == 1 else None

    def test_renderer_killed(self):
        """The screen comes back, and the guest notices nothing."""
        first = self.renderer()
        self.guest.check("echo 'paint 0 200' > /tmp/orders")
        time.sleep(0.2)
        os.kill(first, signal.SIGKILL)
        self.answers += 1
        self.wait_for("done", self.answers)
        for _ in range(100):
            if self.renderer() != first:
                break
            time.sleep(0.1)
        self.assertNotEqual(self.renderer(), first)
        expected = Picture.drawn(0)
        for y in range(expected.height):
            expected.fill(0, y, expected.width, 1, bytes([(y + 199) & 255] * 3))
        self.assert_shown(0, expected)
        self.assert_shown(1, Picture.drawn(1))

    def test_renderer_is_confined(self):
        status = pathlib.Path(f"/proc/{self.renderer()}/status").read_text()
        self.assertEqual(re.search(r"^Seccomp:\s*(\d)", status, re.M)[1], "2")
        self.assertEqual(re.search(r"^NoNewPrivs:\s*(\d)", status, re.M)[1], "1")


class ScreenWgpu(RendererProcess, GuestTest):
    backend = "wgpu"


class ScreenSpread(RendererProcess, GuestTest):
    """Software Vulkan twice: one display on each."""

    backend = "wgpu,adapter=0/0"

    def test_spread(self):
        stats = self.statistics()
        self.assertEqual(sorted(stats["scanouts"][head]["adapter"] for head in range(2)), [0, 1])
        for adapter in stats["adapters"]:
            self.assertGreater(adapter["memory"], 640 * 480 * 4)


class Seen(GuestTest):
    """What a VNC client sees and does, with a real client library."""

    PROBE = pathlib.Path(HARTVISOR).parent / "tests" / "vnc_probe"

    def setUp(self):
        super().setUp()
        if not self.PROBE.exists():
            self.skipTest("this build has no libvncclient: install libvncserver-dev")
        self.port = free_port()
        programs = {name: compile_for_guest(self.folder, name)
                    for name in ("draw", "event_probe")}
        self.guest = self.boot(
            "--gpu", "2d", "--display-size", "640x480",
            "--display", f"vnc:{self.port},password=sesame", files=programs)

    def probe(self, *actions, password="sesame"):
        return subprocess.run([self.PROBE, "127.0.0.1", str(self.port), password, *actions],
                              capture_output=True, text=True, timeout=60)

    def test_picture(self):
        self.guest.check("mkfifo /tmp/orders; sleep 9999 > /tmp/orders & "
                         "/draw /dev/dri/card0 < /tmp/orders > /tmp/answers & "
                         "until grep -q ready /tmp/answers; do sleep 0.05; done")
        path = self.folder / "seen.ppm"
        done = self.probe("--shot", str(path))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(Picture.read(path).data, Picture.drawn(0).data)

    def test_wrong_password(self):
        self.assertNotEqual(self.probe(password="guess").returncode, 0)

    def test_input(self):
        """Keys, pointer and buttons arrive in the guest, each let go again."""
        self.guest.check("sleep 9999 | /event_probe > /tmp/events & "
                         "until grep -q ready /tmp/events; do sleep 0.05; done")
        done = self.probe("--type", "aB", "--move", "320", "240", "--click", "1", "--wait", "500")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.guest.check("for i in $(seq 100); do grep -q ': 1 272 0' /tmp/events && break; "
                         "sleep 0.05; done")
        text = self.guest.check("cat /tmp/events")
        keys = re.findall(r"^hartvisor Keyboard: 1 (\d+) ([01])$", text, re.M)
        self.assertEqual([key for key in keys if key[0] == "30"], [("30", "1"), ("30", "0")])
        self.assertEqual([key for key in keys if key[0] == "48"], [("48", "1"), ("48", "0")])
        clicks = re.findall(r"^hartvisor Tablet: 1 272 ([01])$", text, re.M)
        self.assertEqual(clicks, ["1", "0"])
        for axis, middle in ((0, (320.5 / 640)), (1, (240.5 / 480))):
            place = re.findall(rf"^hartvisor Tablet: 3 {axis} (\d+)$", text, re.M)[-1]
            self.assertAlmostEqual(int(place) / 32768, middle, places=3)


class Choosing(GuestTest):
    def test_list(self):
        done = run_hartvisor("gpus", "list", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        backends = {backend["name"]: backend for backend in json.loads(done.stdout)}
        self.assertLessEqual({"passthrough", "wgpu", "2d"}, set(backends))
        self.assertTrue(backends["2d"]["usable"])
        for backend in backends.values():
            self.assertEqual(backend["usable"], not backend["reason"], backend)

    def test_unknown(self):
        done = run_hartvisor("run", "--gpu", "voodoo", "--firmware", os.devnull)
        self.assertEqual(done.returncode, 125)
        self.assertIn("there is no back end 'voodoo'", done.stderr)

    def test_missing_renderer(self):
        """Without hartvisor-gpu the next one of the chain draws."""
        environment = {**os.environ, "HARTVISOR_GPU": "/nowhere/hartvisor-gpu"}
        guest = self.boot("--gpu", "wgpu,2d", env=environment)
        guest.check("test -e /dev/dri/card0")
        done = run_hartvisor("run", "--gpu", "wgpu", "--firmware", os.devnull, env=environment)
        self.assertEqual(done.returncode, 125)
        self.assertIn("/nowhere/hartvisor-gpu", done.stderr)

    def test_display_without_gpu(self):
        done = run_hartvisor("run", "--gpu", "off", "--display", "vnc:5999", "--firmware",
                             os.devnull)
        self.assertEqual(done.returncode, 125)
        self.assertIn("--gpu off", done.stderr)

    def test_sizes(self):
        for size, message in (("640", "WIDTHxHEIGHT"), ("640x", "WIDTHxHEIGHT"),
                              ("10x10", "64 to 16384"), ("640x480,", "WIDTHxHEIGHT"),
                              ("640x99999999999999999999", "64 to 16384")):
            done = run_hartvisor("run", "--gpu", "2d", "--display-size", size, "--firmware",
                                 os.devnull)
            self.assertEqual(done.returncode, 125)
            self.assertIn(message, done.stderr)
