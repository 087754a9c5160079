"""Damage to a finished output, each kind as small as it can be: `sluice verify` must fail and name
the tensor."""

import shutil
import unittest

import support
from support import make_checkpoint, read_header, real_models, sluice, sluice_json

SEED = support.test_seed()


class Output:
    """One weight file of an output, edited in place."""

    def __init__(self, folder):
        self.path = next(iter(sorted(folder.glob("model*.safetensors"))))
        self.header, self.start = read_header(self.path)
        self.data = bytearray(self.path.read_bytes())

    def place(self, name):
        first, last = self.header[name]["data_offsets"]
        return self.start + first, self.start + last

    def row_bytes(self, name):
        first, last = self.place(name)
        rows = 1
        for axis in self.header[name]["shape"][:-1]:
            rows *= axis
        return (last - first) // rows

    def swap(self, name, a, b, length):
        """Exchanges two runs of bytes, at offsets within the tensor."""
        first, _ = self.place(name)
        one, two = (bytes(self.data[first + x:first + x + length]) for x in (a, b))
        assert one != two, "swapping equal bytes proves nothing"
        self.data[first + a:first + a + length] = two
        self.data[first + b:first + b + length] = one

    def flip(self, name, byte, bit):
        first, last = self.place(name)
        self.data[(first + byte) if byte >= 0 else (last + byte)] ^= 1 << bit

    def save(self):
        self.path.write_bytes(self.data)


class Sabotage(support.TestCase):
    def prepare(self, name, source, *options):
        out = self.folder / name
        sluice("quantize", source, "--bits", 4, "--group-size", 32, *options, "-o", out, "--quiet")
        report = sluice_json("verify", source, out)
        self.assertTrue(report["passed"])
        return out

    def damaged(self, source, out, edit, *names):
        """Edits a copy; every one of names must be among what verify reports."""
        copy = self.folder / "damaged"
        shutil.copytree(out, copy)
        try:
            output = Output(copy)
            edit(output)
            output.save()
            result = sluice("verify", source, copy, expect=1)
            for name in names:
                self.assertIn(name, result.stdout + result.stderr)
            report = sluice_json("verify", source, copy, expect=1)
            self.assertFalse(report["passed"])
            subjects = {finding["subject"] for finding in report["findings"]}
            for name in names:
                self.assertTrue(any(name in s for s in subjects), f"{name} not in {subjects}")
        finally:
            shutil.rmtree(copy)

    def test_small_damage(self):
        for encoder in ("parity", "best"):
            source = self.folder / f"llama-{encoder}"
            make_checkpoint(source, "llama", seed=SEED)
            out = self.prepare(f"llama-{encoder}-4", source, "--encoder", encoder)
            path = "model.layers.1.mlp.down_proj"
            cases = {
                "one code, first": lambda o: o.flip(f"{path}.weight", 0, 0),
                "one code, last": lambda o: o.flip(f"{path}.weight", -1, 7),
                "lowest bit of a scale": lambda o: o.flip(f"{path}.scales", 10, 0),
                "sign of a scale": lambda o: o.flip(f"{path}.scales", 11, 7),
                "one bias": lambda o: o.flip(f"{path}.biases", -2, 0),
                "two rows": lambda o: o.swap(f"{path}.weight", 0, o.row_bytes(f"{path}.weight"),
                                             o.row_bytes(f"{path}.weight")),
            }
            for name, edit in cases.items():
                with self.subTest(encoder=encoder, damage=name):
                    self.damaged(source, out, edit, path)
            with self.subTest(encoder=encoder, damage="norm"):
                self.damaged(source, out, lambda o: o.flip("model.norm.weight", 0, 0), "model.norm")

    def test_swapped_expert(self):
        source = self.folder / "moe"
        make_checkpoint(source, "qwen3_moe", seed=SEED)
        out = self.prepare("moe-4", source)
        path = "model.layers.0.mlp.switch_mlp.up_proj"

        def swap(output):
            for part in ("weight", "scales", "biases"):
                first, last = output.place(f"{path}.{part}")
                expert = (last - first) // output.header[f"{path}.{part}"]["shape"][0]
                output.swap(f"{path}.{part}", expert, 3 * expert, expert)

        self.damaged(source, out, swap, path)

    def test_swapped_modules(self):
        """Two tensors of one shape, exchanged whole."""
        source = self.folder / "swap"
        make_checkpoint(source, "llama", seed=SEED)
        out = self.prepare("swap-4", source)
        names = ["model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.v_proj"]

        def swap(output):
            for part in ("weight", "scales", "biases"):
                (a, end), (b, _) = (output.place(f"{n}.{part}") for n in names)
                output.swap(f"{names[0]}.{part}", 0, b - a, end - a)

        self.damaged(source, out, swap, *names)

    def test_permuted_heads(self):
        """q and k of a GGUF llama left in llama.cpp's order."""
        source = real_models().get("stories260K-f32-gguf")
        if source is None:
            raise unittest.SkipTest("SLUICE_REAL_INPUTS is not set")
        out = self.prepare("gguf-4", source)
        head_dim = 8
        paths = [f"model.layers.2.self_attn.{p}_proj" for p in "qk"]

        def permute(output):
            for path in paths:
                for part in ("weight", "scales", "biases"):
                    row = output.row_bytes(f"{path}.{part}")
                    first, last = output.place(f"{path}.{part}")
                    rows = [bytes(output.data[at:at + row]) for at in range(first, last, row)]
                    for head in range(0, len(rows), head_dim):
                        block = rows[head:head + head_dim]
                        half = head_dim // 2
                        rows[head:head + head_dim] = [
                            block[i // 2 + (i % 2) * half] for i in range(head_dim)]
                    output.data[first:last] = b"".join(rows)

        self.damaged(source, out, permute, *paths)

    def test_what_is_not_in_the_weights(self):
        source = self.folder / "plain"
        make_checkpoint(source, "llama", seed=SEED)
        out = self.prepare("plain-4", source)
        cases = {
            "extra tensor file": lambda f: shutil.copy(
                f / "model.safetensors", f / "model-extra.safetensors"),
            "no weights": lambda f: (f / "model.safetensors").unlink(),
            "truncated": lambda f: (f / "model.safetensors").write_bytes(
                (f / "model.safetensors").read_bytes()[:-1]),
            "wrong bits in config.json": lambda f: (f / "config.json").write_text(
                (f / "config.json").read_text().replace('"bits": 4', '"bits": 8')),
            "no config.json": lambda f: (f / "config.json").unlink(),
        }
        for name, edit in cases.items():
            with self.subTest(damage=name):
                copy = self.folder / "copy"
                shutil.copytree(out, copy)
                edit(copy)
                result = sluice("verify", source, copy, expect=None)
                shutil.rmtree(copy)
                self.assertIn(result.returncode, (1, 3), result.stdout + result.stderr)


if __name__ == "__main__":
    support.main()
