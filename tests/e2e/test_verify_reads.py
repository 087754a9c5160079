"""`sluice run --verify-reads`: the same text at every limit; what changes on disk between two runs, or
while a conversation goes on, ends in one sentence that names file and place, never in another text."""

import os
import subprocess
import time
from pathlib import Path

import support
from support import binary, demo_model, make_checkpoint, sluice, sluice_json

ARGUMENTS = ["--raw", "-p", "The quick brown fox jumps over the lazy dog", "-n", 12, "--temp", 0,
             "--context", 128]


def flip(path, offset, count=1):
    """In place, and the time of writing as before."""
    state = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(offset)
        data = file.read(count)
        file.seek(offset)
        file.write(bytes(byte ^ 0x10 for byte in data))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


class VerifyReads(support.TestCase):
    def model(self, name):
        model = self.folder / name
        make_checkpoint(model, "qwen3_moe", "bf16", hidden_size=512, num_hidden_layers=4,
                        num_experts=16, num_experts_per_tok=2, moe_intermediate_size=256,
                        num_attention_heads=8, num_key_value_heads=2, vocab_size=4000)
        return model, next(model.glob("*.safetensors"))

    def limit(self, found, share):
        return f"{found['memory']['total'] - found['memory']['weights'] * (1 - share) + 8e6:.0f}B"

    def check_same(self, model, kept):
        whole = sluice_json("run", model, *ARGUMENTS)
        self.assertEqual(whole["memory"]["digests"], 0)
        for reads in ("auto", "threads"):
            for share in (0.3, 0.7, 2):
                found = sluice_json("run", model, *ARGUMENTS, "--verify-reads", "--reads", reads,
                                    "--memory", self.limit(whole, share))
                self.assertEqual(found["text"], whole["text"])
                self.assertGreater(found["memory"]["digests"], 0)
        self.assertTrue(kept.exists())
        return whole

    def test_changes_between_runs(self):
        model, weights = self.model("between")
        kept = model / "sluice_pages.bin"
        whole = self.check_same(model, kept)
        arguments = ["run", model, *ARGUMENTS, "--verify-reads", "--memory",
                     self.limit(whole, 0.5)]
        size = weights.stat().st_size
        flip(weights, size // 2, size // 2)
        refused = sluice(*arguments, "--quiet", expect=3)
        self.assertEqual(refused.stdout.strip(), "")
        self.assertIn(str(weights), refused.stderr)
        self.assertRegex(refused.stderr, r"the bytes read at offset \d+ are not those")
        self.assertIn(str(kept), refused.stderr)
        self.assertEqual(len(refused.stderr.strip().splitlines()), 1, refused.stderr)
        flip(weights, size // 2, size // 2)
        self.assertEqual(sluice_json(*arguments)["text"], whole["text"])
        for damage in (lambda: flip(kept, 100), lambda: kept.write_bytes(b"x"),
                       lambda: os.utime(weights)):
            damage()
            again = sluice(*arguments)
            self.assertIn("are read once now", again.stderr)
            self.assertIn(whole["text"], again.stdout)

    def test_changes_while_it_runs(self):
        """After the first answer; the second question ends in an error, and the program lives on."""
        model, weights = self.model("while")
        whole = sluice_json("run", model, *ARGUMENTS)
        template = self.folder / "template.jinja"
        template.write_text("{% for m in messages %}{{ m['content'] }} {% endfor %}")
        size = weights.stat().st_size

        def truncate():
            os.truncate(weights, size // 3)

        def overwrite():
            weights.write_bytes(b"x" * size)

        def turn_bits():
            flip(weights, size // 4, size // 4 * 3)

        original = weights.read_bytes()
        for change, says, more in ((truncate, "", []), (overwrite, "written to", []),
                                   (turn_bits, "the bytes read at offset", ["--verify-reads"])):
            with subprocess.Popen(
                    [binary(), "chat", model, "--chat-template-file", template, "-n", "4", "--temp",
                     "0", "--context", "128", "--memory", self.limit(whole, 0.4), *more],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    text=True) as program:
                saved = self.folder / f"{change.__name__}.session"
                program.stdin.write(f"one\n/save {saved}\n")
                program.stdin.flush()
                end = time.monotonic() + 60
                while not Path(f"{saved}.json").exists():  # until the first answer is complete
                    if program.poll() is not None or time.monotonic() > end:
                        program.kill()
                        self.fail(f"no first answer: {program.communicate()}")
                    time.sleep(0.05)
                change()
                try:
                    out, errors = program.communicate("two\n/quit\n", timeout=30)
                except subprocess.TimeoutExpired:
                    program.kill()
                    self.fail(f"{change.__name__}: no end: {program.communicate()}")
                self.assertEqual(program.returncode, 0, errors)
                self.assertNotIn("error", out)
            self.assertIn(str(weights), errors, change.__name__)
            self.assertIn(says, errors)
            weights.write_bytes(original)

    def test_gguf(self):
        if demo_model() is None:
            self.skipTest("the demo model is not there; run scripts/demo_model")
        model = self.folder / "model.gguf"
        model.write_bytes(open(demo_model(), "rb").read())
        self.check_same(model, self.folder / "model.gguf.sluice_pages.bin")
        flip(model, model.stat().st_size // 2, 1 << 20)
        refused = sluice("run", model, *ARGUMENTS, "--verify-reads", "--quiet", expect=3)
        self.assertIn("the bytes read at offset", refused.stderr)


if __name__ == "__main__":
    support.main()
