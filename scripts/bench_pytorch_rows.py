#!/usr/bin/env python3
"""PyTorch's time for every row that `longhand bench --json` wrote, on the same device.

    python3 scripts/bench_pytorch_rows.py OURS.json --out THEIRS.json --device cuda

Each case is rebuilt from the row's name and shape and run in every way a good PyTorch user would try:
eager and torch.compile for kernels limited by memory, the flash and cuDNN backends of
scaled_dot_product_attention, flex_attention for packed documents and windows, a compiled model with
autocast and fused AdamW for training steps. A way that fails here is named on stderr and left out.
Times are as in `longhand bench`: on a GPU by events, after the L2 cache was overwritten; medians.
"""

import argparse
import datetime
import json
import re
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class Bench:
    """The device, and how calls on it are timed."""

    def __init__(self, args):
        self.device = torch.device(args.device)
        self.cuda = self.device.type == "cuda"
        self.compile = not args.no_compile
        self.least, self.most, self.seconds = (3, 3, 0.0) if args.quick else (10, 100, 1.0)
        self.flush = None
        if self.cuda:
            cache = torch.cuda.get_device_properties(self.device).L2_cache_size
            self.flush = torch.empty(2 * cache, dtype=torch.uint8, device=self.device)

    def once(self, run):
        if not self.cuda:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        self.flush.fill_(1)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in "be")
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3

    def times(self, run, least=None, seconds=None):
        for _ in range(3 if least is None else 1):
            self.once(run)
        found, start = [], time.perf_counter()
        while len(found) < (least or self.least) or (
                len(found) < self.most and
                time.perf_counter() - start < (self.seconds if seconds is None else seconds)):
            found.append(self.once(run))
        return found

    def random(self, *shape, dtype=torch.float32, grad=False):
        values = torch.rand(*shape, device=self.device, dtype=torch.float32) * 2 - 1
        return values.to(dtype).requires_grad_(grad)

    def name(self):
        return torch.cuda.get_device_name(self.device) if self.cuda else "cpu"


def numbers(shape):
    return [int(n) for n in re.findall(r"\d+", shape)]


def grads(outputs, inputs, upstream):
    """A function that runs the backward of what was computed once."""
    return lambda: torch.autograd.grad(outputs, inputs, upstream, retain_graph=True)


# memory: name -> the eager function and its arguments; compiled as it is.

def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def memory_case(bench, row):
    """(function, arguments, upstream): upstream is None for a forward."""
    name, sizes, dtype = row["name"], numbers(row["shape"]), DTYPES[row["dtype"]]
    if name.startswith("gemv"):
        rows, n, k = sizes
        return F.linear, (bench.random(rows, k, dtype=dtype), bench.random(n, k, dtype=dtype)), None
    if name.startswith("embedding"):
        tokens, d, vocab = sizes
        ids = torch.randint(0, vocab, (tokens,), device=bench.device)
        if name == "embedding_forward":
            return F.embedding, (ids, bench.random(vocab, d, dtype=dtype)), None
        backward = torch.ops.aten.embedding_dense_backward
        return (lambda dy, ids: backward(dy, ids, vocab, -1, False),
                (bench.random(tokens, d, dtype=dtype), ids), None)
    if name == "rope":
        tokens, heads, d = sizes
        cos, sin = (bench.random(tokens, 1, d, dtype=dtype) for _ in "cs")
        return rotate, (bench.random(tokens, heads, d, dtype=dtype), cos, sin), None
    a, b, dy = (bench.random(*sizes, dtype=dtype, grad=i < 2) for i in range(3))
    weight = bench.random(sizes[-1], dtype=dtype, grad=True)
    forwards = {
        "copy to f32": (lambda x: x.float(), (a.detach(),)),
        "copy transposed": (lambda x: x.t().contiguous(), (a.detach(),)),
        "add_scaled": (lambda x, y: torch.add(x, y, alpha=0.5), (a.detach(), b.detach())),
        "scale": (lambda x: x * 0.5, (a.detach(),)),
        "scale_by": (lambda x, s: x * s, (a.detach(), bench.random(1, dtype=dtype))),
        "multiply": (lambda x, y: x * y, (a.detach(), b.detach())),
        "add_bias": (lambda x, w: x + w, (a.detach(), weight.detach())),
        "bias_backward": (lambda x: x.sum(0, dtype=torch.float32), (dy,)),
        "sum_of_squares": (lambda x: x.square().sum(), (a.detach(),)),
        "sum": (lambda x: x.sum(), (a.detach(),)),
        "count_non_finite": (lambda x: (~x.isfinite()).sum(), (a.detach(),)),
        "swiglu": (lambda g, u: F.silu(g) * u, (a, b)),
        "sigmoid_gate": (lambda x, g: x * torch.sigmoid(g), (a, b)),
        "rms_norm": (lambda x, w: F.rms_norm(x, (x.shape[-1],), w, 1e-5), (a, weight)),
    }
    if name in forwards:
        return (*forwards[name], None)
    base, _, direction = name.rpartition("_")
    if base in forwards:
        function, arguments = forwards[base]
        if direction == "backward":
            return function, arguments, dy
        return function, tuple(t.detach() for t in arguments), None
    return None


def update_case(bench, row):
    count, = numbers(row["shape"])
    p, g = bench.random(count), bench.random(count)
    narrow = torch.empty(count, dtype=torch.bfloat16, device=bench.device)
    if row["name"] == "apply_update":
        def update(p, g, narrow):
            p.mul_(1 - 1e-4).add_(g, alpha=-1e-3)
            narrow.copy_(p)
        return update, (p, g, narrow)
    parameter = nn.Parameter(p)
    parameter.grad = g
    optimizer = torch.optim.AdamW([parameter], lr=1e-3, betas=(0.9, 0.95), fused=True)

    def step():
        optimizer.step()
        with torch.no_grad():
            narrow.copy_(parameter)
    return step, ()


def memory_ways(bench, row):
    if row["name"] in ("adamw_step", "apply_update"):
        function, arguments = update_case(bench, row)
        yield "eager", lambda: function(*arguments)
        if row["name"] == "apply_update" and bench.compile:
            fused = torch.compile(function, dynamic=False)
            yield "compile", lambda: fused(*arguments)
        return
    case = memory_case(bench, row)
    if case is None:
        return
    function, arguments, upstream = case
    for way in ["eager", "compile"] if bench.compile else ["eager"]:
        run = torch.compile(function, dynamic=False) if way == "compile" else function
        if upstream is None:
            yield way, lambda run=run: run(*arguments)
        else:
            yield way, grads(run(*arguments), arguments, upstream)


# gemm

def gemm_ways(bench, row):
    name, dtype = row["name"], DTYPES[row["dtype"]]
    if name == "square":
        n = int(row["ratio_to"].split()[-1])
        a, b = bench.random(n, n, dtype=dtype), bench.random(n, n, dtype=dtype)
        yield "eager", lambda: a @ b.t()
        return
    tokens, out, inner = numbers(row["shape"])
    x, w = bench.random(tokens, inner, dtype=dtype), bench.random(out, inner, dtype=dtype)
    bias = bench.random(out, dtype=dtype)
    dy = None if name == "linear_cross_entropy" else bench.random(tokens, out, dtype=dtype)
    if name == "forward":
        yield "eager", lambda: F.linear(x, w)
    elif name == "forward + bias":
        yield "eager", lambda: F.linear(x, w, bias)
    elif name == "input gradient":
        yield "eager", lambda: dy @ w
    elif name == "weight gradient, added":
        total = torch.zeros(out, inner, dtype=dtype, device=bench.device)
        yield "eager", lambda: total.addmm_(dy.t(), x)
    elif name == "weight + bias gradient":
        total = torch.zeros(out, inner, dtype=dtype, device=bench.device)
        yield "eager", lambda: (total.addmm_(dy.t(), x), dy.sum(0))
    elif name == "linear_cross_entropy":
        targets = torch.randint(0, out, (tokens,), device=bench.device)
        x.requires_grad_(), w.requires_grad_()

        def loss(x, w):
            return F.cross_entropy(F.linear(x, w).float(), targets, reduction="sum")
        for way in ["eager", "compile"] if bench.compile else ["eager"]:
            run = torch.compile(loss, dynamic=False) if way == "compile" else loss
            yield way, lambda run=run: torch.autograd.grad(run(x, w), (x, w))


# attention

def heads_first(t, batch):
    """[batch * rows, heads, d] as scaled_dot_product_attention sees it, without a copy."""
    return t.view(batch, -1, *t.shape[1:]).transpose(1, 2)


def sdpa_backends(bench):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    if not bench.cuda:
        yield "sdpa", lambda attend: attend
        return
    for way, backend in [("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)]:
        def with_backend(attend, backend=backend):
            def run(*arguments):
                with sdpa_kernel(backend):
                    return attend(*arguments)
            return run
        yield way, with_backend


def flex(bench, row, rows):
    """flex_attention over one sequence of all rows, with the documents and the window as its mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    documents = torch.tensor(row["documents"], device=bench.device)
    document = torch.repeat_interleave(torch.arange(len(documents), device=bench.device), documents)
    window = row.get("window", rows)

    def mask(b, h, q, k):
        return (document[q] == document[k]) & (q >= k) & (q - k < window)
    blocks = create_block_mask(mask, None, None, rows, rows, device=str(bench.device))
    run = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: run(q, k, v, block_mask=blocks, enable_gqa=True)


def attention_ways(bench, row):
    if row["name"].startswith(("parallax", "sp_kv")):
        return  # PyTorch has none; their peer is Longhand's softmax attention
    batch, length, heads, kv_heads = numbers(row["shape"])
    dtype, backward = DTYPES[row["dtype"]], row["name"].endswith("backward")
    q, k, v = (bench.random(batch * length, h, 128, dtype=dtype, grad=backward)
               for h in (heads, kv_heads, kv_heads))
    upstream = bench.random(batch * length, heads, 128, dtype=dtype)

    def ways():
        if row["name"].startswith("causal"):
            def attend(q, k, v):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            for way, with_backend in sdpa_backends(bench):
                yield way, with_backend(attend), batch
        elif bench.compile and (bench.cuda or not backward):  # flex has no backward on the CPU
            yield "flex", flex(bench, row, batch * length), 1
    for way, attend, groups in ways():
        arguments = [heads_first(t, groups) for t in (q, k, v)]
        if backward:
            yield way, grads(attend(*arguments), (q, k, v), heads_first(upstream, groups))
        else:
            yield way, lambda attend=attend, arguments=arguments: attend(*arguments)


def decode_ways(bench, row):
    """Over all keys, whatever of them Longhand's row reads."""
    batch, context, heads, kv_heads, d = numbers(row["shape"].replace("d", " "))
    dtype = DTYPES[row["dtype"]]
    q = heads_first(bench.random(batch, heads, d, dtype=dtype), batch)
    k, v = (heads_first(bench.random(batch * context, kv_heads, d, dtype=dtype), batch) for _ in "kv")

    def attend(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    for way, with_backend in sdpa_backends(bench):
        run = with_backend(attend)
        yield way, lambda run=run: run(q, k, v)


# step

class Block(nn.Module):
    def __init__(self, m):
        super().__init__()
        d, self.heads, self.kv_heads, self.d = (m["hidden_size"], m["num_heads"],
                                                m["num_kv_heads"], m["head_dim"])
        bias = bool(m["qkv_bias"])
        self.norm1, self.norm2 = nn.RMSNorm(d, 1e-5), nn.RMSNorm(d, 1e-5)
        self.qkv = nn.Linear(d, (self.heads + 2 * self.kv_heads) * self.d, bias=bias)
        self.out = nn.Linear(self.heads * self.d, d, bias=False)
        self.gate_up = nn.Linear(d, 2 * m["intermediate_size"], bias=False)
        self.down = nn.Linear(m["intermediate_size"], d, bias=False)
        self.q_norm, self.k_norm = ((nn.RMSNorm(self.d, 1e-5), nn.RMSNorm(self.d, 1e-5))
                                    if m["qk_norm"] else (nn.Identity(), nn.Identity()))

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, -1, self.d).split(
            [self.heads, self.kv_heads, self.kv_heads], dim=2)
        q = rotate(self.q_norm(q).transpose(1, 2), cos, sin).to(v.dtype)
        k = rotate(self.k_norm(k).transpose(1, 2), cos, sin).to(v.dtype)
        y = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True, enable_gqa=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, -1))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Decoder(nn.Module):
    def __init__(self, m, length):
        super().__init__()
        d, head_dim = m["hidden_size"], m["head_dim"]
        self.recompute = bool(m["recompute"])
        self.embedding = nn.Embedding(m["vocab_size"], d)
        self.blocks = nn.ModuleList(Block(m) for _ in range(m["num_layers"]))
        self.norm = nn.RMSNorm(d, 1e-5)
        self.head = nn.Linear(d, m["vocab_size"], bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
        if m["tie_embeddings"]:
            self.head.weight = self.embedding.weight
        inverse = 10000.0 ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        angle = torch.arange(length, dtype=torch.float64)[:, None] * inverse
        angle = torch.cat([angle, angle], dim=-1)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def forward(self, ids, targets):
        x = self.embedding(ids)
        for block in self.blocks:
            if self.recompute:
                x = torch.utils.checkpoint.checkpoint(block, x, self.cos, self.sin,
                                                      use_reentrant=False)
            else:
                x = block(x, self.cos, self.sin)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.view(-1))


def step_ways(bench, row):
    m = row.get("model")
    if m is None:
        return  # gates, whose peer is Longhand's own step
    if not m["plain"] or not m["adamw"]:
        print(f"bench: {row['name']}: not a plain decoder with AdamW, left out", file=sys.stderr)
        return
    sequences, length, micro_batches = numbers(row["shape"])
    bf16 = row["dtype"] == "bf16"
    for way in ["eager", "compile"] if bench.compile else ["eager"]:
        with bench.device:
            model = Decoder(m, length).to(bench.device)
            ids = torch.randint(0, m["vocab_size"], (sequences, length + 1), device=bench.device)
        inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95),
                                      weight_decay=0.1, fused=True)
        forward = torch.compile(model, dynamic=False) if way == "compile" else model

        def step(model=model, forward=forward, optimizer=optimizer, inputs=inputs, targets=targets):
            for _ in range(micro_batches):
                with torch.autocast(bench.device.type, dtype=torch.bfloat16, enabled=bf16):
                    loss = forward(inputs, targets)
                (loss / micro_batches).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        yield way, step


WAYS = {"memory": memory_ways, "gemm": gemm_ways, "attention": attention_ways,
        "decode": decode_ways, "step": step_ways}


def measure(bench, row, command):
    """The row with every way's times; the fastest counts."""
    theirs = {"group": row["group"], "name": row["name"], "shape": row["shape"],
              "dtype": row["dtype"], "ways": {}, "device": bench.name(),
              "date": str(datetime.date.today()), "command": command,
              "torch": torch.__version__}
    ways = WAYS[row["group"]](bench, row)
    while True:
        try:
            way, run = next(ways)
            if bench.cuda:
                torch.cuda.reset_peak_memory_stats(bench.device)
            step = row["group"] == "step"
            times = bench.times(run, **({"least": 3, "seconds": 0} if step else {}))
            theirs["ways"][way] = statistics.median(times)
            if step and bench.cuda:
                peak = torch.cuda.max_memory_allocated(bench.device)
                theirs["memory_bytes"] = min(theirs.get("memory_bytes", peak), peak)
            del run
        except StopIteration:
            break
        except Exception as error:  # a way this version or device does not have
            text = str(error).strip().splitlines() or [type(error).__name__]
            print(f"bench: {row['group']} {row['name']} {row['shape']}: {text[0]}", file=sys.stderr)
            if getattr(ways, "gi_frame", None) is None:  # it ended with the error
                break
        if bench.cuda:
            torch.cuda.empty_cache()
    if theirs["ways"]:
        theirs["way"] = min(theirs["ways"], key=theirs["ways"].get)
        theirs["seconds"] = theirs["ways"][theirs["way"]]
    return theirs


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours", help="what longhand bench --json wrote")
    parser.add_argument("--out", required=True, help="JSON file to write")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--quick", action="store_true", help="three calls of each: for tests")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: PyTorch's choice)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("bench: torch sees no CUDA device; --device cpu measures the processor")
    torch.manual_seed(1)
    torch._dynamo.config.recompile_limit = 1000  # one compilation per case
    bench = Bench(args)
    command = " ".join(["bench_pytorch_rows.py", *sys.argv[1:]])
    with open(args.ours, encoding="utf-8") as f:
        ours = json.load(f)["rows"]
    rows = []
    for row in ours:
        theirs = measure(bench, row, command)
        print(f"{row['group']:10} {row['name']:26} {row['shape']:24} "
              + "  ".join(f"{way} {1e6 * s:.1f} us" for way, s in theirs["ways"].items()),
              flush=True)
        rows.append(theirs)
        with open(args.out, "w", encoding="utf-8") as f:  # what is measured stays if a later case hangs
            json.dump({"rows": rows}, f, indent=1)


if __name__ == "__main__":
    main()
