"""Times torch's scaled_dot_product_attention: a description on the standard input, median nanoseconds on the output."""

import json
import statistics
import sys
import time

try:
    import torch
except ImportError as error:
    sys.exit(f"no torch: {error}")

WARM_UP = 0.5


def median_ns(run, seconds):
    start = time.perf_counter()
    while time.perf_counter() - start < WARM_UP:
        run()
    times = []
    start = time.perf_counter()
    while len(times) < 10 or time.perf_counter() - start < seconds:
        before = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - before)
    return statistics.median(times)


def attention(form):
    heads, rows, tokens = form["heads"], form["rows"], form["tokens"]
    width, value_width = form["width"], form["value_width"]
    q = torch.randn(1, heads, rows, width)
    k = torch.randn(1, heads, tokens, width)
    # The fast path wants values as wide as keys: of a latent whole rows are summed, and the rest is cut off.
    v = k if form["latent"] else torch.randn(1, heads, tokens, value_width)

    def run():
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)[..., :value_width]

    return run


request = json.load(sys.stdin)
torch.set_num_threads(request["threads"])
torch.manual_seed(0)
with torch.inference_mode():
    medians = [median_ns(attention(form), request["seconds"]) for form in request["forms"]]
json.dump({"version": torch.__version__, "medians_ns": medians}, sys.stdout)
