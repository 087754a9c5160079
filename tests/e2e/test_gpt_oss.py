"""gpt-oss in the layouts it is published in against stock mlx_lm.convert, byte for byte. MXFP4 experts
stay as they are, which verify proves to lose nothing; 16-bit ones are turned round, which stock
mlx_lm does not do, so that it gets them in its own layout."""

import numpy as np
import support
from support import (convert_stock, decoded_folder, make_checkpoint, read_folder, read_json, sluice,
                     sluice_json)

SEED = support.test_seed()
EXPERTS = ("gate_proj", "up_proj", "down_proj")


def settings(folder):
    """path → (mode, bits, group) of every quantized module, as a loader resolves it."""
    quantization = read_json(folder / "config.json")["quantization"]
    found = {}
    for name in read_folder(folder):
        path, _, parameter = name.rpartition(".")
        if parameter == "scales":
            entry = quantization.get(path, quantization)
            found[path] = (entry.get("mode", "affine"), entry["bits"], entry["group_size"])
    return found


def in_mlx_layout(source, out):
    """The same weights as mlx_lm's loader names and turns them."""
    tensors = {}
    for name, tensor in read_folder(source).items():
        array, put = tensor.array(), tensors.__setitem__
        stem, _, last = name.rpartition(".")
        if last == "gate_up_proj":
            for part, side in enumerate(("gate_proj", "up_proj")):
                put(f"{stem}.{side}.weight", array[:, :, part::2].swapaxes(1, 2))
        elif last == "down_proj":
            put(f"{name}.weight", array.swapaxes(1, 2))
        elif last == "gate_up_proj_bias":
            for part, side in enumerate(("gate_proj", "up_proj")):
                put(f"{stem}.{side}.bias", array[:, part::2])
        elif last == "down_proj_bias":
            put(f"{stem}.down_proj.bias", array)
        else:
            put(name, array)
    out.mkdir()
    dtype = next(iter(read_folder(source).values())).dtype
    support.write_safetensors(out / "model.safetensors",
                              {n: (dtype, a.shape, np.ascontiguousarray(a).tobytes())
                               for n, a in tensors.items()}, {"format": "pt"})
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (out / file).write_bytes((source / file).read_bytes())


class GptOss(support.TestCase):
    def source(self, **options):
        folder = self.folder / f"source-{len(list(self.folder.iterdir()))}"
        make_checkpoint(folder, "gpt_oss", seed=SEED, edge_rows=True, **options)
        return folder

    def outputs(self, source, bits, group, stock_source=None):
        ours, theirs = (source.with_name(f"{source.name}-{bits}-{group}-{who}")
                        for who in ("ours", "mlx"))
        convert_stock(stock_source or source, theirs, bits, group)
        sluice("quantize", source, "--bits", bits, "--group-size", group, "-o", ours, "--quiet")
        return ours, theirs

    def check(self, source, ours, theirs):
        expected, found = read_folder(theirs), read_folder(ours)
        self.assertEqual(sorted(found), sorted(expected), "tensor names")
        self.assertEqual([n for n in expected if found[n] != expected[n]], [])
        self.assertEqual(settings(ours), settings(theirs))
        self.assertTrue(sluice_json("verify", source, ours)["passed"])
        support.load_stock(ours)

    def test_published_mxfp4_stays(self):
        for bits, group, options in [(4, 64, {}), (8, 32, dict(shards=3)),
                                     (6, 128, dict(num_hidden_layers=3, intermediate_size=96))]:
            with self.subTest(bits=bits, group=group):
                source = self.source(dtype="mxfp4", **options)
                ours, theirs = self.outputs(source, bits, group)
                self.check(source, ours, theirs)
                plan = read_json(ours / "sluice.json")["plan"]
                kept = {t["path"].rpartition(".")[2] for t in plan["tensors"]
                        if t["encoder"] == "lossless"}
                self.assertEqual(kept, set(EXPERTS))

    def test_mxfp4_is_what_the_source_says(self):
        """Against the published meaning of blocks and scales, by neither program."""
        source = self.source(dtype="mxfp4")
        ours = source.with_name(f"{source.name}-meaning")
        sluice("quantize", source, "--mode", "mxfp4", "-o", ours, "--quiet")
        stored, decoded = read_folder(source), decoded_folder(ours)
        for layer in range(2):
            experts = f"model.layers.{layer}.mlp.experts."
            for name, sides in (("gate_up_proj", EXPERTS[:2]), ("down_proj", EXPERTS[2:])):
                blocks = stored[f"{experts}{name}_blocks"].array()
                exponents = stored[f"{experts}{name}_scales"].array().astype(np.int32) - 127
                codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:3], 32)
                values = np.ldexp(support.E2M1[codes], exponents[..., None])
                values = values.reshape(*blocks.shape[:2], -1)
                for part, side in enumerate(sides):
                    np.testing.assert_array_equal(decoded[f"{experts}{side}.weight"],
                                                  values[:, part::len(sides)])

    def test_smaller_than_published(self):
        source = self.source(dtype="mxfp4")
        ours = source.with_name(f"{source.name}-3")
        sluice("quantize", source, "--bits", 3, "-o", ours, "--quiet")
        found = settings(ours)
        self.assertEqual({found[p] for p in found if "experts" in p}, {("affine", 3, 64)})
        self.assertTrue(sluice_json("verify", source, ours)["passed"])
        support.load_stock(ours)

    def test_mxfp4_is_exact_in_affine_groups(self):
        """For those who cannot read fp modes: five bits hold every value."""
        source = self.source(dtype="mxfp4")
        outs = []
        for format in (("--bits", 5, "--group-size", 32), ("--mode", "mxfp4")):
            outs.append(source.with_name(f"{source.name}-{format[1]}"))
            sluice("quantize", source, *format, "-o", outs[-1], "--quiet")
            self.assertTrue(sluice_json("verify", source, outs[-1])["passed"])
        found = settings(outs[0])
        experts = [path for path in found if "experts" in path]
        self.assertEqual({found[path] for path in experts}, {("affine", 5, 32)})
        plan = read_json(outs[0] / "sluice.json")["plan"]
        lossless = {t["path"] for t in plan["tensors"] if t["encoder"] == "lossless"}
        self.assertEqual(lossless, set(experts))
        affine, fp = map(decoded_folder, outs)
        for path in experts:
            np.testing.assert_array_equal(affine[f"{path}.weight"], fp[f"{path}.weight"])
        support.load_stock(outs[0])

    def test_fit_keeps_what_costs_nothing(self):
        source = self.source(dtype="mxfp4")
        ours = source.with_name(f"{source.name}-fit")
        size = sluice_json("inspect", source)["uniform_bytes"]["8/32"]
        sluice("fit", source, "--budget", f"{size}B", "-o", ours, "--quiet")
        found = settings(ours)
        self.assertEqual({found[p] for p in found if "experts" in p}, {("mxfp4", 4, 32)})
        self.assertTrue(sluice_json("verify", source, ours)["passed"])

    def test_inspect_promises_what_quantize_writes(self):
        source = self.source(dtype="mxfp4")
        sizes = sluice_json("inspect", source)["uniform_bytes"]
        for bits, group in ((4, 64), (3, 32), (8, 128)):
            made = sluice_json("quantize", source, "--bits", bits, "--group-size", group, "-o",
                               source.with_name(f"{source.name}-inspected-{bits}"))
            self.assertEqual(made["weight_file_bytes"], sizes[f"{bits}/{group}"], (bits, group))

    def test_sixteen_bit_experts(self):
        for bits, group, dtype in ((4, 64, "bf16"), (3, 32, "f16"), (8, 128, "f32")):
            with self.subTest(bits=bits, group=group, dtype=dtype):
                source = self.source(dtype=dtype, shards=2)
                turned = source.with_name(f"{source.name}-turned")
                in_mlx_layout(source, turned)
                ours, theirs = self.outputs(source, bits, group, turned)
                self.check(source, ours, theirs)

    def test_blocks_that_do_not_fit(self):
        source = self.source(dtype="mxfp4")
        path = source / "model.safetensors"
        tensors = {n: (t.dtype, t.shape, t.data) for n, t in read_folder(source).items()}
        name = "model.layers.0.mlp.experts.down_proj_scales"
        dtype, shape, data = tensors[name]
        tensors[name] = (dtype, (shape[0], shape[1] // 2, shape[2] * 2), data)
        support.write_safetensors(path, tensors)
        self.assert_refused(("inspect", source), ("down_proj_scales", "does not fit"))
        del tensors[name.replace("_scales", "_blocks")]
        support.write_safetensors(path, tensors)
        self.assert_refused(("inspect", source), ("down_proj_scales has no blocks",))
        del tensors[name]
        support.write_safetensors(path, tensors)
        self.assert_refused(("inspect", source), ("down_proj_blocks",))


if __name__ == "__main__":
    support.main(needs_mlx=True)
