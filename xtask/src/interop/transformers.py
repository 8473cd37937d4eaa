"""Loads converted models in stock transformers and compares them with transmla. Run by `cargo xtask interop`.

Arguments: the transmla binary, then a JSON list of {name, path, prompt, record}. Prints one JSON object a line.
"""

import json
import os
import subprocess
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

NEW_TOKENS = 24


def compare(binary, case):
    path = case["path"]
    with open(os.path.join(path, "config.json")) as file:
        config = json.load(file)
    remote = "auto_map" in config
    model, info = AutoModelForCausalLM.from_pretrained(
        path, trust_remote_code=remote, dtype=torch.float32, output_loading_info=True
    )
    unused = sorted(str(key) for kind in info.values() for key in kind)
    model.eval()
    prompt = None
    if case["prompt"]:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=remote)
        prompt = tokenizer(case["prompt"], return_tensors="pt").input_ids
    else:
        generator = torch.Generator().manual_seed(1)
        prompt = torch.randint(3, config["vocab_size"], (1, 16), generator=generator)
    with torch.no_grad():
        ids = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
        )
        logits = model(ids).logits.float()
    record = case["record"] or os.path.join(path, "interop.safetensors")
    save_file({"input_ids": ids, "logits": logits.contiguous()}, record)
    os.chmod(record, 0o644)
    output = os.path.join(path, "interop-logits.safetensors")
    command = [binary, "logits", "-q", "--force", "--model-path", path, "--input-ids", record, "--output", output]
    subprocess.run(command, check=True)
    ours = load_file(output)["logits"]
    # Greedy text: every token that was generated is our most likely one.
    generated = ids[0, prompt.shape[1] :]
    same = bool((ours[0, prompt.shape[1] - 1 : -1].argmax(-1) == generated).all())
    if case["prompt"]:
        command = [binary, "generate", "-q", "--model-path", path, "--prompt", case["prompt"]]
        ran = subprocess.run(
            [*command, "--max-new-tokens", str(NEW_TOKENS)], check=True, capture_output=True, text=True
        )
        text = tokenizer.decode(ids[0], skip_special_tokens=True)
        same = same and ran.stdout.strip() == text.strip()
    return {
        "name": case["name"],
        "class": type(model).__name__,
        "remote_code": remote,
        "difference": float((logits - ours).abs().max()),
        "largest": float(ours.abs().max()),
        "greedy": same,
        "unused": unused,
    }


def main():
    torch.set_num_threads(int(os.environ.get("INTEROP_THREADS", "1")))
    print(json.dumps({"transformers": transformers.__version__, "torch": torch.__version__}), flush=True)
    binary, cases = sys.argv[1], json.loads(sys.argv[2])
    for case in cases:
        print(json.dumps(compare(binary, case)), flush=True)


main()
