"""Renders the chats below with every template of this folder by transformers, and writes renderings.json.

    python record.py        (needs transformers; recorded with 5.24)
"""

import datetime
import json
import pathlib

import transformers.utils.chat_template_utils as transformers_chat

FOLDER = pathlib.Path(__file__).parent
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


class RecordedDay(datetime.datetime):
    """Always the same time."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 4, 12, 30)


def chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


CHATS = {
    "question": chat(("user", "What is the capital of France?")),
    "system": chat(("system", "  Answer briefly.\n"), ("user", " Name a colour. ")),
    "turns": chat(
        ("user", "Hi"),
        ("assistant", "Hello!\n"),
        ("user", 'Tell me a "joke" with ünïcödé 🦀 & <tags>.'),
        ("assistant", "<think>\nHm.\n</think>\n\nNo."),
    ),
    "long": chat(
        ("system", "Be kind."),
        ("user", "One"),
        ("assistant", "1"),
        ("user", "Two"),
        ("assistant", "<think>two?</think>2"),
        ("user", "Three"),
        ("assistant", "3"),
        ("user", "Four\n\nlines"),
    ),
    "answer first": chat(("assistant", "I begin."), ("user", "No.")),
    "two questions": chat(("user", "a"), ("user", "b")),
    "odd role": chat(("user", "a"), ("critic", "b")),
    "empty": chat(("user", "")),
}


def render(source, messages, add_generation_prompt):
    try:
        rendered, _ = transformers_chat.render_jinja_template(
            [messages], chat_template=source, add_generation_prompt=add_generation_prompt, **TOKENS
        )
    except Exception as error:  # What a template refuses is recorded too.
        return {"error": str(error)}
    return {"text": rendered[0]}


def main():
    transformers_chat.datetime = RecordedDay
    cases = [
        {
            "template": path.stem,
            "chat": name,
            "messages": messages,
            "add_generation_prompt": prompt,
            **render(path.read_text(), messages, prompt),
        }
        for path in sorted(FOLDER.glob("*.jinja"))
        for name, messages in CHATS.items()
        for prompt in (False, True)
    ]
    (FOLDER / "renderings.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")


main()
