"""Records what gguf-py reads from blocks of ggml's number formats: transmla-checkpoint/src/quantized/read.json.

    python xtask/src/interop/gguf_blocks.py > transmla-checkpoint/src/quantized/read.json

Bytes are random but for the scales, which are ordinary numbers of half precision. Needs the package gguf (0.19).
"""
import json

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

BLOCKS = 3
# Where each format has scales of half precision.
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
}
random = np.random.default_rng(2026)
rows = []
for name in ["F32", "F16", "BF16", *SCALES]:
    kind = Type[name]
    block, size = GGML_QUANT_SIZES[kind]
    if name in SCALES:
        data = random.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
        for place in SCALES[name]:
            scales = random.normal(0, 0.05, BLOCKS).astype("<f2")
            data[:, place : place + 2] = scales.view(np.uint8).reshape(BLOCKS, 2)
    else:
        numbers = random.normal(0, 1, (1, 8)).astype("<f4")
        data = {"F32": numbers, "F16": numbers.astype("<f2")}.get(name)
        if data is None:
            data = (numbers.view("<u4") >> 16).astype("<u2")
        data = data.view(np.uint8)
    source = data.view({"F32": "<f4", "F16": "<f2"}.get(name, np.uint8))
    values = dequantize(source, kind).astype("<f4").ravel()
    rows.append({"dtype": name, "bytes": data.ravel().tolist(), "values": values.view("<u4").tolist()})
print("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]")
