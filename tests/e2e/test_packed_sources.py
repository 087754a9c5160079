"""Quantized checkpoints as they are published: what they mean is what Sluice reads, what an MLX format
holds exactly moves without loss, which verify proves, and what does not fit together is refused."""

import json
import re

import numpy as np
import packed
import support
from packed import Awq, Fp8, Gptq, Model, Mxfp4, Mxfp8, Nvfp4, PackedIntegers
from support import convert_stock, decoded_folder, read_folder, read_json, sluice, sluice_json

SEED = support.test_seed()


class PackedSources(support.TestCase):
    def model(self, format, family="llama", **options):
        folder = self.folder / f"model-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        return Model(folder, format, family, SEED, **options)

    def quantize(self, source, out, *arguments):
        sluice("quantize", source, *arguments, "-o", out, "--quiet")
        report = sluice_json("verify", source, out)
        self.assertTrue(report["passed"], report)
        # What the plan calls lossless is found to be so.
        self.assertEqual(report["lossless_modules"],
                         list(self.encoders(out).values()).count("lossless"))
        return out

    def check_values(self, model, *arguments):
        """The folder and its decoded values become the same bytes."""
        ours = self.quantize(model.path, model.out("ours"), *arguments)
        plain = self.quantize(model.plain, model.out("plain"), *arguments)
        found, expected = read_folder(ours), read_folder(plain)
        self.assertEqual(sorted(found), sorted(expected))
        self.assertEqual([n for n in expected if found[n] != expected[n]], [])
        self.assertEqual(read_json(ours / "config.json"), read_json(plain / "config.json"))

    def encoders(self, out):
        plan = read_json(out / "sluice.json")["plan"]
        return {f"{t['path']}.weight": t["encoder"] for t in plan["tensors"]}

    def check_lossless(self, model, *arguments, format=None, out="lossless"):
        """Every packed weight decodes to the source's very values, and the plan calls it lossless."""
        out = self.quantize(model.path, model.out(out), *arguments)
        encoders, decoded = self.encoders(out), decoded_folder(out)
        quantization = read_json(out / "config.json")["quantization"]
        moved = {n for n, encoder in encoders.items() if encoder == "lossless"}
        sources = {re.sub(r"\.experts\.\d+\.", ".switch_mlp.", n) for n in model.packed}
        self.assertEqual(moved, sources)
        for name in moved:
            np.testing.assert_array_equal(decoded[name], model.stacked(name), name)
            if format is not None:
                entry = quantization.get(name.removesuffix(".weight"), quantization)
                self.assertEqual((entry.get("mode", "affine"), entry["bits"], entry["group_size"]),
                                 format)
        return out

    # ---- small floats ----

    def test_fp8(self):
        for format in (Fp8("tensor", method="modelopt"), Fp8("tensor"),
                       Fp8("tensor", method="compressed-tensors"),
                       Fp8("row", "BF16", "compressed-tensors"), Fp8("row", method="fbgemm_fp8"),
                       Fp8("block"), Fp8("block", "BF16"), Fp8("block", "F16"),
                       Fp8("block", "F8_E8M0"), Fp8("block", "U8"),
                       Fp8("block", method="compressed-tensors"),
                       Fp8("row", "BF16", "compressed-tensors", "I8")):
            with self.subTest(settings=format.settings, scale=format.scale):
                self.check_values(self.model(format), "--bits", 4)

    def test_experts_and_split_heads_in_fp8(self):
        for family in ("qwen3_moe", "deepseek_v3"):
            for format in (Fp8("tensor", method="modelopt"), Fp8("row", "BF16", "compressed-tensors"),
                           Fp8("block", "F8_E8M0")):
                with self.subTest(family=family, settings=format.settings):
                    self.check_values(self.model(format, family), "--bits", 4, "--group-size", 32)

    def test_modelopt_says_it_in_a_file_of_its_own(self):
        self.check_values(self.model(Nvfp4(), packed_file=True), "--bits", 4)

    def test_settings_beside_the_text(self):
        """As Kimi K2.5 has them."""
        model = self.model(PackedIntegers(4, 32), "kimi_k25", beside_text=True)
        self.check_lossless(model, "--bits", 4, "--group-size", 32, format=("affine", 4, 32))

    def test_nvfp4(self):
        for method in ("modelopt", "compressed-tensors"):
            for family in ("llama", "qwen3_moe", "deepseek_v3"):
                with self.subTest(method=method, family=family):
                    model = self.model(Nvfp4(method), family)
                    self.check_values(model, "--bits", 4)
                    dtypes = sluice_json("inspect", model.path)["dtypes"]
                    self.assertEqual(dtypes["nvfp4 with a factor for each tensor"]["tensors"],
                                     len(model.packed))

    def test_nvfp4_moves_where_factors_are_powers_of_two(self):
        model = self.model(Nvfp4(factor=2.0**-3))
        out = model.out("fit")
        size = sluice_json("inspect", model.path)["uniform_bytes"]["8/32"]
        sluice("fit", model.path, "--budget", f"{size}B", "-o", out, "--quiet")
        encoders, decoded = self.encoders(out), decoded_folder(out)
        for name in model.packed:
            self.assertEqual(encoders[name], "lossless")
            np.testing.assert_array_equal(decoded[name], model.values[name])

    def test_fp8_moves_where_scales_are_powers_of_two(self):
        for family in ("llama", "deepseek_v3"):
            model = self.model(Fp8("block", "F8_E8M0"), family)
            out = model.out("fit")
            size = sluice_json("inspect", model.path)["uniform_bytes"]["8/32"]
            sluice("fit", model.path, "--budget", f"{size}B", "-o", out, "--quiet")
            self.assertTrue(read_json(out / "verify.json")["passed"])
            encoders, decoded = self.encoders(out), decoded_folder(out)
            moved = [n for n, encoder in encoders.items() if encoder == "lossless"]
            self.assertGreaterEqual(len(moved), 14)
            for name in moved:
                if not name.endswith(("embed_q.weight", "unembed_out.weight")):
                    np.testing.assert_array_equal(decoded[name], model.stacked(name))

    def test_mx_formats_move(self):
        for family in ("llama", "qwen3_moe", "deepseek_v3"):
            with self.subTest(family=family):
                model = self.model(Mxfp4(), family)
                self.check_lossless(model, "--mode", "mxfp4", format=("mxfp4", 4, 32), out="fp")
                self.check_lossless(model, "--bits", 5, "--group-size", 32, format=("affine", 5, 32))
                self.check_values(model, "--bits", 3)
        model = self.model(Mxfp8())
        self.check_lossless(model, "--mode", "mxfp8", format=("mxfp8", 8, 32))
        self.check_values(model, "--bits", 4)

    # ---- integers ----

    def test_packed_integers_move(self):
        for format, group in ((PackedIntegers(4, 32), 32), (PackedIntegers(4, 64), 64),
                              (PackedIntegers(4, 128, "F16"), 128), (PackedIntegers(4, 0), 64),
                              (PackedIntegers(4, 128), 32), (PackedIntegers(8, 128), 128),
                              (PackedIntegers(8, 32, "F16"), 32)):
            with self.subTest(bits=format.bits, stored=format.group, scale=format.scale):
                model = self.model(format)
                self.check_lossless(model, "--bits", format.bits, "--group-size", group,
                                    format=("affine", format.bits, group))

    def test_packed_integers_are_a_source(self):
        for format in (PackedIntegers(4, 32), PackedIntegers(8, 0), PackedIntegers(4, 128, "F16"),
                       PackedIntegers(4, 64, "F32"), PackedIntegers(4, 32, order=True)):
            for family in ("llama", "qwen3_moe", "deepseek_v3"):
                with self.subTest(bits=format.bits, stored=format.group, family=family):
                    self.check_values(self.model(format, family), "--bits", 3, "--group-size", 64)

    def test_packed_integers_as_stock_mlx_lm_moves_them(self):
        model = self.model(PackedIntegers(4, 32), "deepseek_v3")
        theirs = model.out("mlx")
        convert_stock(model.path, theirs, 4, 32)
        ours = self.check_lossless(model, "--bits", 4, "--group-size", 32)
        found, expected = read_folder(ours), read_folder(theirs)
        self.assertEqual(sorted(found), sorted(expected))
        self.assertEqual([n for n in expected if found[n] != expected[n]], [])
        support.load_stock(ours)

    def test_wider_than_published_stays(self):
        """Nothing is gained by more bits."""
        model = self.model(PackedIntegers(4, 32), "qwen3_moe")
        self.check_lossless(model, "--bits", 8, "--group-size", 64, format=("affine", 4, 32))

    def test_fit_keeps_what_costs_nothing(self):
        for format, packed_format in ((PackedIntegers(4, 32), ("affine", 4, 32)),
                                      (Gptq(), ("affine", 4, 128)),
                                      (Awq(64, exact=True), ("affine", 4, 64)),
                                      (Mxfp4(), ("mxfp4", 4, 32))):
            with self.subTest(format=packed_format):
                model = self.model(format, "qwen3_moe")
                out = model.out("fit")
                size = sluice_json("inspect", model.path)["uniform_bytes"]["8/32"]
                sluice("fit", model.path, "--budget", f"{size}B", "-o", out, "--quiet")
                self.assertTrue(read_json(out / "verify.json")["passed"])
                encoders, decoded = self.encoders(out), decoded_folder(out)
                moved = [n for n, encoder in encoders.items() if encoder == "lossless"]
                self.assertEqual(len(moved), 2 * 7)
                for name in moved:
                    np.testing.assert_array_equal(decoded[name], model.stacked(name))

    # ---- GPTQ and AWQ ----

    def test_gptq_is_a_source(self):
        for format in (Gptq(), Gptq(32), Gptq(0), Gptq(version="gptq_v2", symmetric=False),
                       Gptq(64, symmetric=False), Gptq(64, act_order=True), Gptq(128, bits=8),
                       Gptq(32, bits=8, symmetric=False, act_order=True), Gptq(indices=False)):
            with self.subTest(settings=format.settings):
                self.check_values(self.model(format), "--bits", 3)
        for family in ("qwen3_moe", "deepseek_v3"):
            self.check_values(self.model(Gptq(64, act_order=True), family), "--bits", 3)

    def test_gptq_moves(self):
        for format, bits, group in ((Gptq(), 4, 128), (Gptq(128), 4, 32), (Gptq(0), 4, 64),
                                    (Gptq(32, version="gptq_v2"), 4, 32), (Gptq(64, bits=8), 8, 64)):
            with self.subTest(settings=format.settings):
                self.check_lossless(self.model(format), "--bits", bits, "--group-size", group,
                                    format=("affine", bits, group))

    def test_awq_is_a_source(self):
        for family in ("llama", "qwen3_moe", "deepseek_v3"):
            for group in (32, 128):
                with self.subTest(family=family, group=group):
                    self.check_values(self.model(Awq(group), family), "--bits", 3)
        # Zeros times scales are no numbers of f16: these are encoded anew.
        model = self.model(Awq(64))
        self.check_values(model, "--bits", 4, "--group-size", 64)
        out = self.quantize(model.path, model.out("again"), "--bits", 4, "--group-size", 64)
        self.assertNotIn("lossless", self.encoders(out).values())

    def test_awq_moves_into_f32(self):
        model = self.model(Awq(64))
        self.check_lossless(model, "--bits", 4, "--group-size", 64, "--dtype", "float32",
                            format=("affine", 4, 64))

    def test_awq_as_stock_mlx_lm_moves_it(self):
        """Where zeros times scales are numbers of f16."""
        model = self.model(Awq(64, exact=True))
        theirs, ours = model.out("mlx"), model.out("ours")
        convert_stock(model.path, theirs, 4, 64)
        size = support.weight_bytes(theirs)
        sluice("fit", model.path, "--budget", f"{2 * size}B", "-o", ours, "--quiet")
        found, expected = read_folder(ours), read_folder(theirs)
        for name in model.packed:
            for part in ("weight", "scales", "biases"):
                tensor = name.replace("weight", part)
                self.assertEqual(found[tensor], expected[tensor], tensor)

    # ---- what is refused ----

    def test_groups_that_would_have_to_be_turned(self):
        """Half of kv_b_proj is transposed, which groups along its rows do not survive."""
        for stored in (Gptq(), Awq(), PackedIntegers(4, 32), Nvfp4(), Mxfp4()):
            stored.skipped = ()
            model = self.model(stored, "deepseek_v3")
            self.assert_refused(("quantize", model.path, "--bits", 3, "-o", model.out("refused")),
                                ("kv_b_proj.weight", "cannot be transposed"))

    def refused(self, stored, change, words, **settings):
        """settings: other ones of the configuration's."""
        model = self.model(stored, change=change)
        if settings:
            config = read_json(model.path / "config.json")
            config["quantization_config"].update(settings)
            (model.path / "config.json").write_text(json.dumps(config))
        out = model.out("refused")
        self.assert_refused(("quantize", model.path, "--bits", 3, "-o", out), words, out=out)

    def test_parts_that_are_missing(self):
        stem = "model.layers.0.mlp.up_proj."

        def without(part):
            def change(shards):
                for shard in shards:
                    shard.pop(stem + part, None)
            return change

        for format, part, words in (
                (Fp8("tensor"), "weight_scale", ("up_proj.weight", "no scales")),
                (Fp8("block"), "weight_scale_inv", ("up_proj.weight", "no scales")),
                (Fp8("row", method="fbgemm_fp8"), "weight", ("weight_scale", "no weight")),
                (PackedIntegers(4, 32), "weight_scale", ("weight_packed", "no scales")),
                (PackedIntegers(4, 32, order=True), "weight_g_idx", ("weight_packed", "g_idx")),
                (Nvfp4(), "weight_scale_2", ("up_proj.weight", "scale_2")),
                (Nvfp4("compressed-tensors"), "weight_scale", ("weight_packed", "no scales")),
                (Mxfp4(), "weight_scale", ("weight_packed", "no scales")),
                (Gptq(), "scales", ("qweight", "scales")), (Gptq(), "qzeros", ("qweight", "qzeros")),
                (Gptq(act_order=True), "g_idx", ("qweight", "g_idx")),
                (Awq(), "qzeros", ("qweight", "qzeros"))):
            with self.subTest(settings=format.settings, part=part):
                self.refused(format, without(part), words)

    def test_parts_that_do_not_fit(self):
        stem = "model.layers.0.mlp.up_proj."

        def reshaped(part, shape, dtype=None):
            def change(shards):
                for shard in shards:
                    if stem + part in shard:
                        old, _, data = shard[stem + part]
                        size = int(np.prod(shape)) * dict(F8_E4M3=1, U8=1, F16=2, BF16=2)[
                            dtype or old] if (dtype or old) not in ("F32", "I32") else \
                            4 * int(np.prod(shape))
                        shard[stem + part] = (dtype or old, shape, (data * 64)[:size])
            return change

        for format, part, shape, dtype in (
                (Fp8("row"), "weight_scale", (255, 1), None),
                (Fp8("block"), "weight_scale_inv", (8, 1), None),
                (PackedIntegers(4, 32), "weight_scale", (256, 3), None),
                (PackedIntegers(4, 32), "weight_scale", (256, 0), None),
                (PackedIntegers(4, 32), "weight_packed", (256, 17), None),
                (Nvfp4(), "weight_scale", (256, 4), None), (Nvfp4(), "weight_scale_2", (3,), None),
                (Mxfp4(), "weight_scale", (256, 5), None),
                (Gptq(64), "scales", (3, 256), None), (Gptq(64), "qzeros", (2, 16), None),
                (Gptq(64), "g_idx", (127,), None), (Gptq(64), "qweight", (17, 256), None),
                (Gptq(64), "scales", (2, 256), "I32"),
                (Awq(64), "qzeros", (2, 31), None), (Awq(64), "scales", (1, 256), None)):
            with self.subTest(settings=format.settings, part=part, shape=shape):
                self.refused(format, reshaped(part, shape, dtype), (part,))

    def poisoned(self, part, at, data):
        name = f"model.layers.0.mlp.up_proj.{part}"

        def change(shards):
            for shard in shards:
                if name in shard:
                    dtype, shape, old = shard[name]
                    shard[name] = (dtype, shape, old[:at] + data + old[at + len(data):])
        return change

    def test_values_that_are_no_numbers(self):
        nan16, nan32 = b"\x00\x7e", b"\x00\x00\xc0\x7f"
        for format, part, data in ((Fp8("tensor"), "weight_scale", nan32),
                                   (Fp8("row", "BF16", "compressed-tensors"), "weight_scale",
                                    b"\xc0\x7f"),
                                   (Fp8("block", "F8_E8M0"), "weight_scale_inv", b"\xff"),
                                   (Fp8("tensor"), "weight", b"\x7f"),
                                   (PackedIntegers(4, 32, "F16"), "weight_scale", nan16),
                                   (Nvfp4(), "weight_scale", b"\x7f"),
                                   (Nvfp4(), "weight_scale_2", nan32),
                                   (Mxfp4(), "weight_scale", b"\xff"),
                                   (Gptq(), "scales", nan16), (Awq(), "scales", nan16)):
            with self.subTest(settings=format.settings, part=part):
                self.refused(format, self.poisoned(part, 0, data),
                             ("up_proj.weight, row", "expected a finite weight"))

    def test_groups_that_do_not_exist(self):
        for index in (2, -1, 1 << 30):
            data = index.to_bytes(4, "little", signed=True)
            for format in (Gptq(64, act_order=True), PackedIntegers(4, 64, order=True)):
                part = "g_idx" if isinstance(format, Gptq) else "weight_g_idx"
                with self.subTest(index=index, part=part):
                    self.refused(format, self.poisoned(part, 4 * 17, data),
                                 ("up_proj.weight, row 0, column 17", "finite"))

    def test_groups_out_of_order_are_never_moved(self):
        """The configuration promises order; the tensor breaks it."""
        change = self.poisoned("g_idx", 4 * 17, (1).to_bytes(4, "little"))
        model = self.model(Gptq(64), change=change)
        out = model.out("moved")
        self.assert_refused(("quantize", model.path, "--bits", 4, "-o", out),
                            ("up_proj.weight", "without loss"), out=out)
        self.quantize(model.path, model.out("encoded"), "--bits", 3)

    def test_settings_that_are_not_known(self):
        for format, settings, words in (
                (Gptq(), dict(bits=3), ("3 bits",)), (Gptq(), dict(group_size=0), ("group_size",)),
                (Gptq(), dict(checkpoint_format="marlin"), ("marlin",)),
                (Awq(), dict(version="gemv"), ("gemv",)), (Awq(), dict(bits=8), ("8 bits",)),
                (PackedIntegers(4, 32), dict(format="marlin-24"), ("marlin-24",)),
                (PackedIntegers(4, 32), dict(sparsity_config=dict(format="sparse-24-bitmask")),
                 ("sparse-24-bitmask",)),
                (PackedIntegers(4, 32), dict(config_groups={}), ("config_groups",)),
                (Fp8("block"), dict(weight_block_size=[32]), ("weight_block_size",))):
            with self.subTest(settings=settings):
                self.refused(format, None, words, **settings)
        weights = dict(num_bits=4, type="int", strategy="group", group_size=32)
        for change, word in ((dict(symmetric=False), "symmetric"), (dict(num_bits=2), "2 bits"),
                             (dict(strategy="novel"), "novel"), (dict(group_size=0), "group_size")):
            with self.subTest(change=change):
                self.refused(PackedIntegers(4, 32), None, (word,), config_groups=dict(
                    group_0=dict(targets=["Linear"], weights={**weights, **change})))

    def test_other_methods_are_refused_by_name(self):
        model = self.model(Fp8("tensor"))
        config = read_json(model.path / "config.json")
        for method in ("bitsandbytes", "aqlm", "hqq", "quip", "novel"):
            config["quantization_config"] = dict(quant_method=method, load_in_4bit=True)
            (model.path / "config.json").write_text(json.dumps(config))
            for command in (("inspect", model.path),
                            ("quantize", model.path, "--bits", 4, "-o", model.out("refused"))):
                self.assert_refused(command, (method, "not supported", "original checkpoint"))


if __name__ == "__main__":
    support.main(needs_mlx=True)
