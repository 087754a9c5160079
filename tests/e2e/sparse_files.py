"""Checkpoints of any size whose headers are whole and whose weights are holes in the files."""

import support

SHARD_BYTES = 5_000_000_000
tool = support.load_tool("make_checkpoint")


def write_sparse(folder, config, dtype):
    """Headers in full, weights as holes. Returns how many tensors, and their bytes."""
    folder.mkdir()
    tensors = tool.typed_tensors(config, dtype)
    total = sum(tool.stored_bytes(shape, kind) for _, shape, kind in tensors)
    files = tool.assign_shards(tensors, -(-total // SHARD_BYTES))
    weight_map = {}
    for number, members in enumerate(files, 1):
        name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        header = tool.header_bytes(members)
        size = sum(tool.stored_bytes(shape, kind) for _, shape, kind in members)
        with open(folder / name, "wb") as out:
            out.write(header)
            out.truncate(len(header) + size)
        weight_map.update({tensor: name for tensor, _, _ in members})
    tool.write_json(folder / "model.safetensors.index.json",
                    dict(metadata=dict(total_size=total), weight_map=weight_map))
    tool.write_json(folder / "config.json", config)
    return len(tensors), total
