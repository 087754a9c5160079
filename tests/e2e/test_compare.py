"""`sluice compare`: figures against `sluice eval`'s and against sums worked out here, scores that are
kept and resumed, and what is refused."""

import json
import shutil
import xml.etree.ElementTree as xml

import numpy as np
import support
from support import sluice, sluice_json

Z95 = 1.959963984540054


def stories():
    folder = support.real_inputs()
    return None if folder is None else folder / "models/stories260K"


def interval(sums, tokens):
    """Mean over tokens and its 95 % interval, windows being the samples."""
    sums, tokens = np.asarray(sums, float), np.asarray(tokens, float)
    mean = sums.sum() / tokens.sum()
    count = len(sums)
    half = Z95 * np.sqrt(((sums - mean * tokens) ** 2).sum() * count / (count - 1)) / tokens.sum()
    return mean, mean - half, mean + half


class Compare(support.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if stories() is None:
            return
        cls.model = stories() / "hf"
        source = support.real_inputs() / "corpora/tinystories_sample_944k.txt"
        cls.text = cls.folder / "story"
        cls.text.write_text(source.read_text()[:20_000])
        cls.outputs = []
        for bits in (3, 4, 8):
            cls.outputs.append(cls.folder / f"bits-{bits}")
            sluice("quantize", cls.model, "--bits", bits, "--group-size", 64, "-o", cls.outputs[-1],
                   "--quiet")
        cls.arguments = ["--text", cls.text, "--context", 128, "--windows", 6]

    def setUp(self):
        if stories() is None:
            self.skipTest("SLUICE_REAL_INPUTS is not set")

    def assert_estimate(self, found, expected):
        for key, value in zip(("mean", "low", "high"), expected):
            self.assertAlmostEqual(found[key], value, delta=1e-9 + 1e-6 * abs(value))

    def test_figures(self):
        found = sluice_json("compare", self.model, *self.outputs, *self.arguments)
        models = found["models"]
        self.assertEqual([model["name"] for model in models], [path.name for path in self.outputs])
        divergences = [model["kl"]["mean"] for model in models]
        self.assertGreater(divergences[0], 2 * divergences[1])
        self.assertGreater(divergences[1], 2 * divergences[2])
        for path, model in zip(self.outputs, models):
            windows = np.array(model["windows"])
            self.assertEqual(len(windows), 6)
            self.assertEqual(model["weight_file_bytes"], support.weight_bytes(path))
            self.assert_estimate(model["kl"], interval(windows[:, 4], windows[:, 0]))
            nats = interval(windows[:, 2], windows[:, 0])
            self.assert_estimate(model["perplexity"]["perplexity"], np.exp(nats))
            alone = sluice_json("eval", path, *self.arguments, "--against", self.model)
            self.assertEqual(alone["kl"], model["kl"])
            self.assertEqual(alone["top1_agreement"], model["top1_agreement"])
            self.assertEqual(alone["reference"], found["reference"]["perplexity"])
        for pair in found["differences"]:
            first, second = (np.array(models[pair[key]]["windows"]) for key in ("of", "less"))
            self.assert_estimate(pair["kl"], interval(first[:, 4] - second[:, 4], first[:, 0]))
            self.assert_estimate(pair["nats_per_token"],
                                 interval(first[:, 2] - second[:, 2], first[:, 0]))
        self.assertEqual(len(found["differences"]), 3)

    def test_a_model_does_not_differ_from_itself(self):
        [same] = sluice_json("compare", self.model, self.model, *self.arguments)["models"]
        self.assertEqual(same["kl"]["mean"], 0)
        self.assertEqual(same["top1_agreement"]["mean"], 1)

    def test_stored_reference(self):
        kept = self.folder / "reference"
        sluice("eval", self.model, *self.arguments, "--save-reference", kept)
        stored = sluice_json("compare", kept, *self.outputs, *self.arguments)["models"]
        live = sluice_json("compare", self.model, *self.outputs, *self.arguments)["models"]
        for a, b in zip(stored, live):  # 16-bit steps do not show, even at 8 bits
            self.assertAlmostEqual(a["kl"]["mean"] / b["kl"]["mean"], 1, delta=0.01)
        other = sluice("compare", kept, self.outputs[0], "--text", self.text, "--context", 64,
                       expect=3)
        self.assertIn("another text", other.stderr)

    def test_scores_are_kept(self):
        out = self.folder / "compared"
        command = ["compare", self.model, *self.outputs, *self.arguments, "-o", out]
        sluice("compare", self.model, self.outputs[0], *self.arguments, "-o", out)
        [first] = (out / "scores").iterdir()
        before = first.stat().st_mtime_ns
        text = sluice(*command).stdout
        self.assertEqual(first.stat().st_mtime_ns, before)
        self.assertEqual(len(list((out / "scores").iterdir())), 3)
        names = ("comparison.json", "comparison.svg", "comparison.html")
        files = [(out / name).read_bytes() for name in names]
        self.assertIn("bits-4", text)
        xml.fromstring(files[1])
        self.assertEqual(json.loads(files[0]),
                         sluice_json("compare", self.model, *self.outputs, *self.arguments))

        # What is damaged is measured again, to the same bytes.
        record = first.read_bytes()
        first.write_bytes(record.replace(b"windows", b"windoms"))
        again = sluice(*command)
        self.assertIn("measured again", again.stderr)
        self.assertEqual(first.read_bytes(), record)
        self.assertEqual([(out / name).read_bytes() for name in names], files)

    def test_other_weights_of_the_same_layout_are_another_output(self):
        out = self.folder / "recompared"
        changed = self.folder / "changed"
        shutil.copytree(self.outputs[1], changed)
        sluice("compare", self.model, changed, *self.arguments, "-o", out)
        [weights] = changed.glob("model*.safetensors")
        data = bytearray(weights.read_bytes())
        data[-100] ^= 0x11
        weights.write_bytes(data)
        sluice("compare", self.model, changed, *self.arguments, "-o", out)
        self.assertEqual(len(list((out / "scores").iterdir())), 2)

    def test_refusals(self):
        self.assert_refused(["compare", self.model, self.folder / "absent", *self.arguments],
                            ["absent"])
        self.assert_refused(["compare", self.model, self.outputs[0], "--text", self.text,
                             "--context", 2], ["--context 2"])
        moe = support.real_inputs() / "models/tiny-qwen3-moe"
        self.assert_refused(["compare", self.model, moe, *self.arguments],
                            ["tiny-qwen3-moe", "tokenizer"])


if __name__ == "__main__":
    support.main(needs_mlx=False)
