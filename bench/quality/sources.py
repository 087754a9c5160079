"""The trained models that quality is measured on, their texts, and each in the forms that the tools
under comparison read: a folder with safetensors, and .gguf."""

import importlib.util
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
LLAMA_CPP = ROOT / "build/peer/llama.cpp"


@dataclass(frozen=True)
class Source:
    name: str
    model: str         # below the folder of real inputs, or below the project
    text: str          # judged on
    calibration: str   # of the same domain, never judged on
    context: int
    windows: int
    quantized: bool = False  # the source is itself quantized, and its results are kept apart


# Some 32,000 scored tokens each. The first two are unquantized.
SOURCES = [
    Source("stories260K", "models/stories260K/hf", "corpora/tinystories_sample_944k.txt",
           "corpora/tinystories_sample_944k.txt", 256, 126),
    Source("tiny-qwen3-moe", "models/tiny-qwen3-moe", "models/tiny-qwen3-moe/val.txt",
           "corpora/tinystories_sample_944k.txt", 256, 126),
    Source("SmolLM2-135M-Instruct", "demo/SmolLM2-135M-Instruct.Q4_1.gguf",
           "corpora/wiki.test.raw", "corpora/calibration_datav3.txt", 512, 63, quantized=True),
]
TEXT_BYTES, CALIBRATION_BYTES = 260_000, 200_000


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Workspace:
    """What is made of one source, under a folder of its own; what is there already is kept."""

    def __init__(self, source, inputs, folder, sluice):
        self.source, self.folder, self.sluice = source, folder / source.name, sluice
        self.inputs = Path(inputs)
        (self.folder / "entries").mkdir(parents=True, exist_ok=True)
        self.text = self.part(source.text, "text.txt", 0, TEXT_BYTES)
        # From the end of a file: what is judged on comes from its beginning.
        self.calibration = self.part(source.calibration, "calibration.txt", -CALIBRATION_BYTES,
                                     None)

    def find(self, path):
        return next((base / path for base in (self.inputs, ROOT) if (base / path).exists()), None)

    def available(self):
        return self.find(self.source.model) is not None

    def part(self, path, name, begin, end):
        found, out = self.find(path), self.folder / name
        if found is not None and not out.exists():
            out.write_bytes(found.read_bytes()[begin:end].decode(errors="ignore").encode())
        return out

    def prepare(self):
        """One process at a time: what all entries need."""
        self.huggingface = self.as_folder()
        self.reference = self.folder / "reference"
        self.run(self.sluice, "eval", self.huggingface, *self.window_options(), "--save-reference",
                 self.reference, "--quiet")
        config = json.loads((self.huggingface / "config.json").read_text())
        self.gguf = self.folder / "source.gguf"
        if not self.gguf.exists() and LLAMA_CPP.exists():
            if self.source.model.endswith(".gguf"):
                self.run(LLAMA_CPP, "llama-quantize", "--allow-requantize",
                         self.find(self.source.model), self.gguf, "F16")
            elif (known := self.find(f"models/{self.source.name}/gguf/{self.source.name}-f32.gguf")):
                self.gguf = known
            else:
                write_gguf(self.gguf, self.huggingface, config)
        self.parameters = int(json.loads(self.run(
            self.sluice, "inspect", self.huggingface, "--json", "--quiet"))["parameters"])

    def as_folder(self):
        model = self.find(self.source.model)
        if model.is_dir():
            return model
        folder, plan = self.folder / "source", self.folder / "source-plan.json"
        if not folder.exists():  # every weight in 16 bits
            analysis = self.folder / "source-analysis.jsonl"
            self.run(self.sluice, "analyze", model, "-o", analysis, "--best", "none", "--quiet")
            self.run(self.sluice, "plan", analysis, "--configs", "16-bit", "--bpw", 17, "-o", plan,
                     "--quiet")
            self.run(self.sluice, "quantize", model, "--plan", plan, "-o", folder, "--quiet")
        return folder

    def window_options(self):
        return ["--text", self.text, "--context", self.source.context, "--windows",
                self.source.windows, "--protocol", "plain", "--activations", "f32", "--kv", "f32"]

    def analysis(self, best):
        path = self.folder / f"analysis-{best}.jsonl"
        if not path.exists():
            self.made_whole(path, self.sluice, "analyze", self.huggingface, "--best", best,
                            "--quiet", "-o")
        return path

    def sensitivities(self):
        """Measured on text that the model writes itself."""
        path = self.folder / "sensitivity.json"
        if not path.exists():
            analysis = self.folder / "measured.jsonl"
            told = self.run(self.sluice, "analyze", self.huggingface, "--best", "none",
                            "--sensitivity", "data-free", "-o", analysis, "--json", "--quiet")
            Path(json.loads(told)["sensitivity"]["file"]).rename(path)
        return path

    def activations(self):
        path = self.folder / "activations"
        if not path.exists():
            self.made_whole(path, self.sluice, "calibrate", self.huggingface, "--quiet", "-o")
        return path

    def made_whole(self, path, *command):
        """Runs a command that ends in the name of its output, and names that when it is complete."""
        unfinished = path.with_name("unfinished-" + path.name)
        self.run(*command, unfinished)
        unfinished.rename(path)

    @staticmethod
    def run(*command, **options):
        done = subprocess.run([str(word) for word in command], text=True, capture_output=True,
                              **options)
        if done.returncode != 0:
            raise Failure(last_line(done.stderr) or last_line(done.stdout))
        return done.stdout


class Failure(Exception):
    """An entry that cannot be made, with the reason."""


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "rror" in line]
    return (told or lines or [""])[-1][:300]


# ---- .gguf from a folder ----

WIDTHS = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


def floats(folder):
    for name, dtype, shape, data in load_tool("safetensors_folder").stored_tensors(folder):
        values = np.frombuffer(data.tobytes(), WIDTHS[dtype])
        if dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        yield name, values.astype(np.float32).reshape(shape)


def write_gguf(path, folder, config):
    """A Qwen3 mixture of experts with a byte-level tokenizer, in F32."""
    import gguf

    layout = load_tool("gguf_layout")
    assert config["model_type"] == "qwen3_moe", config["model_type"]
    writer = gguf.GGUFWriter(str(path) + ".tmp", "qwen3moe")
    layout.add_dims(writer, config)
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_expert_count(config["num_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["content"] for token in tokenizer["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.get)
    merges = [merge if isinstance(merge, str) else " ".join(merge)
              for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
    experts = {}
    for name, values in floats(folder):
        if ".experts." not in name:
            writer.add_tensor(layout.gguf_name(name), values)
            continue
        _, _, layer, _, _, expert, matrix, _ = name.split(".")
        key = f"blk.{layer}.{layout.NAMES['mlp.' + matrix]}_exps.weight"
        experts.setdefault(key, {})[int(expert)] = values
    for name, members in experts.items():
        writer.add_tensor(name, np.stack([members[index] for index in sorted(members)]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    Path(str(path) + ".tmp").rename(path)
