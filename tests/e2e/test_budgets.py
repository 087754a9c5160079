"""Twenty budgets per model: the weight files never exceed one, the plan's own count of bytes is
exact, and no single module could be stored better in what is left.

Sizes, floors and costs are recomputed here from the analysis file, by the rules of
docs/formats.md and docs/allocation.md, not read from the program's own sums."""

import json
import math

import support
from support import demo_model, make_checkpoint, real_models, sluice, sluice_json, weight_bytes

SEED = support.test_seed()
BUDGETS = 20
DATA_ALIGNMENT = 16 * 1024
SQNR_FLOOR_DB = 9.0
ELEMENT_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "U32": 4, "U8": 1}
MODEL_TYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def read_analysis(path):
    """(header, module records)."""
    records = [json.loads(line)["record"] for line in path.read_text().splitlines()]
    return records[0], [record for record in records[1:] if "path" in record]


FP_MODES = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}  # bits, group


def output_tensors(record, format_name, model_type):
    """(name, dtype, shape) of the tensors that a module becomes."""
    path, parameter, shape = record["path"], record["parameter"], record["shape"]
    name = f"{path}.{parameter}" if parameter else path
    if format_name == "16-bit":
        return [(name, record["plain_dtype"], shape)]
    if format_name in FP_MODES:
        bits, group = FP_MODES[format_name]
        return [(name, "U32", [*shape[:-1], shape[-1] * bits // 32]),
                (f"{path}.scales", "U8", [*shape[:-1], shape[-1] // group])]
    bits, group = map(int, format_name.split("/"))
    return [(name, "U32", [*shape[:-1], shape[-1] * bits // 32]),
            (f"{path}.scales", model_type, [*shape[:-1], shape[-1] // group]),
            (f"{path}.biases", model_type, [*shape[:-1], shape[-1] // group])]


def file_bytes(tensors):
    """Bytes of one shard: header text, padding, data."""
    header, offset = {"__metadata__": {"format": "mlx"}}, 0
    for name, dtype, shape in tensors:
        end = offset + math.prod(shape) * ELEMENT_BYTES[dtype]
        header[name] = dict(dtype=dtype, shape=shape, data_offsets=[offset, end])
        offset = end
    text = len(json.dumps(header, separators=(",", ":")))
    return -(-(8 + text) // DATA_ALIGNMENT) * DATA_ALIGNMENT + offset


def sqnr_db(candidate, record):
    if candidate["squared_error"] == 0:
        return math.inf
    if record["squared_weight"] == 0:
        return -math.inf
    return -10 * math.log10(candidate["squared_error"] / record["squared_weight"])


def admissible(candidate, record):
    """As the floor is stated: the parity candidate of a format speaks for its other encoders."""
    if candidate["format"] in FP_MODES:
        if record["bits_floor"] > 0:
            return False
    elif candidate["format"] != "16-bit":
        if int(candidate["format"].split("/")[0]) < record["bits_floor"]:
            return False
    judge = next((c for c in record["candidates"]
                  if c["format"] == candidate["format"] and c["encoder"] == "parity"), candidate)
    worst = judge["worst_expert_db"]
    return min(sqnr_db(judge, record), math.inf if worst is None else worst) >= SQNR_FLOOR_DB


def cost(alpha, squared_error, squared_weight):
    return alpha * squared_error / squared_weight if squared_error > 0 else 0.0


class Budgets(support.TestCase):
    def check_model(self, name, model):
        analysis = self.folder / f"{name}.analysis"
        sluice("analyze", model, "-o", analysis, "--quiet")
        header, records = read_analysis(analysis)
        model_type = MODEL_TYPES[header["dtype"]]
        smallest = sluice_json("plan", analysis, "--min-safe")["plan"]["exact_bytes"]
        largest = file_bytes([t for r in records for t in output_tensors(r, "16-bit", model_type)])
        for number in range(BUDGETS):
            budget = smallest + (largest - smallest) * number // (BUDGETS - 1)
            with self.subTest(model=name, budget=budget):
                plan_path = self.folder / f"{name}-{number}.plan"
                plan = sluice_json("plan", analysis, "--budget", f"{budget}B",
                                   "-o", plan_path)["plan"]
                self.check_plan(plan, records, budget, model_type)
                out = self.folder / f"{name}-{number}"
                sluice("quantize", model, "--plan", plan_path, "-o", out, "--quiet")
                self.assertEqual(weight_bytes(out), plan["exact_bytes"])

    def check_plan(self, plan, records, budget, model_type):
        self.assertLessEqual(plan["exact_bytes"], budget)
        self.assertEqual([t["path"] for t in plan["tensors"]], [r["path"] for r in records])
        chosen = [self.format_of(t) for t in plan["tensors"]]
        parts = [output_tensors(r, f, model_type) for r, f in zip(records, chosen)]
        flat = [t for part in parts for t in part]
        self.assertEqual(file_bytes(flat), plan["exact_bytes"])
        total = sum(cost(t["alpha"], t["squared_error"], t["squared_weight"])
                    for t in plan["tensors"])
        self.assertAlmostEqual(total, plan["cost"], delta=1e-9 * max(total, 1e-30))
        self.assertLessEqual(plan["bound"], plan["cost"] * (1 + 1e-12))
        for index, (planned, record) in enumerate(zip(plan["tensors"], records)):
            for candidate in record["candidates"]:
                if self.improves(planned, candidate, record):
                    upgraded = parts[:index] + parts[index + 1:]
                    upgraded.insert(index, output_tensors(record, candidate["format"], model_type))
                    size = file_bytes([t for part in upgraded for t in part])
                    self.assertGreater(size, budget,
                                       f"{record['path']} could be {candidate['format']} "
                                       f"{candidate['encoder']}")

    def format_of(self, planned):
        f = planned["format"]
        if f["mode"] in FP_MODES:
            return f["mode"]
        return "16-bit" if f["mode"] == "float" else f"{f['bits']}/{f['group_size']}"

    def improves(self, planned, candidate, record):
        if not record["quantizable"] or not admissible(candidate, record):
            return False
        new = cost(planned["alpha"], candidate["squared_error"], record["squared_weight"])
        old = cost(planned["alpha"], planned["squared_error"], planned["squared_weight"])
        return new < old

    def test_generated(self):
        for number, family in enumerate(("llama", "qwen3_moe")):
            source = self.folder / family
            make_checkpoint(source, family, seed=SEED + number, num_hidden_layers=3)
            self.check_model(family, source)

    def test_demo(self):
        model = demo_model()
        if model is None:
            self.skipTest("the demo model is not there; scripts/demo_model fetches it")
        self.check_model("demo", model)

    def test_trained(self):
        models = real_models()
        if not models:
            self.skipTest("SLUICE_REAL_INPUTS is not set")
        for name in ("stories260K", "stories260K-q4_0-gguf", "tiny-qwen3-moe"):
            if name in models:
                self.check_model(name, models[name])


if __name__ == "__main__":
    support.main()
