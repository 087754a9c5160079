#!/usr/bin/env python3
"""The web page of a real `sluice serve` in headless Chromium: sending, streaming, stopping, another model, tools
approved and refused, conversations kept over a reload. Arguments: the sluice program, Node."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import support
from scripted_model import Reply, call, write_scripted
from server import serving

REPLIES = [
    Reply("'refused' in last", "Then I will not."),
    Reply("'exit code 0' in last", "It is done."),
    Reply("'make it' in last", call("run_command", command="echo made >> made.txt")),
    Reply("'forever' in last", "on and on ", for_ever=True),
]


def main():
    node = sys.argv[2]
    if not os.access(node, os.X_OK):
        support.skip("Node is not installed; run scripts/setup")
    if shutil.which("bwrap") is None:
        support.skip("bubblewrap is not installed; run scripts/setup test")
    with tempfile.TemporaryDirectory() as folder:
        model = write_scripted(Path(folder) / "scripted", REPLIES)
        other = write_scripted(Path(folder) / "other", [Reply("true", "I am another model.")])
        work = Path(folder) / "work"
        work.mkdir()
        with serving(model, other, "--context", 32768, "--threads", 2, "--parallel", 2, "--agent-folder", work,
                     "--agent-tools", "files,shell") as server:
            result = subprocess.run(
                [node, support.ROOT / "ui/tests/page_test.mjs", "", ""],
                env={**os.environ, "SLUICE_PAGE_URL": server.url, "SLUICE_PAGE_SCRIPTED": "1"})
        if result.returncode == 0:
            assert (work / "made.txt").read_text() == "made\n", "what was approved once was not done once"
        sys.exit(result.returncode)


if __name__ == "__main__":
    main()
