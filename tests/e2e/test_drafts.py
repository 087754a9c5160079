"""`--draft-model`: the text is that of the model alone, greedy and sampled, resident and streamed, from
run, chat and bench; another vocabulary is refused; the draft's memory is in the ledger."""

import json
import subprocess

import support
from support import binary, demo_model, measured, real_inputs, sluice, sluice_json

PROMPT = ["-p", "Write a short story about a river.", "--context", 512]


class Drafts(support.TestCase):
    """SmolLM2 guessed for by itself at 3 bits."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = demo_model()
        if cls.model is not None:
            cls.draft = cls.folder / "draft"
            sluice("quantize", cls.model, "--bits", 3, "-o", cls.draft, "--quiet")

    def setUp(self):
        if self.model is None:
            self.skipTest("the demo model is not there; run scripts/demo_model")

    def run_model(self, *more):
        return sluice_json("run", self.model, *PROMPT, "-n", 40, *more)

    def test_text_is_unchanged(self):
        for sampling in (["--temp", 0], ["--temp", 0.8, "--seed", 3],
                         ["--temp", 1, "--top-p", 0.9, "--repeat-penalty", 1.2, "--seed", 4]):
            plain = self.run_model(*sampling)
            self.assertEqual((plain["drafted"], plain["accepted"]), (0, 0))
            for count in (1, 4, 9):
                found = self.run_model(*sampling, "--draft-model", self.draft, "--draft-tokens",
                                       count)
                self.assertEqual(found["text"], plain["text"], (sampling, count))
                self.assertGreater(found["accepted"], 0)
                self.assertLessEqual(found["accepted"], found["drafted"])
                self.assertLessEqual(found["drafted"], found["steps"] * count)
                self.assertLess(found["steps"], plain["steps"])
                self.assertGreater(found["memory"]["draft"], 0)

    def test_its_own_draft_is_always_right(self):
        for sampling in (["--temp", 0], ["--temp", 1, "--seed", 9]):
            found = self.run_model(*sampling, "--draft-model", self.model)
            self.assertEqual(found["accepted"], found["drafted"])
            self.assertEqual(found["steps"], 8)  # of the 39 tokens behind the prompt's, five a step

    def test_within_the_memory_of_both(self):
        plain = self.run_model("--temp", 0)
        need = self.run_model("--temp", 0, "--draft-model", self.draft)["memory"]
        limit = need["total"] - need["weights"] // 2
        arguments = ["run", self.model, *PROMPT, "-n", 40, "--temp", 0, "--draft-model", self.draft,
                     "--memory", f"{limit}B", "--json", "--quiet"]
        result = measured(arguments)
        self.assertEqual(result.code, 0, result.stderr)
        found = json.loads(result.stdout)
        self.assertEqual(found["text"], plain["text"])
        self.assertGreater(found["disk_bytes_read"], 0)
        self.assertLessEqual(found["memory"]["total"], limit)
        self.assertLessEqual(result.peak_bytes, limit * 1.02)
        self.assert_refused(["run", self.model, *PROMPT, "--draft-model", self.draft, "--memory",
                             f"{need['draft']}B"], ["+ the draft model", "--memory allows only"])

    def test_chat_and_bench(self):
        answers = []
        for more in ([], ["--draft-model", self.draft]):
            answers.append(subprocess.run(
                [binary(), "chat", self.model, "--temp", "0", "-n", "24", "--context", "512", *more],
                input="What is the capital of France?\nAnd of Italy?\n/stats\n/quit\n", text=True,
                capture_output=True, check=True).stdout)
        self.assertIn("guesses right", answers[1])
        self.assertEqual(answers[0].split("prompt:")[0], answers[1].split("prompt:")[0])
        found = sluice_json("bench", self.model, "--draft-model", self.draft, "-p", 16, "-n", 16, "-r",
                            1)["draft"]
        self.assertEqual(found["tokens"], 16)
        self.assertGreater(found["accepted"], 0)
        self.assertEqual(sluice_json("bench", self.model, "--lookup", "-p", 16, "-n", 16, "-r",
                                     1)["draft"]["draft"], "lookup")

    def test_other_vocabularies_are_refused(self):
        if real_inputs() is None:
            self.skipTest("needs SLUICE_REAL_INPUTS")
        other = real_inputs() / "models/stories260K/hf"
        self.assert_refused(["run", self.model, *PROMPT, "--draft-model", other],
                            [f"{other} cannot guess for {self.model}", "its vocabulary has 512"])
        both = sluice("run", self.model, *PROMPT, "--draft-model", self.draft, "--lookup", expect=2)
        self.assertIn("--lookup", both.stderr)
        missing = sluice("run", self.model, *PROMPT, "--draft-model", self.folder / "none",
                         expect=None)
        self.assertNotEqual(missing.returncode, 0)
        self.assertIn(str(self.folder / "none"), missing.stderr)


if __name__ == "__main__":
    support.main()
