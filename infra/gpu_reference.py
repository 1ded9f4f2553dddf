#!/usr/bin/env python3
"""The shape that `agrpo bench-gpu` measures, in plain PyTorch, for comparison.

    gpu_reference.py --device cuda:0 --load JSON     JSON is `load` of the benchmark's document

Blocks of LLaDA's shape (Nie et al., arXiv 2502.09992): RMS norms, rotary embeddings, attention in both directions by
scaled_dot_product_attention, SwiGLU, an untied head, and LoRA (arXiv 2106.09685) on every matrix. Weights and adapters are
arbitrary numbers in bfloat16, or float32 where the load says so. Rows have the names and the units of the benchmark's
section `model`: the same lengths, the same numbers of sequences and of queried positions. PyTorch's settings are its
defaults: nothing is compiled, and nothing is deterministic.

Prints one JSON object a line as soon as it is known, {"name", "seconds", "result"} or {"name", "seconds", "error"}; or one
{"skipped"}, where Python has no PyTorch. Reads and writes no file, and downloads nothing.
"""

import argparse
import ctypes
import json
import os
import signal
import statistics
import time

try:
    import torch
    import torch.nn.functional as F
    from torch.utils.checkpoint import checkpoint
except ImportError as missing:
    print(json.dumps({"skipped": f"Python has no PyTorch: {missing}"}))
    raise SystemExit(0)

TIMES = 3
RANK = 64


def rms_norm(x, weight, eps):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def rotate(x, cos, sin):
    """The rotary embedding in float32, as in LLaDA's own code; x is B x H x L x E."""
    wide = x.float()
    first, second = wide.chunk(2, -1)
    return (wide * cos + torch.cat((-second, first), -1) * sin).to(x.dtype)


class Adapted:
    """y = W x + B (A x), W frozen; the scale alpha / rank is 1."""

    def __init__(self, outputs, inputs, std, like):
        self.weight = torch.empty(outputs, inputs, **like).normal_(0.0, std)
        self.a = torch.empty(RANK, inputs, **like).normal_(0.0, std).requires_grad_()
        self.b = torch.zeros(outputs, RANK, **like).requires_grad_()

    def __call__(self, x, adapted):
        y = F.linear(x, self.weight)
        return y + F.linear(F.linear(x, self.a), self.b) if adapted else y


class Model:
    def __init__(self, load, device):
        shape = load["model"]
        self.heads, self.eps = shape["n_heads"], shape["rms_norm_eps"]
        width, inner, std = shape["d_model"], shape["mlp_hidden_size"], shape["init_std"]
        like = {"device": device, "dtype": torch.bfloat16 if load["half"] else torch.float32}
        self.embedding = torch.empty(load["vocabulary"], width, **like).normal_(0.0, std)
        sizes = [(width, width)] * 4 + [(inner, width)] * 2 + [(width, inner)]
        self.blocks = [
            ([Adapted(*size, std, like) for size in sizes], torch.ones(width, **like), torch.ones(width, **like))
            for _ in range(shape["n_layers"])
        ]
        self.norm = torch.ones(width, **like)
        self.head = Adapted(load["vocabulary"], width, std, like)
        length = load["prompt_tokens"] + load["sampler"]["completion_tokens"]
        half = width // self.heads // 2
        speeds = shape["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.outer(torch.arange(length, dtype=torch.float64), speeds).repeat(1, 2)
        self.cos, self.sin = angles.cos().float().to(device), angles.sin().float().to(device)

    def block(self, x, number, adapted):
        (query, key, value, output, gate, up, down), first, second = self.blocks[number]
        batch, length, width = x.shape

        def by_head(y):
            return y.view(batch, length, self.heads, -1).transpose(1, 2)

        normed = rms_norm(x, first, self.eps)
        q = rotate(by_head(query(normed, adapted)), self.cos, self.sin)
        k = rotate(by_head(key(normed, adapted)), self.cos, self.sin)
        mixed = F.scaled_dot_product_attention(q, k, by_head(value(normed, adapted)))
        x = x + output(mixed.transpose(1, 2).reshape(batch, length, width), adapted)
        normed = rms_norm(x, second, self.eps)
        return x + down(F.silu(gate(normed, adapted)) * up(normed, adapted), adapted)

    def logits(self, ids, queried, adapted=True, checkpointed=False):
        """Logits at the last `queried` positions."""
        x = F.embedding(ids, self.embedding)
        for number in range(len(self.blocks)):
            if checkpointed:
                x = checkpoint(self.block, x, number, adapted, use_reentrant=False)
            else:
                x = self.block(x, number, adapted)
        return self.head(rms_norm(x[:, -queried:], self.norm, self.eps), adapted).float()

    def adapters(self):
        for matrix in [matrix for block in self.blocks for matrix in block[0]] + [self.head]:
            yield from (matrix.a, matrix.b)


class Rows:
    def __init__(self, device):
        self.device = device
        self.is_cuda = device.startswith("cuda")

    def wait(self):
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def add(self, name, work):
        """Measures a row; what fails is one too."""
        start = time.perf_counter()
        row = {"name": name}
        try:
            if self.is_cuda:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(self.device)
            row["result"] = work()
            if self.is_cuda:
                row["result"]["memory"] = torch.cuda.max_memory_allocated(self.device)
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
        row["seconds"] = time.perf_counter() - start
        print(json.dumps(row), flush=True)

    def median(self, work, times=TIMES):
        work()
        seconds = []
        for _ in range(times):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)


def measure(load, rows):
    device, sampler = rows.device, load["sampler"]
    length = load["prompt_tokens"] + sampler["completion_tokens"]
    like = {"device": device, "dtype": torch.bfloat16 if load["half"] else torch.float32}

    def product():
        x = torch.randn(2 * load["model"]["d_model"], 2 * load["model"]["d_model"], **like)
        return {"seconds": rows.median(lambda: [x @ x for _ in range(4)])}

    rows.add("product of large matrices", product)
    made = {}

    def make():
        made["model"] = Model(load, device)
        rows.wait()
        return {"torch": torch.__version__, "adapters": sum(matrix.numel() for matrix in made["model"].adapters())}

    rows.add("make", make)
    if "model" not in made:
        return
    model = made["model"]

    def ids(sequences):
        return torch.arange(sequences * length, device=device).view(sequences, length) % load["vocabulary"]

    def forward(adapted):
        def once():
            with torch.no_grad():
                model.logits(ids(load["sequences"]), sampler["block_tokens"], adapted).max().item()

        return lambda: {"seconds": rows.median(once)}

    rows.add("forward", forward(True))
    rows.add("forward without adapters", forward(False))

    def gradient(checkpointed):
        states = load["gradient_states"]
        queried = sampler["completion_tokens"] // sampler["steps"]
        passes = -(-load["gradient_samples"] // states)

        def once():
            for matrix in model.adapters():
                matrix.grad = None
            for _ in range(passes):
                logits = model.logits(ids(states), queried, checkpointed=checkpointed)
                (-logits.log_softmax(-1)[..., 0].sum()).backward()

        return lambda: {"seconds": rows.median(once) / (passes * states), "adapters": "the model's precision"}

    rows.add("gradient, checkpointed", gradient(True))
    rows.add("gradient", gradient(False))


def end_with(parent):
    """Ends this process when the one that started it ends: the benchmark, or a wrapper that started Python as its child.
    Refuses to start without the process `parent`."""
    set_death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    # It may have ended before. With a wrapper in between it is not this one's own parent.
    os.kill(parent, 0)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--device", required=True)
    arguments.add_argument("--load", type=json.loads, required=True)
    arguments.add_argument("--parent", type=int, help="the benchmark's process, without which this one does not start")
    given = arguments.parse_args()
    if given.parent is not None:
        end_with(given.parent)
    measure(given.load, Rows(given.device))


if __name__ == "__main__":
    main()
