"""Loads converted models in stock transformers and compares them with transmla. Run by `cargo xtask interop`.

Arguments: the transmla binary, then a JSON list of {name, path, prompt, record}. Prints one JSON object a line.

Numbers are the largest differences of logits from those of transmla's own decoder, which runs the whole text at once.
What is generated is held against the plain forward of its own text: every token must be the most likely one there.
"""

import json
import os
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPast

CACHE = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"
# Largest difference of two logits that counts as none.
TOLERANCE = 1e-3
# How much is generated where no layer has a window, and how many windows where some do.
NEW_TOKENS, WINDOWS = 64, 4
# Tokens that our own `generate` writes as well.
TEXT_TOKENS = 24
# Positions whose logits are kept as test data.
KEPT_POSITIONS = 24


def finite(number):
    """JSON has no infinity, and what is not a number is as far off as can be."""
    return number if abs(number) < 1e30 else 1e30


def load(path, remote, **options):
    model, info = AutoModelForCausalLM.from_pretrained(
        path, trust_remote_code=remote, output_loading_info=True, **{"dtype": torch.float32, **options}
    )
    # Texts have a length, not an end: no token has this number.
    model.generation_config.eos_token_id = model.config.vocab_size
    return model.eval(), sorted(str(key) for kind in info.values() for key in kind)


def generate(model, ids, new_tokens, **options):
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0, **options}
    return model.generate(ids, max_new_tokens=new_tokens, **options)


def whole(model, ids):
    return model(ids, use_cache=False).logits.float()


def is_greedy(logits, ids, start):
    """Whether the tokens from a position on are the most likely ones."""
    before = logits[:, start - 1 : -1]
    chosen = before.gather(-1, ids[:, start:, None]).squeeze(-1)
    return bool((before.amax(-1) - chosen).max() < TOLERANCE)


def follows(model, ids, start):
    return is_greedy(whole(model, ids), ids, start)


def in_pieces(model, ids, first, size):
    """Logits of a text that goes through the cache in pieces."""
    cache, found, at = None, [], 0
    while at < ids.shape[1]:
        piece = ids[:, at : at + (size if at else first)]
        outputs = model(piece, use_cache=True, **{CACHE: cache})
        cache, at = outputs[CACHE], at + piece.shape[1]
        found.append(outputs.logits.float())
    return torch.cat(found, dim=1)


def padding(model, ids, ours, prompt):
    """Two texts of different lengths in one batch: the whole text, and its beginning behind padding."""
    length = ids.shape[1]
    gap = length // 3
    both = torch.cat((ids, torch.nn.functional.pad(ids[:, :-gap], (gap, 0))))
    mask = torch.ones_like(both)
    mask[1, :gap] = 0
    logits = model(both, attention_mask=mask).logits.float()
    difference = max(
        float((logits[0] - ours[0]).abs().max()), float((logits[1, gap:] - ours[0, : length - gap]).abs().max())
    )
    # And generated: the prompt, and a shorter one.
    gap = prompt // 2
    both = torch.cat((ids[:, :prompt], torch.nn.functional.pad(ids[:, gap:prompt], (gap, 0))))
    mask = torch.ones_like(both)
    mask[1, :gap] = 0
    made = generate(model, both, length - prompt, attention_mask=mask)
    rows = ((made[:1], prompt), (made[1:, gap:], prompt - gap))
    return difference, all(follows(model, row, start) for row, start in rows)


def beams(model, prompt, new_tokens):
    """Beam search with and without a cache, and the plain forward, give one score."""
    scores = []
    for use_cache in (True, False):
        made = generate(
            model,
            prompt,
            new_tokens,
            use_cache=use_cache,
            num_beams=3,
            return_dict_in_generate=True,
            output_scores=True,
        )
        text = made.sequences
        shares = whole(model, text).log_softmax(-1)[:, prompt.shape[1] - 1 : -1]
        plain = shares.gather(-1, text[:, prompt.shape[1] :, None]).mean()
        scores += [float(made.sequences_scores[0]), float(plain)]
    return max(scores) - min(scores) < TOLERANCE


def second_turn(model, ids, prompt):
    """A second question on top of the cache that the first answer left."""
    half = (ids.shape[1] - prompt) // 2
    made = generate(model, ids[:, :prompt], half, return_dict_in_generate=True, use_cache=True)
    question = torch.cat((made.sequences, ids[:, :7]), dim=1)
    answer = generate(model, question, half, **{CACHE: made[CACHE]})
    return follows(model, answer, question.shape[1])


def our_logits(binary, path, record, output):
    """Logits of transmla's own decoder for the token ids of a file."""
    command = [binary, "logits", "-q", "--force", "--model-path", path, "--input-ids", record, "--output", output]
    subprocess.run(command, check=True)
    return load_file(output)["logits"]


def saved(model, remote, ids, ours):
    """What save_pretrained writes is the same model, to transformers and to transmla."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again, _ = load(folder, remote)
        # Sums may be rounded otherwise where weights lie elsewhere in memory.
        same = bool((whole(again, ids) - whole(model, ids)).abs().max() < 1e-5)
        return same and bool((ours(folder) - whole(model, ids)).abs().max() < TOLERANCE)


def states(model, eager, ids):
    """Hidden states, attention weights and embeddings as every model of transformers gives and takes them."""
    outputs = eager(ids, output_hidden_states=True, output_attentions=True)
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    shares, hidden = outputs.attentions, outputs.hidden_states
    if len(hidden) != layers + 1 or len(shares) != layers:
        return False
    length = ids.shape[1]
    sound = all(share.shape == (1, heads, length, length) for share in shares)
    sound = sound and all(bool(((share.sum(-1) - 1).abs() < 1e-5).all()) for share in shares)
    embeds = model.get_input_embeddings()(ids)
    for given in (model(inputs_embeds=embeds), eager(ids, return_dict=False)[0]):
        logits = given if isinstance(given, torch.Tensor) else given.logits
        sound = sound and bool((logits - outputs.logits).abs().max() < TOLERANCE)
    made = generate(model, ids[:, :5], 4, attention_mask=None, inputs_embeds=embeds[:, :5])
    sound = sound and follows(model, made, 5)
    return sound


def trains(model, ids):
    """A step with and without gradient checkpointing has one gradient."""
    gradients = []
    for checkpointing in (False, True):
        model.gradient_checkpointing_enable() if checkpointing else model.gradient_checkpointing_disable()
        model.train()
        model.zero_grad()
        with torch.enable_grad():
            model(ids, labels=ids).loss.backward()
        gradients.append(model.get_input_embeddings().weight.grad.clone())
    model.gradient_checkpointing_disable()
    model.zero_grad()
    model.eval()
    return bool((gradients[0] - gradients[1]).abs().max() < 1e-5 * gradients[0].abs().max())


def half(path, remote, ids, ours):
    """Half precision: the share of the largest logit by which logits differ."""
    worst = 0.0
    for dtype in (torch.bfloat16, torch.float16):
        model, _ = load(path, remote, dtype=dtype)
        logits = in_pieces(model, ids, ids.shape[1] - 7, 7)
        worst = max(worst, finite(float((logits - ours).abs().max() / ours.abs().max())))
    return worst


def holds(name, check):
    """Whether a check holds; one that fails to run does not, and the others still run."""
    try:
        return check()
    except Exception as problem:
        print(f"{name}: {type(problem).__name__}: {problem}", file=sys.stderr)
        return False


def compare(binary, case):
    path = case["path"]
    with open(os.path.join(path, "config.json")) as file:
        config = json.load(file)
    remote = "auto_map" in config
    model, unused = load(path, remote, attn_implementation="sdpa")
    eager, _ = load(path, remote, attn_implementation="eager")
    if case["prompt"]:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=remote)
        prompt = tokenizer(case["prompt"], return_tensors="pt").input_ids
    else:
        generator = torch.Generator().manual_seed(1)
        prompt = torch.randint(3, config["vocab_size"], (1, 16), generator=generator)
    start, window = prompt.shape[1], config.get("sliding_window")
    new_tokens = WINDOWS * window if window else NEW_TOKENS
    ids = generate(model, prompt, new_tokens)
    by_one = in_pieces(model, ids, start, 1)

    record = case["record"] or f"{path}-ids.safetensors"
    positions = torch.linspace(0, ids.shape[1] - 1, KEPT_POSITIONS).round().long()
    kept = {"input_ids": ids, "logits": by_one[:, positions].contiguous()}
    save_file({**kept, "positions": positions, "prompt_tokens": torch.tensor([start])}, record)
    os.chmod(record, 0o644)
    # Not among the model's files, of which engines read every one.
    output = f"{path}-logits.safetensors"
    ours = our_logits(binary, path, record, output)

    def difference(logits):
        return finite(float((logits - ours).abs().max()))

    greedy = is_greedy(ours, ids, start)
    if case["prompt"]:
        command = [binary, "generate", "-q", "--model-path", path, "--prompt", case["prompt"]]
        ran = subprocess.run(
            [*command, "--max-new-tokens", str(TEXT_TOKENS)], check=True, capture_output=True, text=True
        )
        text = tokenizer.decode(ids[0, : start + TEXT_TOKENS], skip_special_tokens=True)
        greedy = greedy and text.strip().startswith(ran.stdout.strip())
    pieces = [in_pieces(eager, ids, start, size) for size in (1, 7)]
    padded, padded_text = padding(model, ids, ours, start)
    def made_with(**options):
        return follows(model, generate(model, prompt, new_tokens, **options), start)

    checks = {
        "greedy": lambda: greedy,
        "batch": lambda: padded_text,
        "no cache": lambda: made_with(use_cache=False),
        "beams": lambda: beams(model, prompt, (window or 8) + 8),
        "static": lambda: made_with(cache_implementation="static"),
        "assisted": lambda: made_with(prompt_lookup_num_tokens=3),
        "turn": lambda: second_turn(model, ids, start),
        "outputs": lambda: states(model, eager, ids),
        "trains": lambda: trains(model, ids),
        "saved": lambda: saved(model, remote, ids, lambda folder: our_logits(binary, folder, record, output)),
    }
    return {
        "name": case["name"],
        "class": type(model).__name__,
        "remote_code": remote,
        "largest": float(ours.abs().max()),
        "unused": unused,
        "numbers": {
            "forward": difference(whole(model, ids)),
            "by 1": difference(by_one),
            "by 7": max(difference(in_pieces(model, ids, first, 7)) for first in (1, start, ids.shape[1] - 7)),
            "eager": max(difference(logits) for logits in (whole(eager, ids), *pieces)),
            "padding": finite(padded),
        },
        "checks": {name: holds(f"{case['name']}, {name}", check) for name, check in checks.items()},
        "half": half(path, remote, ids, ours),
    }


def main():
    torch.set_num_threads(int(os.environ.get("INTEROP_THREADS", "1")))
    torch.set_grad_enabled(False)
    print(json.dumps({"transformers": transformers.__version__, "torch": torch.__version__}), flush=True)
    binary, cases = sys.argv[1], json.loads(sys.argv[2])
    for case in cases:
        print(json.dumps(compare(binary, case)), flush=True)


if __name__ == "__main__":
    main()
