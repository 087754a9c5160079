"""Our logits for the tests that compare them with stock mlx_lm. Those scripts' arguments: the logits_export
program; the device to compute on, the processor unless it is "mlx"; tests to run, all unless some are named."""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(os.environ.get("SLUICE_SOURCE_DIR", Path(__file__).parents[2]))
                       / "tests" / "e2e"))

import numpy as np
import support

EXPORT = sys.argv[1] if len(sys.argv) > 1 else ""
DEVICE = sys.argv.pop(2) if sys.argv[2:3] == ["mlx"] else "cpu"


def logits(model, ids, chunk, activations="f32", compat="mlx", weights=0):
    """Of all tokens, [tokens, vocabulary]. weights: bytes that they may take in memory, 0 for all."""
    return logits_and_notes(model, ids, chunk, activations, compat, weights)[0]


def logits_and_notes(model, ids, chunk, activations="f32", compat="mlx", weights=0):
    """Also what the engine says of how it runs."""
    out = Path(model).with_suffix(".f32")
    result = subprocess.run([EXPORT, f"--weights={weights}", f"--device={DEVICE}", model, out, str(chunk),
                             activations, compat, *map(str, ids)], capture_output=True, text=True)
    if result.returncode != 0:
        raise AssertionError(result.stderr)
    return np.fromfile(out, np.float32).reshape(len(ids), -1), result.stdout


def main():
    """Runs the calling script's tests."""
    if not EXPORT or not Path(EXPORT).exists():
        support.skip("the program logits_export is not built")
    os.environ["SLUICE_BINARY"] = EXPORT
    support.main(needs_mlx=True)
