#!/usr/bin/env python3
"""Draws the size/error curve of an analysis as an SVG: Sluice's mixes against every uniform plan.

    tools/plot_curve.py SLUICE ANALYSIS OUT.svg [TITLE]

Runs `sluice plan --sweep` and reads the uniform plans that any plan records. Standard library only."""

import json
import math
import subprocess
import sys

WIDTH, HEIGHT = 860, 460
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 52, 58
INK, MUTED, GRID, LINE, DOTS = "#1f2430", "#667085", "#e4e7ec", "#0b6e99", "#d1603d"


def sluice(binary, *arguments):
    done = subprocess.run([binary, *arguments, "--json", "--quiet"], capture_output=True, text=True,
                          check=True)
    return json.loads(done.stdout)


def text(x, y, content, anchor="middle", colour=MUTED, size=13, extra=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" '
            f'font-size="{size}"{extra}>{content}</text>')


def main(binary, analysis, out, title):
    curve = [p for p in sluice(binary, "plan", analysis, "--sweep")["curve"] if p["cost"] > 0]
    largest = max(p["tensor_bytes"] for p in curve)
    plan = sluice(binary, "plan", analysis, "--budget", f"{2 * largest + 10**6}B")["plan"]
    dots = [u for u in plan["uniform"] if u["cost"] > 0 and u["encoder"] == "parity"]

    xs = [p["tensor_bytes"] for p in curve] + [d["exact_bytes"] for d in dots]
    ys = [p["cost"] for p in curve] + [d["cost"] for d in dots]
    x0, x1 = min(xs) * 0.96, max(xs) * 1.02
    y0, y1 = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))

    def at_x(value):
        return LEFT + (value - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def at_y(value):
        return TOP + (y1 - math.log10(value)) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
             f'font-family="Helvetica, Arial, sans-serif">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
             text(LEFT, 30, title, "start", INK, 16, ' font-weight="bold"')]
    for decade in range(y0, y1 + 1):
        y = at_y(10.0 ** decade)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                     f'stroke="{GRID}"/>')
        parts.append(text(LEFT - 10, y + 4, f"10<tspan dy='-5' font-size='10'>{decade}</tspan>",
                          "end"))
    step = 10 ** math.floor(math.log10((x1 - x0) / 4))
    step *= 2 if (x1 - x0) / step > 8 else 1
    unit, name = (1e9, "GB") if x1 >= 2e9 else (1e6, "MB") if x1 >= 2e6 else (1e3, "kB")
    tick = math.ceil(x0 / step) * step
    while tick <= x1:
        x = at_x(tick)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" '
                     f'stroke="{GRID}"/>')
        parts.append(text(x, HEIGHT - BOTTOM + 20, f"{tick / unit:g} {name}"))
        tick += step
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "bytes of weights"))
    parts.append(text(20, (TOP + HEIGHT - BOTTOM) / 2, "weighted squared error, lower is better",
                      extra=f' transform="rotate(-90 20 {(TOP + HEIGHT - BOTTOM) / 2:.0f})"'))
    points = " ".join(f"{at_x(p['tensor_bytes']):.1f},{at_y(p['cost']):.1f}" for p in curve)
    parts.append(f'<polyline points="{points}" fill="none" stroke="{LINE}" stroke-width="2.5"/>')
    labelled = -math.inf
    for dot in sorted(dots, key=lambda d: d["exact_bytes"]):
        x, y = at_x(dot["exact_bytes"]), at_y(dot["cost"])
        label = f'{dot["format"]["bits"]}/{dot["format"]["group_size"]}'
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{DOTS}"/>')
        if x - labelled > 36:  # neighbours would overlap
            parts.append(text(x + 7, y - 5, label, "start", DOTS, 11))
            labelled = x
    legend = WIDTH - RIGHT - 300
    parts.append(f'<line x1="{legend}" x2="{legend + 26}" y1="70" y2="70" stroke="{LINE}" '
                 f'stroke-width="2.5"/>')
    parts.append(text(legend + 34, 74, "Sluice's mix at every budget", "start", INK))
    parts.append(f'<circle cx="{legend + 13}" cy="92" r="4" fill="{DOTS}"/>')
    parts.append(text(legend + 34, 96, "uniform bits/group, as mlx_lm makes", "start", INK))
    parts.append("</svg>\n")
    with open(out, "w", encoding="utf-8") as file:
        file.write("\n".join(parts))


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] if len(sys.argv) == 5 else "")
