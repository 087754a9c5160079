#!/usr/bin/env python3
"""`sluice agent` on the demo model, from its first event to its last: what a model of this size asks for is
not judged, only that nothing outside the folder changes, that nothing is done which nobody approved, and
that events and transcript say what happened. Argument: the sluice program."""

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import support


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


if __name__ == "__main__":
    support.main()
