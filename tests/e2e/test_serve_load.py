#!/usr/bin/env python3
"""A served model under load: many clients with random disconnects, a thousand slow connections, and a
model that is read from disk as it is used.

No stream is lost or crossed (every finished text is what the request gives alone), resident memory
stays, batching gives more tokens a second than one client. Speeds are printed, and held against
generous bounds alone. SLUICE_LOAD_SECONDS sets the length of the load (default 30, and 300 with
SLUICE_SLOW=1), SLUICE_LOAD_CLIENTS their number (64), SLUICE_TEST_SEED another run.
"""

import contextlib
import http.client
import json
import os
import random
import resource
import socket
import statistics
import sys
import threading
import time
import unittest

import support
from server import serving
from support import demo_model, make_checkpoint

SECONDS = float(os.environ.get("SLUICE_LOAD_SECONDS",
                               300 if os.environ.get("SLUICE_SLOW") else 30))
CLIENTS = int(os.environ.get("SLUICE_LOAD_CLIENTS", 64))
SEED = support.test_seed()
PROMPTS = [f"The number {n} is" for n in range(40)]
TOKENS = 24
SLOW_CONNECTIONS = 1000
LEAVING = 0.3


def stream(port, prompt, leave_after=None):
    """The text and the time to its first piece; None when we left before its end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "stream": True,
            "ignore_eos": True}
    start = time.monotonic()
    try:
        connection.request("POST", "/v1/completions", json.dumps(body),
                           {"Content-Type": "application/json"})
        reply = connection.getresponse()
        assert reply.status == 200, reply.read()
        text, first, pieces, done = "", None, 0, False
        for line in reply:
            done = done or line == b"data: [DONE]\n"
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            assert "error" not in event, event
            first = first or time.monotonic() - start
            text += "".join(c["text"] for c in event["choices"])
            pieces += 1
            if leave_after is not None and pieces > leave_after:
                return None
        assert done, f"{prompt!r}: the stream ended early"
        return text, first
    finally:
        connection.close()


class Load:
    """What clients found that each ask again and again. tokens: that the server made for them, those
    who left included."""

    def __init__(self, server, expected):
        self.server, self.expected = server, expected
        self.lock, self.times, self.problems, self.whole, self.left = threading.Lock(), [], [], 0, 0

    def run(self, clients, seconds, leaving=0.0):
        before, start = self.server.metric("generated_tokens_total"), time.monotonic()
        threads = [threading.Thread(target=self.client, args=(n, start + seconds, leaving))
                   for n in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not self.problems, self.problems
        tokens = self.server.metric("generated_tokens_total") - before
        self.tokens_s = tokens / (time.monotonic() - start)
        return self

    def client(self, number, end, leaving):
        rng = random.Random(SEED * 1000 + number)
        while time.monotonic() < end and not self.problems:
            prompt = rng.choice(PROMPTS)
            leave_after = rng.randrange(TOKENS) if rng.random() < leaving else None
            try:
                result = stream(self.server.port, prompt, leave_after)
            except Exception as problem:  # noqa: BLE001: whatever it is, the test is to show it
                self.problems.append(repr(problem))
                return
            with self.lock:
                if result is None:
                    self.left += 1
                    continue
                self.whole += 1
                self.times.append(result[1])
                if result[0] != self.expected[prompt]:
                    self.problems.append(f"{prompt!r}: {result[0]!r}, not {self.expected[prompt]!r}")

    def first_token(self):
        times = sorted(self.times)
        return f"first token p50 {times[len(times) // 2]:.2f} s, p95 {times[len(times) * 19 // 20]:.2f} s"


@contextlib.contextmanager
def slow_connections(port, count):
    """Requests whose heads arrive a byte every other second."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit[0] < count + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit[1], count + 200), limit[1]))
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    ended = threading.Event()

    def drip():
        head = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"x" * 1000
        for at in range(len(head)):
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.send(head[at:at + 1])
            if ended.wait(2):
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for connection in connections:
            connection.close()


class ServeLoad(support.TestCase):
    def demo(self):
        if demo_model() is None:
            self.skipTest("the demo model is not there; run scripts/demo_model")
        return demo_model()

    def expected(self, server):
        return {prompt: stream(server.port, prompt)[0] for prompt in PROMPTS}

    def test_many_clients(self):
        print(f"\nseed {SEED}, {CLIENTS} clients, {SECONDS:.0f} s")
        with serving(self.demo(), "--context", 256, "--parallel", 16, "--queue", 64) as server:
            expected = self.expected(server)
            one = Load(server, expected).run(1, min(15, SECONDS)).tokens_s
            Load(server, expected).run(CLIENTS, min(60, SECONDS), LEAVING)
            settled = server.metric("resident_bytes")
            many = Load(server, expected).run(CLIENTS, SECONDS, LEAVING)
            grown = server.metric("resident_bytes") / settled - 1
            again = Load(server, expected).run(1, min(15, SECONDS)).tokens_s
            ratio = many.tokens_s / ((one + again) / 2)
            print(f"one client {one:.1f} and {again:.1f} tokens/s, {CLIENTS} clients "
                  f"{many.tokens_s:.1f} tokens/s, {ratio:.2f} times; {many.whole} answers whole, "
                  f"{many.left} left; {many.first_token()}; memory {settled / 1e6:.1f} MB "
                  f"{100 * grown:+.2f} %")
            self.assertGreater(many.left, 0)
            self.assertLess(grown, 0.01)
            self.assertGreater(ratio, 1.5)

    def test_slow_connections(self):
        seconds = min(8, SECONDS)
        with serving(self.demo(), "--context", 256, "--connections", SLOW_CONNECTIONS + 100) as server:
            expected = self.expected(server)
            alone, beside = [], []
            for _ in range(3):
                alone.append(Load(server, expected).run(1, seconds).tokens_s)
                with slow_connections(server.port, SLOW_CONNECTIONS):
                    beside.append(Load(server, expected).run(1, seconds).tokens_s)
            ratio = statistics.median(beside) / statistics.median(alone)
            print(f"\none client {statistics.median(alone):.1f} tokens/s, beside {SLOW_CONNECTIONS} slow "
                  f"connections {statistics.median(beside):.1f}: {ratio:.2f}")
            self.assertGreater(max(b / a for a, b in zip(alone, beside)), 0.5)

    @unittest.skipUnless(sys.platform == "linux", "reads /proc")
    def test_beyond_memory(self):
        model = self.folder / "large"
        make_checkpoint(model, "llama", "bf16", hidden_size=1024, intermediate_size=4096,
                        num_hidden_layers=12, num_attention_heads=16, num_key_value_heads=4,
                        vocab_size=8000, max_position_embeddings=4096)
        size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
        limit, seconds = int(0.4 * size), min(120, SECONDS)
        options = ["--context", 128, "--parallel", 16, "--queue", 64]
        with serving(model, *options) as server:
            expected = self.expected(server)
        with serving(model, *options, "--memory", f"{limit}B") as server:
            one = Load(server, expected).run(1, seconds / 4).tokens_s
            Load(server, expected).run(CLIENTS, seconds / 4, LEAVING)
            settled = server.metric("resident_bytes")
            many = Load(server, expected).run(CLIENTS, seconds, LEAVING)
            resident = server.metric("resident_bytes")
            print(f"\n{size / 1e6:.0f} MB of weights within {limit / 1e6:.0f} MB: one client {one:.1f} "
                  f"tokens/s, {CLIENTS} clients {many.tokens_s:.1f}, {many.tokens_s / one:.2f} times; "
                  f"{many.whole} answers whole, {many.left} left; {many.first_token()}; memory "
                  f"{settled / 1e6:.1f} MB {100 * (resident / settled - 1):+.2f} %, peak "
                  f"{server.peak_bytes() / 1e6:.1f} MB")
            self.assertGreater(server.metric("disk_read_bytes_total"), size)
            self.assertLess(resident / settled, 1.01)
            self.assertLessEqual(server.peak_bytes(), limit * 1.02)
            self.assertGreater(many.tokens_s, one)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
