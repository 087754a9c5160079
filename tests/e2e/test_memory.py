"""Peak resident memory of analyze, quantize, verify and fit on generated checkpoints, measured by
the operating system without any limit set: at most 256 MB, whatever the size. As root, where the
memory controller can be used, again in a control group of 300 MB without swap, page cache included.

    test_memory.py SLUICE [SIZE ...]      sizes such as 300MB 1GB 4GB 16GB

Needs three times the largest size on disk, in TMPDIR. Prints a table."""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import support

PEAK_BYTES_MAX = 256_000_000
GROUP_BYTES = 300_000_000
MANY_THREADS = 48
FAMILIES = ("llama", "qwen3_moe")

tool = support.load_tool("make_checkpoint")


def measured(arguments, group=None):
    """(exit code, peak resident bytes, seconds) of one run of the program."""
    start = time.monotonic()
    result = support.measured(arguments, group)
    return result.code, result.peak_bytes, time.monotonic() - start


def measure(folder, family, size):
    """Table rows of one model; True when all stay within the limit."""
    source = folder / "source"
    dims = tool.dims_for_bytes(family, "bf16", tool.parse_bytes(size))
    tool.make_checkpoint(source, family, shards=None, **dims)
    total = sum(f.stat().st_size for f in source.glob("*.safetensors"))
    analysis, uniform, fitted = folder / "analysis", folder / "uniform", folder / "fitted"
    commands = {
        "analyze": ["analyze", source, "-o", analysis],
        "quantize": ["quantize", source, "--bits", 4, "-o", uniform],
        "verify": ["verify", source, uniform],
        "fit": ["fit", source, "--analysis", analysis, "--budget", f"{total // 3}B", "-o", fitted],
    }
    good = True
    for name, arguments in commands.items():
        code, peak, seconds = measured([*arguments, "--quiet"])
        good &= code == 0 and peak <= PEAK_BYTES_MAX
        print(f"{family:10} {size:>6} {name:9} exit {code}  peak {peak / 1e6:7.1f} MB  "
              f"{seconds:7.1f} s  {total / 1e9 / seconds:6.2f} GB/s", flush=True)
    # fit above went on from an analysis; a whole one for the record.
    shutil.rmtree(uniform)
    shutil.rmtree(fitted, ignore_errors=True)
    code, peak, seconds = measured(["fit", source, "--budget", f"{total // 4}B", "-o", fitted,
                                    "--quiet"])
    good &= code == 0 and peak <= PEAK_BYTES_MAX
    print(f"{family:10} {size:>6} fit, all  exit {code}  peak {peak / 1e6:7.1f} MB  "
          f"{seconds:7.1f} s  {total / 1e9 / seconds:6.2f} GB/s", flush=True)
    shutil.rmtree(fitted, ignore_errors=True)
    threads = ["--threads", MANY_THREADS, "--quiet"]
    analysis.unlink()
    for name, arguments in commands.items():
        if name == "fit":
            continue
        code, peak, seconds = measured([*arguments, *threads])
        good &= code == 0 and peak <= PEAK_BYTES_MAX
        print(f"{family:10} {size:>6} {name:9} exit {code}  peak {peak / 1e6:7.1f} MB  "
              f"{seconds:7.1f} s  with {MANY_THREADS} threads", flush=True)
    shutil.rmtree(uniform)
    analysis.unlink()
    good &= measure_limited(family, size, commands)
    shutil.rmtree(source)
    return good


def measure_limited(family, size, commands):
    """The same in a control group; True when all succeed or there is none."""
    good = True
    for name, arguments in commands.items():
        group = support.MemoryGroup.create(GROUP_BYTES)
        if group is None:
            print("not measured under a limit: no memory controller that may be used here")
            return good
        with group:
            code, _, seconds = measured([*arguments, "--quiet"], group)
            good &= code == 0
            print(f"{family:10} {size:>6} {name:9} exit {code}  peak of its group "
                  f"{group.peak_bytes() / 1e6:7.1f} of {GROUP_BYTES / 1e6:.0f} MB  "
                  f"{seconds:7.1f} s", flush=True)
    return good


def main():
    if not support.binary() or not Path(support.binary()).exists():
        support.skip("the sluice program is not built")
    sizes = sys.argv[2:] or ["300MB"]
    needed = 3 * max(tool.parse_bytes(size) for size in sizes)
    if shutil.disk_usage(tempfile.gettempdir()).free < needed:
        support.skip(f"{needed / 1e9:.1f} GB of disk are needed in {tempfile.gettempdir()}")
    good = True
    for size in sizes:
        for family in FAMILIES:
            with tempfile.TemporaryDirectory(prefix="sluice-memory-") as folder:
                good &= measure(Path(folder), family, size)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
