"""The state of a whole machine: saved and loaded in the middle of disk and network traffic."""

import hashlib
import http.server
import pathlib
import random
import re
import subprocess
import threading

from guest import APPEND, GuestTest, HARTVISOR, KERNEL, make_initrd

MOVE = pathlib.Path(HARTVISOR).parent / "tests" / "move_machine"
ROUNDS = 16

# Each round writes to the disk and reads it back past the page cache, and fetches a file. A
# connection ends with the user network that it went through: one more try is fair.
COMMAND = f"""
sum() {{ md5sum | cut -d' ' -f1; }}
fetch() {{ wget -q -T 10 -O - http://10.0.2.2:PORT/ | sum; }}
round=1
while [ $round -le {ROUNDS} ]; do
    dd if=/dev/urandom of=/tmp/data bs=64k count=8 2> /dev/null
    wanted=$(sum < /tmp/data)
    dd if=/tmp/data of=/dev/vda bs=64k seek=$((round * 8)) conv=fsync 2> /dev/null
    echo 3 > /proc/sys/vm/drop_caches
    found=$(dd if=/dev/vda bs=64k skip=$((round * 8)) count=8 2> /dev/null | sum)
    [ $found = $wanted ] || {{ echo round $round: disk $found is not $wanted; exit 1; }}
    fetched=$(fetch)
    [ $fetched = SUM ] || fetched=$(fetch)
    [ $fetched = SUM ] || {{ echo round $round: network $fetched is not SUM; exit 2; }}
    echo $found > /tmp/sum.$round
    echo round $round is right
    round=$((round + 1))
done
# All that was written before the move as well.
for round in $(seq {ROUNDS}); do
    found=$(dd if=/dev/vda bs=64k skip=$((round * 8)) count=8 2> /dev/null | sum)
    [ $found = $(cat /tmp/sum.$round) ] || {{ echo block $round is wrong; exit 3; }}
done
exit 42
"""


class Move(GuestTest):
    def serve(self, content):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server.server_address[1]

    def move(self, engine, controller="plic"):
        content = random.Random(1).randbytes(300_000)
        command = COMMAND.replace("PORT", str(self.serve(content))).replace(
            "SUM", hashlib.md5(content).hexdigest())
        initrd = make_initrd(self.folder, {"command": command,
                                           "etc/environment": "COMMAND_TTY=input\n"})
        disk, first, second = (self.folder / name for name in ("disk", "first", "second"))
        with disk.open("wb") as image:
            image.truncate(64 << 20)
        done = subprocess.run([MOVE, KERNEL, initrd, APPEND, disk, first, second,
                               "round 5 is right", engine, controller],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        before, after = (re.findall(r"round (\d+) is right", log.read_text(errors="replace"))
                         if log.exists() else [] for log in (first, second))
        said = f"{done.stderr}\n{second.read_text(errors='replace') if second.exists() else ''}"
        self.assertEqual(done.returncode, 42, said)
        self.assertEqual([int(n) for n in before + after], list(range(1, ROUNDS + 1)), said)
        self.assertGreater(len(after), 5)

    def test_interpreter(self):
        self.move("interp")

    def test_jit(self):
        self.move("jit")

    def test_messages(self):
        self.move("jit", "aia")
