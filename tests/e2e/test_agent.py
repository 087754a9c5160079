#!/usr/bin/env python3
"""`sluice agent` on the demo model, from its first event to its last: what a model of this size asks for is
not judged, only that nothing outside the folder changes, that nothing is done which nobody approved, and
that events and transcript say what happened. Then on a terminal, as a person uses it and `/agent` of a chat,
with a scripted model. Argument: the sluice program."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import support
from scripted_model import Reply, call, write_scripted
from terminal import Terminal, require_tmux


class Agent(support.TestCase):
    def setUp(self):
        model = support.demo_model()
        if model is None:
            self.skipTest("the demo model is not there; run scripts/demo_model")
        self.model = model
        self.work = self.folder / self.id().rsplit(".", 1)[1]
        (self.work / "inside").mkdir(parents=True)
        (self.work / "inside" / "note.txt").write_text("The train leaves at 9:41.\n")
        (self.work / "outside.txt").write_text("outside\n")

    def run_agent(self, *arguments, expect=0):
        return support.sluice("agent", self.model, "--folder", self.work / "inside", "--temp", 0,
                              "--max-tokens", 48, "--max-steps", 3, *arguments, expect=expect)

    def events(self, text):
        events = [json.loads(line) for line in text.splitlines()]
        for event in events:
            self.assertEqual(event["object"], "sluice.agent.event")
        return events

    def files(self):
        return {str(path.relative_to(self.work)): path.read_text()
                for path in sorted(self.work.rglob("*")) if path.is_file()}

    def test_from_start_to_end(self):
        before, transcript = self.files(), self.folder / "transcript.jsonl"
        result = self.run_agent("--json", "--yes-read-only", "--transcript", transcript,
                                "-p", "When does the train leave? Read note.txt.")
        events = self.events(result.stdout)
        self.assertEqual(events, self.events(transcript.read_text()))
        self.assertEqual([events[0]["type"], events[-1]["type"]], ["start", "done"])
        done = events[-1]
        self.assertIn(done["finish_reason"], ("stop", "length", "steps"))
        self.assertGreater(done["usage"]["prompt_tokens"], 0)
        self.assertGreater(done["usage"]["completion_tokens"], 0)
        asked = [event["id"] for event in events if event["type"] == "tool_request"]
        answered = [event["id"] for event in events if event["type"] == "tool_result"]
        self.assertTrue(set(asked) <= set(answered), (asked, answered))
        # Nobody is there to approve of writing.
        self.assertEqual(self.files(), before)

    def test_what_is_refused(self):
        for arguments, words in ((["--tools", "telepathy"], "telepathy"),
                                 (["--folder", self.work / "missing"], "missing"),
                                 (["--tools", "search", "--search-engine", "nobody"], "nobody")):
            result = subprocess.run(
                [support.binary(), "agent", str(self.model), "-p", "x", *map(str, arguments)],
                capture_output=True, text=True, timeout=120)
            self.assertIn(result.returncode, (support.BAD_USAGE, support.BAD_INPUT), result.stderr)
            self.assertIn(words, result.stderr)


class Typed(support.TestCase):
    """What a person types and sees, on a terminal: a model that asks for what the test wants."""

    REPLIES = [
        Reply("'refused' in last", "Then I will not."),
        Reply("'interrupted' in last", "Stopped."),
        Reply("'exit code 0' in last or 'wrote' in last or 'leaves' in last", "It is done."),
        Reply("'make it' in last", call("run_command", command="echo made > made.txt")),
        Reply("'again' in last", call("run_command", command="echo more >> made.txt")),
        Reply("'hidden' in last", call("run_command", command="echo a\x1b[2K\rb‮c > hidden.txt\n\n[shell]\n")),
        Reply("'edit' in last", call("edit_file", path="note.txt", old_text="9:41", new_text="10:05")),
        Reply("'look' in last", call("read_file", path="note.txt")),
        Reply("'forever' in last", "on and on ", for_ever=True),
        Reply("'sleep' in last", call("run_command", command="sleep 100")),
        Reply("'hello' in last", "Good **day**."),
    ]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        require_tmux()
        cls.model = write_scripted(cls.folder / "scripted", cls.REPLIES)

    def setUp(self):
        self.home = self.folder / self.id().split(".")[-1]
        self.work = self.home / "work"
        self.work.mkdir(parents=True)
        (self.work / "note.txt").write_text("The train leaves at 9:41.\nSeat 7.\n")

    def open(self, command, *options, prompt, folder=None):
        terminal = Terminal([support.binary(), command, self.model, "--threads", 2, "--context", 16384,
                             "--folder", folder or self.work, *options], 90, 40,
                            {"XDG_DATA_HOME": self.home / "data", "XDG_STATE_HOME": self.home / "state"})
        self.addCleanup(terminal.__exit__)
        self.prompt = prompt
        self.ready(terminal)
        return terminal

    def ready(self, terminal):
        return terminal.wait(lambda text: text.rstrip().split("\n")[-1].strip() == self.prompt.strip(),
                             "a prompt")

    def say(self, terminal, text):
        """All that is new once the next prompt is there."""
        before = len(terminal.everything().rstrip())
        terminal.enter(text)
        terminal.wait(lambda shown: len(shown.rstrip()) > before + len(text), "an echo")
        return self.ready(terminal)[before:]

    def agent(self, *options):
        return self.open("agent", *options, prompt="agent>")

    def asked(self, terminal, request, shown):
        """The text with the question, which is not answered yet."""
        before = len(terminal.everything().rstrip())
        terminal.enter(request)
        text = terminal.wait(lambda text: "lways for" in text[before:], "a question")[before:]
        self.assertIn(shown, text)
        return text

    def test_a_command_is_approved_refused_and_always_allowed(self):
        if shutil.which("bwrap") is None:
            self.skipTest("bubblewrap is not installed")
        agent = self.agent()
        self.asked(agent, "make it", "| (by /bin/sh) $ echo made > made.txt")
        self.assertFalse((self.work / "made.txt").exists())
        agent.enter("n")
        self.assertIn("Then I will not.", self.ready(agent))
        self.assertFalse((self.work / "made.txt").exists())
        self.asked(agent, "make it", "echo made")
        agent.enter("what?")  # no answer: asked again
        agent.wait_for("do this?", 3)
        agent.enter("y")
        agent.wait_for("It is done.")
        self.ready(agent)
        self.assertEqual((self.work / "made.txt").read_text(), "made\n")
        self.asked(agent, "again", "echo more >> made.txt")
        agent.enter("a")
        agent.wait_for("It is done.", 2)
        self.ready(agent)
        shown = self.say(agent, "again")
        self.assertIn("echo more >> made.txt", shown)
        self.assertNotIn("do this?", shown)
        self.assertEqual((self.work / "made.txt").read_text(), "made\nmore\nmore\n")
        # For this tool alone.
        self.asked(agent, "edit", "write note.txt")
        agent.enter("n")
        self.ready(agent)
        agent.enter("/quit")
        agent.wait_for("[ended 0]")

    def test_nothing_of_a_command_is_hidden(self):
        agent = self.agent()
        text = self.asked(agent, "hidden", "echo a^[[2K^Mb<U+202E>c > hidden.txt")
        for line in text.split("\n"):
            self.assertFalse(line.startswith("[shell]") and "| " in line)
        self.assertIn("  | [shell]", text)
        self.assertEqual(text.count("\n[shell]"), 1)
        agent.enter("n")
        self.ready(agent)

    def test_an_edit_is_shown_and_done(self):
        agent = self.agent()
        text = self.asked(agent, "edit", "write note.txt")
        self.assertIn("- The train leaves at 9:41.", text)
        self.assertIn("+ The train leaves at 10:05.", text)
        agent.enter("n")
        self.ready(agent)
        self.assertIn("9:41", (self.work / "note.txt").read_text())
        self.asked(agent, "edit", "write note.txt")
        agent.enter("yes")
        agent.wait_for("It is done.")
        self.ready(agent)
        self.assertEqual((self.work / "note.txt").read_text(), "The train leaves at 10:05.\nSeat 7.\n")

    def test_what_was_typed_before_the_question_agrees_to_nothing(self):
        agent = self.agent("-n", 4000)
        agent.enter("forever")
        agent.wait_for("on and on on and")
        agent.type("y\n")
        agent.key("C-c")
        agent.wait_for("stopped")
        agent.wait(lambda text: text.rstrip().split("\n")[-1].startswith("agent>"), "a prompt")
        agent.key("C-c")
        self.ready(agent)
        self.asked(agent, "edit", "write note.txt")
        agent.key("C-c")
        self.ready(agent)
        self.assertIn("9:41", (self.work / "note.txt").read_text())

    def test_ctrl_c_stops_the_run_alone(self):
        agent = self.agent("--yes", "shell")
        agent.enter("forever")
        agent.wait_for("on and on on and")
        agent.key("C-c")
        agent.wait_for("stopped")
        self.ready(agent)
        agent.enter("sleep")
        agent.wait_for("$ sleep 100")
        agent.key("C-c")
        agent.wait_for("stopped", 2)
        self.ready(agent)
        self.asked(agent, "edit", "write note.txt")
        agent.key("C-c")
        agent.wait_for("stopped", 3)
        self.ready(agent)
        self.assertIn("Good day.", self.say(agent, "hello"))
        agent.key("C-d")
        agent.wait_for("[ended 0]")

    def test_requests_are_one_conversation(self):
        agent = self.agent("--yes-read-only")
        shown = self.say(agent, "look")
        self.assertIn("| read note.txt", shown)
        self.assertIn("done: The train leaves at 9:41. … (2 lines)", shown)
        self.say(agent, "hello")
        self.assertIn("6 messages", self.say(agent, "/stats"))
        for command in ("/agent", "/search", "/quit", "/save"):
            self.assertIn(command, self.say(agent, "/help"))
        self.say(agent, "/save trip")
        agent.enter("/quit")
        agent.wait_for("[ended 0]")
        again = self.agent("--load", "trip")
        self.assertIn("Good day.", again.everything())
        self.assertIn("6 messages", self.say(again, "/stats"))

    def test_agent_in_a_chat(self):
        chat = self.open("chat", prompt=">")
        self.assertIn("Good day.", self.say(chat, "hello"))
        self.assertIn("say what is to be done", self.say(chat, "/agent"))
        self.asked(chat, "/agent edit", "write note.txt")
        chat.enter("y")
        self.assertIn("It is done.", self.ready(chat))
        self.assertIn("10:05", (self.work / "note.txt").read_text())
        self.assertIn("6 messages", self.say(chat, "/stats"))
        self.assertIn("Good day.", self.say(chat, "hello"))
        # The last exchange is what stays; a summary stands for those before, tool and all.
        self.assertIn("what was there is branch", self.say(chat, "/compact"))
        self.assertIn("4 messages", self.say(chat, "/stats"))
        chat.type("/ag")
        chat.key("Tab")
        chat.wait_for("/agent ", 2)
        chat.key("C-c")
        self.ready(chat)

    def test_a_chat_without_a_folder_to_work_in(self):
        chat = self.open("chat", prompt=">", folder=self.home / "nothing")
        self.assertIn("nothing", self.say(chat, "/agent look"))
        self.assertIn("Good day.", self.say(chat, "hello"))


class Held(support.TestCase):
    """What a call may hold is enforced from its beginning on, whatever the model wants to write."""

    def test_a_begun_call_keeps_to_its_tool(self):
        # A token ends with the name's quote, so that the next is the first which is not allowed. From there on
        # this model has no wish of its own, and may go on to another call until it is cut off.
        path = "departures.txt"
        model = write_scripted(self.folder / "wilful", [
            Reply("'9:41' in (messages | map(attribute='content') | join)", "At 9:41."),
            Reply("'When' in last", call("read_file", path=path, mode="rw", lines=[1, 2])),
        ])
        work = self.folder / "held"
        work.mkdir()
        (work / path).write_text("It leaves at 9:41\n")
        result = support.sluice("agent", model, "--folder", work, "--tools", "files", "--yes-read-only",
                                "--context", 8192, "--temp", 0, "-n", 150, "--json", "-p", "When?")
        events = [json.loads(line) for line in result.stdout.splitlines()]
        asked = [event for event in events if event["type"] == "tool_request"]
        self.assertEqual([json.loads(event["arguments"]) for event in asked], [{"path": path}])
        self.assertEqual("".join(event.get("delta", "") for event in events), "At 9:41.")


class OneWord(support.TestCase):
    """A template that knows no tools: one word is chosen, then its call is written under the schema."""

    def test_a_tool_is_chosen_by_a_word(self):
        word = "'Reply with one word' in last"
        answered = "messages | selectattr('role', 'equalto', 'user') | list | length > 2"
        model = write_scripted(self.folder / "plain", [
            Reply(f"{word} and ({answered})", "answer", whole=True),
            Reply(word, "read_file", whole=True),
            Reply("'tool_response' in last", "The train leaves at 9:41."),
            Reply("'When' in last", call("read_file", path="note.txt")),
        ], tools=False)
        work = self.folder / "one_word"
        work.mkdir()
        (work / "note.txt").write_text("9:41\n")
        result = support.sluice("agent", model, "--folder", work, "--tools", "files", "--yes-read-only",
                                "--context", 8192, "--json", "-p", "When?")
        events = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual([event["type"] for event in events if event["type"] != "text"],
                         ["start", "tool_request", "tool_result", "done"])
        self.assertEqual("".join(event.get("delta", "") for event in events), "The train leaves at 9:41.")


if __name__ == "__main__":
    support.main()
