"""A small QMP client, as tools written for QEMU speak it."""

import json
import socket
import time


class Qmp:
    def __init__(self, path, timeout=30):
        until = time.monotonic() + timeout
        while True:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(timeout)
            try:
                self.socket.connect(str(path))
                break
            except OSError:
                self.socket.close()
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        self.file = self.socket.makefile("rb")
        self.events = []
        self.greeting = self.receive()

    def receive(self):
        line = self.file.readline()
        if not line:
            raise EOFError("the control socket was closed")
        return json.loads(line)

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else json.dumps(data).encode() + b"\n")

    def answer(self):
        """The next message that is no event; events are kept."""
        while True:
            message = self.receive()
            if "event" not in message:
                return message
            self.events.append(message)

    def execute(self, command, **arguments):
        request = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        self.send(request)
        return self.answer()

    def negotiate(self):
        assert self.execute("qmp_capabilities") == {"return": {}}
        return self

    def event(self, name):
        """Waits for an event of that name; those before it are dropped."""
        while True:
            while self.events:
                message = self.events.pop(0)
                if message["event"] == name:
                    return message
            message = self.receive()
            assert "event" in message, message
            self.events.append(message)

    def close(self):
        self.file.close()
        self.socket.close()
