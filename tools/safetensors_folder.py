"""The tensors of a folder's .safetensors files as they are stored, one after another, mapped and not
read: what numpy's own reader lacks is a type for bfloat16."""

import json

import numpy as np


def stored_tensors(folder):
    """name, dtype as the header has it, shape, bytes."""
    for path in sorted(folder.glob("*.safetensors")):
        data = np.memmap(path, np.uint8, "r")
        start = 8 + int(data[:8].view("<u8")[0])
        for name, tensor in json.loads(data[8:start].tobytes()).items():
            if name == "__metadata__":
                continue
            begin, end = tensor["data_offsets"]
            yield name, tensor["dtype"], tensor["shape"], data[start + begin:start + end]
