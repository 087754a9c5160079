"""What `sluice run` refuses: exit code 3 and one clear sentence, before weights are read where that
can be told from headers."""

import shutil
import struct

import support
from support import BAD_INPUT, BAD_USAGE, make_checkpoint, sluice, sluice_json
from test_bad_input import MODEL_CASES, both, edit_config, edit_tensors, poke, remove, write

RAW = ("--raw", "-p", "x", "-n", 4, "--quiet")
UP = "model.layers.1.mlp.up_proj.weight"

# Cases of test_bad_input that running meets elsewhere, or not at all: values are looked at as they
# are computed with, and families that only mlx_lm lacks are no matter here.
DIFFERENT = {"NaN", "infinity", "NaN in a norm", "family that mlx_lm cannot load"}

TOKENIZER_CASES = [
    ("missing", remove("tokenizer.json"), ["tokenizer.json"]),
    ("empty", write("tokenizer.json", ""), ["tokenizer.json"]),
    ("no JSON", write("tokenizer.json", "{"), ["tokenizer.json"]),
    ("not a tokenizer", write("tokenizer.json", "{}"), ["tokenizer.json"]),
    ("nested too deeply", write("tokenizer.json", "[" * 100_000), ["tokenizer.json"]),
    ("no UTF-8", write("tokenizer.json", b'{"version":"\xff"}'), ["tokenizer.json"]),
    ("settings are no JSON", write("tokenizer_config.json", "{"), ["tokenizer_config.json"]),
    ("settings are a list", write("tokenizer_config.json", "[]"), ["tokenizer_config.json"]),
]

LOOP = "{% for i in range(100000) %}"
TEMPLATE_CASES = [
    ("does not parse", "{% if %}", ["does not parse", "chat_template:1"]),
    ("refuses", "{{ raise_exception('no such role') }}", ["no such role"]),
    ("unknown filter", "{{ messages | nonsense }}", ["nonsense"]),
    ("too many steps", LOOP * 4 + "{% endfor %}" * 4, ["takes more than"]),
    ("endless recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ["recursion"]),
    ("writes too much", LOOP + "{{ 'x' * 1000000 }}{% endfor %}", ["writes more than"]),
    ("takes too much memory", "{% set n = namespace(s='x') %}{% for i in range(99) %}"
     "{% set n.s = n.s ~ n.s %}{% endfor %}", ["memory"]),
    ("nested too deeply", "{{ " + "[" * 50_000, ["chat template"]),
    ("too large", "x" * ((1 << 20) + 1), ["more than"]),
]


def set_floats(name, index, value):
    """One element of an f32 tensor."""
    return poke(name, index, value, "<f")


def fill(name, value):
    def change(tensors):
        dtype, shape, data = tensors[name]
        tensors[name] = (dtype, shape, struct.pack("<f", value) * (len(data) // 4))

    return edit_tensors(change)


VALUE_CASES = [
    ("NaN in a layer", set_floats(UP, 129, float("nan")), ["layer 1 of 2"]),
    ("infinity in a layer", set_floats(UP, 0, float("-inf")), ["layer 1 of 2"]),
    ("NaN in a norm", set_floats("model.layers.0.input_layernorm.weight", 3, float("nan")),
     ["layer 0 of 2"]),
    ("NaN in the head", set_floats("lm_head.weight", 5, float("nan")), ["in the head"]),
    ("NaN in the embedding", fill("model.embed_tokens.weight", float("nan")),
     ["in the embedding"]),
    ("overflow in a layer", both(fill("model.layers.1.mlp.gate_proj.weight", 1e30),
                                 fill(UP, 1e30)), ["layer 1 of 2"]),
]


class RunBadInput(support.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.bases = {name: cls.folder / name for name in ("plain", "moe", "f32")}
        make_checkpoint(cls.bases["plain"], "llama", seed=1)
        make_checkpoint(cls.bases["moe"], "qwen3_moe", seed=2)
        make_checkpoint(cls.bases["f32"], "llama", "f32", seed=3)

    def damaged(self, base, edit):
        folder = self.folder / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.bases[base], folder)
        edit(folder)
        return folder

    def test_models(self):
        for name, base, edit, words in MODEL_CASES:
            if name in DIFFERENT:
                continue
            with self.subTest(damage=name):
                self.assert_refused(["run", self.damaged(base, edit), *RAW], words)

    def test_families(self):
        for family in ("novel_thing", "deepseek_v4", "gpt_neox"):
            with self.subTest(family=family):
                model = self.damaged("plain", edit_config(model_type=family))
                self.assert_refused(["run", model, *RAW], [family])

    def test_values(self):
        for name, edit, words in VALUE_CASES:
            with self.subTest(damage=name):
                model = self.damaged("f32", edit)
                self.assert_refused(["run", model, *RAW], ["no finite numbers", *words])

    def test_tokenizers(self):
        for name, edit, words in TOKENIZER_CASES:
            with self.subTest(damage=name):
                self.assert_refused(["run", self.damaged("plain", edit), *RAW], words)

    def test_tokens_beyond_the_model(self):
        def shrink(tensors):
            for name in ("model.embed_tokens.weight", "lm_head.weight"):
                dtype, shape, data = tensors[name]
                tensors[name] = (dtype, (64, shape[1]), data[:64 * shape[1] * 2])

        model = self.damaged("plain", both(edit_tensors(shrink), edit_config(vocab_size=64)))
        self.assert_refused(["run", model, "--raw", "-p", "zzz"], ["vocabulary of 64"])

    def test_templates(self):
        for name, text, words in TEMPLATE_CASES:
            with self.subTest(damage=name):
                model = self.damaged("plain", write("chat_template.jinja", text))
                self.assert_refused(["run", model, "-p", "x", "--quiet"], words)
                sluice("run", model, *RAW)  # without the template it runs
        with self.subTest(damage="given by hand"):
            path = self.folder / "given.jinja"
            path.write_text("{% if %}")
            self.assert_refused(["run", self.bases["plain"], "-p", "x", "--chat-template-file",
                                 path], ["chat_template:1"])
        with self.subTest(damage="missing"):
            sluice("run", self.bases["plain"], "-p", "x", "-n", 2)  # continues the text
            self.assert_refused(["chat", self.bases["plain"]], ["no chat template"])

    def test_prompts(self):
        plain = self.bases["plain"]
        self.assert_refused(["run", plain, "--raw", "-p", ""], ["prompt is empty"])
        self.assert_refused(["run", plain, "--raw", "-f", self.folder / "absent"], ["absent"])
        (self.folder / "bytes").write_bytes(b"abc\xff")
        self.assert_refused(["run", plain, "--raw", "-f", self.folder / "bytes"], ["UTF-8"])
        for length in (64, 65, 1000):
            self.assert_refused(["run", plain, "--raw", "-p", "x" * length, "--context", 64],
                                [f"the prompt has {length} tokens", "holds 64"])

    def test_the_last_token_of_the_context(self):
        """The prompt leaves one place; the token chosen from there needs none."""
        arguments = ["run", self.bases["plain"], "--raw", "-p", "x" * 63, "--context", 64, "--temp",
                     0, "-n", 9, "--ignore-eos"]
        found = sluice_json(*arguments)
        self.assertEqual((found["finish"], found["tokens"]), ("context", 2))
        shifted = sluice_json(*arguments, "--context-shift")
        self.assertEqual((shifted["finish"], shifted["tokens"]), ("length", 9))
        guessed = sluice_json(*arguments, "--lookup")
        self.assertEqual((guessed["finish"], guessed["text"]), ("context", found["text"]))

    def test_memory(self):
        plain = self.bases["plain"]
        arithmetic = ["= weights", "+ keys and values", "+ scratch"]
        self.assert_refused(["run", plain, *RAW, "--memory", "1MB"],
                            [*arithmetic, "--memory allows only 1.000 MB"])
        self.assert_refused(["run", plain, *RAW, "--context", 60_000_000],
                            [*arithmetic, "60000000 tokens", "this machine has only"])
        self.assert_refused(["run", plain, *RAW, "--context", 10**12], ["context"])

    def test_memory_of_a_control_group(self):
        if support.sanitized(support.binary()):
            self.skipTest("a sanitizer takes more than the group allows")
        group = support.MemoryGroup.create(100_000_000)
        if group is None:
            self.skipTest("no memory controller that may be used here")
        with group:
            arguments = ["run", self.bases["plain"], *RAW, "--context"]
            refused = support.measured([*arguments, 200_000], group)
            self.assertEqual(refused.code, BAD_INPUT, refused.stderr)
            self.assertIn("= weights", refused.stderr)
            self.assertIn("the cgroup of this process allows both together only 100.0 MB",
                          refused.stderr)
            self.assertEqual(support.measured([*arguments, 1000], group).code, 0)

    def test_damaged_sessions(self):
        """In a conversation, which goes on afterwards."""
        model = self.damaged("plain", write("chat_template.jinja",
                                            "{% for m in messages %}{{ m.content }}{% endfor %}"))
        talk, bad = self.folder / "talk", self.folder / "bad"
        self.chat(model, "hello", f"/save {talk}")
        good, messages = talk.read_bytes(), (self.folder / "talk.json").read_text()
        cases = {
            "cut": (good[:-1], messages, "do not fit"),
            "a bit": (good[:200] + bytes([good[200] ^ 1]) + good[201:], messages, "digest"),
            "another version": (good[:8] + b"\x02" + good[9:], messages, "version 2"),
            "nothing": (b"", messages, "too short"),
            "no session": (b"x" * 1000, messages, "not a session file"),
            "no messages": (good, "", "bad.json"),
            "messages of another kind": (good, '{"version": 1, "system": 5}', "bad.json"),
        }
        for name, (content, text, words) in cases.items():
            with self.subTest(damage=name):
                bad.write_bytes(content)
                (self.folder / "bad.json").write_text(text)
                result = self.chat(model, f"/load {bad}", "and now?", "/stats")
                self.assertEqual(result.stderr.count("error: "), 1, result.stderr)
                self.assertIn(words, result.stderr)
                self.assertIn("context: ", result.stdout)
        other = self.folder / "other"
        make_checkpoint(other, "llama", seed=9, rms_norm_eps=2e-5)
        shutil.copy(model / "chat_template.jinja", other)
        self.assertIn("another model", self.chat(other, f"/load {talk}").stderr)
        self.assertIn("keys and values", self.chat(model, f"/load {talk}", "--kv=q8").stderr)

    def chat(self, model, *lines):
        options = [line for line in lines if line.startswith("--")]
        lines = [line for line in lines if not line.startswith("--")]
        result = support.measured(["chat", model, "-n", 4, "--temp", 0, "--quiet", *options],
                                  text="\n".join(lines) + "\n")
        self.assertEqual(result.code, 0, result.stderr)
        return result

    def test_usage(self):
        plain = self.bases["plain"]
        for arguments in (["run"], ["run", plain, "--kv", "q2"], ["run", plain, "--temp", "-1"],
                          ["run", plain, "-p", "x", "-f", "y"], ["eval", plain],
                          ["chat", plain, "--activations", "f64"]):
            with self.subTest(arguments=arguments[:1] + arguments[2:]):
                sluice(*arguments, expect=BAD_USAGE)


if __name__ == "__main__":
    support.main()
