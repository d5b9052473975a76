#!/usr/bin/env python3
"""Turns what was measured into a table on standard output: each figure with its ratio to the better of
PyTorch's ways.

    python3 scripts/bench_table.py FOLDER

FOLDER is that of scripts/bench.sh (results.jsonl and attention.txt) or of scripts/bench_gpu.sh
(ours.json and, with PyTorch, theirs.json and ours_again.json)."""

import datetime
import json
import os
import platform
import subprocess
import sys


def cpu_name():
    for line in subprocess.run(["lscpu"], capture_output=True, text=True).stdout.splitlines():
        if line.startswith("Model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def load_rows(path):
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as f:
        rows = json.load(f)["rows"]
    return {(r["group"], r["name"], r["shape"], r["dtype"]): r for r in rows}


def time_text(seconds):
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000:
            return f"{seconds * factor:.1f} {unit}"
    return f"{seconds:.2f} s"


def rows_table(folder):
    """Of Longhand's two runs, one before and one after PyTorch's, the slower counts."""
    ours, again = load_rows(f"{folder}/ours.json"), load_rows(f"{folder}/ours_again.json")
    theirs = load_rows(f"{folder}/theirs.json")
    first = next(iter(ours.values()))
    torch = next(iter(theirs.values()))["torch"] if theirs else "not measured"
    print("# Longhand and PyTorch, side by side\n")
    print(f"Command: `{first['command']}`; date: {first['date']}; device: {first['device']}; PyTorch "
          f"{torch}.\n")
    print("Medians. The share is of what the same run measured beside the case (a copy, a matrix "
          "product, dense attention), in bytes or operations per second. The last ratio is PyTorch's "
          "time, the fastest of its ways, over Longhand's, the slower of a run before and a run after "
          "it: above 1 Longhand is faster.")
    group = None
    for key, row in ours.items():
        if key[0] != group:
            group = key[0]
            print(f"\n## {group}\n\n| | shape | Longhand | rate | share | of | PyTorch | way | "
                  "ratio |\n|---|---|---|---|---|---|---|---|---|")
        row = max(row, again.get(key, row), key=lambda r: r["seconds"])
        rate = (f"{row['tflop_per_s']:.3g} TFLOP/s" if "tflop_per_s" in row
                else f"{row['gb_per_s']:.4g} GB/s")
        other = theirs.get(key, {})
        peer = ("| | | |" if "seconds" not in other else
                f"| {time_text(other['seconds'])} | {other['way']} | "
                f"{other['seconds'] / row['seconds']:.2f}x |")
        print(f"| {row['name']} | {row['shape']} {row['dtype']} | {time_text(row['seconds'])} | {rate} | "
              f"{100 * row['ratio']:.0f} % | {row['ratio_to']} {peer}")
    targets_table(ours, again, theirs)
    for key, row in ours.items():
        if "tokens_per_s" not in row:
            continue
        memory = theirs.get(key, {}).get("memory_bytes")
        print(f"\n{row['name']}: {row['tokens_per_s']:.0f} tokens/s, peak memory "
              f"{row['memory_bytes'] / 2**20:.0f} MiB"
              + (f"; PyTorch's {memory / 2**20:.0f} MiB" if memory else "") + ".")


def targets_table(ours, again, theirs):
    """What is promised of an H200, beside what this device reached; of the two runs the worse."""
    rows = [key for key in ours if "target" in ours[key]]
    if not rows:
        return
    print("\n## Targets on an H200\n\n| | shape | target | here | |\n|---|---|---|---|---|")
    for key in rows:
        values, target = [], ours[key]["target"]
        time = target["of"] == "time"
        for row in filter(None, (ours[key], again.get(key))):
            peer = row["peer_seconds"]
            if "pytorch_way" in target:
                peer = theirs.get(key, {}).get("ways", {}).get(target["pytorch_way"])
            if peer:
                values.append(row["seconds"] / peer if time else peer / row["seconds"])
        limit = target["at_most"] if time else target["at_least"]
        of = f"PyTorch's {target['pytorch_way']}" if "pytorch_way" in target else ours[key]["ratio_to"]
        of = of.removeprefix("speed of ")
        here, verdict = "not measured", ""
        if values:
            worst = max(values) if time else min(values)
            here = f"{worst:.2f}x"
            verdict = "reached" if (worst <= limit if time else worst >= limit) else "not reached"
        print(f"| {key[1]} | {key[2]} {key[3]} | {target['of']} {'at most' if time else 'at least'} "
              f"{limit:g}x of {of} | {here} | {verdict} |")


def main():
    folder = sys.argv[1]
    if os.path.exists(f"{folder}/ours.json"):
        return rows_table(folder)
    with open(f"{folder}/results.jsonl", encoding="utf-8") as f:
        runs = [json.loads(line) for line in f]
    import torch

    flags = open("/proc/cpuinfo", encoding="ascii").read()
    units = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True,
                            text=True).stdout.strip()
    print("# Benchmark results\n")
    print(f"Command: `scripts/bench.sh`; date: {datetime.date.today()}; commit {commit}; device: "
          f"{cpu_name()}, {torch.get_num_threads()} threads, {' '.join(units)}; "
          f"PyTorch {torch.__version__}.\n")
    print("Model: d 512, 8 layers, 8 heads, SwiGLU 1408, vocabulary 8192, tied head (29.9M "
          "parameters). Of two runs of Longhand, one before and one after PyTorch's, the slower "
          "counts; of PyTorch's ways the fastest. Peak memory is the resident high-water mark over "
          "the measured steps, PyTorch's the lowest of its ways.\n")

    def of(prefix):
        return [r for r in runs if r["name"].startswith(prefix)]

    print("## Training step: 8 sequences of 1024 tokens\n")
    print("| | Longhand tokens/s | PyTorch tokens/s | ratio | share of matmul peak | Longhand MiB | "
          "PyTorch MiB | ratio |\n|---|---|---|---|---|---|---|---|")
    for dtype in ("f32", "bf16"):
        ours = min(of(f"longhand-train-{dtype}"), key=lambda r: r["result"]["tokens_per_s"])["result"]
        theirs = of(f"torch-train-{dtype}")
        best = max(theirs, key=lambda r: r["result"]["tokens_per_s"])
        way = best["name"].split(dtype + "-")[1]
        memory = min(r["result"]["steady_peak_rss_mib"] for r in theirs)
        speed = best["result"]["tokens_per_s"]
        print(f"| {dtype} | {ours['tokens_per_s']:.0f} | {speed:.0f} ({way}) | "
              f"{ours['tokens_per_s'] / speed:.2f}x | {100 * ours['share_of_peak']:.0f} % | "
              f"{ours['steady_peak_rss_mib']:.0f} | {memory:.0f} | "
              f"{ours['steady_peak_rss_mib'] / memory:.2f}x |")
    print("\n## Decoding: batch 1, 128 tokens after a prompt of 128\n")
    print("| | Longhand tokens/s | PyTorch tokens/s | ratio | GB/s of weights and cache | share of "
          "read bandwidth |\n|---|---|---|---|---|---|")
    for dtype in ("f32", "bf16"):
        ours = min(of(f"longhand-decode-{dtype}"),
                   key=lambda r: r["result"]["tokens_per_s"])["result"]
        best = max(of(f"torch-decode-{dtype}"), key=lambda r: r["result"]["tokens_per_s"])
        way = best["name"].split(dtype + "-")[1]
        speed = best["result"]["tokens_per_s"]
        print(f"| {dtype} | {ours['tokens_per_s']:.0f} | {speed:.0f} ({way}) | "
              f"{ours['tokens_per_s'] / speed:.2f}x | {ours['gb_per_s']:.1f} | "
              f"{100 * ours['share_of_bandwidth']:.0f} % |")
    print("\n## Attention by length (`bench_attention`)\n\n```")
    print(open(f"{folder}/attention.txt", encoding="utf-8").read().rstrip())
    print("```\n\n## Every run\n\n```")
    for run in runs:
        result = {k: v for k, v in run["result"].items() if not isinstance(v, (list, str, bool))}
        print(run["name"] + ": " + " ".join(f"{k}={v:.6g}" for k, v in result.items()))
    print("```")


main()
