"""Saves a small state dict with torch: transmla-checkpoint/tests/hostile/pickles.

    python xtask/src/interop/torch_pickles.py transmla-checkpoint/tests/hostile/pickles

Views of every kind are among the tensors. values.json has the numbers of each. Needs torch (2.13).
"""
import json
import os
import pathlib
import sys
from collections import OrderedDict

import torch


class Command:
    def __reduce__(self):
        return os.system, ("echo run",)


out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(7)
base = torch.randn(6, 8)
tensors = OrderedDict(
    whole=base,
    transposed=base.T,
    rows=base[2:5],
    columns=base[:, 3:6],
    every_third=torch.randn(40)[1::3],
    permuted=torch.randn(2, 3, 4).permute(2, 0, 1),
    half=torch.randn(5, 2).half(),
    bfloat=torch.randn(3, 3).bfloat16().T,
    parameter=torch.nn.Parameter(torch.randn(4)),
    scalar=torch.tensor(1.5),
    integers=torch.arange(3),
)
torch.save(tensors, out / "whole.bin")
# As a module's state_dict() is, with the versions of modules beside the entries.
torch.save(torch.nn.Linear(3, 2).state_dict(), out / "module.bin")
torch.save(tensors, out / "old.bin", _use_new_zipfile_serialization=False)
torch.save({"weight": base, "other": Command()}, out / "command.bin")
values = {
    name: {"shape": list(tensor.shape), "values": tensor.detach().float().flatten().tolist()}
    for name, tensor in tensors.items()
    if tensor.is_floating_point()
}
(out / "values.json").write_text(json.dumps(values) + "\n")
