#!/usr/bin/env python3
"""One of mlx_lm's calibrated quantizers, with a text file in place of the data that it would download.

    calibrated.py gptq|awq|dwq|dynamic_quant TEXT SAMPLES LENGTH [its own options]"""

import importlib
import sys


def main():
    name, text, samples, length, *options = sys.argv[1:]
    samples, length = int(samples), int(length)
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    module = importlib.import_module(f"mlx_lm.quant.{name}")

    def chunks(tokenizer):
        with open(text) as file:
            tokens = tokenizer.encode(file.read())
        return [tokens[i:i + length] for i in range(0, len(tokens) - length + 1, length)]

    def load_data(tokenizer, *_):
        return mx.array(chunks(tokenizer)[:samples])

    def load_training_data(tokenizer, *_):
        found = [(tokens, 0) for tokens in chunks(tokenizer)]
        return found[:samples], found[samples:samples + 32] or found[-8:]

    module.load_data = load_training_data if name == "dwq" else load_data
    sys.argv = [name, *options]
    module.main()


if __name__ == "__main__":
    main()
