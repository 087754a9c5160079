#!/usr/bin/env python3
"""Sessions kept on disk by a served model, and embeddings held against mlx_lm's hidden states."""

import base64
import struct
import sys
import tempfile
import unittest
from pathlib import Path

from openai_served import MODEL, NAME, Served, openai
from server import SHARE, serving
from support import sluice

LONG = [{"role": "user", "content": "Tell me about rivers. " * 30}]


class Sessions(unittest.TestCase):
    def setUp(self):
        scope = tempfile.TemporaryDirectory()
        self.addCleanup(scope.cleanup)
        self.folder = Path(scope.name) / "kept" / "sessions"

    def serving(self, *arguments):
        return serving(MODEL, "--context", 512, "--parallel", 2, "--sessions", self.folder,
                       *arguments)

    def ask(self, server, messages):
        reply = server.json("POST", "/v1/chat/completions",
                            {"messages": messages, "temperature": 0.8, "seed": 3, "max_tokens": 12})
        return reply["choices"][0]["message"]["content"], reply

    def save(self, server, name, expect=200, **more):
        status, _, text = server.request("POST", "/v1/sessions", {"name": name, **more})
        self.assertEqual(status, expect, text)
        return text

    def restore(self, server, name, expect=200, **more):
        status, _, text = server.request("POST", "/v1/sessions/restore", {"name": name, **more})
        self.assertEqual(status, expect, text)
        return text

    def names(self, server):
        return [s["name"] for s in server.json("GET", "/v1/sessions")["data"]]

    def test_a_restart_loses_nothing(self):
        with self.serving() as server:
            first, _ = self.ask(server, LONG)
            talk = LONG + [{"role": "assistant", "content": first},
                           {"role": "user", "content": "Why?"}]
            self.save(server, "rivers-1")
            unbroken, whole = self.ask(server, talk)
            self.assertGreater(whole["timings"]["reused_tokens"], 100)
            kept = server.json("GET", "/v1/sessions")["data"]
            self.assertEqual([(s["name"], s["model"]) for s in kept], [("rivers-1", NAME)])
            self.assertGreater(kept[0]["bytes"], 100_000)
        self.assertEqual([p.suffix for p in self.folder.rglob("*") if p.is_file()], [".session"])
        with self.serving() as server:
            fresh, alone = self.ask(server, talk)
            self.assertEqual((fresh, alone["timings"]["reused_tokens"]), (unbroken, 0))
        with self.serving() as server:
            self.assertIn('"tokens"', self.restore(server, "rivers-1", slot=1))
            restored, reply = self.ask(server, talk)
            self.assertEqual(restored, unbroken)
            for key in ("reused_tokens", "prompt_tokens"):
                self.assertEqual(reply["timings"][key], whole["timings"][key])
            self.assertEqual(reply["usage"]["prompt_tokens_details"]["cached_tokens"],
                             whole["usage"]["prompt_tokens_details"]["cached_tokens"])
            self.assertEqual(server.request("DELETE", "/v1/sessions/rivers-1")[0], 200)
            self.assertEqual(self.names(server), [])
            self.restore(server, "rivers-1", 404)
            self.assertEqual(server.request("DELETE", "/v1/sessions/rivers-1")[0], 404)

    def test_names_and_slots(self):
        with self.serving() as server:
            self.save(server, "x", 404)  # no session holds anything
            self.ask(server, LONG)
            for name in ("", ".", "..", "../x", "a/b", "/etc/passwd", "x" * 65, "a\x00b", ".hidden",
                         "a b", "ü"):
                self.save(server, name, 400)
                self.restore(server, name, 400)
            for path in ("..%2fx", "../x", "%2e%2e", ".hidden", "a/b"):
                self.assertIn(server.request("DELETE", f"/v1/sessions/{path}")[0], (400, 404), path)
            self.save(server, 5, 400)
            self.save(server, "x", 400, slot=2)
            self.save(server, "x", 404, model="other")
            self.save(server, "x.1_a-B")
            self.save(server, "x.1_a-B")  # again
            self.assertEqual(self.names(server), ["x.1_a-B"])

    def test_damage_and_other_models(self):
        with self.serving() as server:
            self.ask(server, LONG)
            self.save(server, "a")
            path = next(self.folder.rglob("a.session"))
            data = bytearray(path.read_bytes())
            data[-1000] ^= 1
            path.write_bytes(data)
            self.assertIn("damaged", self.restore(server, "a", 500))
            self.assertEqual(self.ask(server, LONG)[1]["usage"]["prompt_tokens_details"]
                             ["cached_tokens"] > 100, True)
        with serving(MODEL, "--context", 512, "--kv", "q8", "--sessions", self.folder) as server:
            data[-1000] ^= 1
            path.write_bytes(data)
            self.assertIn("keys and values", self.restore(server, "a", 400))

    def test_limits(self):
        with self.serving("--sessions-max", 2, "--sessions-size", "30MB") as server:
            self.ask(server, LONG)
            self.save(server, "a")
            self.save(server, "b")
            self.assertIn("the most that may be", self.save(server, "c", 429))
            self.save(server, "b")
        with self.serving("--sessions-size", "1MB") as server:
            self.ask(server, LONG)
            self.assertIn("may take 1.000 MB", self.save(server, "c", 429))
            self.assertEqual(self.names(server), ["a", "b"])

    def test_without_a_folder(self):
        with serving(MODEL, "--context", 256, "--parallel", 1) as server:
            for method, path, body in (("GET", "/v1/sessions", None),
                                       ("POST", "/v1/sessions", {"name": "x"}),
                                       ("POST", "/v1/sessions/restore", {"name": "x"}),
                                       ("DELETE", "/v1/sessions/x", None)):
                self.assertEqual(server.request(method, path, body)[0], 501, path)


class Embeddings(Served):
    arguments = ("--context", 512, "--parallel", 2)

    def embed(self, input, **options):
        return self.client.embeddings.create(model=NAME, input=input, **options)

    def test_forms_of_input(self):
        texts = ["The cat sits on the mat.", "A dog runs in the park.", "x"]
        many = self.embed(texts)
        self.assertEqual([d.index for d in many.data], [0, 1, 2])
        tokens = [self.server.json("POST", "/tokenize", {"content": t, "add_special": True})["tokens"]
                  for t in texts]
        self.assertEqual(many.usage.prompt_tokens, sum(map(len, tokens)))
        for text, ids, found in zip(texts, tokens, many.data):
            self.assertAlmostEqual(sum(v * v for v in found.embedding), 1, places=5)
            for same in (text, ids, [ids]):
                self.assertEqual(self.embed(same).data[0].embedding, found.embedding)
        # The client asks for base64 unless it is told otherwise.
        numbers = self.embed(texts[0], encoding_format="float").data[0].embedding
        for a, b in zip(numbers, many.data[0].embedding, strict=True):
            self.assertAlmostEqual(a, b, places=6)
        raw = self.server.json("POST", "/v1/embeddings", {
            "input": texts[0], "encoding_format": "base64"})["data"][0]["embedding"]
        count = len(numbers)
        self.assertEqual(list(struct.unpack(f"<{count}f", base64.b64decode(raw))),
                         many.data[0].embedding)
        self.embed(texts[0], dimensions=count)
        self.assertEqual(len(self.embed(["a"] * 30).data), 30)

    def test_beside_answers(self):
        """What is embedded does not depend on chunks, nor on what is generated beside it."""
        long = "Many words about rivers and lakes. " * 40
        alone = self.embed(long).data[0].embedding
        stream = self.client.completions.create(model=NAME, prompt="One, two,", max_tokens=100,
                                                stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        self.assertEqual(self.embed([long, "x"]).data[0].embedding, alone)
        stream.close()

    def test_errors(self):
        for options in ({"input": []}, {"input": ""}, {"input": [[]]}, {"input": [1, "a"]},
                        {"input": [10**9]}, {"input": "x", "dimensions": 5},
                        {"input": "word " * 2000}):
            with self.assertRaises(openai.BadRequestError, msg=str(options)[:80]):
                self.embed(**options)
        status, _, text = self.server.request("POST", "/v1/embeddings",
                                              {"input": "x", "encoding_format": "int8"})
        self.assertEqual((status, "encoding_format" in text), (400, True))


@unittest.skipIf(SHARE, "a model of which a share is too little")
class AgainstMlx(unittest.TestCase):
    def test_mean_of_hidden_states(self):
        try:
            import mlx.core as mx
            import numpy as np
        except ImportError:
            self.skipTest("mlx is not installed; run scripts/setup test")
        from support import load_stock
        with tempfile.TemporaryDirectory() as folder:
            small = Path(folder) / "small"
            sluice("quantize", MODEL, "--bits", 8, "--group-size", 64, "-o", small)
            model = load_stock(small)
            tokens = [1, 504, 2576, 314, 260, 1234, 5678, 42, 2]
            states = np.array(model.model(mx.array([tokens]))[0].astype(mx.float32))
            mean = states.mean(axis=0)
            with serving(small, "--context", 128, "--parallel", 1, "--kv", "f32", "--activations",
                         "f32") as server:
                reply = server.json("POST", "/v1/embeddings", {"input": tokens})
        found = np.array(reply["data"][0]["embedding"])
        self.assertLess(np.abs(found - mean / np.linalg.norm(mean)).max(), 1e-4)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
