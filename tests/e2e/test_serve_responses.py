#!/usr/bin/env python3
"""`POST /v1/responses` as OpenAI's own Python client sees it."""

import json
import sys
import unittest

from openai_served import NAME, Served, openai

QUESTION = "What is the capital of France?"
# No field of the Responses API, as other settings that chats have: it ends what this model repeats.
SHORT = {"stop": ["France, la"]}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}},
          "required": ["city"], "additionalProperties": False}
TOOLS = [{"type": "function", "name": name, "description": "Tells the weather.",
          "parameters": SCHEMA, "strict": True} for name in ("weather", "forecast")]


class Responses(Served):
    def create(self, input=QUESTION, **options):
        return self.client.responses.create(**{"model": NAME, "input": input, "temperature": 0,
                                               "max_output_tokens": 64, **options})

    def chat(self, *messages, **options):
        return self.client.chat.completions.create(
            **{"model": NAME, "messages": messages, "temperature": 0, "max_tokens": 64, **options})

    def user(self, text=QUESTION):
        return {"role": "user", "content": text}

    def test_says_what_a_chat_says(self):
        response = self.create(extra_body=SHORT)
        chat = self.chat(self.user(), extra_body=SHORT)
        self.assertEqual(response.output_text, chat.choices[0].message.content)
        self.assertEqual(response.status, "completed")
        self.assertEqual(response.output[0].role, "assistant")
        self.assertEqual((response.usage.input_tokens, response.usage.output_tokens),
                         (chat.usage.prompt_tokens, chat.usage.completion_tokens))
        self.assertEqual(response.model, NAME)
        self.assertEqual(response.max_output_tokens, 64)
        self.assertGreater(response.model_extra["timings"]["generated_tokens"], 0)
        self.assertEqual(self.create([self.user()], extra_body=SHORT).output_text, response.output_text)
        parts = [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]
        self.assertEqual(self.create(parts, extra_body=SHORT).output_text, response.output_text)

    def test_instructions(self):
        system = "You answer in capital letters."
        self.assertEqual(
            self.create(instructions=system).output_text,
            self.chat({"role": "system", "content": system}, self.user()).choices[0].message.content)

    def test_length(self):
        response = self.create(max_output_tokens=3)
        self.assertEqual(response.status, "incomplete")
        self.assertEqual(response.incomplete_details.reason, "max_output_tokens")
        self.assertEqual(response.usage.output_tokens, 3)

    def test_conversations_go_on(self):
        first = self.create(instructions="Be brief.")
        second = self.create("And of Italy?", previous_response_id=first.id)
        self.assertEqual(second.previous_response_id, first.id)
        said = {"role": "assistant", "content": first.output_text}
        # The instructions of an earlier response are not those of a later one.
        self.assertEqual(second.output_text, self.chat(
            self.user(), said, self.user("And of Italy?")).choices[0].message.content)
        items = [self.user(), *[item.model_dump(exclude_none=True) for item in first.output],
                 self.user("And of Italy?")]
        self.assertEqual(self.create(items).output_text, second.output_text)
        self.assertEqual(self.client.responses.retrieve(first.id).output_text, first.output_text)
        self.client.responses.delete(first.id)
        for call in (lambda: self.client.responses.retrieve(first.id),
                     lambda: self.create(previous_response_id=first.id),
                     lambda: self.client.responses.delete(first.id)):
            with self.assertRaises(openai.NotFoundError):
                call()
        # What was said before is kept with the later response as well.
        self.assertTrue(self.create("Why?", previous_response_id=second.id).output_text)
        unkept = self.create(store=False)
        with self.assertRaises(openai.NotFoundError):
            self.client.responses.retrieve(unkept.id)

    def test_streaming(self):
        events = list(self.create(stream=True, extra_body=SHORT))
        types = [event.type for event in events]
        deltas = types.count("response.output_text.delta")
        self.assertEqual([t for t in types if t != "response.output_text.delta"],
                         ["response.created", "response.in_progress", "response.output_item.added",
                          "response.content_part.added", "response.output_text.done",
                          "response.content_part.done", "response.output_item.done",
                          "response.completed"])
        self.assertGreater(deltas, 3)
        self.assertEqual([event.sequence_number for event in events], list(range(len(events))))
        final = events[-1].response
        self.assertEqual("".join(e.delta for e in events if e.type.endswith("text.delta")),
                         final.output_text)
        self.assertEqual(final.output_text, self.create(extra_body=SHORT).output_text)
        self.assertEqual({e.item_id for e in events if hasattr(e, "item_id")},
                         {final.output[0].id})
        with self.client.responses.stream(model=NAME, input=QUESTION, temperature=0,
                                          max_output_tokens=64, extra_body=SHORT) as stream:
            for _ in stream:
                pass
            self.assertEqual(stream.get_final_response().output_text, final.output_text)
        cut = list(self.create(stream=True, max_output_tokens=2))[-1]
        self.assertEqual((cut.type, cut.response.status), ("response.incomplete", "incomplete"))

    def test_tools(self):
        options = {"tools": TOOLS, "tool_choice": {"type": "function", "name": "forecast"},
                   "max_output_tokens": 100}
        response = self.create(**options)
        call = response.output[-1]
        self.assertEqual((call.type, call.name, call.status),
                         ("function_call", "forecast", "completed"))
        self.assertEqual(list(json.loads(call.arguments)), ["city"])
        self.assertEqual(response.tools[0].name, "weather")
        events = list(self.create(stream=True, **options))
        deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
        self.assertEqual("".join(deltas), call.arguments)
        done = next(e for e in events if e.type == "response.function_call_arguments.done")
        self.assertEqual(done.arguments, call.arguments)
        self.assertEqual(events[-1].response.output[-1].arguments, call.arguments)
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        again = self.create([result], previous_response_id=response.id, tools=TOOLS)
        items = [self.user(), *[i.model_dump(exclude_none=True) for i in response.output], result]
        self.assertEqual(self.create(items, tools=TOOLS).output_text, again.output_text)
        self.assertTrue(again.output_text)
        self.assertEqual(self.create(tools=TOOLS, tool_choice="none").output[0].type, "message")

    def test_json_schema(self):
        form = {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}}
        response = self.create(text=form, max_output_tokens=100)
        self.assertEqual(list(json.loads(response.output_text)), ["city"])
        self.assertEqual(response.text.format.type, "json_schema")

    def test_logprobs(self):
        options = {"include": ["message.output_text.logprobs"], "top_logprobs": 2,
                   "max_output_tokens": 5}
        entries = self.create(**options).output[0].content[0].logprobs
        self.assertEqual(len(entries), 5)
        self.assertEqual([len(e.top_logprobs) for e in entries], [2] * 5)
        events = self.create(stream=True, **options)
        count = sum(len(e.logprobs) for e in events if e.type == "response.output_text.delta")
        self.assertEqual(count, 5)

    def test_errors(self):
        for field, options, error in (
                ("max_output_tokens", {"max_output_tokens": 0}, openai.BadRequestError),
                ("temperature", {"temperature": -1}, openai.BadRequestError),
                ("text", {"text": {"format": {"type": "xml"}}}, openai.BadRequestError),
                ("input", {"input": []}, openai.BadRequestError),
                ("input", {"input": [{"type": "item_reference", "id": "x"}]}, openai.APIStatusError),
                ("input", {"input": [{"role": "user", "content": [
                    {"type": "input_image", "image_url": "x"}]}]}, openai.APIStatusError),
                ("tools", {"tools": [{"type": "web_search"}]}, openai.APIStatusError),
                ("background", {"background": True}, openai.APIStatusError),
                ("truncation", {"truncation": "auto"}, openai.APIStatusError),
                ("model", {"model": "other"}, openai.NotFoundError)):
            with self.assertRaises(error) as raised:
                self.create(**options)
            self.assertEqual(raised.exception.param, field, raised.exception)
        for path in ("x", "../models", "%2e%2e/x", ""):
            self.assertEqual(self.server.request("GET", f"/v1/responses/{path}")[0], 404, path)
        self.assertEqual(self.server.request("POST", "/v1/responses/x", {})[0], 405)
        # Names that nobody knows are not counted one by one.
        self.assertNotIn('"/v1/responses/x"', self.server.request("GET", "/metrics")[2])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
