#!/usr/bin/env python3
"""Shows that tidy_test.py finds what it is there for: each rule broken once in a small tree."""

import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import tidy_test  # noqa: E402

CLEAN = {
    "src/core/base/CMakeLists.txt": "sluice_module(NAME base FLOOR core SOURCES error.cpp)\n",
    "src/core/base/error.h": "// Errors.\n#pragma once\n",
    "src/core/base/error.cpp": '// Errors.\n#include "base/error.h"\nvoid f() { std::abort(); }\n',
    "src/core/io/CMakeLists.txt": "sluice_module(NAME io FLOOR core DEPENDS base)\n",
    "src/core/io/file.h": '// Files. TODO(12): more.\n#pragma once\n#include "base/error.h"\n',
    "src/core/kernels/encode.h": "// Fast.\n#pragma once\n",
    "src/prepare/allocate/knapsack.h": "// Solver.\n#pragma once\n",
    "src/prepare/stream/CMakeLists.txt":
        "sluice_module(NAME stream FLOOR prepare SOURCES a.cpp  # b\n  DEPENDS io LIBS fmt)\n",
    "src/prepare/stream/stream.h": '// Engine.\n#pragma once\n#include "io/file.h"\n',
    "src/use/cli/main.cpp":
        '// Main.\n#include <CLI/CLI.hpp>\n#include "stream/stream.h"\nint main() { exit(1); }\n',
    "tests/io/file_test.cpp": "// Tests.\n// exit(1) in a comment, \"abort()\" in a string\n",
}


def findings(changes):
    with tempfile.TemporaryDirectory() as root:
        for name, text in {**CLEAN, **changes}.items():
            path = pathlib.Path(root) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tidy_test.Tree(root).check_all()


class TidySelfTest(unittest.TestCase):
    def expect(self, name, text, message):
        found = findings({name: text})
        self.assertEqual(len(found), 1, found)
        self.assertIn(name, found[0])
        self.assertIn(message, found[0])

    def test_clean_tree(self):
        self.assertEqual(findings({}), [])

    def test_include_upwards(self):
        self.expect("src/core/io/file.h", '// F.\n#pragma once\n#include "stream/stream.h"\n',
                    "io must not include stream")

    def test_include_not_in_depends(self):
        self.expect("src/prepare/stream/stream.h",
                    '// E.\n#pragma once\n#include "kernels/encode.h"\n',
                    "kernels is missing in DEPENDS")

    def test_include_of_forbidden_part(self):
        self.expect("src/prepare/verify/verify.cpp", '// V.\n#include "kernels/encode.h"\n',
                    "must not include kernels/encode.h")
        self.expect("src/prepare/verify/verify.cpp", '// V.\n#include "allocate/knapsack.h"\n',
                    "may include only")

    def test_verify_includes_convert(self):
        self.expect("src/prepare/verify/verify.cpp", '// V.\n#include "convert/convert.h"\n',
                    "verify must not include convert")

    def test_include_names_no_module(self):
        self.expect("src/core/io/file.h", '// F.\n#pragma once\n#include "error.h"\n',
                    "does not name a module")

    def test_depends_upwards(self):
        self.expect("src/core/base/CMakeLists.txt",
                    "sluice_module(NAME base FLOOR core DEPENDS numerics)\n",
                    "base must not depend on numerics")

    def test_cycle(self):
        found = findings({
            "src/core/base/CMakeLists.txt": "sluice_module(NAME base FLOOR core DEPENDS io)\n"})
        self.assertTrue(any("cycle of modules: base -> io -> base" in line for line in found), found)

    def test_unknown_module(self):
        found = findings({"src/core/misc/a.h": "// M.\n#pragma once\n"})
        self.assertIn("src/core/misc:1: core/misc is not in the table of modules", found)

    def test_facade(self):
        self.expect("src/core/io/file.h", "// F.\n#pragma once\n#include <nlohmann/json.hpp>\n",
                    "belongs behind ['base']")

    def test_process_end(self):
        self.expect("src/core/io/file.cpp", "// F.\nvoid f() { std::exit(1); }\n", "ends the process")
        self.assertEqual(findings({"src/core/io/file.cpp":
                                   "// F.\nvoid f() { scope.exit(1); on_exit(2); }\n"}), [])

    def test_habits(self):
        name = "tests/io/file_test.cpp"
        self.expect(name, "int x;\n", "does not open with a comment")
        self.expect("src/core/io/file.h", '#include "base/error.h"\n#pragma once\n',
                    "does not open with a comment")
        self.assertEqual(findings({"src/core/io/file.cpp": '#include "io/file.h"\n'}), [])
        self.expect(name, "// T.\n\tint x;\n", "tab")
        self.expect(name, "// T. \n", "space at the end")
        self.expect(name, "// TODO: later\n", "needs an issue")
        self.expect(name, "// T.\nint x;", "no newline")
        self.expect(name, '// T.\n#include "../io/file.h"\n', "not relative")
        self.expect(name, "// T.\nstd::jthread t;\n", "base/thread.h")
        self.expect(name, "// T.\n" * 1001, "split it")
        self.expect("src/core/io/file.h", "// T.\n", "#pragma once is missing")


if __name__ == "__main__":
    unittest.main()
