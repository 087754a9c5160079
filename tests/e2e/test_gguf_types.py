"""GGUF models of every block type, and split ones: what comes out is held against the gguf
package's own numpy decoders, and a split model against the same model in one file."""

import importlib.util
import math
import shutil

import numpy as np
import support
from gguf_models import gguf_tensors, layout, write_gguf
from support import (decoded_folder, make_checkpoint, read_folder, read_json, sluice, sluice_json)

SEED = support.test_seed()
# Type → elements and bytes a block, offsets of its f16 numbers, exact format (bits, group) if any.
TYPES = {
    "Q4_0": (2, 32, 18, [0], (4, 32)), "Q4_1": (3, 32, 20, [0, 2], (4, 32)),
    "Q5_0": (6, 32, 22, [0], (5, 32)), "Q5_1": (7, 32, 24, [0, 2], (5, 32)),
    "Q8_0": (8, 32, 34, [0], (8, 32)), "Q2_K": (10, 256, 84, [80, 82], None),
    "Q3_K": (11, 256, 110, [108], None), "Q4_K": (12, 256, 144, [0, 2], None),
    "Q5_K": (13, 256, 176, [0, 2], None), "Q6_K": (14, 256, 210, [208], None),
    "IQ2_XXS": (16, 256, 66, [0], None), "IQ2_XS": (17, 256, 74, [0], None),
    "IQ3_XXS": (18, 256, 98, [0], None), "IQ1_S": (19, 256, 50, [0], None),
    "IQ4_NL": (20, 32, 18, [0], (8, 32)), "IQ3_S": (21, 256, 110, [0], None),
    "IQ2_S": (22, 256, 82, [0], None), "IQ4_XS": (23, 256, 136, [0], None),
    "IQ1_M": (29, 256, 56, [], None), "TQ1_0": (34, 256, 54, [52], (2, 128)),
    "TQ2_0": (35, 256, 66, [64], (2, 128)), "MXFP4": (39, 32, 17, [], None),
    "NVFP4": (40, 64, 36, [], None), "Q1_0": (41, 128, 18, [0], (2, 128)),
    "Q2_0": (42, 64, 18, [0], (2, 64)),
}


def random_rows(random, name, shape):
    """[rows, bytes a row] of random blocks whose weights stay well inside f16."""
    _, width, block_bytes, halves, _ = TYPES[name]
    count = math.prod(shape) // width
    blocks = random.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    scales = random.uniform(1e-3, 1e-2, count).astype(np.float16)
    for at in halves:
        blocks[:, at:at + 2] = scales.view(np.uint8).reshape(count, 2)
    if name == "IQ1_M":  # the f16 in four pieces
        for piece in range(4):
            high = (scales.view(np.uint16) >> (4 * piece) & 15).astype(np.uint8) << 4
            blocks[:, 49 + 2 * piece] = blocks[:, 49 + 2 * piece] & 15 | high
    if name == "MXFP4":
        blocks[:, 0] = random.integers(118, 124, count)
    if name == "NVFP4":
        blocks[:, :4] = random.integers(8, 40, (count, 4))
    return blocks.reshape(*shape[:-1], -1)


def decoded(name, rows, shape):
    """As the gguf package decodes them; the two types it lacks are a sign or a pair times d."""
    import gguf
    from gguf.quants import dequantize

    if name not in ("Q1_0", "Q2_0"):
        kind = gguf.GGMLQuantizationType[name]
        return dequantize(rows, kind).astype(np.float32).reshape(shape)
    blocks = rows.reshape(-1, 18)
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    bits = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").astype(np.int32)
    codes = bits * 2 if name == "Q1_0" else bits[:, ::2] + 2 * bits[:, 1::2]
    return ((codes - 1).astype(np.float32) * d).reshape(shape)


def split_halves(values, heads):
    """Undoes llama.cpp's permutation."""
    shape = values.shape
    pairs = values.reshape(heads, shape[0] // heads // 2, 2, *shape[1:])
    return pairs.swapaxes(1, 2).reshape(shape)


class EveryType(support.TestCase):
    def test_decoded_as_gguf_does(self):
        import gguf

        gguf.constants.GGML_QUANT_SIZES.setdefault(42, (64, 18))
        random = np.random.default_rng(SEED)
        source, path, out = (self.folder / n for n in ("hf", "mixed.gguf", "out"))
        config = make_checkpoint(source, "llama", seed=SEED, dtype="f32", hidden_size=256,
                                 intermediate_size=256, num_hidden_layers=4)
        matrices = {name: values.shape for name, values in gguf_tensors(source, config).items()
                    if values.ndim == 2}
        types = list(TYPES)
        blocks, expected, kinds = {}, {}, {}
        for number, (name, shape) in enumerate(matrices.items()):
            kind = kinds[name] = types[number % len(types)]
            rows = random_rows(random, kind, shape)
            blocks[name] = (TYPES[kind][0], rows)
            expected[name] = decoded(kind, rows, shape)
        self.assertEqual(set(kinds.values()), set(TYPES))
        write_gguf(path, source, blocks)

        inspected = sluice_json("inspect", path)
        for kind in types:
            self.assertEqual(inspected["dtypes"][kind]["tensors"],
                             list(kinds.values()).count(kind), kind)
            format_ = TYPES[kind][4]
            if format_ is not None:
                self.assertEqual(inspected["dtypes"][kind]["lossless"], "%d/%d" % format_)
        # With all the room there is, every module comes out exact or as nearest float16.
        sluice("fit", path, "--budget", "1GB", "-o", out, "--quiet")
        report = sluice_json("verify", path, out)
        exact = [kind for kind in kinds.values()
                 if TYPES[kind][4] is not None or kind in ("MXFP4", "NVFP4")]
        self.assertEqual(report["lossless_modules"], len(exact))
        found = decoded_folder(out)
        settings = read_json(out / "config.json")["quantization"]
        for name, values in expected.items():
            ours = self.output_name(name)
            kind = kinds[name]
            for part, heads in (("attn_q.", "num_attention_heads"),
                                ("attn_k.", "num_key_value_heads")):
                if part in name:
                    values = split_halves(values, config[heads])
                    np.testing.assert_array_equal(layout.interleaved(values, config[heads]),
                                                  expected[name])
            format_ = TYPES[kind][4]
            if format_ is None:
                if kind not in ("MXFP4", "NVFP4"):  # modes of their own, tested elsewhere
                    np.testing.assert_array_equal(
                        found[ours], values.astype(np.float16).astype(np.float32), f"{name} {kind}")
                continue
            setting = settings.get(ours.removesuffix(".weight"), settings)
            self.assertEqual((setting["bits"], setting["group_size"]), format_, f"{name} {kind}")
            np.testing.assert_array_equal(found[ours], values, f"{name} {kind}")

    @staticmethod
    def output_name(name):
        top = {ours: theirs for theirs, ours in layout.TOP_NAMES.items()}
        if name in top:
            return top[name]
        _, layer, part, parameter = name.split(".")
        path = next(theirs for theirs, ours in layout.NAMES.items() if ours == part)
        return f"model.layers.{layer}.{path}.{parameter}"


class SplitModels(support.TestCase):
    def parts(self, name):
        folder = self.folder / name
        shutil.copytree(self.folder / "set", folder)
        return folder, sorted(folder.iterdir())

    def setUp(self):
        if (self.folder / "set").exists():
            return
        source = self.folder / "hf"
        make_checkpoint(source, "llama", seed=SEED, dtype="f32")
        write_gguf(self.folder / "whole.gguf", source)
        (self.folder / "set").mkdir()
        write_gguf(self.folder / "set" / "model.gguf", source, split_max_tensors=8)

    def quantized(self, model, name):
        out = self.folder / name
        sluice("quantize", model, "--bits", 4, "--group-size", 32, "-o", out, "--quiet")
        sluice("verify", model, out, "--quiet")
        return read_folder(out)

    def test_same_model_as_one_file(self):
        folder, parts = self.parts("same")
        self.assertEqual(parts[0].name, "model-00001-of-00003.gguf")
        expected = self.quantized(self.folder / "whole.gguf", "whole-out")
        for number, model in enumerate([parts[0], parts[2], folder]):
            found = self.quantized(model, f"out-{number}")
            self.assertEqual(sorted(found), sorted(expected))
            self.assertEqual([n for n in expected if found[n] != expected[n]], [])
        self.assertEqual(sluice_json("inspect", folder)["files"], 3)
        self.assertIn("3 GGUF files", sluice("inspect", parts[1]).stdout)

    def refused(self, model, *words):
        result = sluice("inspect", model, expect=3)
        for word in words:
            self.assertIn(word, result.stderr)
        self.assertEqual(result.stdout, "")

    def test_bad_sets(self):
        folder, parts = self.parts("missing")
        parts[1].unlink()
        self.refused(folder, parts[1].name, "part 2 of 3")
        folder, parts = self.parts("twice")
        shutil.copy(parts[0], parts[1])
        self.refused(parts[0], parts[1].name, "should be part 2 of 3")
        folder, parts = self.parts("renamed")
        parts[0].rename(folder / "first.gguf")
        self.refused(folder / "first.gguf", "its name should end in -00001-of-00003.gguf")
        folder, parts = self.parts("two-models")
        shutil.copy(self.folder / "whole.gguf", folder)
        self.refused(folder, "several GGUF models")
        folder, parts = self.parts("cut")
        parts[2].write_bytes(parts[2].read_bytes()[:-1])
        self.refused(parts[0], parts[2].name, "truncated")


# What stands behind each name, on a text that tells them apart; bytes as their visible letters.
TEXT = "It's 12345 wörds"
PIECES = {
    "gpt-2": ["It", "'s", "Ġ12345", "ĠwÃ¶rds"],
    "smollm": ["It", "'s", "Ġ", "1", "2", "3", "4", "5", "ĠwÃ¶rds"],
    "command-r": ["It", "'s", "Ġ", "1", "2", "3", "4", "5", "ĠwÃ¶rds"],
    "llama-bpe": ["It", "'s", "Ġ", "123", "45", "ĠwÃ¶rds"],
    "falcon3": ["It", "'s", "Ġ", "123", "45", "ĠwÃ¶rds"],
    "qwen2": ["It", "'s", "Ġ", "1", "2", "3", "4", "5", "ĠwÃ¶rds"],
    "qwen35": ["It", "'s", "Ġ", "1", "2", "3", "4", "5", "ĠwÃ¶rds"],
    "tekken": ["It", "'s", "Ġ", "1", "2", "3", "4", "5", "ĠwÃ¶rds"],
    "gpt-4o": ["It's", "Ġ", "123", "45", "ĠwÃ¶rds"],
    "seed-coder": ["It", "'s", "Ġ", "1", "2", "3", "4", "5", "ĠwÃ¶rds"],
    "deepseek-coder": ["It", "'", "s", "Ġ", "1", "2", "3", "4", "5", "ĠwÃ¶rds"],
    "deepseek-v3": ["It", "'s", "Ġ", "123", "45", "ĠwÃ¶rds"],
    "viking": ["It's", "Ġ", "1", "2", "3", "4", "5", "ĠwÃ¶rds"],
}


class PreTokenizers(support.TestCase):
    def test_text_is_cut_as_published(self):
        from tokenizers import Tokenizer

        source = self.folder / "hf"
        make_checkpoint(source, "llama", seed=SEED, num_hidden_layers=1)
        for pre, pieces in PIECES.items():
            with self.subTest(pre=pre):
                path, out = self.folder / f"{pre}.gguf", self.folder / pre
                write_gguf(path, source, pre=pre)
                sluice("quantize", path, "--bits", 4, "-o", out, "--quiet")
                tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
                found = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(TEXT)]
                self.assertEqual(found, pieces)


if __name__ == "__main__":
    if importlib.util.find_spec("gguf") is None:
        support.skip("the gguf package is not installed; run scripts/setup test")
    support.main()
