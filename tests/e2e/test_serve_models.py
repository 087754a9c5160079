#!/usr/bin/env python3
"""`sluice serve` of several models: both in memory, and taking turns where memory holds one alone."""

import json
import shutil
import socket
import sys
import tempfile
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from server import SHARE, serving
from support import demo_model, skip, sluice, sluice_json

MODEL = demo_model()
if MODEL is None:
    skip("the demo model is not there; run scripts/demo_model")
NAME = MODEL.stem
SLOTS = 2


def body(model, number=0, **options):
    return {"model": model, "prompt": f"{number}, {number + 1}, {number + 2},", "temperature": 0,
            "max_tokens": 8, **options}


class Models(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.small = Path(cls.folder.name) / "small"
        sluice("quantize", MODEL, "--bits", 4, "--group-size", 64, "-o", cls.small)
        cls.alone = {name: [cls.run_alone(model, i) for i in range(3)]
                     for name, model in ((NAME, MODEL), ("small", cls.small))}

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def run_alone(cls, model, number):
        return sluice_json("run", model, "--raw", "-p", body("", number)["prompt"], "--temp", 0,
                           "-n", 8)["text"]

    def serving(self, *arguments, models=None):
        return serving(*(models or (MODEL, self.small)), "--context", 256, "--parallel", SLOTS,
                       "--alias", "tiny=small", *arguments)

    def complete(self, server, model, number=0):
        status, _, text = server.request("POST", "/v1/completions", body(model, number))
        self.assertEqual(status, 200, text)
        return json.loads(text)["choices"][0]["text"]

    def loaded(self, server):
        models = server.json("GET", "/v1/models")["data"]
        return {m["id"] for m in models if m["sluice"]["loaded"]}

    def ask_all(self, server):
        """Both models from several clients at once, each text what its model writes alone."""
        asked = [(name, i) for i in range(3) for name in self.alone] * 2
        with ThreadPoolExecutor(len(asked)) as pool:
            texts = list(pool.map(lambda a: self.complete(server, *a), asked))
        self.assertEqual(texts, [self.alone[name][i] for name, i in asked])

    @unittest.skipIf(SHARE, "memory for one alone")
    def test_both_in_memory(self):
        with self.serving() as server:
            models = {m["id"]: m["sluice"] for m in server.json("GET", "/v1/models")["data"]}
            self.assertEqual(set(models), {NAME, "small", "tiny"})
            self.assertEqual(self.loaded(server), {NAME})
            self.assertEqual(models["tiny"], models["small"])
            self.assertFalse(models[NAME]["report"])
            self.assertNotEqual(models[NAME]["weight_bytes"], models["small"]["weight_bytes"])
            self.assertEqual(len(server.json("GET", "/slots")), SLOTS)
            self.ask_all(server)
            self.assertEqual(self.complete(server, "tiny"), self.alone["small"][0])
            self.assertEqual(self.complete(server, None), self.alone[NAME][0])
            self.assertEqual(self.loaded(server), {NAME, "small", "tiny"})
            slots = [s["model"] for s in server.json("GET", "/slots")]
            self.assertEqual(slots, [NAME] * SLOTS + ["small"] * SLOTS)
            self.assertEqual(server.metric("model_loads_total"), 2)
            self.assertEqual(server.metric("slots_total"), 2 * SLOTS)
            self.assertEqual(server.metric("generated_tokens_total"), 8 * 14)
            self.assertEqual(server.request("GET", "/metrics")[2].count("sluice_model_info{"), 2)
            self.assertEqual(server.request("GET", "/report?model=small")[0], 200)
            self.assertEqual(server.request("GET", f"/report?model={NAME}")[0], 404)
            self.assertEqual(server.request("GET", "/report?model=%73mall&x=1")[0], 200)
            for name in ("other", "../small", str(self.small)):
                status, _, text = server.request("POST", "/v1/completions", body(name))
                self.assertEqual((status, json.loads(text)["error"]["param"]), (404, "model"))
            self.assertEqual(server.json("POST", "/tokenize", {"content": "x", "model": "small"}),
                             server.json("POST", "/tokenize", {"content": "x"}))

    def serving_one(self, **options):
        """One model at a time has room, or a share of one."""
        return self.serving(*([] if SHARE else ["--memory", self.memory_for_one()]), **options)

    def memory_for_one(self):
        """A limit that holds the larger model with its sessions, and not the smaller one beside."""
        with serving(MODEL, "--context", 256, "--parallel", SLOTS) as server:
            resident = server.metric("resident_bytes")
            weights = server.json("GET", "/v1/models")["data"][0]["sluice"]["weight_bytes"]
        return f"{int((resident + weights / 2) / 1e6) + 30}MB"

    def test_taking_turns(self):
        with self.serving_one() as server:
            self.assertEqual(self.complete(server, NAME), self.alone[NAME][0])
            self.assertEqual(self.complete(server, "small", 1), self.alone["small"][1])
            self.assertEqual(self.loaded(server), {"small", "tiny"})
            self.assertEqual(self.complete(server, NAME, 2), self.alone[NAME][2])
            self.assertEqual(self.loaded(server), {NAME})
            self.assertEqual(server.metric("model_loads_total"), 3)
            # Counters go on where models come and go.
            self.assertEqual(server.metric("generated_tokens_total"), 24)
            self.assertEqual(server.metric("slots_total"), SLOTS)
            self.ask_all(server)
            self.assertLess(server.metric("resident_bytes"), server.metric("memory_limit_bytes"))

    def test_answers_end_before_their_model_leaves(self):
        with self.serving_one() as server:
            long = body(NAME, max_tokens=150, ignore_eos=True)
            with ThreadPoolExecutor(2) as pool:
                running = pool.submit(server.json, "POST", "/v1/completions", long)
                while server.metric("requests_running") == 0:
                    time.sleep(0.01)
                self.assertEqual(self.complete(server, "small"), self.alone["small"][0])
                self.assertTrue(running.done())
                self.assertEqual(running.result()["usage"]["completion_tokens"], 150)

    def test_clients_that_go_while_they_wait(self):
        with self.serving_one() as server:
            with ThreadPoolExecutor(1) as pool:
                long = pool.submit(server.json, "POST", "/v1/completions",
                                   body(NAME, max_tokens=150, ignore_eos=True))
                while server.metric("requests_running") == 0:
                    time.sleep(0.01)
                head = json.dumps(body("small")).encode()
                self.leave(server, head)
                long.result()
            self.assertEqual(self.complete(server, NAME), self.alone[NAME][0])
            self.assertEqual(self.loaded(server), {NAME})
            self.assertEqual(server.metric("model_loads_total"), 1)

    def leave(self, server, data):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
                               b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                               % (len(data), data))
            while server.metric("requests_queued") == 0:
                time.sleep(0.01)
        while server.metric("requests_queued") > 0:
            time.sleep(0.01)

    def test_a_load_that_fails(self):
        broken = Path(self.folder.name) / "broken"
        shutil.copytree(self.small, broken)
        with self.serving_one(models=(MODEL, self.small, broken)) as server:
            weights = next(broken.glob("*.safetensors"))
            with weights.open("r+b") as file:
                file.truncate(weights.stat().st_size // 2)
            status, _, text = server.request("POST", "/v1/completions", body("broken"))
            self.assertEqual(status, 500)
            self.assertIn("the model broken could not be loaded", text)
            self.assertEqual(self.complete(server, "small"), self.alone["small"][0])
            self.assertEqual(self.complete(server, NAME), self.alone[NAME][0])
            self.assertEqual(server.json("GET", "/health"), {"status": "ok"})


class Refused(unittest.TestCase):
    def test_names_that_are_not_unique(self):
        for arguments in ((MODEL,), ("--alias", NAME), ("--alias", "x=other"),
                          ("--alias", "x", "--alias", f"x={NAME}")):
            with self.assertRaises(AssertionError) as raised, serving(MODEL, *arguments):
                pass
            self.assertRegex(str(raised.exception), "asked for as|no model served here")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
