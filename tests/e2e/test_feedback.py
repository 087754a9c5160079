"""Error feedback from one end to the other: recorded, converted, proved, loaded by stock mlx_lm; the
same bytes however it was recorded; and on a trained model closer to the original than without."""

import json

import numpy as np
import support
from support import load_stock, logits, make_checkpoint, real_inputs, sluice, sluice_json

SEED = support.test_seed()


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.json"}


class Feedback(support.TestCase):
    def calibrate(self, model, name, *more):
        out = self.folder / name
        sluice("calibrate", model, "-o", out, "--tokens", "300", "--window", "64", *more)
        return out

    def test_from_one_end_to_the_other(self):
        for family in ("llama", "qwen3_moe"):
            with self.subTest(family=family):
                model, out = self.folder / family, self.folder / f"{family}-out"
                make_checkpoint(model, family, seed=SEED)
                record = self.calibrate(model, f"{family}-record")
                sluice("quantize", model, "--bits", "4", "--group-size", "32", "--activations",
                       record, "-o", out)
                plan = json.loads((out / "sluice.json").read_text())["plan"]
                encoders = {tensor["encoder"] for tensor in plan["tensors"]}
                self.assertIn("feedback", encoders)
                alone = sluice_json("verify", model, out)
                proved = sluice_json("verify", model, out, "--activations", record)
                count = sum(tensor["encoder"] == "feedback" for tensor in plan["tensors"])
                self.assertEqual(proved["reencoded_modules"], proved["modules"])
                self.assertEqual(alone["reencoded_modules"], proved["modules"] - count)
                self.assertTrue(np.isfinite(logits(load_stock(out), [1, 2, 3])).all())

    def test_the_record_does_not_depend_on_how_it_was_made(self):
        model = self.folder / "mixture"
        make_checkpoint(model, "qwen3_moe", seed=SEED)
        expected = files_of(self.calibrate(model, "one"))
        self.assertEqual(files_of(self.calibrate(model, "many", "--moments", "1kB", "--threads",
                                                 "1")), expected)
        # What is missing or damaged is recorded again.
        again = self.calibrate(model, "again")
        moments = sorted(again.glob("*.moments"))
        moments[0].unlink()
        damaged = bytearray(moments[1].read_bytes())
        damaged[len(damaged) // 2] ^= 1
        moments[1].write_bytes(damaged)
        self.assertEqual(files_of(self.calibrate(model, "again")), expected)

    def test_records_of_other_models_and_unfinished_ones_are_refused(self):
        model, other = self.folder / "dense", self.folder / "other"
        make_checkpoint(model, "llama", seed=SEED)
        make_checkpoint(other, "llama", seed=SEED + 1, intermediate_size=384)
        record = self.calibrate(other, "others-record")
        command = ("quantize", model, "--bits", "4", "--activations", record, "-o",
                   self.folder / "refused")
        self.assertIn("was recorded from another model", sluice(*command, expect=None).stderr)
        next(record.glob("*.moments")).unlink()
        self.assertIn("has not been finished", sluice(*command, expect=None).stderr)
        refused = sluice("calibrate", model, "-o", record, "--tokens", "300", expect=None)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("activations of another model", refused.stderr)
        (record / "activations.json").unlink()
        refused = sluice(*command, expect=None)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("sluice calibrate", refused.stderr)

    def test_trained_models_come_closer(self):
        if real_inputs() is None:
            self.skipTest("needs SLUICE_REAL_INPUTS")
        model = real_inputs() / "models/tiny-qwen3-moe"
        record = self.folder / "trained-record"
        sluice("calibrate", model, "-o", record, "--window", "256")
        found = {}
        for name, more in (("best", ["--encoder", "best"]), ("feedback", ["--activations", record])):
            out = self.folder / name
            sluice("quantize", model, "--bits", "3", *more, "-o", out)
            sluice("verify", model, out)
            compared = sluice_json("eval", out, "--against", model, "--text", model / "val.txt",
                                   "--context", "256", "--windows", "24")
            found[name] = compared["kl"]["mean"]
        self.assertLess(found["feedback"], 0.9 * found["best"])


if __name__ == "__main__":
    support.main(needs_mlx=True)
