"""From the records of run.py: a CSV with paired differences, a table and a drawing per model."""

import csv
import json
import math
import re
from html import escape
from pathlib import Path

import numpy as np

Z95 = 1.959963984540054
COLUMNS = ["model", "source", "method", "setting", "kind", "calibrated", "bytes", "bits_per_weight",
           "kl", "kl_low", "kl_high", "kl_p99", "perplexity", "perplexity_low", "perplexity_high",
           "reference_perplexity", "same_top_token", "tokens", "predicted_kl", "commit", "seconds",
           "note"]
# Divergence of the entry less that of Sluice at its bytes.
PAIRED = ["bytes", "kl_more", "kl_more_low", "kl_more_high", "nats_more", "nats_more_low",
          "nats_more_high"]
EFFORTS = ("fast", "normal", "best", "normal with feedback", "best without feedback")


def load(folder):
    return [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]


def known(path, model, records):
    """Of an earlier results file the entries that are not among records: numbers, without windows."""
    have = {(record["method"], record["setting"]) for record in records}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            if row["model"] != model or (row["method"], row["setting"]) in have:
                continue
            record = {key: row[key] for key in ("method", "setting", "kind", "commit", "seconds", "note")}
            record |= dict(row=row, calibrated=row["calibrated"] == "True")
            if row["kl"]:
                record |= dict(bytes=int(row["bytes"]), bits_per_weight=float(row["bits_per_weight"]),
                               predicted_kl=float(row.get("predicted_kl") or 0),
                               scores=dict(kl=dict(mean=float(row["kl"]))))
            else:
                record["failed"] = row["note"]
            yield record


def interval(sums, tokens):
    """Mean over tokens, and its 95 % interval from the spread of windows."""
    mean, count = sums.sum() / tokens.sum(), len(sums)
    half = Z95 * math.sqrt(((sums - mean * tokens) ** 2).sum() * count / (count - 1)) / tokens.sum()
    return mean, mean - half, mean + half


def paired(record, partner, effort):
    """None where windows of one of them are not there, nor earlier differences."""
    if any("row" in r for r in (record, partner)):
        found = [record.get("row", {}).get(f"{effort.replace(' ', '_')}_{key}") for key in PAIRED]
        return dict(zip(PAIRED, map(float, found))) if all(found) else None
    theirs, ours = (np.array(r["scores"]["windows"], float) for r in (record, partner))
    divergence = interval(theirs[:, 4] - ours[:, 4], ours[:, 0])
    nats = interval(theirs[:, 2] - ours[:, 2], ours[:, 0])
    return dict(zip(PAIRED, (partner["bytes"], *divergence, *nats)))


def partner_of(records, record, effort):
    wanted = (f"sluice {effort}", f"{record.get('bytes')} bytes")
    found = [r for r in records if (r["method"], r["setting"]) == wanted and "failed" not in r]
    return found[0] if found else None


def row_of(source, records, record):
    if "row" in record:
        return record["row"]
    row = dict(model=source.name, source="quantized" if source.quantized else "unquantized",
               note=record.get("failed") or record.get("note", ""))
    row |= {key: record[key] for key in ("method", "setting", "kind", "calibrated", "commit",
                                         "seconds")}
    if "failed" in record:
        return row
    scores, text = record["scores"], "{:.7g}".format
    perplexity = scores["perplexity"]["perplexity"]
    row |= dict(
        bytes=record["bytes"], bits_per_weight=text(record["bits_per_weight"]),
        kl=text(scores["kl"]["mean"]), kl_low=text(scores["kl"]["low"]),
        kl_high=text(scores["kl"]["high"]), kl_p99=text(scores["kl_p99"]),
        perplexity=text(perplexity["mean"]), perplexity_low=text(perplexity["low"]),
        perplexity_high=text(perplexity["high"]),
        reference_perplexity=text(record["reference"]["perplexity"]["mean"]),
        same_top_token=text(scores["top1_agreement"]["mean"]),
        tokens=scores["perplexity"]["tokens"])
    if record.get("predicted_kl") is not None:
        row["predicted_kl"] = text(record["predicted_kl"])
    for effort in EFFORTS:
        partner = partner_of(records, record, effort)
        found = partner and paired(record, partner, effort)
        if found:
            row |= {f"{effort.replace(' ', '_')}_{key}": value if key == "bytes" else text(value)
                    for key, value in found.items()}
    return row


def write_csv(everything, path):
    columns = COLUMNS + [f"{effort.replace(' ', '_')}_{key}" for effort in EFFORTS
                         for key in PAIRED]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for source, records in everything:
            for record in sorted(records, key=lambda r: (r["method"], r.get("bytes", 0))):
                writer.writerow(row_of(source, records, record))
    print(path)


# ---- table ----


def print_table(source, records):
    """Every entry of another tool beside Sluice at its bytes; ! where Sluice is worse for certain, ?
    where the interval has zero in it."""
    efforts = [effort for effort in EFFORTS
               if any(r["method"] == f"sluice {effort}" for r in records)]
    print(f"\n{source.name}{' (its source is quantized)' if source.quantized else ''}\n")
    head = ["entry", "bits/weight", "KL"] + [f"Sluice {effort}" for effort in efforts]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    rivals = [r for r in records if "failed" not in r and not r["method"].startswith("sluice")]
    for record in sorted(rivals, key=lambda r: r["bytes"]):
        cells = []
        for effort in efforts:
            partner = partner_of(records, record, effort)
            if partner is None:
                cells.append("")
                continue
            found = paired(record, partner, effort)
            mark = ("" if not found else " !" if found["kl_more_high"] < 0 else
                    " ?" if found["kl_more_low"] <= 0 else "")
            cells.append(f"{partner['scores']['kl']['mean']:.5f}{mark}")
        print(f"| {record['method']} {record['setting']} | {record['bits_per_weight']:.3f} "
              f"| {record['scores']['kl']['mean']:.5f} | {' | '.join(cells)} |")
    for record in records:
        if "failed" in record:
            print(f"not made: {record['method']} {record['setting']}: {record['failed']}")


# ---- drawing ----

COLOURS = {"sluice best": "#862e9c", "sluice best without feedback": "#7950f2",
           "sluice normal with feedback": "#1098ad", "sluice normal": "#0b6e99", "sluice fast": "#58b7dd",
           "uniform": "#c8501f", "mixed": "#b58a00", "published": "#13795b", "llama.cpp": "#8a94a6",
           "llama.cpp with imatrix": "#3f4856", "dynamic_quant": "#d6336c", "gptq": "#e8590c",
           "awq": "#99761b", "dwq": "#5c940d"}
LINES = tuple(f"sluice {effort}" for effort in EFFORTS)
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 520, 70, 230, 44, 50


def scale(low, high, begin, end):
    """Values from low to high to places from begin to end."""
    return lambda value: round(begin + (value - low) / (high - low) * (end - begin), 1)


def title_of(source, text):
    return f"{source.name}: {text}" + (" (its source is quantized)" if source.quantized else "")


def frame(title, horizontal):
    return [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'font-family="system-ui,sans-serif" font-size="12"><title>{escape(title)}</title>'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
            f'<text x="16" y="26" font-size="16" font-weight="650">{escape(title)}</text>',
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle" '
            f'fill="#667085">{escape(horizontal)}</text>']


def decades(y, logs):
    """Lines across at powers of ten."""
    for decade in range(math.ceil(min(logs) - 0.1), math.floor(max(logs) + 0.1) + 1):
        yield (f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(decade)}" y2="{y(decade)}" '
               f'stroke="#e7eaef"/><text x="{LEFT - 8}" y="{y(decade) + 4}" '
               f'text-anchor="end" fill="#667085">{10.0 ** decade:g}</text>')


def below(x, text):
    return (f'<text x="{x}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" '
            f'fill="#667085">{text}</text>')


def legend(index, name):
    row = TOP + 12 + 20 * index
    return (f'<circle cx="{WIDTH - RIGHT + 24}" cy="{row - 4}" r="5" fill="{COLOURS[name]}"/>'
            f'<text x="{WIDTH - RIGHT + 36}" y="{row}">{escape(name)}</text>')


def drawing(source, records):
    # Below this nothing, or next to nothing, was quantized. Sluice at its own sizes, or where none of them can be
    # made, at those of others.
    made = [r for r in records if "failed" not in r and r["scores"]["kl"]["mean"] > 2e-5]
    ours = [r for r in made if r["method"].startswith("sluice")]
    shown = [r for r in made if r not in ours]
    shown += [r for r in ours if r["setting"].endswith("bits")] or ours
    if not shown:
        return None
    bits = [r["bits_per_weight"] for r in shown]
    logs = [math.log10(r["scores"]["kl"]["mean"]) for r in shown]
    x = scale(min(bits) - 0.2, max(bits) + 0.2, LEFT, WIDTH - RIGHT)
    y = scale(min(logs) - 0.1, max(logs) + 0.1, HEIGHT - BOTTOM, TOP)
    out = [*frame(title_of(source, "KL divergence against size"), "bits per weight, of weight files"),
           *decades(y, logs)]
    for value in range(math.ceil(min(bits) - 0.2), math.floor(max(bits) + 0.2) + 1):
        out.append(below(x(value), value))
    methods = [name for name in COLOURS if any(r["method"] == name for r in shown)]
    for index, name in enumerate(methods):
        colour = COLOURS[name]
        mine = sorted((r for r in shown if r["method"] == name), key=lambda r: r["bits_per_weight"])
        places = [(x(r["bits_per_weight"]), y(math.log10(r["scores"]["kl"]["mean"]))) for r in mine]
        if name in LINES:
            points = " ".join(f"{a},{b}" for a, b in places)
            out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" '
                       'stroke-width="2"/>')
        for (a, b), record in zip(places, mine):
            tip = f"{name} {record['setting']}: {record['scores']['kl']['mean']:.5f}"
            out.append(f'<circle cx="{a}" cy="{b}" r="{3 if name in LINES else 4}" fill="{colour}">'
                       f'<title>{escape(tip)}</title></circle>')
        out.append(legend(index, name))
    return "\n".join(out) + "</svg>\n"


def predictions(source, records):
    """What plans by measured sensitivities said their divergence would be, against what it is."""
    shown = [r for r in records if "failed" not in r and r.get("predicted_kl") and
             r["scores"]["kl"]["mean"] > 0]
    if not shown:
        return None
    logs = [(math.log10(r["predicted_kl"]), math.log10(r["scores"]["kl"]["mean"])) for r in shown]
    every = [value for pair in logs for value in pair]
    low, high = min(every) - 0.1, max(every) + 0.1
    x, y = scale(low, high, LEFT, WIDTH - RIGHT), scale(low, high, HEIGHT - BOTTOM, TOP)
    out = [*frame(title_of(source, "KL divergence, measured against predicted"),
                  "predicted by measured sensitivities"), *decades(y, every)]
    for decade in range(math.ceil(low), math.floor(high) + 1):
        out.append(below(x(decade), f"{10.0 ** decade:g}"))
    out.append(f'<line x1="{x(low)}" y1="{y(low)}" x2="{x(high)}" y2="{y(high)}" stroke="#98a2b3" '
               'stroke-dasharray="4 4"/>')
    for (a, b), record in zip(logs, shown):
        tip = (f"{record['method']} {record['setting']}: predicted {10 ** a:.5f}, "
               f"measured {10 ** b:.5f}")
        out.append(f'<circle cx="{x(a)}" cy="{y(b)}" r="4" fill="{COLOURS[record["method"]]}" '
                   f'fill-opacity="0.7"><title>{escape(tip)}</title></circle>')
    methods = [name for name in COLOURS if any(r["method"] == name for r in shown)]
    out += [legend(index, name) for index, name in enumerate(methods)]
    return "\n".join(out) + "</svg>\n"


def write(everything, path, images):
    write_csv(everything, path)
    for source, records in everything:
        print_table(source, records)
        name = re.sub(r"\W+", "_", source.name).lower()
        for kind, svg in (("quality", drawing(source, records)),
                          ("predicted", predictions(source, records))):
            if svg is not None:
                (images / f"{kind}_{name}.svg").write_text(svg)
