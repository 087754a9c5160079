#!/usr/bin/env python3
"""Solves the problems of solver_export again with HiGHS, or CBC where that is missing.

Argument: the solver_export program. Exit status 77: neither solver is installed.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

TOLERANCE = 1e-6  # the reference solvers' own feasibility and integrality tolerance
TIME_LIMIT_S = 20


def write_lp(problem, path):
    """The multiple-choice knapsack in CPLEX LP format."""
    cost, size, picks, names = [], [], [], []
    for i, options in enumerate(problem["items"]):
        row = []
        for j, (option_bytes, option_cost) in enumerate(options):
            name = f"x{i}_{j}"
            names.append(name)
            row.append(name)
            cost.append(f"+ {option_cost!r} {name}")
            size.append(f"+ {option_bytes} {name}")
        picks.append(f" p{i}: " + " + ".join(row) + " = 1")
    with open(path, "w") as out:
        out.write("Minimize\n cost:\n  " + "\n  ".join(cost) + "\n")
        out.write("Subject To\n size:\n  " + "\n  ".join(size) + f"\n  <= {problem['budget']}\n")
        out.write("\n".join(picks) + "\nBinary\n " + "\n ".join(names) + "\nEnd\n")


def solve_highs(path):
    """(least cost found, proved lower bound)"""
    import highspy
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("mip_rel_gap", 1e-9)
    solver.setOptionValue("mip_abs_gap", 0.0)
    solver.setOptionValue("time_limit", float(TIME_LIMIT_S))
    solver.readModel(path)
    solver.run()
    info = solver.getInfo()
    return info.objective_function_value, info.mip_dual_bound


def solve_cbc(path):
    """As solve_highs; CBC proves its answer or the test fails."""
    solution = path + ".sol"
    subprocess.run(["cbc", path, "ratio", "1e-9", "allow", "0", "sec", str(TIME_LIMIT_S),
                    "solve", "solution", solution], check=True, stdout=subprocess.DEVNULL)
    first = pathlib.Path(solution).read_text().splitlines()[0]
    value = float(first.split("objective value")[1])
    return value, value if first.startswith("Optimal") else float("-inf")


def reference_solver():
    try:
        import highspy  # noqa: F401
        return solve_highs
    except ImportError:
        return solve_cbc if shutil.which("cbc") else None


def main():
    solve = reference_solver()
    if solve is None:
        print("skipped: neither highspy nor cbc is installed")
        return 77
    lines = subprocess.run([sys.argv[1]], check=True, capture_output=True, text=True).stdout
    failures = 0
    proved = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, line in enumerate(lines.splitlines()):
            problem = json.loads(line)
            chosen = [options[j] for options, j in zip(problem["items"], problem["choice"])]
            size = sum(option[0] for option in chosen)
            cost = sum(option[1] for option in chosen)
            path = str(pathlib.Path(folder) / f"{number}.lp")
            write_lp(problem, path)
            found, bound = solve(path)
            slack = TOLERANCE * (1 + abs(found))
            proved += found - bound <= slack
            ok = (size <= problem["budget"] and abs(cost - problem["cost"]) <= slack
                  and cost <= found + slack and cost >= bound - slack
                  and problem["bound"] <= found + slack)
            failures += not ok
            print(f"problem {number}: ours {cost:.9g} (bound {problem['bound']:.9g}), "
                  f"{solve.__name__} {found:.9g} (bound {bound:.9g}) {'ok' if ok else 'FAILED'}")
    print(f"{proved} of {number + 1} proved by the reference")
    return 1 if failures or proved == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
