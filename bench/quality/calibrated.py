#!/usr/bin/env python3
"""One of mlx_lm's calibrated quantizers, with a text file in place of the data that it would download, in
f32: products of experts on MLX's CPU take nothing else. What it writes has the source's type again.

    calibrated.py gptq|awq|dwq|dynamic_quant TEXT SAMPLES LENGTH [its own options]"""

import importlib
import sys


def main():
    name, text, samples, length, *options = sys.argv[1:]
    samples, length = int(samples), int(length)
    import mlx.core as mx
    from mlx.utils import tree_flatten

    mx.set_default_device(mx.cpu)
    module = importlib.import_module(f"mlx_lm.quant.{name}")

    def chunks(tokenizer):
        with open(text) as file:
            tokens = tokenizer.encode(file.read())
        return [tokens[i:i + length] for i in range(0, len(tokens) - length + 1, length)]

    def load_data(tokenizer, *_, **__):
        return mx.array(chunks(tokenizer)[:samples])

    def load_training_data(tokenizer, *_, **__):
        found = [(tokens, 0) for tokens in chunks(tokenizer)]
        return found[:samples], found[samples:samples + 32] or found[-8:]

    stored = []
    load, save = module.load, module.save

    def load_f32(*arguments, **options):
        model, *rest = load(*arguments, **options)
        stored.append(next(value.dtype for _, value in tree_flatten(model.parameters())
                           if mx.issubdtype(value.dtype, mx.floating)))
        model.set_dtype(mx.float32)
        return model, *rest

    def save_as_stored(path, source, model, *arguments, **options):
        model.set_dtype(stored[0])
        save(path, source, model, *arguments, **options)

    module.load, module.save = load_f32, save_as_stored
    if name == "dynamic_quant":  # counts bits, of scales too
        threshold = module.estimate_threshold

        def threshold_as_stored(model, *arguments, **options):
            model.set_dtype(stored[0])
            return threshold(model, *arguments, **options)

        module.estimate_threshold = threshold_as_stored
    module.load_data = load_training_data if name == "dwq" else load_data
    sys.argv = [name, *options]
    module.main()


if __name__ == "__main__":
    main()
