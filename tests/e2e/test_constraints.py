"""`run` with --json-schema and --grammar on the demo model: what ends is valid, what is cut off is said
to be, drafts change nothing, and what cannot be used is refused before the weights are read. A server
answers by many schemas at once, and every answer that ends is valid."""

import collections
import concurrent.futures
import json
import re
import subprocess
import sys
import unittest

import support
from server import SHARE, serving
from support import binary, demo_model, sluice_json

sys.path.append(str(support.ROOT / "tests" / "tokenizer"))

SCHEMA = {"type": "object", "additionalProperties": False, "required": ["city", "people"],
          "properties": {"city": {"type": "string", "maxLength": 20},
                         "people": {"type": "integer", "minimum": 0, "maximum": 99999999}}}
PROMPT = ["-p", "Name a city and how many people live there, as JSON.", "--context", 512]


class Demo(support.TestCase):
    def setUp(self):
        self.model = demo_model()
        if self.model is None:
            self.skipTest("the demo model is not there; run scripts/demo_model")


@unittest.skipIf(SHARE, "no server")
class Constraints(Demo):
    def answer(self, *more):
        return sluice_json("run", self.model, *PROMPT, *more)

    def refused(self, *more):
        command = [binary(), "run", str(self.model), *map(str, PROMPT), *more]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assertNotEqual(result.returncode, 0, command)
        return result.stderr

    def check(self, found):
        self.assertTrue(found["complete"], found)
        self.assertEqual(found["finish"], "end")
        value = json.loads(found["text"])
        self.assertEqual(set(value), {"city", "people"})
        self.assertIsInstance(value["people"], int)
        return value

    def test_schema_as_text_and_as_file(self):
        text = json.dumps(SCHEMA)
        path = self.folder / "schema.json"
        path.write_text(text)
        by_text = self.answer("-j", text, "--temp", 0, "-n", 80)
        self.check(by_text)
        by_file = self.answer("--json-schema", path, "--temp", 0, "-n", 80)
        self.assertEqual(by_file["text"], by_text["text"])
        for seed in range(3):
            self.check(self.answer("-j", text, "--temp", 1.5, "--seed", seed, "-n", 80))

    def test_drafts_change_nothing(self):
        for sampling in (["--temp", 0], ["--temp", 1, "--seed", 5]):
            plain = self.answer("-j", json.dumps(SCHEMA), *sampling, "-n", 80)
            found = self.answer("-j", json.dumps(SCHEMA), *sampling, "-n", 80, "--draft-model",
                                self.model)
            self.assertEqual(found["text"], plain["text"])
            self.assertGreater(found["accepted"], 0)

    def test_grammar(self):
        found = self.answer("--grammar", 'start: "yes" | "no"', "-n", 20)
        self.assertIn(found["text"], ("yes", "no"))
        path = self.folder / "date.lark"
        path.write_text('start: DIGITS "-" DIGITS\nDIGITS: /[0-9]{2}/\n')
        found = self.answer("--grammar", path, "-n", 20)
        self.assertRegex(found["text"], re.compile(r"^\d\d-\d\d$"))

    def test_any_object(self):
        found = self.answer("-j", "{}", "--temp", 0, "-n", 200)
        if found["complete"]:
            self.assertIsInstance(json.loads(found["text"]), dict)
        else:
            self.assertEqual(found["finish"], "length")

    def test_cut_off_is_said(self):
        found = self.answer("-j", json.dumps(SCHEMA), "-n", 3)
        self.assertFalse(found["complete"])
        self.assertEqual(found["finish"], "length")
        command = [binary(), "run", str(self.model), *map(str, PROMPT), "-j", json.dumps(SCHEMA),
                   "-n", "3"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assertIn("cut off", result.stderr)
        self.assertIn("--max-tokens", result.stderr)

    def test_refusals(self):
        self.assertIn("the JSON schema", self.refused("-j", "{"))
        self.assertIn("nothing satisfies it",
                      self.refused("-j", '{"type": "integer", "minimum": 2, "maximum": 1}'))
        self.assertIn("uniqueItems",
                      self.refused("-j", '{"type": "array", "uniqueItems": true}'))
        self.assertIn("the grammar", self.refused("--grammar", "start: nothing"))
        self.assertIn("nowhere.json", self.refused("-j", "nowhere.json"))
        self.assertIn("excludes", self.refused("-j", "{}", "--grammar", "start: \"a\""))


class Served(Demo):
    def test_a_server_keeps_to_every_schema(self):
        import constraints_test
        seed = support.test_seed()
        schemas = constraints_test.schemas(seed)[:32]
        counts = collections.Counter()

        def answer(number):
            schema = schemas[number]
            reply = server.json("POST", "/v1/chat/completions", {
                "messages": [{"role": "user", "content": "Give an example of this, as JSON."}],
                "temperature": 1.2, "seed": number, "max_tokens": 48, "response_format": {
                    "type": "json_schema", "json_schema": {"name": "x", "schema": schema}}})
            return schema, reply["choices"][0]

        with serving(self.model, "--context", 256, "--parallel", 4) as server:
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                for schema, choice in pool.map(answer, range(len(schemas))):
                    counts[choice["finish_reason"]] += 1
                    if choice["finish_reason"] == "stop":
                        constraints_test.VALIDATOR(schema).validate(
                            json.loads(choice["message"]["content"]))
            names = ["zebra", "apple", "moon"]
            ordered = {"type": "object", "required": names, "additionalProperties": False,
                       "properties": {name: {"type": "integer", "maximum": 9} for name in names}}
            tool = {"type": "function", "function": {"name": "f", "parameters": ordered}}
            question = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 100}
            formed = server.json("POST", "/v1/chat/completions", {
                **question, "response_format": {"type": "json_schema", "json_schema": {
                    "name": "x", "schema": ordered}}})["choices"][0]["message"]
            self.assertEqual(list(json.loads(formed["content"])), names, "the schema's order")
            called = server.json("POST", "/v1/chat/completions", {
                **question, "tools": [tool], "tool_choice": "required"})["choices"][0]["message"]
            call = called["tool_calls"][0]["function"]
            self.assertEqual(list(json.loads(call["arguments"])), names, "the tool's order")
            for schema in constraints_test.UNSATISFIABLE[:2]:
                status, _, body = server.request("POST", "/v1/chat/completions", {
                    "messages": [{"role": "user", "content": "?"}], "response_format": {
                        "type": "json_schema", "json_schema": {"name": "x", "schema": schema}}})
                self.assertEqual(status, 400)
                self.assertIn("nothing satisfies it", json.loads(body)["error"]["message"])
        print(f"seed {seed}: of {len(schemas)} answers {dict(counts)}; all that ended are valid")
        self.assertEqual(set(counts) - {"stop", "length"}, set())
        self.assertGreater(counts["stop"], 0)


if __name__ == "__main__":
    support.main()
