"""The same weights as a Hugging Face folder and as a GGUF file, written here with the gguf package
and llama.cpp's own permutation of q and k: both must give the same output, byte for byte."""

import importlib.util

import numpy as np
import support
from support import make_checkpoint, read_folder, read_json, read_safetensors, sluice

SEED = support.fresh_seed()
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3_moe": "qwen3moe"}
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
TOP_NAMES = {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight",
             "model.norm.weight": "output_norm.weight"}


def interleaved(values, heads):
    """llama.cpp's LlamaModel.permute."""
    shape = values.shape
    split = values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:])
    return split.swapaxes(1, 2).reshape(shape)


def gguf_tensors(folder, config):
    """name → float32 array, experts stacked, q and k of llama permuted."""
    tensors, experts = {}, {}
    for name, tensor in read_safetensors(folder / "model.safetensors").items():
        values = tensor.floats()
        if name in TOP_NAMES:
            tensors[TOP_NAMES[name]] = values
            continue
        _, _, layer, rest = name.split(".", 3)
        path, _, parameter = rest.rpartition(".")
        if ".experts." in path:
            _, _, expert, matrix = path.split(".")
            key = f"blk.{layer}.{NAMES['mlp.' + matrix]}_exps.{parameter}"
            experts.setdefault(key, {})[int(expert)] = values
            continue
        if config["model_type"] == "llama" and path.endswith(("q_proj", "k_proj")):
            heads = "num_attention_heads" if path.endswith("q_proj") else "num_key_value_heads"
            values = interleaved(values, config[heads])
        tensors[f"blk.{layer}.{NAMES[path]}.{parameter}"] = values
    for key, members in experts.items():
        tensors[key] = np.stack([members[e] for e in sorted(members)])
    return tensors


def write_gguf(path, folder):
    import gguf

    config = read_json(folder / "config.json")
    writer = gguf.GGUFWriter(str(path), ARCHITECTURES[config["model_type"]])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    if "head_dim" in config:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if "num_experts" in config:
        writer.add_expert_count(config["num_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    vocabulary = read_json(folder / "tokenizer.json")["model"]["vocab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    # One merge and its token, because the package leaves out empty arrays.
    writer.add_token_list([*sorted(vocabulary, key=vocabulary.get), "ab"])
    writer.add_token_types([1] * (len(vocabulary) - 2) + [3, 3, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    for name, values in gguf_tensors(folder, config).items():
        writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class GgufAgainstHuggingFace(support.TestCase):
    def check(self, name, family, **options):
        source, path = self.folder / name, self.folder / f"{name}.gguf"
        make_checkpoint(source, family, seed=SEED, dtype="f32", **options)
        write_gguf(path, source)
        outputs = []
        for model in (source, path):
            out = self.folder / f"{name}-{model.suffix or 'hf'}-out"
            sluice("quantize", model, "--bits", 4, "--group-size", 32, "--dtype", "float16",
                   "-o", out, "--quiet")
            sluice("verify", model, out, "--quiet")
            outputs.append(read_folder(out))
        ours, expected = outputs[1], outputs[0]
        self.assertEqual(sorted(ours), sorted(expected))
        self.assertEqual([n for n in expected if ours[n] != expected[n]], [])

    def test_every_architecture(self):
        for number, family in enumerate(ARCHITECTURES):
            with self.subTest(family=family):
                self.check(family, family, tied=number % 2 == 1)

    def test_biases_of_llama_are_permuted_too(self):
        self.check("biased", "llama", attention_bias=True, mlp_bias=True)

    def test_logits_survive(self):
        """The whole model, from GGUF to stock mlx_lm, against the Hugging Face original."""
        source, path, out = (self.folder / n for n in ("whole", "whole.gguf", "whole-out"))
        make_checkpoint(source, "llama", seed=SEED, dtype="f32")
        write_gguf(path, source)
        sluice("quantize", path, "--bits", 8, "--group-size", 32, "-o", out, "--quiet")
        ids = [1, 5, 9, 200, 31, 7]
        found = support.logits(support.load_stock(out), ids)
        expected = support.logits(support.load_stock(source), ids)
        self.assertLessEqual(support.relative_difference(found, expected), 0.05)


if __name__ == "__main__":
    if importlib.util.find_spec("gguf") is None:
        support.skip("the gguf package is not installed; run scripts/setup test")
    support.main(needs_mlx=True)
