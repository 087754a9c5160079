#!/usr/bin/env python3
"""Holds the source tree against the rules of docs/architecture.md that no compiler checks.

The direction of includes and of CMake's DEPENDS, one facade per external library, no exit below
cli, an opening comment in every file, and a few habits. Standard library only. Prints one line per
finding; exit status 1 when there are any. An argument names another tree to check.
"""

import pathlib
import re
import sys

CORE = {"base", "numerics", "io", "kernels", "families"}
FLOORS = {
    "core": ["base", "numerics", "io", "kernels", "families"],
    "prepare": ["stream", "analyze", "allocate", "convert", "verify", "report"],
    "run": ["tokenizer", "model", "runtime", "gpu", "evaluate"],
    "use": ["chat", "server", "cli"],
}
FLOOR_OF = {module: floor for floor, modules in FLOORS.items() for module in modules}

# The modules that each module may include and link. None: every one.
ALLOWED = {
    "base": set(),
    "numerics": {"base"},
    "io": {"base", "numerics"},
    "kernels": {"base", "numerics"},
    "families": {"base", "numerics", "io"},
    "stream": CORE,
    "allocate": {"base", "numerics"},
    "analyze": CORE | {"stream", "allocate"},
    "convert": CORE | {"stream", "allocate"},
    "verify": CORE | {"stream", "allocate"},
    "report": {"base", "numerics", "allocate"},
    "tokenizer": {"base"},
    "model": {"base", "numerics", "families"},
    "runtime": CORE | {"model"},
    "gpu": CORE | {"model", "runtime"},
    "evaluate": CORE | {"tokenizer", "runtime"},
    "chat": {"base", "tokenizer", "runtime"},
    "server": {"base", "tokenizer", "runtime", "chat"},
    "cli": None,
}

# Where a module may see only part of another: the headers it may include.
ONLY_HEADERS = {
    ("families", "io"): r"io/(tensor_info|checkpoint|model_outline|packed_tensors)\.h",
    ("analyze", "allocate"): r"allocate/candidate\.h",
    ("convert", "allocate"): r"allocate/(plan|candidate)\.h",
    ("verify", "allocate"): r"allocate/(plan|candidate)\.h",
    ("evaluate", "runtime"): r"runtime/engine\.h",
    ("chat", "runtime"): r"runtime/engine\.h",
    ("server", "runtime"): r"runtime/(engine|sampler/sampler)\.h",
}

# Verification must not share what it verifies with.
NEVER_HEADERS = {
    ("verify", "kernels"): r".*encod.*",
}

# External headers and the modules that are their facade.
FACADES = [
    (r"nlohmann/.*", {"base"}),
    (r"CLI/.*", {"cli"}),
    (r"toml\+\+/.*", {"cli"}),
    (r"Eigen/.*", {"analyze"}),
    (r"xxhash\.h", {"base"}),
    (r"simdjson\.h", {"base", "io"}),
    (r"openssl/.*", {"base"}),
    (r"curl/.*", {"io"}),
    (r"event2/.*", {"server"}),
    (r"libxml/.*", {"chat"}),
    (r"liburing\.h", {"io"}),
    (r"sqlite3\.h", {"chat"}),
    (r"histedit\.h", {"cli"}),
    (r"mlx/.*", {"gpu"}),
]

ENDS_PROCESS = re.compile(
    r"(?<![\w.>])(?:std::|::)?(?:exit|_exit|_Exit|abort|quick_exit|terminate)\s*\(")
ENDS_PROCESS_ALLOWED = re.compile(r"src/core/base/(check|error)\.(h|cpp)|src/use/cli/.*")
LINES_MAX = 1000
SOURCE_SUFFIXES = {".h", ".cpp"}


def without_comments_and_strings(text):
    """The same text with comments and literals blanked; line numbers stay."""
    pattern = re.compile(
        r'R"(?P<d>[^()\\\s]{0,16})\(.*?\)(?P=d)"|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'
        r"(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])*'", re.S)
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


class Tree:
    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.findings = []

    def report(self, path, line, message):
        self.findings.append(f"{path.relative_to(self.root)}:{line}: {message}")

    def files(self, *folders):
        for folder in folders:
            for path in sorted((self.root / folder).rglob("*")):
                if path.is_file() and path.suffix in SOURCE_SUFFIXES:
                    yield path

    def module_of(self, path):
        """The module of a file in src/<floor>/<module>/, else None."""
        parts = path.relative_to(self.root).parts
        return parts[2] if len(parts) > 3 and parts[0] == "src" else None

    def check_all(self):
        declared = self.check_modules()
        for path in self.files("src"):
            self.check_includes(path, declared)
            self.check_process_end(path)
        for path in self.files("src", "tests", "fuzz", "bench", "tools"):
            self.check_habits(path)
        return self.findings

    # --- modules and their CMake targets ---

    def check_modules(self):
        """Checks DEPENDS against the table; returns {module: set of its DEPENDS}."""
        declared = {}
        for folder in sorted((self.root / "src").glob("*/*")):
            if not folder.is_dir():
                continue
            floor, module = folder.parent.name, folder.name
            if FLOOR_OF.get(module) != floor:
                self.report(folder, 1, f"{floor}/{module} is not in the table of modules")
                continue
            cmake = folder / "CMakeLists.txt"
            if not cmake.exists():
                continue
            declared[module] = self.depends(cmake)
            for other in sorted(declared[module]):
                if other not in FLOOR_OF:
                    self.report(cmake, 1, f"DEPENDS on {other}, which is no module")
                elif not self.may_use(module, other):
                    self.report(cmake, 1, f"{module} must not depend on {other}")
        self.check_cycles(declared)
        return declared

    def depends(self, cmake):
        text = re.sub(r"#[^\n]*", "", cmake.read_text())
        found = set()
        for call in re.findall(r"sluice_module\(([^)]*)\)", text):
            key = None
            for word in call.split():
                if re.fullmatch(r"[A-Z_]+", word):
                    key = word
                elif key == "DEPENDS":
                    found.add(word)
        return found

    def check_cycles(self, declared):
        state = {}

        def visit(module, trail):
            if state.get(module) == "done":
                return
            if state.get(module) == "open":
                cycle = " -> ".join(trail[trail.index(module):] + [module])
                folder = self.root / "src" / FLOOR_OF[module] / module / "CMakeLists.txt"
                self.report(folder, 1, f"cycle of modules: {cycle}")
                return
            state[module] = "open"
            for other in sorted(declared.get(module, ())):
                visit(other, trail + [module])
            state[module] = "done"

        for module in sorted(declared):
            visit(module, [])

    def may_use(self, module, other):
        allowed = ALLOWED[module]
        return module == other or allowed is None or other in allowed

    # --- includes ---

    def check_includes(self, path, declared):
        module = self.module_of(path)
        if module not in FLOOR_OF:
            return
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if not match:
                continue
            kind, header = match.groups()
            if kind == "<":
                for pattern, facades in FACADES:
                    if re.fullmatch(pattern, header) and module not in facades:
                        self.report(path, number, f"<{header}> belongs behind {sorted(facades)}")
                continue
            other = header.split("/")[0] if "/" in header else None
            if header == "sluice_version.h":
                continue
            if other not in FLOOR_OF:
                self.report(path, number, f'"{header}" does not name a module ("module/file.h")')
            elif not self.may_use(module, other):
                self.report(path, number, f"{module} must not include {other}")
            elif other != module:
                self.check_part(path, number, module, other, header)
                if module in declared and other not in self.reachable(module, declared):
                    self.report(path, number, f"{other} is missing in DEPENDS of {module}")

    def check_part(self, path, number, module, other, header):
        only = ONLY_HEADERS.get((module, other))
        if only and not re.fullmatch(only, header):
            self.report(path, number, f"{module} may include only {only} of {other}")
        never = NEVER_HEADERS.get((module, other))
        if never and re.fullmatch(never, header):
            self.report(path, number, f"{module} must not include {header}")

    def reachable(self, module, declared):
        seen, todo = set(), list(declared.get(module, ()))
        while todo:
            other = todo.pop()
            if other not in seen:
                seen.add(other)
                todo.extend(declared.get(other, ()))
        return seen

    # --- the rest ---

    def check_process_end(self, path):
        if ENDS_PROCESS_ALLOWED.fullmatch(path.relative_to(self.root).as_posix()):
            return
        code = without_comments_and_strings(path.read_text())
        for number, line in enumerate(code.splitlines(), 1):
            if ENDS_PROCESS.search(line):
                self.report(path, number, "ends the process; return an error or use SLUICE_CHECK")

    def check_habits(self, path):
        text = path.read_text()
        lines = text.splitlines()
        # A source with a header of its own says it there.
        own_header = re.match(rf'#include "\w+/{re.escape(path.stem)}\.h"', text)
        if not text.startswith("//") and not (path.suffix == ".cpp" and own_header):
            self.report(path, 1, "does not open with a comment saying what the file is for")
        if len(lines) > LINES_MAX:
            self.report(path, len(lines), f"more than {LINES_MAX} lines; split it")
        if path.suffix == ".h" and "#pragma once" not in lines:
            self.report(path, 1, "#pragma once is missing")
        if text and not text.endswith("\n"):
            self.report(path, len(lines), "no newline at the end")
        code = without_comments_and_strings(text).splitlines()
        for number, line in enumerate(lines, 1):
            if re.match(r'\s*#\s*include\s*"\.', line):
                self.report(path, number, "include by path from the floor, not relative")
            if "\t" in line:
                self.report(path, number, "tab")
            if line != line.rstrip():
                self.report(path, number, "space at the end of the line")
            for match in re.finditer(r"\b(TODO|FIXME|XXX)\b(\(#?\d+\))?", line):
                if match.group(1) != "TODO" or not match.group(2):
                    self.report(path, number, "TODO needs an issue: TODO(123)")
            if "std::jthread" in code[number - 1] or "std::stop_token" in code[number - 1]:
                self.report(path, number, "missing from libc++ 19: use base/thread.h")


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2]
    findings = Tree(root).check_all()
    for finding in findings:
        print(finding)
    print(f"{len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
