"""Runs converted models in vLLM on a CPU and compares them with transmla's own decoder. Run by `cargo xtask interop --vllm`.

Arguments: the transmla binary, a folder for files, the models' folders. Prints one JSON object a model.

The rotary kernel that vLLM 0.32 has for CPUs (a custom op) is wrong for queries of three dimensions, [tokens, heads, width], which are
what its latent attention gives it: a DeepSeek-V3 model of transformers' own shows it. Without custom ops plain torch computes the
same. The plugin's classes give it two dimensions and need no such thing.
"""

import json
import os
import subprocess
import sys

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ["HF_HUB_OFFLINE"] = "1"
# One process for all models, for most of the time goes into starting them.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

CONTEXT = 128
NEW_TOKENS = 24
PROMPTS = (5, 48)


def prompts(vocabulary):
    import torch

    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, vocabulary, (length,), generator=generator).tolist() for length in PROMPTS]


def our_logits(binary, path, ids, folder):
    import torch
    from safetensors.torch import load_file, save_file

    given, output = (os.path.join(folder, name) for name in ("ids.safetensors", "logits.safetensors"))
    save_file({"input_ids": torch.tensor([ids])}, given)
    command = [binary, "logits", "-q", "--force", "--model-path", path, "--input-ids", given, "--output", output]
    subprocess.run(command, check=True)
    return load_file(output)["logits"][0].double()


def compare(binary, path, folder, plugin):
    """Differences of log-probabilities from ours, and how far the logit of a token that vLLM chose is at most below our largest."""
    import torch
    from vllm import LLM, SamplingParams

    with open(os.path.join(path, "config.json")) as file:
        config = json.load(file)
    model = LLM(
        model=path,
        dtype="float32",
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=min(CONTEXT, config["max_position_embeddings"]),
        max_num_seqs=2,
        compilation_config={} if plugin else {"custom_ops": ["none"]},
    )
    # A text has a length, not an end.
    sampling = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True, prompt_logprobs=0, logprobs=0, detokenize=False)
    asked = [{"prompt_token_ids": ids} for ids in prompts(config["vocab_size"])]
    worst, greedy, count = 0.0, 0.0, 0
    for out in model.generate(asked, sampling):
        written = list(out.outputs[0].token_ids)
        ids = list(out.prompt_token_ids) + written
        logits = our_logits(binary, path, ids, folder)
        ours = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        entries = [entry for entry in out.prompt_logprobs if entry] + list(out.outputs[0].logprobs)
        theirs = torch.tensor([entry[token].logprob for entry, token in zip(entries, ids[1:], strict=True)], dtype=torch.float64)
        worst = max(worst, float((ours - theirs).abs().max()))
        chosen = logits[-len(written) - 1 : -1]
        greedy = max(greedy, float((chosen.amax(-1) - chosen.gather(1, torch.tensor(written)[:, None])[:, 0]).max()))
        count += len(ids) - 1
    del model
    return {"tokens": count, "log_probability": worst, "greedy": greedy}


def main():
    import vllm

    binary, folder, *models = sys.argv[1:]
    for path in models:
        with open(os.path.join(path, "config.json")) as file:
            name = json.load(file)["architectures"][0]
        found = compare(binary, path, folder, name != "DeepseekV3ForCausalLM")
        print(json.dumps({"vllm": vllm.__version__, "path": path, "class": name, **found}), flush=True)


if __name__ == "__main__":  # vLLM starts processes of its own, which import this file.
    main()
