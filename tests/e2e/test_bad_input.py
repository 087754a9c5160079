"""Damaged and hostile input of every kind: exit code 3 (bad input) or 4 (I/O), one clear sentence
on stderr, and nothing under the final name."""

import json
import os
import resource
import shutil
import signal
import struct

import numpy as np
import support
from support import (BAD_INPUT, BAD_USAGE, IO_ERROR, make_checkpoint, read_header,
                     read_safetensors, write_safetensors)

WEIGHTS = "model.safetensors"
UP = "model.layers.1.mlp.up_proj.weight"
NORM = "model.norm.weight"


# ---- ways to damage a checkpoint; each takes the folder ----


def edit_bytes(change):
    def edit(folder):
        path = folder / WEIGHTS
        path.write_bytes(change(path.read_bytes()))

    return edit


def edit_header_text(change):
    """change: header text → header text; the data stays."""

    def edit(folder):
        data = (folder / WEIGHTS).read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        text = change(data[8:8 + length].decode().rstrip())
        text = text.encode() if isinstance(text, str) else text
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length:])

    return edit


def edit_header(change):
    """change: header object, edited in place."""

    def change_text(text):
        header = json.loads(text)
        change(header)
        return json.dumps(header)

    return edit_header_text(change_text)


def edit_entry(name, **fields):
    return edit_header(lambda header: header[name].update(fields))


def edit_offsets(name, begin=0, end=0):
    def change(header):
        offsets = header[name]["data_offsets"]
        header[name]["data_offsets"] = [offsets[0] + begin, offsets[1] + end]

    return edit_header(change)


def edit_tensors(change):
    """change: dict of (dtype, shape, bytes), edited in place; offsets stay valid."""

    def edit(folder):
        path = folder / WEIGHTS
        tensors = {n: (t.dtype, t.shape, t.data) for n, t in read_safetensors(path).items()}
        change(tensors)
        write_safetensors(path, tensors)

    return edit


def edit_config(**fields):
    def edit(folder):
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config.update(fields)
        path.write_text(json.dumps({k: v for k, v in config.items() if v != "<absent>"}))

    return edit


def write(name, content):
    def edit(folder):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return edit


def remove(name):
    return lambda folder: (folder / name).unlink()


def both(*edits):
    def edit(folder):
        for each in edits:
            each(folder)

    return edit


def poke(name, element, value, kind="<H"):
    """One element: by default of bf16, given by its bits."""

    def change(tensors):
        dtype, shape, data = tensors[name]
        data = bytearray(data)
        struct.pack_into(kind, data, struct.calcsize(kind) * element, value)
        tensors[name] = (dtype, shape, bytes(data))

    return edit_tensors(change)


def add_tensor(name, dtype, shape, bytes_each):
    count = int(np.prod(shape, dtype=np.int64))
    return edit_tensors(lambda t: t.update({name: (dtype, shape, bytes(count * bytes_each))}))


def retype(name, dtype, bytes_each):
    def change(tensors):
        _, shape, _ = tensors[name]
        tensors[name] = (dtype, shape, bytes(int(np.prod(shape)) * bytes_each))

    return edit_tensors(change)


def transpose(name):
    def change(tensors):
        dtype, shape, data = tensors[name]
        tensors[name] = (dtype, shape[::-1], data)

    return edit_tensors(change)


def duplicate_key(text):
    entry = json.dumps(json.loads(text)[NORM])
    return f'{text[:-1]},"{NORM}":{entry}}}'


def index(change):
    """For the sharded checkpoint: edits the index object."""

    def edit(folder):
        path = folder / "model.safetensors.index.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit


def point_to(name):
    return index(lambda i: i["weight_map"].update({NORM: name}))


def duplicate_across_shards(folder):
    first, second = sorted(folder.glob("model-*.safetensors"))
    tensors = {n: (t.dtype, t.shape, t.data) for n, t in read_safetensors(second).items()}
    name, tensor = next(iter(read_safetensors(first).items()))
    tensors[name] = (tensor.dtype, tensor.shape, tensor.data)
    write_safetensors(second, tensors)


def unknown_family(*edits):
    return both(edit_config(model_type="novel_thing"), *edits)


def gguf(version=3, tensors=0, pairs=b"", pair_count=None, magic=b"GGUF"):
    count = pair_count if pair_count is not None else (1 if pairs else 0)
    return magic + struct.pack("<IQQ", version, tensors, count) + pairs


def gguf_text(key, value):
    return (struct.pack("<Q", len(key)) + key.encode() + struct.pack("<IQ", 8, len(value))
            + value.encode())


# name, base, edit, words that the sentence must contain
SAFETENSORS_CASES = [
    ("empty file", "plain", edit_bytes(lambda d: b""), ["0 bytes"]),
    ("seven bytes", "plain", edit_bytes(lambda d: d[:7]), ["7 bytes"]),
    ("header longer than the file", "plain",
     edit_bytes(lambda d: struct.pack("<Q", 90_000_000) + d[8:]), ["90000000"]),
    ("header length overflows", "plain",
     edit_bytes(lambda d: struct.pack("<Q", 2**64 - 1) + d[8:]), ["18446744073709551615"]),
    ("header bomb", "plain", edit_bytes(lambda d: struct.pack("<Q", 200_000_000) + d[8:]),
     ["200000000"]),
    ("header is no JSON", "plain", edit_header_text(lambda t: "{not json}"), [WEIGHTS]),
    ("header is an array", "plain", edit_header_text(lambda t: "[1,2]"), [WEIGHTS]),
    ("header with invalid UTF-8", "plain",
     edit_header_text(lambda t: b'{"\xff\xfe":' + t[1:].encode()), [WEIGHTS]),
    ("deeply nested header", "plain",
     edit_header_text(lambda t: '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"), [WEIGHTS]),
    ("truncated data", "plain", edit_bytes(lambda d: d[:-1]), ["truncated"]),
    ("trailing byte", "plain", edit_bytes(lambda d: d + b"\0"), [WEIGHTS]),
    ("overlap", "plain", edit_offsets(UP, begin=-2, end=-2), ["overlap", UP]),
    ("hole", "plain", edit_offsets(UP, begin=2, end=2), ["hole", UP]),
    ("end before begin", "plain",
     edit_header(lambda h: h[UP].update(data_offsets=h[UP]["data_offsets"][::-1])), [UP]),
    ("negative offset", "plain", edit_entry(UP, data_offsets=[-2, 4]), [UP]),
    ("offset overflow", "plain", edit_entry(UP, data_offsets=[0, 2**64 - 1]), [UP]),
    ("bytes do not match the shape", "plain", edit_entry(UP, shape=[256, 127]), [UP]),
    ("shape overflows", "plain", edit_entry(UP, shape=[2**40, 2**40]), [UP]),
    ("negative shape", "plain", edit_entry(UP, shape=[-1, 128]), [UP]),
    ("fractional shape", "plain", edit_entry(UP, shape=[256.5, 128]), [UP]),
    ("unknown dtype", "plain", edit_entry(UP, dtype="F7"), [UP, "F7"]),
    ("no offsets", "plain", edit_header(lambda h: h[UP].pop("data_offsets")), [UP]),
    ("tensor twice", "plain", edit_header_text(duplicate_key), [NORM, "twice"]),
    ("metadata is a number", "plain", edit_header(lambda h: h.update(__metadata__=5)),
     ["__metadata__"]),
]

MODEL_CASES = [
    ("missing tensor", "plain", edit_tensors(lambda t: t.pop(UP)), ["missing", UP, "[256, 128]"]),
    ("extra tensor", "plain", add_tensor("model.layers.9.extra.weight", "BF16", (4, 4), 2),
     ["does not belong", "model.layers.9.extra.weight"]),
    ("transposed", "plain", transpose(UP), [UP, "[256, 128]", "[128, 256]"]),
    ("integer weights", "plain", retype(UP, "I32", 4), [UP, "I32"]),
    ("NaN", "plain", poke(UP, 129, 0x7FC0), [UP, "row 1", "column 1", "nan"]),
    ("infinity", "plain", poke(UP, 0, 0xFF80), [UP, "row 0", "column 0", "inf"]),
    ("NaN in a norm", "plain", poke(NORM, 3, 0x7FC0), [NORM, "nan"]),
    ("missing expert", "moe",
     edit_tensors(lambda t: t.pop("model.layers.0.mlp.experts.5.up_proj.weight")),
     ["missing", "model.layers.0.mlp.experts.5.up_proj.weight"]),
    ("one expert too many", "moe",
     add_tensor("model.layers.0.mlp.experts.6.up_proj.weight", "BF16", (128, 128), 2),
     ["model.layers.0.mlp.experts.6.up_proj.weight"]),
    ("no head", "plain", edit_tensors(lambda t: t.pop("lm_head.weight")), ["lm_head.weight"]),
    ("no config.json", "plain", remove("config.json"), ["config.json"]),
    ("config.json is no JSON", "plain", write("config.json", "{"), ["config.json"]),
    ("config.json nested too deeply", "plain",
     write("config.json", '{"a":' + "[" * 1000 + "]" * 1000 + "}"), ["config.json"]),
    ("negative width", "plain", edit_config(hidden_size=-128), ["hidden_size", "-128"]),
    ("a billion layers", "plain", edit_config(num_hidden_layers=10**9), ["num_hidden_layers"]),
    ("no heads", "plain", edit_config(num_attention_heads=0), ["num_attention_heads"]),
    ("no model_type", "plain", edit_config(model_type="<absent>"), ["model_type"]),
    ("wrong vocabulary", "plain", edit_config(vocab_size=321),
     ["model.embed_tokens.weight", "[321, 128]", "[320, 128]"]),
    ("packed by an unknown method", "plain",
     edit_config(quantization_config=dict(quant_method="bitsandbytes")), ["bitsandbytes"]),
    ("gptq without bits", "plain", edit_config(quantization_config=dict(quant_method="gptq")),
     ["quantization_config", "bits"]),
    ("unknown family with a convolution", "plain",
     unknown_family(add_tensor("model.layers.0.conv.weight", "BF16", (4, 1, 4), 2)),
     ["novel_thing", "model.layers.0.conv.weight", "[4, 1, 4]"]),
    ("unknown family with packed integers", "plain",
     unknown_family(add_tensor("model.layers.0.mlp.x.qweight", "I32", (4, 4), 4)),
     ["novel_thing", "model.layers.0.mlp.x.qweight"]),
    ("unknown family with experts", "moe", unknown_family(), ["novel_thing", "expert"]),
    ("family that mlx_lm cannot load", "plain", edit_config(model_type="deepseek_v4"),
     ["deepseek_v4", "mlx_lm"]),
]

INDEX_CASES = [
    ("index names an absent file", "shards", point_to("model-00009-of-00002.safetensors"),
     ["model-00009-of-00002.safetensors"]),
    ("index names a file outside", "shards", point_to("../model.safetensors"), [".."]),
    ("index names an absolute path", "shards", point_to("/etc/passwd"), ["/etc/passwd"]),
    ("index names the wrong file", "shards", point_to("model-00001-of-00002.safetensors"), [NORM]),
    ("index is no JSON", "shards", write("model.safetensors.index.json", "nonsense"),
     ["model.safetensors.index.json"]),
    ("index without weight_map", "shards", index(lambda i: i.pop("weight_map")), ["weight_map"]),
    ("index leaves a tensor out", "shards", index(lambda i: i["weight_map"].pop(NORM)), [NORM]),
    ("index lists a tensor that is not there", "shards",
     index(lambda i: i["weight_map"].update(ghost="model-00001-of-00002.safetensors")), ["ghost"]),
    ("a shard is missing", "shards", remove("model-00002-of-00002.safetensors"),
     ["model-00002-of-00002.safetensors"]),
    ("a tensor in two shards", "shards", duplicate_across_shards, ["model.embed_tokens.weight"]),
    ("no weights", "plain", remove(WEIGHTS), [".safetensors"]),
]

GGUF_CASES = [
    ("empty", b"", ["x.gguf"]),
    ("wrong magic", gguf(magic=b"GGML"), ["GGUF"]),
    ("version 1", gguf(version=1), ["version 1"]),
    ("version 99", gguf(version=99), ["99"]),
    ("tensor bomb", gguf(tensors=2**60), ["x.gguf"]),
    ("metadata bomb", gguf(pair_count=2**63), ["x.gguf"]),
    ("string bomb", gguf(pairs=struct.pack("<Q", 2**62) + b"a"), ["x.gguf"]),
    ("cut inside its metadata", gguf(pairs=gguf_text("general.architecture", "llama")[:-3]),
     ["x.gguf"]),
    ("no architecture", gguf(pairs=gguf_text("general.name", "x")), ["general.architecture"]),
    ("unknown architecture", gguf(pairs=gguf_text("general.architecture", "mamba")), ["mamba"]),
    ("no dimensions", gguf(pairs=gguf_text("general.architecture", "llama")), ["llama."]),
]


class BadInput(support.TestCase):
    outs = 0

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.bases = {name: cls.folder / name for name in ("plain", "moe", "shards")}
        make_checkpoint(cls.bases["plain"], "llama", seed=1)
        make_checkpoint(cls.bases["moe"], "qwen3_moe", seed=2)
        make_checkpoint(cls.bases["shards"], "llama", seed=3, shards=2)

    def fresh_out(self):
        """A name that no earlier case has left partial work under."""
        type(self).outs += 1
        return self.folder / f"out-{self.outs}"

    def damaged(self, base, edit):
        folder = self.folder / "model"
        shutil.copytree(self.bases[base], folder)
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        edit(folder)
        return folder

    def refuse_all(self, cases):
        for name, base, edit, words in cases:
            with self.subTest(damage=name):
                model = self.damaged(base, edit)
                try:
                    for command in (["quantize", "--bits", 4], ["fit", "--budget", "1GB"]):
                        out = self.fresh_out()
                        self.assert_refused([*command, model, "-o", out, "--quiet"], words, out=out)
                finally:
                    shutil.rmtree(model)

    def test_safetensors(self):
        self.refuse_all(SAFETENSORS_CASES)

    def test_models(self):
        self.refuse_all(MODEL_CASES)

    def test_indexes(self):
        self.refuse_all(INDEX_CASES)

    def test_gguf(self):
        for name, content, words in GGUF_CASES:
            with self.subTest(damage=name):
                path = self.folder / "x.gguf"
                path.write_bytes(content)
                self.assert_refused(["inspect", path], words)

    def test_truncated_gguf(self):
        source = support.real_models().get("stories260K-q8_0-gguf")
        if source is None:
            self.skipTest("SLUICE_REAL_INPUTS is not set")
        data = source.read_bytes()
        path, out = self.folder / "cut.gguf", self.fresh_out()
        for length in (len(data) - 32, len(data) // 2, 20_000, 1000, 30, 5):
            with self.subTest(length=length):
                path.write_bytes(data[:length])
                self.assert_refused(["quantize", path, "--bits", 4, "-o", out, "--quiet"],
                                    ["cut.gguf"], out=out)

    def test_too_large_for_the_type(self):
        model = self.folder / "large"
        make_checkpoint(model, "llama", seed=4, dtype="f32")

        def change(tensors):
            dtype, shape, data = tensors[UP]
            tensors[UP] = (dtype, shape, struct.pack("<f", 1e6) + data[4:])

        edit_tensors(change)(model)
        out = self.fresh_out()
        self.assert_refused(["quantize", model, "--bits", 4, "--dtype", "float16", "-o", out],
                            [UP, "1000000", "F16"], out=out)
        support.sluice("quantize", model, "--bits", 4, "--dtype", "bfloat16", "-o",
                       self.fresh_out())

    def test_paths(self):
        plain, out = self.bases["plain"], self.fresh_out()
        text = self.folder / "notes.txt"
        text.write_text("not a model")
        cases = [
            ("absent model", ["quantize", self.folder / "nowhere", "--bits", 4, "-o", out],
             ["nowhere"], BAD_INPUT),
            ("not a model", ["quantize", text, "--bits", 4, "-o", out], ["notes.txt"], BAD_INPUT),
            ("empty folder", ["quantize", self.empty_folder(), "--bits", 4, "-o", out], ["empty"],
             BAD_INPUT),
            ("no place for the output",
             ["quantize", plain, "--bits", 4, "-o", self.folder / "no/such/out"], ["no/such"],
             (BAD_INPUT, IO_ERROR)),
            ("absent plan", ["quantize", plain, "--plan", self.folder / "p", "-o", out], ["/p"],
             (BAD_INPUT, IO_ERROR)),
        ]
        for name, arguments, words, code in cases:
            with self.subTest(case=name):
                if isinstance(code, tuple):
                    found = support.sluice(*arguments, expect=None).returncode
                    self.assertIn(found, code)
                    code = found
                self.assert_refused(arguments, words, code, out)

    def empty_folder(self):
        folder = self.folder / "empty"
        folder.mkdir()
        return folder

    def test_output_present(self):
        plain = self.bases["plain"]
        out = self.folder / "present"
        out.mkdir()
        (out / "precious.txt").write_text("mine")
        for command in (["quantize", plain, "--bits", 4], ["fit", plain, "--budget", "1GB"]):
            self.assert_refused([*command, "-o", out], ["present", "exists"])
        self.assertEqual((out / "precious.txt").read_text(), "mine")
        self.assertEqual(len(list(out.iterdir())), 1)

    def test_budgets(self):
        analysis = self.folder / "budgets.analysis"
        support.sluice("analyze", self.bases["plain"], "-o", analysis, "--quiet")
        smallest = support.sluice_json("plan", analysis, "--min-safe")["plan"]["exact_bytes"]
        plan = self.folder / "never.plan"
        self.assert_refused(["plan", analysis, "--budget", "1000B", "-o", plan], ["smallest"],
                            out=plan)
        self.assert_refused(["plan", analysis, "--budget", f"{smallest - 1}B", "-o", plan],
                            ["smallest"], out=plan)
        self.assert_refused(["plan", analysis, "--budget", "6"], ["GB"], code=BAD_USAGE)
        out = self.fresh_out()
        self.assert_refused(["fit", self.bases["plain"], "--budget", "1000B", "-o", out],
                            ["smallest"], out=out)

    def test_source_changed_since_analysis(self):
        model = self.folder / "changing"
        shutil.copytree(self.bases["plain"], model)
        analysis, plan = self.folder / "c.analysis", self.folder / "c.plan"
        out = self.fresh_out()
        support.sluice("analyze", model, "-o", analysis, "--quiet")
        support.sluice("plan", analysis, "--budget", "1GB", "-o", plan)
        # The data alone changes: only reading it can tell.
        header, start = read_header(model / WEIGHTS)
        with open(model / WEIGHTS, "r+b") as file:
            file.seek(start + header[UP]["data_offsets"][0])
            file.write(struct.pack("<H", 0x3F80))
        self.assert_refused(["quantize", model, "--plan", plan, "-o", out], [UP[:-len(".weight")]],
                            out=out)
        # The header changes: noticed before anything is read.
        retype(NORM, "F32", 4)(model)
        self.assert_refused(["quantize", model, "--plan", plan, "-o", self.fresh_out()],
                            ["plan", "changed"])
        self.assert_refused(["analyze", model, "-o", analysis], ["c.analysis"])

    def test_plans(self):
        plain = self.bases["plain"]
        analysis, plan, out = self.folder / "p.analysis", self.folder / "p.plan", self.fresh_out()
        support.sluice("analyze", plain, "-o", analysis, "--quiet")
        support.sluice("plan", analysis, "--min-safe", "-o", plan)
        text = plan.read_text()
        edits = {
            "cut": text[:len(text) // 2],
            "edited": text.replace('"bits": 8', '"bits": 4').replace('"bits": 2', '"bits": 3'),
            "another version": text.replace('"version": 1', '"version": 999'),
            "no plan": "{}",
            "empty": "",
        }
        for name, content in edits.items():
            with self.subTest(plan=name):
                self.assertNotEqual(content, text)
                plan.write_text(content)
                self.assert_refused(["quantize", plain, "--plan", plan, "-o", out], ["p.plan"],
                                    out=out)
        plan.write_text(text)
        with self.subTest(plan="of another model"):
            self.assert_refused(["quantize", self.bases["shards"], "--plan", plan, "-o", out], [],
                                out=out)
        lines = analysis.read_text().splitlines(keepends=True)
        edits = {"cut": "".join(lines[:-2]), "no analysis": "hello\n", "empty": ""}
        for name, content in edits.items():
            with self.subTest(analysis=name):
                analysis.write_text(content)
                self.assert_refused(["plan", analysis, "--min-safe"], ["p.analysis"])

    def test_no_space(self):
        """The system refuses large files, as a full disk would."""

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

        out = self.fresh_out()
        self.assert_refused(["quantize", self.bases["plain"], "--bits", 8, "-o", out],
                            ["model.safetensors"], IO_ERROR, out, limit)

    def test_unreadable(self):
        if os.geteuid() == 0:
            self.skipTest("root reads everything")
        model = self.damaged("plain", lambda f: (f / WEIGHTS).chmod(0))
        self.assert_refused(["quantize", model, "--bits", 4, "-o", self.fresh_out()], [WEIGHTS],
                            IO_ERROR)

    def test_usage(self):
        for arguments in ([], ["quantize"], ["quantize", "x", "--bits", "7", "-o", "y"], ["bake"],
                          ["plan", "x", "--no-such-flag"]):
            with self.subTest(arguments=arguments):
                support.sluice(*arguments, expect=2)


if __name__ == "__main__":
    support.main()
