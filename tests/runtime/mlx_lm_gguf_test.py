#!/usr/bin/env python3
"""Models run straight from GGUF, laid out as llama.cpp's converter does it, against stock mlx_lm on the
same weights from Hugging Face's layout: in floats, and in blocks. Arguments: as in exported.py."""

import contextlib
import functools
import importlib.util

import exported
import numpy as np
import support
from support import load_stock, make_checkpoint, random_tokens, read_json

SEED = support.test_seed()
# Not in blocks: what llama.cpp keeps in floats too.
FLOATS = ("conv1d", "norm", "gate_inp", "ssm_a", "ssm_dt", "bias", "sinks", "attn_k_b")


def in_blocks(name, values):
    return values.ndim > 1 and values.shape[-1] % 32 == 0 and not any(p in name for p in FLOATS)


def as_q8(name, values):
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    kind = GGMLQuantizationType.Q8_0
    return (kind, quantize(values, kind)) if in_blocks(name, values) else None


def use_blocks(folder):
    """Replaces the weights by what their blocks stand for, of which the same blocks come again."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    kind = GGMLQuantizationType.Q8_0
    gpt_oss = read_json(folder / "config.json")["model_type"] == "gpt_oss"  # experts are [in, out]
    tensors = {}
    for name, tensor in support.read_folder(folder).items():
        values = tensor.floats()
        turned = gpt_oss and name.endswith(("experts.gate_up_proj", "experts.down_proj"))
        if turned:
            values = values.swapaxes(1, 2)
        if in_blocks(name.replace("mlp.gate.", "gate_inp."), values):
            values = dequantize(quantize(np.ascontiguousarray(values), kind), kind)
        if turned:
            values = values.swapaxes(1, 2)
        tensors[name] = ("F32", values.shape, np.ascontiguousarray(values, "<f4").tobytes())
    support.write_safetensors(folder / "model.safetensors", tensors)


@contextlib.contextmanager
def stock_model(folder):
    yield load_model(folder)


def load_model(folder):
    """Stock mlx_lm does not load gpt-oss's experts in floats: it gets them by name."""
    config = read_json(folder / "config.json")
    if config["model_type"] != "gpt_oss":
        return load_stock(folder)
    arrays = {}
    for name, tensor in support.read_folder(folder).items():
        values, bias = tensor.floats(), name.endswith("_bias")
        if "experts." not in name:
            arrays[name] = values
            continue
        owner, end = name.rsplit(".", 1)[0], "bias" if bias else "weight"
        if not bias:
            values = values.swapaxes(1, 2)
        if "down_proj" in name:
            arrays[f"{owner}.down_proj.{end}"] = values
        else:
            arrays[f"{owner}.gate_proj.{end}"] = values[:, ::2]
            arrays[f"{owner}.up_proj.{end}"] = values[:, 1::2]
    return support.model_from_arrays(config, arrays)


class Gguf(support.TestCase):
    def check(self, name, family, write_gguf, **settings):
        for blocks in (False, True):
            with self.subTest(name, blocks=blocks):
                source = self.folder / f"{name} {'in blocks' if blocks else 'in floats'}"
                make_checkpoint(source, family, dtype="f32", seed=SEED, **settings)
                path = source.with_suffix(".gguf")
                if blocks:
                    use_blocks(source)
                write_gguf(path, source, as_q8 if blocks else None)
                support.with_tokens(functools.partial(self.check_tokens, source, path),
                                    *random_tokens(source, SEED, 66))

    def check_tokens(self, source, path, ids):
        expected = support.logits(load_model(source), ids)
        for chunk in (512, 1, 64):
            support.assert_near(exported.logits(path, ids, chunk), expected,
                                functools.partial(stock_model, source), ids,
                                f"{source.name}, chunks of {chunk}")

    def test_hybrids(self):
        from gguf_hybrids import write_gguf

        self.check("qwen3_next", "qwen3_next", write_gguf)
        self.check("qwen3_5", "qwen3_5", write_gguf)
        self.check("qwen3_5, tied, three heads a key", "qwen3_5", write_gguf, tied=True,
                   linear_num_value_heads=6, full_attention_interval=2)
        self.check("qwen3_5_moe", "qwen3_5_moe", write_gguf)

    def test_others(self):
        from gguf_models import ARCHITECTURES, write_gguf

        own = dict(gpt_oss=dict(rope_scaling=None), gemma3_text=dict(
            query_pre_attn_scalar=64, sliding_window_pattern=6, num_hidden_layers=7))
        own["deepseek_v3"] = dict(n_routed_experts=8, n_group=4, topk_group=2, rope_scaling=dict(
            type="yarn", rope_type="yarn", factor=4.0, original_max_position_embeddings=32,
            beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0))
        for family in ARCHITECTURES:
            self.check(family, family, write_gguf, **own.get(family, {}))


if __name__ == "__main__":
    if importlib.util.find_spec("gguf") is None:
        support.skip("the gguf package is not installed; run scripts/setup test")
    exported.main()
