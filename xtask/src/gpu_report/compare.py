"""Times attention of one new token to a cache in bf16 with PyTorch, and with FlashMLA where Python has it.

Reads lines `latent BATCH HEADS TOKENS WIDTH VALUE_WIDTH` and `grouped BATCH HEADS GROUPS TOKENS WIDTH` from its arguments and writes
a JSON object for each. Times are medians in seconds of calls, of which several are under way before the first is waited for.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F

try:
    from flash_mla import flash_mla_with_kvcache, get_mla_metadata
except ImportError:
    try:
        from sgl_kernel.flash_mla import flash_mla_with_kvcache, get_mla_metadata
    except ImportError as error:
        print(f"no FlashMLA: {error}", file=sys.stderr)
        flash_mla_with_kvcache = None

PAGE = 64


# As benches/src/gpu/attend.rs measures.
LASTING = 0.02
MEASUREMENTS = 5


def calls(step, count):
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(count):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / count


def median(step):
    calls(step, 1)
    count = max(3, min(200, int(LASTING / calls(step, 2))))
    return sorted(calls(step, count) for _ in range(MEASUREMENTS))[MEASUREMENTS // 2]


def latent(batch, heads, tokens, width, value_width):
    q = torch.randn(batch, 1, heads, width, device="cuda", dtype=torch.bfloat16)
    keys = torch.randn(batch, tokens, width, device="cuda", dtype=torch.bfloat16)
    scale = width**-0.5
    rows = q.view(batch, heads, width)

    def products():
        weights = torch.softmax(rows @ keys.transpose(1, 2) * scale, -1)
        return weights @ keys[..., :value_width]

    found = {"torch": median(products)}
    if flash_mla_with_kvcache is not None and width == 576 and value_width == 512 and tokens % PAGE == 0:
        try:
            pages = keys.view(batch * tokens // PAGE, PAGE, 1, width)
            table = torch.arange(batch * tokens // PAGE, device="cuda", dtype=torch.int32).view(batch, -1)
            lengths = torch.full((batch,), tokens, device="cuda", dtype=torch.int32)
            if "sgl_kernel" in sys.modules:
                metadata = get_mla_metadata(lengths, heads, 1, heads)
            else:
                metadata = get_mla_metadata(lengths, heads, 1)

            def flash():
                return flash_mla_with_kvcache(q, pages, table, lengths, value_width, *metadata, causal=False)[0]

            error = (flash().view(batch, heads, value_width).float() - products().float()).norm() / products().float().norm()
            found["flashmla"] = median(flash)
            found["flashmla_error"] = error.item()
        except Exception as error:
            print(f"FlashMLA: {error}", file=sys.stderr)
    return found


def grouped(batch, heads, groups, tokens, width):
    q = torch.randn(batch, heads, 1, width, device="cuda", dtype=torch.bfloat16)
    keys, values = (torch.randn(batch, groups, tokens, width, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return {"torch": median(lambda: F.scaled_dot_product_attention(q, keys, values, enable_gqa=heads != groups))}


def copy(numbers):
    source = torch.randn(numbers, device="cuda")
    target = torch.empty_like(source)
    return {"copy": median(lambda: target.copy_(source)), "bytes": 8 * numbers}


def main():
    print(json.dumps({"problem": "machine", "torch": torch.__version__, "card": torch.cuda.get_device_name()}))
    print(json.dumps({"problem": "copy", **copy(1 << 29)}), flush=True)
    for line in sys.argv[1:]:
        kind, *sizes = line.split()
        try:
            found = {"latent": latent, "grouped": grouped}[kind](*map(int, sizes))
        except torch.OutOfMemoryError:
            found = {}
        print(json.dumps({"problem": line, **found}), flush=True)
        torch.cuda.empty_cache()


main()
