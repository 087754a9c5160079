"""Mixed recipes against stock `mlx_lm.convert --quant-predicate`, tensor for tensor. The one
difference is meant: routers stay at 8 bits, where mlx_lm's recipes narrow them."""

import contextlib
import io

import support
from support import make_checkpoint, read_folder, read_json, sluice

RECIPES = ("mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6")
SEED = support.test_seed()


class RecipesAgainstMlxLm(support.TestCase):
    def compare(self, source, recipe, group):
        import mlx_lm

        theirs = self.folder / f"{source.name}-{recipe}-{group}-mlx"
        ours = self.folder / f"{source.name}-{recipe}-{group}-ours"
        with contextlib.redirect_stdout(io.StringIO()):
            mlx_lm.convert(str(source), str(theirs), quantize=True, q_group_size=group,
                           quant_predicate=recipe)
        sluice("quantize", source, "--recipe", recipe, "--group-size", group, "-o", ours, "--quiet")
        expected, found = read_folder(theirs), read_folder(ours)
        self.assertEqual(sorted(found), sorted(expected), "tensor names")
        is_router = lambda name: ".mlp.gate." in name
        wrong = [n for n in expected if found[n] != expected[n] and not is_router(n)]
        self.assertEqual(wrong, [], "tensors that differ")
        quantization = read_json(ours / "config.json")["quantization"]
        for name in filter(is_router, expected):
            if name.endswith(".weight"):
                override = quantization[name.removesuffix(".weight")]
                self.assertEqual((override["bits"], override["group_size"]), (8, 64))
        support.load_stock(ours)

    def source(self, family, **options):
        folder = self.folder / f"{family}-{len(list(self.folder.iterdir()))}"
        make_checkpoint(folder, family, seed=SEED, **options)
        return folder

    def test_dense(self):
        source = self.source("llama", num_hidden_layers=9)
        for recipe in RECIPES:
            for group in (32, 64):
                with self.subTest(recipe=recipe, group=group):
                    self.compare(source, recipe, group)

    def test_few_layers(self):
        for layers in (1, 3):
            self.compare(self.source("qwen3", num_hidden_layers=layers), "mixed_3_6", 64)

    def test_experts(self):
        source = self.source("qwen3_moe", num_hidden_layers=5)
        for recipe in RECIPES:
            with self.subTest(recipe=recipe):
                self.compare(source, recipe, 64)

    def test_verified(self):
        source, out = self.source("llama"), self.folder / "verified"
        sluice("quantize", source, "--recipe", "mixed_4_6", "-o", out)
        sluice("verify", source, out)

    def test_refused(self):
        source = self.source("llama")
        out = self.folder / "refused"
        for arguments in (["--recipe", "mixed_9_9"], ["--recipe", "mixed_3_6", "--bits", "4"]):
            result = sluice("quantize", source, *arguments, "-o", out, expect=2)
            self.assertFalse(out.exists(), result.stderr)


if __name__ == "__main__":
    support.main(needs_mlx=True)
