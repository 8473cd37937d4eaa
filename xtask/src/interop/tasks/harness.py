"""Scores a model by lm-evaluation-harness on local datasets. Run by `cargo xtask interop --tasks`.

Arguments: the model's folder, then a JSON list of runs, {tasks, num_fewshot, limit, chat}. The working directory has the
datasets in folders named as on the hub, where the harness's own task files look for them. Prints one JSON object a line:
first the versions, then for every run its results, and for every task, item and choice the log-likelihood and whether the
choice is what the model would have written.
"""

import json
import os
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
# A cache that outlives the run would give the rows of older files of the same name.
CACHE = tempfile.TemporaryDirectory()
os.environ["HF_DATASETS_CACHE"] = CACHE.name

import lm_eval
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

CLOZE = "mmlu_cloze"


def subjects():
    return sorted(entry.name for entry in os.scandir("cais/mmlu") if entry.is_dir())


def cloze(subject):
    """MMLU without letters, which is a task of lighteval; here in the terms of the harness."""
    return {
        "task": f"{CLOZE}_{subject}",
        "dataset_path": "cais/mmlu",
        "dataset_name": subject,
        "test_split": "test",
        "fewshot_split": "dev",
        "fewshot_config": {"sampler": "first_n"},
        "output_type": "multiple_choice",
        "description": f"The following are questions about {subject.replace('_', ' ')}.\n",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ["acc", "acc_norm"]],
    }


def score(model, manager, run):
    names = [name for name in run["tasks"] if name != CLOZE]
    tasks = names + ([cloze(subject) for subject in subjects()] if CLOZE in run["tasks"] else [])
    found = lm_eval.simple_evaluate(
        model=model,
        tasks=tasks,
        num_fewshot=run["num_fewshot"] or None,
        limit=run["limit"],
        apply_chat_template=run["chat"],
        fewshot_as_multiturn=run["chat"],
        task_manager=manager,
        log_samples=True,
    )
    pairs = lambda sample: [[round(float(ll), 5), bool(greedy)] for ll, greedy in sample["filtered_resps"]]
    items = {task: [pairs(sample) for sample in samples] for task, samples in found["samples"].items()}
    if "TRANSMLA_SAMPLES" in os.environ:
        with open(os.environ["TRANSMLA_SAMPLES"], "a", encoding="utf-8") as file:
            for task, samples in found["samples"].items():
                for sample in samples:
                    line = {"task": task, "run": run, "arguments": sample["arguments"], "resps": sample["filtered_resps"]}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return {**run, "results": found["results"], "items": items}


def main():
    folder, runs = sys.argv[1], json.loads(sys.argv[2])
    # What libraries print goes to the error stream.
    output, sys.stdout = sys.stdout, sys.stderr
    say = lambda value: print(json.dumps(value, default=str), file=output, flush=True)
    say({"lm_eval": lm_eval.__version__, "transformers": transformers.__version__, "torch": torch.__version__})
    model = HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=8)
    manager = TaskManager()
    for run in runs:
        say(score(model, manager, run))


if __name__ == "__main__":
    main()
