"""Writes the chats below as jsonl and parquet, and what transformers makes of them: their text and token ids in two of the
templates of ../chat_templates, and in the plain form that is used where a model has no template.

    python record.py        (needs transformers and pyarrow; recorded with transformers 5.24 and pyarrow 26)
"""

import json
import pathlib

import pyarrow
import pyarrow.parquet
from transformers import PreTrainedTokenizerFast

FOLDER = pathlib.Path(__file__).parent
TEMPLATES = FOLDER.parent / "chat_templates"
TOKENIZER = FOLDER.parents[2] / "transmla-cli/models/stories260k/tokenizer.json"

CHATS = [
    [("user", "Tell a story."), ("assistant", "Once upon a time there was a little girl named Lily. She had a big red ball.")],
    [("system", "Be kind."), ("user", "Who is Tom?"), ("assistant", "Tom is a cat.\n\nHe likes to play."), ("user", "Why?"),
     ("assistant", "It is fun!")],
    [("user", "Name a naïve café."), ("assistant", "- One day\n- The park")],
]
SPEAKERS = {"user": "human", "assistant": "gpt"}


def messages(chat):
    return [{"role": role, "content": content} for role, content in chat]


def turns(chat):
    return [{"from": SPEAKERS.get(role, role), "value": content} for role, content in chat]


def lines(name, column, rows):
    text = "".join(json.dumps({column: row, "id": at}, ensure_ascii=False) + "\n" for at, row in enumerate(rows))
    (FOLDER / name).write_text(text)


def main():
    lines("messages.jsonl", "messages", [messages(chat) for chat in CHATS])
    lines("conversations.jsonl", "conversations", [turns(chat) for chat in CHATS])
    table = pyarrow.table({"messages": [messages(chat) for chat in CHATS]})
    pyarrow.parquet.write_table(table, FOLDER / "messages.parquet")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER), bos_token="<s>", eos_token="</s>")
    recorded = {}
    for name in ("chatml", "headers"):
        # Text of a dataset does not depend on the day that it is read.
        source = (TEMPLATES / f"{name}.jinja").read_text().replace("strftime_now is defined", "false")
        rows = [tokenizer.apply_chat_template(messages(chat), chat_template=source, tokenize=False) for chat in CHATS]
        ids = tokenizer("".join(rows), add_special_tokens=False)["input_ids"]
        recorded[name] = {"rows": rows, "ids": ids}
    rows = ["\n".join(f"{role}: {content}" for role, content in chat) for chat in CHATS]
    recorded["plain"] = {"rows": rows, "ids": tokenizer("\n\n".join(rows))["input_ids"]}
    (FOLDER / "recorded.json").write_text(json.dumps(recorded, ensure_ascii=False) + "\n")


main()
