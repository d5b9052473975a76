#!/usr/bin/env python3
"""Turns what scripts/bench.sh measured (a folder with results.jsonl and attention.txt) into the
committed table: each figure with its ratio to the better of PyTorch's ways."""

import datetime
import json
import platform
import subprocess
import sys


def cpu_name():
    for line in subprocess.run(["lscpu"], capture_output=True, text=True).stdout.splitlines():
        if line.startswith("Model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    folder = sys.argv[1]
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
