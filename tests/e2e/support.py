"""What the end-to-end tests share: running the program, reading safetensors with nothing but numpy,
decoding MLX's affine format as documented, and building stock mlx_lm models from plain arrays.

The decoder here is written from docs/formats.md and shares nothing with the program.
"""

import collections
import contextlib
import importlib.util
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

SKIPPED = 77
BAD_USAGE, BAD_INPUT, IO_ERROR = 2, 3, 4
ROOT = Path(os.environ.get("SLUICE_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BITS = (2, 3, 4, 5, 6, 8)
GROUPS = (32, 64, 128)
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "deepseek_v3", "mixtral", "qwen3_next",
            "qwen3_5", "qwen3_5_moe")


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


try:
    import numpy as np
except ImportError:
    skip("numpy is not installed; run scripts/setup test")


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_checkpoint = load_tool("make_checkpoint").make_checkpoint


def binary():
    """The program: the first argument, else SLUICE_BINARY."""
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        return sys.argv[1]
    return os.environ.get("SLUICE_BINARY", "")


def real_inputs():
    """The folder of real inputs, or None."""
    folder = os.environ.get("SLUICE_REAL_INPUTS", "")
    return Path(folder) if folder and Path(folder).is_dir() else None


def documented_families():
    """Those of the table in docs/families.md."""
    text = (ROOT / "docs" / "families.md").read_text()
    rows = text.split("| model_type | source names |")[1].split("\n\n")[0].splitlines()[2:]
    return {name.strip() for row in rows for name in row.split("|")[1].split(",")}


def demo_model():
    """The demo model's GGUF file, or None."""
    path = os.environ.get("SLUICE_DEMO_MODEL", "")
    return Path(path) if path and Path(path).is_file() else None


def real_models():
    """Name and path of the small trained models, those that are there."""
    folder = real_inputs()
    if folder is None:
        return {}
    models = {
        "stories260K": "models/stories260K/hf",
        "stories260K-2shards": "models/stories260K/hf-bf16-2shards",
        "stories260K-f32-gguf": "models/stories260K/gguf/stories260K-f32.gguf",
        "stories260K-q8_0-gguf": "models/stories260K/gguf/stories260K-q8_0.gguf",
        "stories260K-q4_0-gguf": "models/stories260K/gguf/stories260K-q4_0.gguf",
        "stories260K-q4_k_m-gguf": "models/stories260K/gguf/stories260K-q4_k_m.gguf",
        "tiny-qwen3-moe": "models/tiny-qwen3-moe",
    }
    return {name: folder / path for name, path in models.items() if (folder / path).exists()}


def sluice(*arguments, expect=0, timeout=600):
    """Runs the program; returns its result. expect: exit code, or None for any."""
    command = [binary(), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if expect is not None and result.returncode != expect:
        raise AssertionError(
            f"{' '.join(command)}: exit {result.returncode}, expected {expect}\n"
            f"{result.stdout[-2000:]}\n{result.stderr[-2000:]}")
    return result


def sluice_json(*arguments, **options):
    return json.loads(sluice(*arguments, "--json", "--quiet", **options).stdout)


# A process starts its peak at its parent's resident memory, so the parent must be a small one.
LAUNCHER = """
import os, sys
group = sys.argv.pop(1)
if group:
    with open(os.path.join(group, "cgroup.procs"), "w") as file:
        file.write(str(os.getpid()))
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
print(f"\\n{os.waitstatus_to_exitcode(status)} {usage.ru_maxrss}", file=sys.stderr)
"""


def sanitized(program):
    """Whether it is built with a sanitizer, which takes memory of its own."""
    data = Path(program).read_bytes()
    return b"__asan_init" in data or b"__tsan_init" in data


class MemoryGroup:
    """A control group of its own with a hard limit and no swap; None where that cannot be had."""

    def __init__(self, path, limits, peak):
        self.path, self.peak = path, peak
        self.path.mkdir()
        for name, value in limits:
            if (self.path / name).exists():
                (self.path / name).write_text(str(value))

    def peak_bytes(self):
        return int((self.path / self.peak).read_text())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for _ in range(50):  # the last process may still be on its way out
            try:
                return self.path.rmdir()
            except OSError:
                time.sleep(0.1)

    @staticmethod
    def create(limit_bytes):
        name = f"sluice-memory-{os.getpid()}"
        v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
        try:
            if (v1 / "memory.limit_in_bytes").exists():
                return MemoryGroup(v1 / name, [("memory.limit_in_bytes", limit_bytes),
                                               ("memory.memsw.limit_in_bytes", limit_bytes),
                                               ("memory.swappiness", 0)],
                                   "memory.max_usage_in_bytes")
            if "memory" in (v2 / "cgroup.subtree_control").read_text().split():
                return MemoryGroup(v2 / name, [("memory.max", limit_bytes),
                                               ("memory.swap.max", 0)], "memory.peak")
        except OSError:
            pass
        return None


Measured = collections.namedtuple("Measured", "code peak_bytes stdout stderr")


def measured(arguments, group=None, text="", program=None):
    """One run of the program, or another, with text as its standard input. peak_bytes: resident, as the system
    counts it."""
    launcher = [sys.executable, "-S", "-E", "-c", LAUNCHER, str(group.path) if group else ""]
    result = subprocess.run([*launcher, program or binary(), *map(str, arguments)], check=True,
                            input=text.encode(), capture_output=True)
    stderr, _, counts = result.stderr.decode(errors="replace").rstrip().rpartition("\n")
    code, peak = map(int, counts.split())
    return Measured(code, peak * (1 if sys.platform == "darwin" else 1024),
                    result.stdout.decode(errors="replace"), stderr)


def test_seed():
    """The seed of random cases: always the same, unless the environment says another."""
    seed = int(os.environ.get("SLUICE_TEST_SEED", 1))
    print(f"SLUICE_TEST_SEED={seed}", flush=True)
    return seed


class TestCase(unittest.TestCase):
    """A temporary folder per class."""

    @classmethod
    def setUpClass(cls):
        cls._folder = tempfile.TemporaryDirectory(prefix="sluice-e2e-")
        cls.folder = Path(cls._folder.name)

    @classmethod
    def tearDownClass(cls):
        cls._folder.cleanup()

    def assert_refused(self, arguments, words, code=BAD_INPUT, out=None, limit=None):
        """out: what must not exist afterwards."""
        result = subprocess.run([binary(), *map(str, arguments)], capture_output=True,
                                timeout=120, preexec_fn=limit)
        stderr = result.stderr.decode("utf-8", errors="backslashreplace")
        self.assertEqual(result.returncode, code, stderr)
        self.assertEqual(stderr.encode(), result.stderr, "bytes that are not UTF-8 on a terminal")
        lines = [line for line in stderr.strip().splitlines() if line.startswith("error: ")]
        self.assertEqual(len(lines), 1, stderr)
        self.assertLess(len(lines[0]), 1000)
        for word in words:
            self.assertIn(word, lines[0])
        if out is not None:
            self.assertFalse(out.exists(), f"{out} was left behind")


class ConversionTestCase(TestCase):
    """Uniform conversions held against mlx_lm's, byte for byte: tensors, configuration, index."""

    def compare(self, source, bits, group, dtype=None):
        name = f"{source.name}-{bits}-{group}-{dtype}"
        theirs, ours = self.folder / f"{name}-mlx", self.folder / f"{name}-ours"
        convert_stock(source, theirs, bits, group, dtype)
        extra = ["--dtype", dtype] if dtype else []
        sluice("quantize", source, "--bits", bits, "--group-size", group, *extra, "-o", ours,
               "--quiet")
        self.compare_folders(ours, theirs, dtype)
        return ours

    def compare_mode(self, source, mode, dtype=None):
        theirs, ours = (self.folder / f"{source.name}-{mode}-{dtype}-{who}"
                        for who in ("mlx", "ours"))
        convert_stock(source, theirs, *FP_MODES[mode], dtype, q_mode=mode)
        extra = ["--dtype", dtype] if dtype else []
        sluice("quantize", source, "--mode", mode, *extra, "-o", ours, "--quiet")
        self.compare_folders(ours, theirs, dtype)
        return ours

    def compare_folders(self, ours, theirs, dtype):
        expected, found = read_folder(theirs), read_folder(ours)
        self.assertEqual(sorted(found), sorted(expected), "tensor names")
        wrong = [n for n in expected if found[n] != expected[n]]
        for tensor in wrong[:3]:
            self.report(tensor, found[tensor], expected[tensor])
        self.assertEqual(wrong, [], "tensors that differ")
        config, stock = (read_json(f / "config.json") for f in (ours, theirs))
        if dtype:  # mlx_lm leaves the source's type there
            key = "torch_dtype" if "torch_dtype" in config else "dtype"
            named, stocks = (c if key in c else c["text_config"] for c in (config, stock))
            self.assertEqual(named[key], dtype)
            stocks[key] = dtype
        # The stock loader of qwen3_5 renames this key in the configuration that it then saves.
        for either in (config, stock):
            rope = either.get("text_config", {}).get("rope_parameters", {})
            if "type" in rope and "rope_type" not in rope:
                rope["rope_type"] = rope.pop("type")
        self.assertEqual(config, stock)
        index, stock = (read_json(f / "model.safetensors.index.json") for f in (ours, theirs))
        # The stock count passes over parameters of modules that have modules of their own.
        passed_over = ("A_log", "dt_bias", "mixer.D", "sparse_moe.e_score_correction_bias")
        stock["metadata"]["total_parameters"] += sum(
            expected[n].array().size for n in expected if n.endswith(passed_over))
        self.assertEqual(index["metadata"], stock["metadata"])
        self.assertEqual(sorted(index["weight_map"]), sorted(stock["weight_map"]))

    def report(self, name, found, expected):
        print(f"{name}: {found.dtype} {found.shape} against {expected.dtype} {expected.shape}")
        if (found.dtype, found.shape) == (expected.dtype, expected.shape):
            a, b = found.array().reshape(-1), expected.array().reshape(-1)
            first = int((a != b).argmax())
            print(f"  {int((a != b).sum())} elements differ, first {first}: {a[first]}, {b[first]}")


def main(needs_mlx=False):
    """Runs the calling script's tests."""
    if not binary() or not Path(binary()).exists():
        skip("the sluice program is not built")
    if needs_mlx and importlib.util.find_spec("mlx_lm") is None:
        skip("mlx_lm is not installed; run scripts/setup test")
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)


# ---- safetensors ----

NUMPY_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U32": "<u4", "F64": "<f8", "I64": "<i8",
               "I32": "<i4", "U8": "|u1"}


class Tensor:
    def __init__(self, dtype, shape, data):
        self.dtype, self.shape, self.data = dtype, tuple(shape), data

    def __eq__(self, other):
        return (self.dtype, self.shape, self.data) == (other.dtype, other.shape, other.data)

    def array(self):
        """As stored; BF16 as its 16 bits."""
        return np.frombuffer(self.data, NUMPY_TYPES[self.dtype]).reshape(self.shape)

    def floats(self):
        if self.dtype == "BF16":
            return (self.array().astype(np.uint32) << 16).view(np.float32)
        return self.array().astype(np.float32)


def read_header(path):
    """(header, start of the data)."""
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        return json.loads(file.read(length)), 8 + length


def read_safetensors(path):
    header, start = read_header(path)
    data = Path(path).read_bytes()
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            tensors[name] = Tensor(entry["dtype"], entry["shape"], data[start + first:start + last])
    return tensors


def read_folder(folder):
    """Every tensor of the weight files a loader would read."""
    tensors = {}
    for path in sorted(Path(folder).glob("model*.safetensors")):
        tensors.update(read_safetensors(path))
    return tensors


def write_safetensors(path, tensors, metadata=None):
    """tensors: name → (dtype, shape, bytes)."""
    header, blobs, offset = {}, [], 0
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, data) in tensors.items():
        end = offset + len(data)
        header[name] = dict(dtype=dtype, shape=list(shape), data_offsets=[offset, end])
        offset = end
        blobs.append(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def weight_bytes(folder):
    return sum(path.stat().st_size for path in Path(folder).glob("model*.safetensors"))


def read_json(path):
    return json.loads(Path(path).read_text())


# ---- MLX's affine format, docs/formats.md#affine ----


def unpack_codes(words, bits):
    """uint32 [..., n·bits/32] → codes [..., n]: each row is one little-endian bit stream."""
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    codes = stream.reshape(*stream.shape[:-1], -1, bits)
    return (codes * (1 << np.arange(bits, dtype=np.uint32))).sum(axis=-1, dtype=np.uint32)


def decode_affine(weight, scales, biases, bits, group_size):
    """float32 values: a product and a sum, each rounded."""
    codes = unpack_codes(weight.array(), bits).astype(np.float32)
    grouped = codes.reshape(*codes.shape[:-1], -1, group_size)
    values = scales.floats()[..., None] * grouped + biases.floats()[..., None]
    return values.reshape(codes.shape)


# ---- MLX's fp modes, docs/formats.md#fp-modes ----

FP_MODES = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
E2M1 = np.concatenate([E2M1, -E2M1])
E4M3 = np.array([(m / 512 if e == 0 else (8 + m) * 2.0 ** (e - 10)) for e in range(16)
                 for m in range(8)], np.float32)
E4M3[127] = np.nan
E4M3 = np.concatenate([E4M3, -E4M3])


def decode_fp(weight, scales, mode):
    """float32 values: one product, exact for any scale a model holds."""
    bits, group_size = FP_MODES[mode]
    values = (E2M1 if bits == 4 else E4M3)[unpack_codes(weight.array(), bits)]
    factors = E4M3[scales.array()] if mode == "nvfp4" else \
        np.exp2(scales.array().astype(np.float32) - 127)
    grouped = values.reshape(*values.shape[:-1], -1, group_size) * factors[..., None]
    return grouped.reshape(values.shape).astype(np.float32)

def decode_fp8_blocks(weight, scales, side):
    """float32 values of 8-bit floats (E4M3, no infinities) with one scale per square block."""
    codes = np.frombuffer(weight.data, np.uint8).reshape(weight.shape).astype(np.int32)
    exponent, mantissa = (codes >> 3) & 15, (codes & 7).astype(np.float32)
    magnitude = np.where(exponent == 0, np.ldexp(mantissa, -9),
                         np.ldexp(8 + mantissa, exponent - 10)).astype(np.float32)
    values = np.where(codes & 0x80, -magnitude, magnitude)
    spread = scales.floats().repeat(side, 0).repeat(side, 1)
    return values * spread[:weight.shape[0], :weight.shape[1]]


def decoded_folder(folder):
    """name → float32 array of every parameter, quantized modules decoded by config.json."""
    tensors = read_folder(folder)
    quantization = read_json(Path(folder) / "config.json").get("quantization", {})
    decoded = {}
    for name, tensor in tensors.items():
        path, _, parameter = name.rpartition(".")
        if parameter in ("scales", "biases") and f"{path}.scales" in tensors:
            continue
        if f"{path}.scales" in tensors and parameter == "weight":
            setting = quantization.get(path, quantization)
            if setting.get("mode", "affine") != "affine":
                decoded[name] = decode_fp(tensor, tensors[f"{path}.scales"], setting["mode"])
                continue
            decoded[name] = decode_affine(tensor, tensors[f"{path}.scales"],
                                          tensors[f"{path}.biases"], setting["bits"],
                                          setting["group_size"])
        else:
            decoded[name] = tensor.floats()
    return decoded


# ---- stock mlx_lm ----


def convert_stock(source, out, bits, group, dtype=None, **options):
    """mlx_lm.convert; bits None leaves the model as it is."""
    import mlx_lm

    quantization = dict(quantize=True, q_bits=bits, q_group_size=group) if bits else {}
    with contextlib.redirect_stdout(io.StringIO()):
        mlx_lm.convert(str(source), str(out), dtype=dtype, **quantization, **options)


def load_stock(folder):
    """The model as stock mlx_lm loads it, computing in float32."""
    import mlx.core as mx
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    model, _ = load_model(Path(folder))
    model.set_dtype(mx.float32)
    return model


@contextlib.contextmanager
def stock_model(folder):
    yield load_stock(folder)


def model_from_arrays(config, arrays):
    """A stock mlx_lm model, not quantized, with exactly these float32 weights."""
    import mlx.core as mx
    from mlx_lm.utils import _get_classes

    mx.set_default_device(mx.cpu)
    config = {k: v for k, v in config.items() if not k.startswith("quantization")}
    model_class, arguments = _get_classes(config=config)
    model = model_class(arguments.from_dict(config))
    model.eval()
    model.load_weights([(name, mx.array(array)) for name, array in arrays.items()], strict=True)
    model.set_dtype(mx.float32)
    return model


def logits(model, ids):
    import mlx.core as mx

    output = model(mx.array([ids])).astype(mx.float32)
    return np.array(output[0])


def conditioning(model, ids, draws=12):
    """How far a stock model's logits move when each weight in float32 moves by about one unit in the
    last place: for some random models and tokens, a thousand times as far as for others, and two
    right programs differ by as much. The largest relative difference of some draws; the model is
    left moved."""
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_unflatten

    weights, at_first = tree_flatten(model.parameters()), logits(model, ids)
    random, most = np.random.default_rng(1), 0.0
    for _ in range(draws):
        moved = [(name, mx.array(np.array(w) * (1 + 2.0 ** -23 * random.integers(-1, 2, w.shape))
                                 .astype(np.float32))) for name, w in weights
                 if w.dtype == mx.float32]
        model.update(tree_unflatten(moved))
        most = max(most, relative_difference(logits(model, ids), at_first))
    return most


# Logits of the same model in float32, by two right programs: the largest relative difference. Where a
# model is so badly conditioned that a difference above it says nothing: as a multiple of what stock
# mlx_lm's own logits move by (conditioning()), and what no conditioning excuses.
LOGITS_TOLERANCE = 1e-4
MOVES, MOST = 4, 1e-3


# An indexer adds up what its heads find to be positive. Where none does, several keys have exactly 0, and
# which of them are chosen nobody says; with so many heads that does not happen.
INDEXER_HEADS = 32


class IllConditioned(Exception):
    """Stock mlx_lm's logits move so far by rounding that they are no measure: two experts, or two keys
    of an indexer, came out all but equal, and the choice between them is a matter of the last bit."""


def assert_near(found, expected, stock, ids, what):
    """stock: returns a context that holds the model whose logits are expected. Raises IllConditioned
    where the tokens have to be others."""
    difference = relative_difference(found, expected)
    print(f"{what}: {difference:.2e}", flush=True)
    if difference <= LOGITS_TOLERANCE:
        return
    with stock() as model:
        moved = conditioning(model, ids)
    print(f"{what}: badly conditioned, {moved:.2e} by one unit in the last place", flush=True)
    if moved > MOST:
        raise IllConditioned(f"{what}: {moved:.2e}")
    if difference > min(MOVES * moved, MOST):
        raise AssertionError(f"{what}: {difference:.2e}, expected at most {LOGITS_TOLERANCE:.0e}")


def with_tokens(check, ids, vocabulary, tries=3):
    """check(ids), again with other tokens where these are ill-conditioned: a few in a thousand are."""
    for _ in range(tries):
        try:
            return check(ids)
        except IllConditioned as reason:
            print(f"other tokens, because of {reason}", flush=True)
        ids = [(i + 1) % vocabulary for i in ids]
    raise AssertionError(f"ill-conditioned with {tries} sets of tokens")


def random_tokens(folder, seed, count):
    """(ids, size of the vocabulary)."""
    config = read_json(Path(folder) / "config.json")
    vocabulary = config.get("text_config", config)["vocab_size"]
    return [int(i) for i in np.random.default_rng(seed).integers(0, vocabulary, count)], vocabulary


def greedy(model, ids, count):
    ids = list(ids)
    start = len(ids)
    while len(ids) < start + count:
        ids.append(int(logits(model, ids)[-1].argmax()))
    return ids[start:]


def relative_difference(a, b):
    return float(np.abs(a - b).max() / np.abs(b).max())
