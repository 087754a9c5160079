"""A served model for tests: started on a free port, stopped as a user would stop it."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from support import binary

# Of a model's bytes, the memory that its server gets: set where CTest runs these tests a second time, on
# models that are read from disk as they are used (tests/e2e/CMakeLists.txt).
SHARE = float(os.environ.get("SLUICE_SERVED_SHARE", 0))


class Server:
    def __init__(self, process, ready, log):
        self.process, self.ready, self.log = process, ready, log  # ready: what it said of itself
        self.port = ready["port"]
        self.keeps_to_memory = True  # until a test sends it texts of megabytes, which are no part of the plan
        self.url = f"http://127.0.0.1:{self.port}"

    def request(self, method, path, body=None, headers=None):
        """(status, headers, body as text) of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        given = dict(headers or {})
        if data is not None:
            given.setdefault("Content-Type", "application/json")
        connection.request(method, path, data, given)
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        return reply.status, dict(reply.getheaders()), text

    def json(self, method, path, body=None, headers=None):
        return json.loads(self.request(method, path, body, headers)[2])

    def raw(self, data, timeout=20):
        """What comes back for these bytes until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
            received = b""
            with contextlib.suppress(ConnectionError):
                while piece := connection.recv(65536):
                    received += piece
        return received

    def peak_bytes(self):
        """Resident memory at its most, as the system counts it."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the system does not say")

    def metric(self, name, headers=None):
        for line in self.request("GET", "/metrics", headers=headers)[2].splitlines():
            if line.startswith(f"sluice_{name} "):
                return float(line.split()[1])
        raise AssertionError(f"no metric {name}")


def model_bytes(model):
    files = [model] if model.is_file() else model.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)


class Limit:
    """What a server has to keep to that gets a share of its model's bytes."""

    def __init__(self, model, arguments):
        self.model_bytes = model_bytes(Path(model))
        self.bytes = int(SHARE * self.model_bytes)
        key = "--api-key" in arguments and arguments[arguments.index("--api-key") + 1]
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def check(self, server):
        """It did, and read the rest of the model from disk for what it generated."""
        tokens, read = (int(server.metric(name, self.headers))
                        for name in ("generated_tokens_total", "disk_read_bytes_total"))
        memory = server.ready["memory"]
        assert memory["total"] <= self.bytes, memory
        said = (f"{tokens} tokens of a model of {self.model_bytes / 1e6:.1f} MB within "
                f"{self.bytes / 1e6:.1f} MB: {read / 1e6:.0f} MB read")
        if sys.platform == "linux":
            said += f", peak {server.peak_bytes() / 1e6:.1f} MB"
            assert not server.keeps_to_memory or server.peak_bytes() <= 1.02 * self.bytes, said
        print(said)
        assert tokens == 0 or read >= self.model_bytes - self.bytes, said


@contextlib.contextmanager
def serving(model, *arguments, environment=None, resident=False):
    """resident: whatever SHARE says. Tests that give a limit of their own keep it."""
    limit = Limit(model, arguments) if SHARE and not resident and "--memory" not in arguments else None
    if limit is not None:
        arguments = (*arguments, "--memory", f"{limit.bytes}B")
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [binary(), "serve", str(model), "--port", "0", "--json", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=log, env={**os.environ, **(environment or {})})
        line = process.stdout.readline()
        try:
            if not line:
                log.seek(0)
                raise AssertionError(f"the server did not start: {log.read().decode()}")
            # The result is printed as one JSON document, over several lines or one.
            while True:
                try:
                    ready = json.loads(line)
                    break
                except json.JSONDecodeError:
                    more = process.stdout.readline()
                    if not more:
                        raise
                    line += more
            if "port" not in ready:
                raise AssertionError(f"the server did not start: {ready}")
            server = Server(process, ready, log)
            yield server
            assert process.poll() is None, "the server ended by itself"
            if limit is not None:
                limit.check(server)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0, "the server did not end well"
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
