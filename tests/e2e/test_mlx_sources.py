"""MLX folders as sources: whatever stock mlx_lm.convert or Sluice itself wrote is read back, moves
without loss into the same format, and transcodes from its decoded values into others."""

import json

import numpy as np
import support
from support import (convert_stock, decode_affine, make_checkpoint, read_folder, read_json,
                     sluice, sluice_json, weight_bytes)

SEED = support.test_seed()
HEADER_SLACK = 32 * 1024


class MlxSources(support.TestCase):
    def source(self, family, **options):
        folder = self.folder / f"{family}-{len(list(self.folder.iterdir()))}"
        make_checkpoint(folder, family, seed=SEED, **options)
        return folder

    def quantized(self, family, bits, group, **options):
        source = self.source(family, **options)
        out = source.with_name(f"{source.name}-mlx")
        convert_stock(source, out, bits, group)
        return out

    def check_lossless(self, mlx, out):
        found, expected = read_folder(out), read_folder(mlx)
        self.assertEqual(sorted(found), sorted(expected))
        self.assertEqual([n for n in expected if found[n] != expected[n]], [])
        self.assertEqual(read_json(out / "config.json"), read_json(mlx / "config.json"))
        self.assertTrue(sluice_json("verify", mlx, out)["passed"])
        support.load_stock(out)

    def test_same_format_moves_unchanged(self):
        for family, bits, group in [("llama", 4, 64), ("qwen3_moe", 3, 32), ("qwen2", 8, 128),
                                    ("qwen3", 5, 64), ("mistral", 2, 32), ("qwen3", 6, 128)]:
            with self.subTest(family=family, bits=bits, group=group):
                mlx = self.quantized(family, bits, group, dtype=("bf16", "f16")[bits % 2])
                out = mlx.with_name(f"{mlx.name}-again")
                sluice("quantize", mlx, "--bits", bits, "--group-size", group, "-o", out)
                self.check_lossless(mlx, out)

    def test_fit_of_the_same_size_moves_unchanged(self):
        mlx = self.quantized("qwen3_moe", 4, 64)
        out = mlx.with_name(f"{mlx.name}-fit")
        sluice("fit", mlx, "--budget", f"{weight_bytes(mlx) + HEADER_SLACK}B", "-o", out)
        self.check_lossless(mlx, out)
        plan = read_json(out / "sluice.json")["plan"]
        self.assertEqual(plan["cost"], 0)

    def test_fit_of_a_fit(self):
        """A mix of formats, with an override per module."""
        source = self.source("llama")
        first, again = source.with_name("first"), source.with_name("again")
        sizes = sluice_json("inspect", source)["uniform_bytes"]
        sluice("fit", source, "--budget", f"{(sizes['4/64'] + sizes['5/64']) // 2}B", "-o", first)
        sluice("fit", first, "--budget", f"{weight_bytes(first)}B", "-o", again)
        self.check_lossless(first, again)

    def plain_copy(self, mlx, decode):
        """The same values in a checkpoint that is not packed."""
        plain = mlx.with_name(f"{mlx.name}-plain")
        plain.mkdir()
        config = read_json(mlx / "config.json")
        tensors, decoded = read_folder(mlx), {}
        for name, tensor in tensors.items():
            path = name.rpartition(".")[0]
            if name.endswith((".scales", ".biases")):
                continue
            decoded[name] = (tensor.dtype, tensor.shape, tensor.data)
            if f"{path}.scales" in tensors:
                setting = config["quantization"].get(path, config["quantization"])
                values = decode(tensor, tensors[f"{path}.scales"], tensors.get(f"{path}.biases"),
                                setting)
                decoded[name] = ("F32", values.shape, values.astype("<f4").tobytes())
        support.write_safetensors(plain / "model.safetensors", decoded)
        for key in ("quantization", "quantization_config"):
            del config[key]
        (plain / "config.json").write_text(json.dumps(config))
        return plain

    def check_transcoding(self, mlx, decode, targets):
        plain = self.plain_copy(mlx, decode)
        for bits, group in targets:
            outs = [model.with_name(f"{model.name}-{bits}-{group}") for model in (mlx, plain)]
            for model, out in zip((mlx, plain), outs):
                sluice("quantize", model, "--bits", bits, "--group-size", group, "-o", out)
            found, expected = map(read_folder, outs)
            # Routers are asked for at 8 bits, which they have already.
            routers = {n: t for n, t in read_folder(mlx).items() if ".mlp.gate." in n}
            expected.update(routers)
            self.assertEqual([n for n in expected if found[n] != expected[n]], [])
            self.assertTrue(sluice_json("verify", mlx, outs[0])["passed"])

    def test_other_formats_come_from_the_decoded_values(self):
        def decode(weight, scales, biases, setting):
            return decode_affine(weight, scales, biases, setting["bits"], setting["group_size"])

        mlx = self.quantized("qwen3", 8, 64)
        self.check_transcoding(mlx, decode, [(4, 64), (8, 32)])
        smaller = self.folder / "smaller"
        sluice("fit", mlx, "--budget", f"{weight_bytes(mlx) * 6 // 10}B", "-o", smaller)
        support.load_stock(smaller)

    def test_fp_modes_move_unchanged(self):
        for mode, (bits, group) in support.FP_MODES.items():
            with self.subTest(mode=mode):
                source = self.source("qwen3_moe")
                mlx = source.with_name(f"{source.name}-{mode}")
                convert_stock(source, mlx, bits, group, q_mode=mode)
                again, fitted = mlx.with_name(f"{mlx.name}-again"), mlx.with_name(f"{mlx.name}-fit")
                sluice("quantize", mlx, "--mode", mode, "-o", again)
                self.check_lossless(mlx, again)
                sluice("fit", mlx, "--budget", f"{weight_bytes(mlx) + HEADER_SLACK}B", "-o", fitted)
                self.check_lossless(mlx, fitted)

    def test_fp_modes_are_read(self):
        import mlx.core as mx

        def decode(weight, scales, biases, setting):
            mode = setting.get("mode", "affine")
            more = {} if mode != "affine" else dict(biases=mx.array(biases.floats()))
            scales = scales.array() if mode != "affine" else scales.floats()
            return np.array(mx.dequantize(mx.array(weight.array()), mx.array(scales), **more,
                                          bits=setting["bits"], group_size=setting["group_size"],
                                          mode=mode).astype(mx.float32))

        for mode, (bits, group) in support.FP_MODES.items():
            with self.subTest(mode=mode):
                source = self.source("qwen3_moe")
                mlx = source.with_name(f"{source.name}-{mode}")
                convert_stock(source, mlx, bits, group, q_mode=mode)
                self.check_transcoding(mlx, decode, [(5, 64)])
                self.assertIn(f"MLX {mode}", sluice_json("inspect", mlx)["dtypes"])

    def test_folders_that_are_not_quantized(self):
        source = self.source("qwen3_moe")
        mlx = source.with_name("float-mlx")
        convert_stock(source, mlx, None, None, "bfloat16")
        from_source, from_mlx = source.with_name("from-source"), source.with_name("from-mlx")
        for model, out in ((source, from_source), (mlx, from_mlx)):
            sluice("quantize", model, "--bits", 4, "-o", out)
        found, expected = read_folder(from_mlx), read_folder(from_source)
        self.assertEqual([n for n in expected if found[n] != expected[n]], [])

    def test_inspect_names_the_formats(self):
        mlx = self.quantized("llama", 4, 32)
        dtypes = sluice_json("inspect", mlx)["dtypes"]
        self.assertEqual(dtypes["MLX 4/32"]["tensors"], 16)
        self.assertEqual(sum(entry["bytes"] for entry in dtypes.values()),
                         sum(len(t.data) for t in read_folder(mlx).values()))

    def test_a_changed_scale_is_found(self):
        mlx = self.quantized("llama", 4, 64)
        out = mlx.with_name(f"{mlx.name}-kept")
        sluice("quantize", mlx, "--bits", 4, "-o", out)
        path = mlx / "model.safetensors"
        header, start = support.read_header(path)
        first = header["model.layers.0.mlp.up_proj.scales"]["data_offsets"][0]
        data = bytearray(path.read_bytes())
        data[start + first] ^= 1
        path.write_bytes(data)
        report = sluice_json("verify", mlx, out, expect=1)
        subjects = {finding["subject"] for finding in report["findings"]}
        self.assertEqual(subjects, {"model.layers.0.mlp.up_proj.weight"})


if __name__ == "__main__":
    support.main(needs_mlx=True)
