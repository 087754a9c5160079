"""Checkpoints in the layouts that quantizers publish, drawn at random, with what they mean: encoders
and decoders written from the formats' own descriptions, sharing nothing with the program."""

import json

import numpy as np
import support
from support import E2M1, E4M3, make_checkpoint, read_folder, read_json, write_safetensors

# Where the n-th column of a word lies in AWQ's order.
AWQ_PLACES = np.array([0, 4, 1, 5, 2, 6, 3, 7])


def to_type(values, dtype):
    """(bytes, the float32 values that they are)."""
    values = np.asarray(values, np.float32)
    if dtype == "F32":
        return values.astype("<f4").tobytes(), values
    if dtype == "F16":
        return values.astype("<f2").tobytes(), values.astype("<f2").astype(np.float32)
    bits = values.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return rounded.tobytes(), (rounded.astype(np.uint32) << 16).view(np.float32)


def floats(values, dtype, shape=None):
    """A stored tensor and its values."""
    data, exact = to_type(values, dtype)
    return (dtype, np.shape(values) if shape is None else shape, data), exact


def small_floats(random, shape):
    """Every E4M3 number but NaN."""
    return (random.integers(0, 127, shape) | random.integers(0, 2, shape) << 7).astype(np.uint8)


def pack_words(fields, bits, axis=-1):
    """Fields of bits, the first lowest, as int32 words along an axis."""
    fields = np.moveaxis(np.asarray(fields, np.uint32), axis, -1)
    parts = fields.reshape(*fields.shape[:-1], -1, 32 // bits)
    words = (parts << (np.arange(32 // bits, dtype=np.uint32) * bits)).sum(-1, dtype=np.uint32)
    return np.ascontiguousarray(np.moveaxis(words, -1, axis)).view("<i4")


def stored(dtype, array):
    return dtype, array.shape, np.ascontiguousarray(array).tobytes()


def few_bits(random, shape, bits=7):
    """Positive scales with few significant bits, so that small multiples of them are exact in f16."""
    return np.ldexp(random.integers(1 << (bits - 1), 1 << bits, shape).astype(np.float32), -14 - bits)


class Format:
    """settings: a quantization_config. encode(random, rows, columns, stem) gives the stored tensors
    of a weight by their names' ends, and its values."""

    settings = {}
    skipped = ()  # parts of names of weights that stay plain
    dtype = "bf16"


class Fp8(Format):
    """8-bit floats (or integers) with scales for the tensor, the rows or blocks."""

    def __init__(self, spread, scale="F32", method="fp8", element="F8_E4M3"):
        self.spread, self.scale, self.method, self.element = spread, scale, method, element
        self.settings = dict(quant_method=method)
        if spread == "block" and method == "fp8":
            self.settings.update(fmt="float8_e4m3fn", weight_block_size=[32, 64])
        if method == "compressed-tensors":
            strategy = dict(tensor="tensor", row="channel", block="block")[spread]
            weights = dict(num_bits=8, type="int" if element == "I8" else "float",
                           strategy=strategy, symmetric=True)
            if spread == "block":
                weights.update(block_structure=[32, 64])
            self.settings.update(
                format="int-quantized" if element == "I8" else "float-quantized",
                config_groups=dict(group_0=dict(targets=["Linear"], weights=weights)),
                ignore=["lm_head"], quantization_status="compressed")
        if method == "modelopt":
            self.settings = dict(quant_algo="FP8", producer=dict(name="modelopt"))

    def encode(self, random, rows, columns):
        codes = small_floats(random, (rows, columns))
        values = E4M3[codes]
        if self.element == "I8":
            codes = random.integers(-128, 128, (rows, columns)).astype(np.int8)
            values = codes.astype(np.float32)
        shape = dict(tensor=(), row=(rows, 1), block=(-(-rows // 32), -(-columns // 64)))[self.spread]
        if self.scale in ("F8_E8M0", "U8"):
            exponents = random.integers(113, 119, shape).astype(np.uint8)
            scales = np.exp2(exponents.astype(np.float32) - 127)
            part = (self.scale, shape, exponents.tobytes())
        else:
            part, scales = floats(random.uniform(1e-5, 1e-3, shape), self.scale, shape)
        if self.spread == "block":
            scales = scales.repeat(32, 0)[:rows].repeat(64, 1)[:, :columns]
        inverse = self.spread == "block" and self.method == "fp8"
        parts = {"weight": stored(self.element, codes),
                 "weight_scale_inv" if inverse else "weight_scale": part}
        if self.spread == "tensor":
            parts["input_scale"] = floats(np.float32(0.5), "F32", ())[0]
        if self.method == "fbgemm_fp8":
            parts["input_scale_ub"] = floats([1200.0], "F32")[0]
        return parts, (values * scales).astype(np.float32)


class PackedIntegers(Format):
    """compressed-tensors' pack-quantized: columns in words, zero in the middle."""

    skipped = ("kv_b_proj",)

    def __init__(self, bits, group, scale="BF16", order=False):
        self.bits, self.group, self.scale, self.order = bits, group, scale, order
        self.dtype = dict(BF16="bf16", F16="f16", F32="f32")[scale]
        weights = dict(num_bits=bits, type="int", symmetric=True, actorder="group" if order else None,
                       strategy="group" if group else "channel", group_size=group)
        self.settings = dict(quant_method="compressed-tensors", format="pack-quantized",
                             config_groups=dict(group_0=dict(targets=["Linear"], weights=weights)),
                             ignore=["lm_head", "re:.*kv_b_proj.*"])

    def encode(self, random, rows, columns):
        codes = random.integers(0, 1 << self.bits, (rows, columns))
        groups = columns // self.group if self.group else 1
        part, scales = floats(random.uniform(-2e-3, 2e-3, (rows, groups)), self.scale)
        parts = {"weight_packed": stored("I32", pack_words(codes, self.bits)), "weight_scale": part,
                 "weight_shape": stored("I64", np.array([rows, columns], "<i8"))}
        index = np.arange(columns) // (self.group or columns)
        if self.order:
            index = random.permutation(index)
            parts["weight_g_idx"] = stored("I32", index.astype("<i4"))
        return parts, ((codes - (1 << self.bits - 1)).astype(np.float32) * scales[:, index])


class Gptq(Format):
    """Words along the input, zeros along the output, in the first version less one."""

    skipped = ("kv_b_proj",)
    dtype = "f16"

    def __init__(self, group=128, bits=4, version="gptq", act_order=False, symmetric=True,
                 indices=True):
        self.group, self.bits, self.version = group, bits, version
        self.act_order, self.symmetric, self.indices = act_order, symmetric, indices
        self.settings = dict(quant_method="gptq", bits=bits, group_size=group or -1, sym=symmetric,
                             desc_act=act_order, checkpoint_format=version)

    def encode(self, random, rows, columns):
        top = 1 << self.bits
        codes = random.integers(0, top, (columns, rows))
        groups = -(-columns // self.group) if self.group else 1
        zeros = (np.full((groups, rows), top // 2) if self.symmetric
                 else random.integers(0, top, (groups, rows)))
        part, scales = floats(random.uniform(1e-3, 4e-3, (groups, rows)), "F16")
        index = np.arange(columns) // (self.group or columns)
        if self.act_order:
            index = random.permutation(index)
        fields = zeros if self.version == "gptq_v2" else (zeros - 1) % top
        parts = {"qweight": stored("I32", pack_words(codes, self.bits, 0)),
                 "qzeros": stored("I32", pack_words(fields, self.bits)), "scales": part}
        if self.indices:
            parts["g_idx"] = stored("I32", index.astype("<i4"))
        return parts, ((codes - zeros[index]).astype(np.float32) * scales[index]).T.copy()


class Awq(Format):
    """Words along the output, columns in the order 0 2 4 6 1 3 5 7."""

    skipped = ("kv_b_proj",)
    dtype = "f16"

    def __init__(self, group=128, exact=False):
        self.group, self.exact = group, exact
        self.settings = dict(quant_method="awq", bits=4, group_size=group, version="gemm",
                             zero_point=True, modules_to_not_convert=None)

    @staticmethod
    def pack(fields):
        words = np.zeros(fields.shape, np.uint32)
        for place in range(8):
            words[:, AWQ_PLACES[place]::8] = fields[:, place::8]
        return stored("I32", pack_words(words, 4))

    def encode(self, random, rows, columns):
        codes = random.integers(0, 16, (columns, rows))
        groups = columns // self.group
        zeros = random.integers(0, 16, (groups, rows))
        drawn = few_bits(random, (groups, rows)) if self.exact else random.uniform(
            1e-3, 4e-3, (groups, rows))
        part, scales = floats(drawn, "F16")
        parts = {"qweight": self.pack(codes), "qzeros": self.pack(zeros), "scales": part}
        index = np.arange(columns) // self.group
        return parts, ((codes - zeros[index]).astype(np.float32) * scales[index]).T.copy()


def fp4_codes(random, rows, columns):
    """Packed, the first column in the low half of a byte; and values."""
    codes = random.integers(0, 16, (rows, columns)).astype(np.uint8)
    return stored("U8", codes[:, ::2] | codes[:, 1::2] << 4), E2M1[codes]


class Nvfp4(Format):
    """E4M3 scales for 16 columns, times a factor, or over it in compressed-tensors."""

    skipped = ("kv_b_proj",)

    def __init__(self, method="modelopt", factor=None):
        self.method, self.factor = method, factor
        self.settings = dict(quant_method="modelopt", quant_algo="NVFP4", group_size=16)
        if method == "compressed-tensors":
            weights = dict(num_bits=4, type="float", strategy="tensor_group", group_size=16)
            self.settings = dict(quant_method=method, format="nvfp4-pack-quantized",
                                 config_groups=dict(group_0=dict(targets=["Linear"],
                                                                 weights=weights)))

    def encode(self, random, rows, columns):
        codes, values = fp4_codes(random, rows, columns)
        bytes_ = random.integers(0x28, 0x68, (rows, columns // 16)).astype(np.uint8)
        factor = np.float32(self.factor or random.uniform(1e-4, 1e-3))
        if self.method == "modelopt":
            parts = {"weight": codes, "weight_scale_2": floats(factor, "F32", ())[0],
                     "input_scale": floats(np.float32(1), "F32", ())[0]}
            scales = E4M3[bytes_] * factor
        else:
            factor = np.float32(1 / factor)
            parts = {"weight_packed": codes, "weight_global_scale": floats([factor], "F32")[0],
                     "input_global_scale": floats([1.0], "F32")[0]}
            scales = E4M3[bytes_] / factor
        parts["weight_scale"] = stored("F8_E4M3", bytes_)
        return parts, (values * scales.astype(np.float32).repeat(16, 1)).astype(np.float32)


class Mxfp4(Format):
    """compressed-tensors: E8M0 scales for 32 columns."""

    skipped = ("kv_b_proj",)
    settings = dict(quant_method="compressed-tensors", format="mxfp4-pack-quantized",
                    config_groups=dict(group_0=dict(targets=["Linear"], weights=dict(
                        num_bits=4, type="float", strategy="group", group_size=32))))

    def encode(self, random, rows, columns):
        codes, values = fp4_codes(random, rows, columns)
        bytes_ = random.integers(112, 122, (rows, columns // 32)).astype(np.uint8)
        scales = np.exp2(bytes_.astype(np.float32) - 127).repeat(32, 1)
        return {"weight_packed": codes, "weight_scale": stored("U8", bytes_)}, values * scales


class Mxfp8(Format):
    """E8M0 scales for 32 columns of E4M3."""

    skipped = ("kv_b_proj",)
    settings = dict(quant_method="compressed-tensors", format="mxfp8-quantized")

    def encode(self, random, rows, columns):
        codes = small_floats(random, (rows, columns))
        bytes_ = random.integers(108, 118, (rows, columns // 32)).astype(np.uint8)
        scales = np.exp2(bytes_.astype(np.float32) - 127).repeat(32, 1)
        return ({"weight": stored("F8_E4M3", codes), "weight_scale": stored("U8", bytes_)},
                E4M3[codes] * scales)


class Model:
    """A folder in a format and one of the same values in f32. Parts of a weight lie in two shards."""

    def __init__(self, folder, format, family="llama", seed=0, packed_file=False, beside_text=False,
                 change=None, **options):
        self.format = format
        plain = folder / "base"
        make_checkpoint(plain, family, dtype=format.dtype, seed=seed, **options)
        config = read_json(plain / "config.json")
        random = np.random.default_rng(seed)
        shards, values = ({}, {}), {}
        self.packed = []
        for name, tensor in read_folder(plain).items():
            is_linear = name.endswith(("proj.weight", "with_mqa.weight")) and "layers." in name
            if not is_linear or any(part in name for part in format.skipped):
                shards[0][name] = values[name] = (tensor.dtype, tensor.shape, tensor.data)
                continue
            stem = name.removesuffix("weight")
            parts, decoded = format.encode(random, *tensor.shape)
            for number, (part, content) in enumerate(parts.items()):
                shards[number % 2][stem + part] = content
            values[name] = ("F32", decoded.shape, decoded.astype("<f4").tobytes())
            self.packed.append(name)
        if change is not None:
            change(shards)
        self.plain, self.path = folder / "plain", folder / "packed"
        for path in (self.plain, self.path):
            path.mkdir()
            for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
                (path / file).write_bytes((plain / file).read_bytes())
        (self.plain / "config.json").write_text(json.dumps(config))
        write_safetensors(self.plain / "model.safetensors", values, {"format": "pt"})
        self.values = {n: np.frombuffer(values[n][2], "<f4").reshape(values[n][1])
                       for n in self.packed}
        names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
        for name, shard in zip(names, shards):
            write_safetensors(self.path / name, shard, {"format": "pt"})
        (self.path / "model.safetensors.index.json").write_text(json.dumps(dict(
            metadata={}, weight_map={t: n for n, s in zip(names, shards) for t in s})))
        if packed_file:  # modelopt's own
            (self.path / "hf_quant_config.json").write_text(json.dumps(dict(
                producer=dict(name="modelopt"), quantization=format.settings)))
        else:
            holder = config["text_config"] if beside_text else config
            holder["quantization_config"] = format.settings
        (self.path / "config.json").write_text(json.dumps(config))

    def out(self, name):
        return self.path.with_name(f"out-{name}")

    def stacked(self, module):
        """Values of an output module: its own, or those of its experts."""
        if module in self.values:
            return self.values[module]
        before, after = module.split(".switch_mlp.")
        experts = [n for n in self.values if n.startswith(f"{before}.experts.") and
                   n.endswith(after)]
        experts.sort(key=lambda n: int(n.split(".experts.")[1].split(".")[0]))
        return np.stack([self.values[n] for n in experts])
