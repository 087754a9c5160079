#!/usr/bin/env python3
"""scripts/summary counts what test programs print, and never turns a failure into a pass."""

import importlib.machinery
import importlib.util
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "summary"
loader = importlib.machinery.SourceFileLoader("summary", str(SCRIPT))
summary = importlib.util.module_from_spec(importlib.util.spec_from_loader("summary", loader))
loader.exec_module(summary)

GTEST = """[==========] 4 tests from 2 test suites ran. (1 ms total)
[  PASSED  ] 2 tests.
[  SKIPPED ] 1 test, listed below:
[  SKIPPED ] A.b
{failed}"""
GTEST_FAILED = "[  FAILED  ] 1 test, listed below:\n[  FAILED  ] A.c\n\n 1 FAILED TEST\n"


def junit(*cases):
    body = "".join(f'<testcase name="{i}" status="{status}"><system-out>{out}</system-out>'
                   "</testcase>" for i, (status, out) in enumerate(cases))
    return f"<testsuite>{body}</testsuite>"


def count(verdict, xml=None):
    with tempfile.TemporaryDirectory() as folder:
        results = pathlib.Path(folder)
        if xml:
            (results / "dev.xml").write_text(xml)
        return summary.count_stage(results, "tests", verdict)


class SummaryTest(unittest.TestCase):
    def test_googletest(self):
        self.assertEqual(count("passed", junit(("run", GTEST.format(failed="")))), (2, 0, 1))
        self.assertEqual(count("failed", junit(("fail", GTEST.format(failed=GTEST_FAILED)))),
                         (2, 1, 1))

    def test_leak_after_last_test(self):
        self.assertEqual(count("failed", junit(("fail", GTEST.format(failed="")))), (2, 1, 1))

    def test_crash(self):
        self.assertEqual(count("failed", junit(("fail", "[ RUN      ] A.b\n"))), (0, 1, 0))

    def test_unittest(self):
        self.assertEqual(count("failed", junit(
            ("fail", "Ran 9 tests in 0.1s\n\nFAILED (failures=1, errors=2, skipped=3)"))),
            (3, 3, 3))

    def test_other_programs(self):
        self.assertEqual(count("passed", junit(("run", "ran 3 corpus inputs"), ("notrun", ""))),
                         (1, 0, 1))

    def test_stage_without_tests(self):
        self.assertEqual(count("passed"), (1, 0, 0))
        self.assertEqual(count("failed"), (0, 1, 0))
        self.assertEqual(count("skipped"), (0, 0, 1))

    def test_stage_fails_around_passing_tests(self):
        self.assertEqual(count("failed", junit(("run", ""))), (1, 1, 0))


if __name__ == "__main__":
    unittest.main()
