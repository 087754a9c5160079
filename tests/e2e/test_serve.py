#!/usr/bin/env python3
"""`sluice serve` as clients see it: OpenAI's own Python client, plain HTTP, and hostile bytes."""

import json
import socket
import sys
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from openai_served import CONTEXT, MODEL, NAME, Served, openai
from server import SHARE, serving
from support import sluice_json

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


class ManyServed(Served):
    slots = 2 if SHARE else 4
    arguments = ("--context", CONTEXT, "--alias", "demo", "--parallel", slots)

    def chat(self, **options):
        return self.client.chat.completions.create(
            **{"model": NAME, "messages": QUESTION, "temperature": 0, "max_tokens": 16, **options})

    def await_idle(self):
        deadline = time.monotonic() + 60
        while self.server.metric("requests_running") > 0:
            self.assertLess(time.monotonic(), deadline, "requests are still running")
            time.sleep(0.05)


class Openai(ManyServed):
    def test_chat(self):
        answer = self.chat(max_tokens=64)
        choice = answer.choices[0]
        alone = sluice_json("run", MODEL, "-p", QUESTION[0]["content"], "--temp", 0, "-n", 64)
        self.assertEqual(choice.message.content, alone["text"])
        self.assertEqual(choice.message.role, "assistant")
        self.assertEqual(answer.usage.prompt_tokens, alone["prompt_tokens"])
        self.assertEqual(answer.model, NAME)
        self.assertEqual(answer.usage.total_tokens,
                         answer.usage.prompt_tokens + answer.usage.completion_tokens)

    def test_length(self):
        answer = self.chat(max_tokens=3)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.usage.completion_tokens, 3)

    def test_streaming_says_the_same(self):
        whole = self.chat(max_tokens=40).choices[0].message.content
        chunks = list(self.chat(max_tokens=40, stream=True,
                                stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole)
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertIsNotNone(chunks[-1].usage)
        self.assertGreater(chunks[-1].model_extra["timings"]["generated_tokens"], 0)
        self.assertGreater(len(chunks), 3)

    def test_choices_and_seeds(self):
        options = {"temperature": 1, "seed": 5, "n": 3, "max_tokens": 12}
        first, second = self.chat(**options), self.chat(**options)
        texts = [c.message.content for c in first.choices]
        self.assertEqual(texts, [c.message.content for c in second.choices])
        self.assertEqual([c.index for c in first.choices], [0, 1, 2])
        self.assertGreater(len(set(texts)), 1)

    def test_stop(self):
        whole = self.chat().choices[0].message.content
        stopped = self.chat(stop=[whole[5:9]])
        self.assertEqual(stopped.choices[0].message.content, whole[:whole.index(whole[5:9])])
        self.assertEqual(stopped.choices[0].finish_reason, "stop")

    def test_logprobs(self):
        choice = self.chat(max_tokens=5, logprobs=True, top_logprobs=3).choices[0]
        self.assertEqual(len(choice.logprobs.content), 5)
        for token in choice.logprobs.content:
            self.assertLessEqual(token.logprob, 0)
            self.assertEqual(len(token.top_logprobs), 3)
            self.assertEqual(token.top_logprobs[0].token, token.token)
        joined = b"".join(bytes(t.bytes) for t in choice.logprobs.content).decode()
        self.assertEqual(joined.strip(), choice.message.content.strip())
        streamed = list(self.chat(max_tokens=5, logprobs=True, top_logprobs=0, stream=True))
        count = sum(len(c.choices[0].logprobs.content) for c in streamed
                    if c.choices and c.choices[0].logprobs)
        self.assertEqual(count, 5)

    def test_logit_bias(self):
        token = self.server.json("POST", "/tokenize", {"content": "The"})["tokens"][0]
        free = self.chat(max_tokens=4).choices[0].message.content
        forced = self.chat(max_tokens=4, logit_bias={str(token): 100}).choices[0].message.content
        self.assertEqual(forced, "TheTheTheThe")
        self.assertNotEqual(free, forced)

    def test_completions(self):
        answer = self.client.completions.create(model=NAME, prompt=["Once upon", "One, two,"],
                                                max_tokens=6, temperature=0, echo=True, logprobs=2)
        self.assertEqual(len(answer.choices), 2)
        self.assertTrue(answer.choices[0].text.startswith("Once upon"))
        self.assertEqual(len(answer.choices[1].logprobs.tokens), 6)
        pieces = self.client.completions.create(model=NAME, prompt="Once upon", max_tokens=6,
                                                temperature=0, stream=True)
        text = "".join(p.choices[0].text for p in pieces if p.choices)
        self.assertEqual("Once upon" + text, answer.choices[0].text)

    def test_models(self):
        self.assertEqual([m.id for m in self.client.models.list().data], [NAME, "demo"])
        self.assertTrue(self.chat(model="demo", max_tokens=1).choices)

    def test_errors(self):
        with self.assertRaises(openai.NotFoundError) as raised:
            self.chat(model="../../etc/passwd")
        self.assertEqual(raised.exception.param, "model")
        with self.assertRaises(openai.BadRequestError) as raised:
            self.chat(temperature=-1)
        self.assertEqual(raised.exception.param, "temperature")
        self.assertIn("from 0 to 100", str(raised.exception))
        with self.assertRaises(openai.BadRequestError):
            self.chat(messages=[{"role": "user", "content": "word " * 2000}])
        with self.assertRaises(openai.APIStatusError):
            self.client.completions.create(model=NAME, prompt="x", suffix="y")

    def test_json_schema(self):
        schema = {"type": "object", "properties": {
            "city": {"type": "string", "maxLength": 12}, "size": {"enum": ["small", "large"]}},
            "required": ["city", "size"], "additionalProperties": False}
        form = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
        for seed in range(5):
            choice = self.chat(response_format=form, max_tokens=100, temperature=1,
                               seed=seed).choices[0]
            self.assertEqual(choice.finish_reason, "stop")
            found = json.loads(choice.message.content)
            self.assertEqual(sorted(found), ["city", "size"])
            self.assertIn(found["size"], ["small", "large"])
        self.assertEqual(self.chat(response_format=form, max_tokens=2).choices[0].finish_reason,
                         "length")
        form["json_schema"]["schema"] = {"type": "string", "minLength": 5, "maxLength": 2}
        with self.assertRaises(openai.BadRequestError) as raised:
            self.chat(response_format=form)
        self.assertEqual(raised.exception.param, "response_format")

    def test_json_object(self):
        choice = self.chat(response_format={"type": "json_object"}, max_tokens=200, seed=1,
                           temperature=1).choices[0]
        if choice.finish_reason == "stop":
            self.assertIsInstance(json.loads(choice.message.content), dict)
        self.assertTrue(choice.message.content.startswith("{"))

    def test_tools(self):
        tools = [{"type": "function", "function": {
            "name": name, "description": "Tells the weather.", "parameters": {
                "type": "object", "properties": {"city": {"type": "string", "maxLength": 10}},
                "required": ["city"], "additionalProperties": False}}}
            for name in ("weather", "forecast")]
        named = {"type": "function", "function": {"name": "forecast"}}
        options = {"tools": tools, "tool_choice": named, "max_tokens": 100}
        choice = self.chat(**options).choices[0]
        self.assertEqual(choice.finish_reason, "tool_calls")
        call = choice.message.tool_calls[0]
        self.assertEqual(call.function.name, "forecast")
        self.assertEqual(list(json.loads(call.function.arguments)), ["city"])
        pieces = [c.choices[0] for c in self.chat(stream=True, **options) if c.choices]
        calls = [d for p in pieces for d in p.delta.tool_calls or [] if d.index == 0]
        self.assertEqual(calls[0].function.name, "forecast")
        arguments = [c.function.arguments for c in calls if c.function.arguments]
        self.assertEqual("".join(arguments), call.function.arguments)
        self.assertGreater(len(arguments), 2, "they come as they are written")
        self.assertEqual(pieces[-1].finish_reason, "tool_calls")
        again = self.chat(tools=tools, messages=QUESTION + [
            choice.message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"}])
        self.assertTrue(again.choices[0].message.content)
        self.assertIsNone(self.chat(tools=tools, tool_choice="none").choices[0].message.tool_calls)
        with self.assertRaises(openai.BadRequestError):
            self.chat(tools=[{"type": "function"}])
        with self.assertRaises(openai.BadRequestError):
            self.chat(tools=tools, tool_choice={"type": "function", "function": {"name": "x"}})

    def test_repeated_prompts_are_kept(self):
        messages = [{"role": "user", "content": "Tell me about rivers. " * 20}]
        self.chat(messages=messages, max_tokens=2)
        again = self.chat(messages=messages, max_tokens=2)
        self.assertGreater(again.usage.prompt_tokens_details.cached_tokens, 50)

    def test_cancellation(self):
        stream = self.chat(max_tokens=900, stream=True, logit_bias={"2": -100, "0": -100},
                           extra_body={"ignore_eos": True})
        for count, _ in enumerate(stream):
            if count == 3:
                break
        stream.close()
        before = self.server.metric("generated_tokens_total")
        self.await_idle()
        self.assertLess(self.server.metric("generated_tokens_total") - before, 900)

    def test_many_at_once_are_not_crossed(self):
        prompts = [f"{i}, {i + 1}, {i + 2}," for i in range(10, 26)]

        def complete(prompt):
            return self.client.completions.create(model=NAME, prompt=prompt, max_tokens=8,
                                                  temperature=0).choices[0].text

        alone = [complete(p) for p in prompts]
        with ThreadPoolExecutor(16) as pool:
            self.assertEqual(list(pool.map(complete, prompts)), alone)


class Plain(ManyServed):
    def test_health_slots_metrics_page(self):
        self.assertEqual(self.server.json("GET", "/health"), {"status": "ok"})
        slots = self.server.json("GET", "/slots")
        self.assertEqual([s["id"] for s in slots], list(range(self.slots)))
        self.assertEqual(self.server.metric("slots_total"), self.slots)
        status, headers, page = self.server.request("GET", "/")
        self.assertEqual(status, 200)
        self.assertIn("<html", page)
        self.assertIn("default-src 'none'", headers["Content-Security-Policy"])
        self.assertEqual(self.server.request("GET", "/report")[0], 404)

    def test_tokens_go_both_ways(self):
        text = "Grüße, 世界 🙂"
        tokens = self.server.json("POST", "/tokenize", {"content": text})["tokens"]
        self.assertEqual(self.server.json("POST", "/detokenize", {"tokens": tokens}),
                         {"content": text})

    def test_long_texts_keep_nobody_waiting(self):
        """Others are answered while one text of megabytes becomes tokens, and one client's leaving
        does no harm."""
        text = "the quick brown fox jumps over the lazy dog " * 150_000
        self.server.keeps_to_memory = False
        for body, path in (({"content": text}, "/tokenize"),
                           ({"prompt": text, "max_tokens": 1}, "/v1/completions"),
                           ({"messages": [{"role": "user", "content": text}]},
                            "/v1/chat/completions")):
            with ThreadPoolExecutor(1) as pool:
                long = pool.submit(self.server.request, "POST", path, body)
                answered = 0
                while not long.done():
                    self.assertEqual(self.server.json("GET", "/health"), {"status": "ok"})
                    answered += not long.done()
                # A loop that encodes answers one or two, before it has read all of the text.
                self.assertGreater(answered, 10, path)
                self.assertEqual(long.result()[0], 200 if path == "/tokenize" else 400)
        with socket.create_connection(("127.0.0.1", self.server.port)) as leaving:
            data = json.dumps({"content": text}).encode()
            leaving.sendall(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                            b"application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        self.assertEqual(self.server.json("GET", "/health"), {"status": "ok"})
        self.chat()

    def test_slow_schemas_keep_nobody_waiting(self):
        """Somebody's answer goes on while schemas are compiled for others, a good part of a second each."""
        self.server.keeps_to_memory = False
        schema = {"enum": [f"choice number {n} of many, {7 * n}" for n in range(60_000)]}
        slow = {"messages": QUESTION, "max_tokens": 1, "response_format": {
            "type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
        come, enough = [], threading.Event()

        def read(stream):
            for _ in stream:
                come.append(time.monotonic())
                if enough.is_set():
                    break
            stream.close()

        stream = self.client.completions.create(model=NAME, prompt="One, two,", temperature=0, stream=True,
                                                max_tokens=CONTEXT - 40, extra_body={"ignore_eos": True})
        reader = threading.Thread(target=read, args=(stream,))
        reader.start()

        while len(come) < 6 and reader.is_alive():
            time.sleep(0.05)
        alone = max(b - a for a, b in zip(come, come[1:]))
        windows = []
        for _ in range(3):
            begun = time.monotonic()
            status, _, text = self.server.request("POST", "/v1/chat/completions", slow)
            windows.append((begun, time.monotonic(), status, text[:200]))
        went_on = reader.is_alive()
        enough.set()
        reader.join()
        self.assertEqual([status for _, _, status, _ in windows], [200] * 3, windows)
        self.assertTrue(went_on, "the answer was too short for this")
        counts = [sum(begun < at < end for at in come) for begun, end, *_ in windows]
        shortest = min(end - begun for begun, end, *_ in windows)
        pauses = [max(b - a for a, b in zip(come, come[1:]) if begun < b and a < end)
                  for begun, end, *_ in windows]
        print(f"{counts} pieces beside schemas of {shortest:.2f} s and more, {pauses} s apart at most, "
              f"before that {alone:.2f}")
        # Were they compiled in the loop or between steps, each would bring a pause as long as that and a
        # step. From disk a step takes half a second on a slow day, and a shared machine stops at times.
        self.assertLess(min(pauses), alone + 0.6 * shortest)

    def test_origins(self):
        own = {"Origin": self.server.url}
        self.assertEqual(self.server.request("GET", "/v1/models", headers=own)[0], 200)
        for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"},
                        {"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            status, replied, _ = self.server.request("GET", "/v1/models", headers=headers)
            self.assertEqual(status, 403, headers)
            self.assertNotIn("Access-Control-Allow-Origin", replied)
        self.assertEqual(self.server.request("POST", "/v1/chat/completions", b"{}",
                                             {"Content-Type": "text/plain"})[0], 415)

    def test_paths(self):
        steps = ["../", "..%2f", "%2e%2e/", "..\\", "%252e%252e/", "....//", "..;/", "./", "//", "%00"]
        targets = ["etc/passwd", "proc/self/environ", "v1/../../etc/shadow", "report/../secret"]
        for count in range(1, 6):
            for step in steps:
                for target in targets:
                    reply = self.server.raw(f"GET /{step * count}{target} HTTP/1.1\r\nHost: localhost"
                                            "\r\nConnection: close\r\n\r\n".encode())
                    self.assertIn(reply.split(b" ")[1], (b"404", b"400"), (step, target))
        self.assertEqual(self.server.request("DELETE", "/v1/models")[0], 405)
        for name in ("../x", "/etc/passwd", "a" * 100_000, "\x00"):
            reply = self.server.request("POST", "/v1/chat/completions",
                                        {"model": name, "messages": QUESTION})
            self.assertEqual(reply[0], 404)

    def test_smuggling(self):
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        hidden = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for lengths in (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                        b"Content-Length: 5\r\nContent-Length: 6\r\n",
                        b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding : chunked\r\n",
                        b"Content-Length: 0x10\r\n", b"Content-Length: 5\n"):
            reply = self.server.raw(head + lengths + b"\r\n0\r\n\r\n" + hidden)
            self.assertIn(reply.split(b" ")[1], (b"400", b"501"), lengths)
            self.assertEqual(reply.count(b"HTTP/1.1 "), 1, lengths)

    def test_bodies(self):
        for body, status in ((b"", 400), (b"{", 400), (b"[]", 400), (b"\xff\xfe", 400),
                             (b"[" * 100_000, 400), (b'{"messages":NaN}', 400),
                             (b'{"a":1,"a":2}', 400), (b" " * (9 << 20), 413)):
            reply = self.server.request("POST", "/v1/chat/completions", body) if status != 413 else \
                (int(self.server.raw(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
                                     % len(body)).split(b" ")[1]),)
            self.assertEqual(reply[0], status, body[:20])
        reply = self.server.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000 + b"\r\n\r\n")
        self.assertEqual(reply.split(b" ")[1], b"431")
        self.assertEqual(self.server.json("GET", "/health"), {"status": "ok"})


class Keys(unittest.TestCase):
    def test_bearer_token(self):
        with serving(MODEL, "--context", 256, "--parallel", 1, "--api-key",
                     "a key of some length") as server:
            self.assertEqual(server.request("GET", "/v1/models")[0], 401)
            self.assertEqual(server.request("GET", "/health")[0], 200)
            client = openai.OpenAI(base_url=server.url + "/v1", api_key="wrong", max_retries=0)
            with self.assertRaises(openai.AuthenticationError):
                client.models.list()
            client = openai.OpenAI(base_url=server.url + "/v1", api_key="a key of some length")
            self.assertEqual(client.models.list().data[0].id, NAME)

    def test_no_open_door(self):
        with self.assertRaisesRegex(AssertionError, "can be reached from other machines"):
            with serving(MODEL, "--host", "0.0.0.0"):
                pass


@unittest.skipIf(SHARE, "has limits of its own")
class Memory(unittest.TestCase):
    """The whole process stays within what was computed before the weights were read, whatever is asked
    at once."""

    @unittest.skipUnless(sys.platform == "linux", "reads /proc")
    def test_under_load(self):
        schema = {"type": "object", "properties": {
            "name": {"type": "string", "maxLength": 30}, "age": {"type": "integer"},
            "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}}},
            "required": ["name", "age", "tags"], "additionalProperties": False}
        kinds = [{}, {"logprobs": True, "top_logprobs": 5}, {"top_p": 0.9, "frequency_penalty": 1},
                 {"response_format": {"type": "json_object"}},
                 {"response_format": {"type": "json_schema", "json_schema": {"name": "x",
                                                                            "schema": schema}}}]
        for limit, count in (([], 40), (["--memory", "180MB"], 10)):
            with serving(MODEL, "--context", 320, "--parallel", 8, *limit) as server:
                def ask(number):
                    # Contexts are nearly full then.
                    content = f"{number} " + "What is the capital of France? " * 35
                    return server.request("POST", "/v1/chat/completions", {
                        "messages": [{"role": "user", "content": content}], "max_tokens": 12,
                        "temperature": 1, "seed": number, **kinds[number % len(kinds)]})[0]

                with ThreadPoolExecutor(24) as pool:
                    self.assertEqual(set(pool.map(ask, range(count))), {200})
                memory, peak = server.ready["memory"], server.peak_bytes()
                print(f"{limit}: peak {peak / 1e6:.1f} MB; " + ", ".join(
                    f"{part} {memory[part] / 1e6:.1f}" for part in memory))
                self.assertLessEqual(peak, memory["total"] * 1.02)
                if limit:
                    self.assertLessEqual(peak, 180e6)


class BeyondMemory(unittest.TestCase):
    def test_same_answers_from_disk(self):
        """To the last digit: texts, likelihoods, drawn and constrained ones, embeddings."""
        schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}},
                  "required": ["city"], "additionalProperties": False}
        chats = [{"temperature": 0, "logprobs": True, "top_logprobs": 5},
                 {"temperature": 1, "seed": 7, "logprobs": True},
                 {"temperature": 1, "seed": 8, "response_format": {
                     "type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}]

        def ask(server, path, body):
            reply = server.json("POST", path, body)
            return reply["choices"] if "choices" in reply else reply["data"]

        def answers(*arguments, **options):
            with serving(MODEL, "--context", 256, "--parallel", 2, *arguments, **options) as server:
                found = [ask(server, "/v1/embeddings", {"input": ["a river", "a lake"]})]
                with ThreadPoolExecutor(3) as pool:
                    found += pool.map(lambda more: ask(server, "/v1/chat/completions", {
                        "messages": QUESTION, "max_tokens": 12, **more}), chats)
                return found, server.metric("disk_read_bytes_total")

        resident, read = answers(resident=True)
        self.assertEqual(read, 0)
        streamed, read = answers(*([] if SHARE else ["--memory", "150MB"]))
        self.assertEqual(streamed, resident)
        self.assertGreater(read, MODEL.stat().st_size)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
