"""Running models whole: text, chat, evaluation and bench of the program, on the demo model and on the
small trained models, against stock mlx_lm where it can load them."""

import json
import signal
import subprocess
import time

import support
from support import binary, demo_model, np, real_models, sluice, sluice_json


def stories():
    folder = support.real_inputs()
    return folder / "models/stories260K" if folder else None


class Demo(support.TestCase):
    """SmolLM2-135M-Instruct, the GGUF file itself and its lossless conversion."""

    def setUp(self):
        if demo_model() is None:
            self.skipTest("the demo model is not there; run scripts/demo_model")
        self.model = demo_model()

    def run_text(self, *arguments, **options):
        return sluice("run", self.model, *arguments, "--temp", "0", **options).stdout

    def test_knows_the_capital(self):
        text = self.run_text("-p", "What is the capital of France? Answer in one sentence.", "-n", 40)
        self.assertIn("Paris", text)

    def test_is_the_same_again_and_with_guessing(self):
        prompt = "Repeat exactly: one two three one two three one two three one two three"
        plain = sluice_json("run", self.model, "-p", prompt, "-n", 48, "--temp", "0")
        again = sluice_json("run", self.model, "-p", prompt, "-n", 48, "--temp", "0", "--threads", 1)
        guessed = sluice_json("run", self.model, "-p", prompt, "-n", 48, "--temp", "0", "--lookup")
        self.assertEqual(plain["text"], again["text"])
        self.assertEqual(plain["text"], guessed["text"])
        sampled = [sluice_json("run", self.model, "-p", prompt, "-n", 24, "--temp", "1", "--seed", 5,
                               *extra)["text"] for extra in ([], ["--lookup"], ["--threads", 1])]
        self.assertEqual(sampled[0], sampled[1])
        self.assertEqual(sampled[0], sampled[2])

    def test_stop_strings_and_lengths(self):
        whole = sluice_json("run", self.model, "--raw", "-p", "Once upon a time", "-n", 30,
                            "--temp", "0")
        self.assertEqual(whole["finish"], "length")
        self.assertEqual(whole["tokens"], 30)
        word = whole["text"].split()[3]
        cut = sluice_json("run", self.model, "--raw", "-p", "Once upon a time", "-n", 30, "--temp",
                          "0", "--stop", word)
        self.assertEqual(cut["finish"], "stop")
        self.assertEqual(cut["text"], whole["text"][:whole["text"].index(word)])

    def test_prompt_from_standard_input(self):
        command = [binary(), "run", self.model, "--raw", "-p", "-", "-n", "5", "--temp", "0"]
        piped = subprocess.run(command, input="Once upon a time", capture_output=True, text=True,
                               check=True)
        given = self.run_text("--raw", "-p", "Once upon a time", "-n", 5)
        self.assertEqual(piped.stdout, given)

    def test_bad_prompts(self):
        empty = self.run_text("-p", "", expect=3)
        self.assertEqual(empty, "")
        long = sluice("run", self.model, "--raw", "-p", "word " * 200, "--context", 64, expect=3)
        self.assertIn("the prompt has", long.stderr)

    def test_interrupt_ends_the_text(self):
        process = subprocess.Popen([binary(), "run", self.model, "--raw", "-p", "Once", "-n", "4000",
                                    "--ignore-eos"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True)
        process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        _, notes = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 5)
        self.assertIn("generation:", notes)

    def test_chat_remembers_and_obeys_commands(self):
        lines = ["My name is Gwendolyn. Say hello.", "What is my name?", "/stats", "/clear",
                 f"/save {self.folder}/talk", f"/load {self.folder}/talk", "/nonsense", "/quit"]
        result = subprocess.run([binary(), "chat", self.model, "--temp", "0", "-n", "40"],
                                input="\n".join(lines) + "\n", capture_output=True, text=True,
                                check=True, timeout=300)
        self.assertIn("Gwendolyn", result.stdout)
        self.assertIn("context:", result.stdout)
        self.assertIn("kept", result.stdout)  # the second question runs only what is new
        self.assertIn("/quit", result.stdout)
        self.assertTrue((self.folder / "talk").is_file())

    def test_file_and_lossless_conversion_predict_alike(self):
        out = self.folder / "lossless"
        sluice("fit", self.model, "--budget", "200MB", "-o", out, "--best", "none", "--quiet")
        text = self.folder / "text"
        text.write_text("The quick brown fox jumps over the lazy dog. " * 60)
        found = [sluice_json("eval", model, "--text", text, "--context", 128,
                             "--activations", "f32")["nats_per_token"] for model in (self.model, out)]
        self.assertAlmostEqual(found[0], found[1], delta=2e-3)

    def test_bench(self):
        found = sluice_json("bench", self.model, "--prompts", "32", "--tokens", 8, "--batches", "1,2",
                            "--repetitions", 2)
        kinds = [(r["kind"], r["batch"]) for r in found["results"]]
        self.assertEqual(kinds, [("prefill", 1), ("decode", 1), ("decode", 2)])
        self.assertTrue(all(r["tokens_per_s"] > 0 for r in found["results"]))
        self.assertGreater(found["memory_bytes_s"], 1e9)
        self.assertTrue(all(r["memory_share"] > 0 for r in found["results"] if r["kind"] == "decode"))
        if found["simd"] != "scalar":  # which has no instructions to go by
            self.assertTrue(all(0 < r["peak_share"] < 1.5 for r in found["results"]
                                if r["kind"] == "prefill"))

    def test_bench_of_several_devices(self):
        options = ("--prompts", "16", "--tokens", 4, "--repetitions", 1, "--devices", "cpu,cpu")
        found = sluice_json("bench", self.model, *options)["devices"]
        self.assertEqual([device["device"] for device in found], ["processor"] * 2)
        self.assertTrue(all(r["tokens_per_s"] > 0 for device in found for r in device["results"]))
        table = sluice("bench", self.model, *options).stdout
        self.assertRegex(table, r"tokens/s +tokens +depth +batch +processor +processor")
        self.assertRegex(table, r"(?m)^ *decode +4 +0 +1 +[0-9.]+ +[0-9.]+$")


class Stories(support.TestCase):
    def setUp(self):
        if stories() is None:
            self.skipTest("SLUICE_REAL_INPUTS is not set")

    def text_file(self):
        path = self.folder / "story"
        source = support.real_inputs() / "corpora/tinystories_sample_944k.txt"
        path.write_text(source.read_text()[:20_000])
        return path

    def test_perplexity_as_mlx_lm_computes_it(self):
        """Windows, scored tokens and their mean, worked out here from stock mlx_lm's logits."""
        from tokenizers import Tokenizer

        folder = stories() / "hf"
        path = self.text_file()
        found = sluice_json("eval", folder, "--text", path, "--protocol", "mlx", "--context", 128,
                            "--windows", 6, "--activations", "f32", "--kv", "f32")
        model = support.load_stock(folder)
        ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(path.read_text()).ids
        nats = []
        for start in range(0, 6 * 128, 128):
            window = ids[start:start + 128]
            rows = support.logits(model, window[:-1]).astype(np.float64)
            rows -= rows.max(-1, keepdims=True)
            rows -= np.log(np.exp(rows).sum(-1, keepdims=True))
            nats += [-rows[i, token] for i, token in enumerate(window[1:])]
        self.assertEqual(found["tokens"], len(nats))
        self.assertAlmostEqual(found["nats_per_token"], float(np.mean(nats)), delta=1e-4)

    def test_reference_is_resumed_and_held_against(self):
        folder, path, kept = stories() / "hf", self.text_file(), self.folder / "reference"
        arguments = ["--text", path, "--context", 128, "--windows", 5]
        sluice("eval", folder, *arguments, "--save-reference", kept)
        shards = sorted(kept.glob("*.ref"))
        self.assertEqual(len(shards), 5)
        before = [shard.read_bytes() for shard in shards]
        shards[2].unlink()
        shards[3].write_bytes(before[3][:-1])
        sluice("eval", folder, *arguments, "--save-reference", kept)
        self.assertEqual([shard.read_bytes() for shard in shards], before)

        same = sluice_json("eval", folder, *arguments, "--against", kept)
        self.assertLess(same["kl"]["mean"], 1e-4)
        self.assertGreater(same["top1_agreement"]["mean"], 0.99)
        worse = stories() / "gguf/stories260K-q4_0.gguf"
        stored = sluice_json("eval", worse, *arguments, "--against", kept)
        live = sluice_json("eval", worse, *arguments, "--against", folder)
        self.assertGreater(live["kl"]["mean"], 10 * max(same["kl"]["mean"], 1e-6))
        self.assertAlmostEqual(stored["kl"]["mean"], live["kl"]["mean"], delta=1e-4)
        sluice("eval", worse, *arguments, "--against", kept, "--max-kl", 1e-9, expect=1)

        changed = bytearray(before[0])
        changed[100] ^= 1
        shards[0].write_bytes(changed)
        damaged = sluice("eval", folder, *arguments, "--against", kept, expect=3)
        self.assertIn("window-000000.ref", damaged.stderr)
        other = sluice("eval", folder, "--text", path, "--context", 64, "--against", kept, expect=3)
        self.assertIn("another text", other.stderr)

    def test_questions(self):
        tasks = self.folder / "tasks.jsonl"
        questions = [dict(context="Once upon a", choices=[" zzz", " time"], answer=1),
                     dict(context="Once upon a", target=" time")]
        tasks.write_text("\n".join(map(json.dumps, questions)) + "\n")
        found = sluice_json("eval", stories() / "hf", "--tasks", tasks)
        self.assertEqual(found["accuracy"]["mean"], 1)
        tasks.write_text('{"context": "a", "choices": ["b"], "answer": 0}\n')
        refused = sluice("eval", stories() / "hf", "--tasks", tasks, expect=3)
        self.assertIn("line 1", refused.stderr)

    def test_every_storage_tells_a_story(self):
        for name, path in real_models().items():
            if not name.startswith("stories"):
                continue
            with self.subTest(name):
                text = sluice("run", path, "--raw", "-p", "Once upon a time", "-n", 40, "--temp", "0",
                              "--quiet").stdout
                self.assertGreater(len(text.split()), 12)


class Refusals(support.TestCase):
    def test_models_that_do_not_run(self):
        folder = self.folder / "novel"
        config = support.make_checkpoint(folder, "llama", seed=1)
        config["model_type"] = "novel_thing"
        (folder / "config.json").write_text(json.dumps(config))
        result = sluice("run", folder, "--raw", "-p", "x", expect=3)
        self.assertIn("novel_thing", result.stderr)
        nothing = sluice("run", self.folder / "absent", "-p", "x", expect=3)
        self.assertIn("absent", nothing.stderr)

    def test_memory_that_is_not_there(self):
        folder = self.folder / "llama"
        support.make_checkpoint(folder, "llama", seed=1)
        started = time.monotonic()
        result = sluice("run", folder, "--raw", "-p", "x", "--memory", "1MB", expect=3)
        self.assertLess(time.monotonic() - started, 60)
        self.assertIn("weights", result.stderr)
        self.assertIn("MB", result.stderr)


if __name__ == "__main__":
    support.main(needs_mlx=True)
