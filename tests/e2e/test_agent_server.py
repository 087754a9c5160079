#!/usr/bin/env python3
"""`/v1/agent/runs` and `/v1/agent/approvals` as clients use them: a scripted model asks for tools, which are
approved, refused, left alone, or whose client goes. Argument: the sluice program."""

import http.client
import json
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import support
from scripted_model import NOTHING, Reply, call, write_scripted
from server import SHARE, serving

SLOW = SHARE or support.sanitized(support.binary())  # a prompt takes seconds
REPLIES = [
    Reply("'refused' in last or 'returned stands' in last and '..' in last", "Then not."),
    Reply("'wrote' in last or 'leaves' in last or 'exit code' in last", "Done."),
    Reply("'edit' in last", call("edit_file", path="note.txt", old_text="9:41", new_text="10:05")),
    Reply("'look' in last", call("read_file", path="note.txt")),
    Reply("'secret' in last", call("read_file", path="../secret.txt")),
    Reply("'sleep' in last", call("run_command", command="sleep 300")),
    Reply("'forever' in last", "on and on ", for_ever=True),
]


class Stream:
    """The events of one run, as they come."""

    def __init__(self, server, body, headers=None):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        self.connection.request("POST", "/v1/agent/runs", json.dumps(body),
                                {"Content-Type": "application/json", **(headers or {})})
        self.reply = self.connection.getresponse()
        self.ended = False

    def __iter__(self):
        while line := self.reply.readline():
            if line == b"data: [DONE]\n":
                self.ended = True
            elif line.startswith(b"data: "):
                event = json.loads(line[6:])
                assert event["object"] == "sluice.agent.event", event
                yield event

    def until(self, kind):
        for event in self:
            if event["type"] == kind:
                return event
        raise AssertionError(f"no {kind}")

    def close(self):
        self.reply.close()
        self.connection.close()


class AgentServer(support.TestCase):
    CONTEXT = 8192
    OPTIONS = ["--agent-max", 2]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = write_scripted(cls.folder / "scripted", REPLIES)
        cls.work = cls.folder / "work"
        cls.work.mkdir()
        (cls.folder / "secret.txt").write_text("SECRET")
        cls.scope = serving(cls.model, "--context", cls.CONTEXT, "--threads", 2, "--parallel", 2,
                            "--agent-folder", cls.work, *cls.OPTIONS)
        cls.server = cls.scope.__enter__()
        cls.shell = "shell" in cls.server.json("GET", "/v1/models")["sluice"]["agent_tools"]

    @classmethod
    def tearDownClass(cls):
        cls.scope.__exit__(None, None, None)
        super().tearDownClass()

    def setUp(self):
        (self.work / "note.txt").write_text("The train leaves at 9:41.\n")

    def begin(self, text, **more):
        stream = Stream(self.server, {"messages": [{"role": "user", "content": text}], **more})
        self.addCleanup(stream.close)
        self.assertEqual(stream.reply.status, 200)
        self.assertEqual(stream.reply.headers["Content-Type"], "text/event-stream")
        stream.run = stream.until("start")["run"]
        return stream

    def decide(self, run, id, approve):
        return self.server.request("POST", "/v1/agent/approvals", {"run": run, "id": id, "approve": approve})

    def await_no_runs(self):
        deadline = time.monotonic() + 60
        while self.server.metric("requests_running") > 0 or self.begins_refused():
            self.assertLess(time.monotonic(), deadline, "runs go on")
            time.sleep(0.05)

    def begins_refused(self):
        """Whether as many runs as are allowed are at work."""
        streams = [Stream(self.server, {"messages": [{"role": "user", "content": "hi"}]}) for _ in range(2)]
        statuses = [stream.reply.status for stream in streams]
        for stream in streams:
            list(stream) if stream.reply.status == 200 else None
            stream.close()
        return statuses != [200, 200]

    def text(self, events):
        return "".join(event.get("delta", "") for event in events)


class Runs(AgentServer):
    def test_offered(self):
        about = self.server.json("GET", "/v1/models")["sluice"]
        self.assertTrue(about["agent"])
        self.assertEqual([name for name in about["agent_tools"] if name != "shell"], ["search", "files"])
        if shutil.which("bwrap"):
            self.assertIn("shell", about["agent_tools"])

    def test_approved(self):
        stream = self.begin("edit it")
        asked = stream.until("tool_request")
        self.assertEqual((asked["tool"], asked["function"], asked["needs_approval"]), ("files", "edit_file", True))
        self.assertIn("+ The train leaves at 10:05.", asked["shown"])
        self.assertIn("9:41", (self.work / "note.txt").read_text())
        self.assertEqual(self.decide(stream.run, asked["id"], True)[0], 200)
        events = list(stream)
        self.assertTrue(stream.ended)
        self.assertTrue(events[0]["ok"], events)
        self.assertEqual(events[0]["id"], asked["id"])
        self.assertEqual(self.text(events), "Done.")
        self.assertEqual((events[-1]["type"], events[-1]["finish_reason"]), ("done", "stop"))
        self.assertGreater(events[-1]["usage"]["completion_tokens"], 0)
        self.assertEqual((self.work / "note.txt").read_text(), "The train leaves at 10:05.\n")

    def test_refused(self):
        stream = self.begin("edit it")
        asked = stream.until("tool_request")
        self.decide(stream.run, asked["id"], False)
        events = list(stream)
        self.assertFalse(events[0]["ok"])
        self.assertEqual(self.text(events), "Then not.")
        self.assertIn("9:41", (self.work / "note.txt").read_text())

    def test_decisions_that_fit_nothing(self):
        stream = self.begin("edit it")
        asked = stream.until("tool_request")
        self.assertEqual(self.decide("run-0", asked["id"], True)[0], 404)
        self.assertEqual(self.decide(stream.run, "99", True)[0], 409)
        for body in ({}, {"run": 1, "id": "1", "approve": True}, [], 7,
                     {"run": stream.run, "id": asked["id"], "approve": "yes"}):
            self.assertEqual(self.server.request("POST", "/v1/agent/approvals", json.dumps(body))[0], 400, body)
        self.assertIn("9:41", (self.work / "note.txt").read_text())
        self.assertEqual(self.decide(stream.run, asked["id"], False)[0], 200)
        list(stream)
        self.assertEqual(self.decide(stream.run, asked["id"], True)[0], 404)

    def test_only_the_tools_that_the_client_allows(self):
        events = list(self.begin("edit it", tools_allowed=[]))
        self.assertEqual({event["type"] for event in events}, {"text", "done"})
        self.assertIn("9:41", (self.work / "note.txt").read_text())

    def test_what_is_wrong_with_a_request(self):
        good = {"messages": [{"role": "user", "content": "hi"}]}
        for more, words in (({"tools_allowed": ["telepathy"]}, "telepathy"), ({"tools_allowed": "files"}, "list"),
                            ({"tools": []}, "tools"), ({"n": 2}, "n:"), ({"messages": []}, "messages"),
                            ({"temperature": "hot"}, "temperature"), ({"tools_allowed": [["files"]]}, "files")):
            status, _, text = self.server.request("POST", "/v1/agent/runs", {**good, **more})
            self.assertEqual(status, 400, (more, text))
            self.assertIn(words, json.loads(text)["error"]["message"])
        self.assertEqual(self.server.request("POST", "/v1/agent/runs", {**good, "model": "other"})[0], 404)
        self.assertEqual(self.server.request("GET", "/v1/agent/runs")[0], 405)
        self.assertEqual(self.server.request("POST", "/v1/agent/runs", "x", {"Content-Type": "text/plain"})[0], 415)
        self.assertEqual(self.server.request("POST", "/v1/agent/runs", good, {"Origin": "http://evil.org"})[0], 403)

    def test_outside_the_folder(self):
        stream = self.begin("the secret")
        self.decide(stream.run, stream.until("tool_request")["id"], True)
        events = list(stream)
        result = next(event for event in events if event["type"] == "tool_result")
        self.assertFalse(result["ok"])
        self.assertNotIn("SECRET", json.dumps(events))

    def test_a_client_that_goes_ends_its_run(self):
        waiting, writing = self.begin("edit it"), self.begin("forever", max_tokens=8000)
        waiting.until("tool_request")
        writing.until("text")
        status, _, text = self.server.request("POST", "/v1/agent/runs",
                                              {"messages": [{"role": "user", "content": "hi"}]})
        self.assertEqual(status, 429, text)
        for stream in (waiting, writing):
            stream.close()
        self.await_no_runs()
        self.assertIn("9:41", (self.work / "note.txt").read_text())

    def test_a_client_that_goes_ends_its_command(self):
        if not self.shell:
            self.skipTest("no sandbox")
        stream = self.begin("sleep")
        asked = stream.until("tool_request")
        self.decide(stream.run, asked["id"], True)
        time.sleep(0.3)
        stream.close()
        self.await_no_runs()

    def test_other_requests_go_on_meanwhile(self):
        stream = self.begin("edit it")
        stream.until("tool_request")
        answer = self.server.json("POST", "/v1/chat/completions",
                                  {"messages": [{"role": "user", "content": "hi"}], "temperature": 0})
        self.assertEqual(answer["choices"][0]["message"]["content"], NOTHING)


class Limits(AgentServer):
    CONTEXT = 8192 if SLOW else 65536  # more tokens than are written in --agent-max-seconds
    OPTIONS = ["--agent-max", 2, "--agent-approval-seconds", 1, "--agent-max-seconds", 20 if SLOW else 4,
               "--agent-yes-read-only", "--agent-tools", "files"]

    def test_nobodys_answer_is_a_refusal(self):
        events = list(self.begin("edit it"))
        self.assertEqual(self.text(events), "Then not.")
        self.assertIn("9:41", (self.work / "note.txt").read_text())

    def test_a_run_has_an_end(self):
        events = list(self.begin("forever", max_tokens=100000))
        self.assertEqual(events[-1]["finish_reason"], "time")

    def test_reading_needs_no_approval(self):
        events = list(self.begin("look"))
        asked = next(event for event in events if event["type"] == "tool_request")
        self.assertFalse(asked["needs_approval"])
        self.assertEqual(self.text(events), "Done.")

    def test_tools_that_the_server_does_not_offer(self):
        self.assertEqual(self.server.json("GET", "/v1/models")["sluice"]["agent_tools"], ["files"])
        status, _, text = self.server.request(
            "POST", "/v1/agent/runs", {"messages": [{"role": "user", "content": "hi"}], "tools_allowed": ["shell"]})
        self.assertEqual(status, 400, text)


class Refused(support.TestCase):
    def test_without_a_folder_there_is_no_agent(self):
        model = write_scripted(self.folder / "scripted", [])
        with serving(model, "--context", 1024, "--parallel", 1) as server:
            self.assertFalse(server.json("GET", "/v1/models")["sluice"]["agent"])
            status, _, text = server.request("POST", "/v1/agent/runs",
                                             {"messages": [{"role": "user", "content": "hi"}]})
            self.assertEqual(status, 404)
            self.assertIn("--agent-folder", text)
        for arguments, words in ((["--agent-tools", "files"], "agent-folder"),
                                 (["--agent-folder", self.folder / "missing"], "missing"),
                                 (["--agent-folder", "/"], "/"),
                                 (["--agent-folder", self.folder, "--host", "0.0.0.0"], "--api-key")):
            result = support.sluice("serve", model, *arguments, expect=None, timeout=120)
            self.assertIn(result.returncode, (support.BAD_USAGE, support.BAD_INPUT), result.stderr)
            self.assertIn(words, result.stderr)

    def test_a_key_is_asked_for(self):
        model = write_scripted(self.folder / "scripted-key", [])
        work = self.folder / "key"
        work.mkdir()
        body = {"messages": [{"role": "user", "content": "hi"}]}
        with serving(model, "--context", 8192, "--parallel", 1, "--agent-folder", work, "--api-key",
                     "0123456789abcdef") as server:
            for path in ("/v1/agent/runs", "/v1/agent/approvals"):
                self.assertEqual(server.request("POST", path, body)[0], 401)
            key = {"Authorization": "Bearer 0123456789abcdef"}
            stream = Stream(server, body, key)
            self.assertEqual(list(stream)[-1]["type"], "done")
            stream.close()


if __name__ == "__main__":
    support.main()
