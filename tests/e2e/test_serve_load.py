#!/usr/bin/env python3
"""A served demo model under load: many clients with random disconnects, and idle connections.

No stream is crossed (every finished text is what the request gives alone), resident memory stays,
batching gives more tokens a second than one client. SLUICE_LOAD_SECONDS sets the length of the load
(default 60), SLUICE_LOAD_CLIENTS their number (64), SLUICE_SEED repeats a run.
"""

import http.client
import json
import os
import random
import socket
import sys
import threading
import time
import unittest

from server import serving
from support import demo_model, skip

MODEL = demo_model()
if MODEL is None:
    skip("the demo model is not there; run scripts/demo_model")
SECONDS = float(os.environ.get("SLUICE_LOAD_SECONDS", 60))
CLIENTS = int(os.environ.get("SLUICE_LOAD_CLIENTS", 64))
SEED = int(os.environ.get("SLUICE_SEED", time.time_ns() % 1_000_000))
PROMPTS = [f"The number {n} is" for n in range(40)]
TOKENS = 24


def stream(port, prompt, leave_after=None):
    """The text, the time to its first piece and its tokens; None when we left before its end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "stream": True,
            "ignore_eos": True}
    start = time.monotonic()
    try:
        connection.request("POST", "/v1/completions", json.dumps(body),
                           {"Content-Type": "application/json"})
        reply = connection.getresponse()
        if reply.status == 429:
            return "busy", 0, 0
        assert reply.status == 200, reply.read()
        text, first, pieces = "", None, 0
        for line in reply:
            if not line.startswith(b"data: ") or line == b"data: [DONE]\n":
                continue
            event = json.loads(line[6:])
            assert "error" not in event, event
            first = first or time.monotonic() - start
            text += "".join(c["text"] for c in event["choices"])
            pieces += 1
            if leave_after is not None and pieces > leave_after:
                return None
        return text, first, event["timings"]["generated_tokens"]
    finally:
        connection.close()


class Load(unittest.TestCase):
    def clients(self, server, count, seconds, expected, leave):
        """Every client asks again and again; tokens a second of whole answers, times to the first."""
        end, times, tokens, problems = time.monotonic() + seconds, [], [0], []
        lock = threading.Lock()

        def client(number):
            rng = random.Random(SEED * 1000 + number)
            while time.monotonic() < end and not problems:
                prompt = rng.choice(PROMPTS)
                leave_after = rng.randrange(TOKENS) if rng.random() < leave else None
                try:
                    result = stream(server.port, prompt, leave_after)
                except Exception as problem:  # noqa: BLE001: whatever it is, the test is to show it
                    problems.append(repr(problem))
                    return
                if result is None:
                    continue
                text, first, count = result
                if text == "busy":
                    time.sleep(0.05)
                    continue
                with lock:
                    if text != expected[prompt]:
                        problems.append(f"{prompt!r}: {text!r} instead of {expected[prompt]!r}")
                    times.append(first)
                    tokens[0] += count

        start = time.monotonic()
        threads = [threading.Thread(target=client, args=(n,)) for n in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(problems, [])
        return tokens[0] / (time.monotonic() - start), sorted(times)

    def test_load(self):
        print(f"seed {SEED}, {CLIENTS} clients, {SECONDS:.0f} s")
        with serving(MODEL, "--context", 256, "--parallel", 16, "--queue", 64) as server:
            expected = {p: stream(server.port, p)[0] for p in PROMPTS}
            one, _ = self.clients(server, 1, min(10, SECONDS), expected, 0)
            self.clients(server, CLIENTS, SECONDS / 4, expected, 0.3)
            settled = server.metric("resident_bytes")
            many, times = self.clients(server, CLIENTS, SECONDS, expected, 0.3)
            grown = server.metric("resident_bytes") / settled - 1
            print(f"one client {one:.1f} tokens/s, {CLIENTS} clients {many:.1f} tokens/s "
                  f"(whole answers alone), {many / one:.2f} times; first token "
                  f"p50 {times[len(times) // 2]:.2f} s, p95 {times[len(times) * 19 // 20]:.2f} s; "
                  f"memory {100 * grown:+.2f} %")
            self.assertLess(abs(grown), 0.02)
            idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(500)]
            for connection in idle:
                connection.sendall(b"GET / HT")
            beside, _ = self.clients(server, 1, min(10, SECONDS), expected, 0)
            for connection in idle:
                connection.close()
            print(f"one client beside 500 slow connections {beside:.1f} tokens/s")
            self.assertGreater(many, one)
            self.assertGreater(beside, 0.7 * one)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
