"""Makes small datasets with the columns and folders of the published ones. Run by `cargo xtask interop --tasks --record`.

Argument: the folder to write to. Every sentence is invented here, from a seed; nothing is taken from the published data.
The rows touch what implementations get wrong: spaces at the ends, brackets, empty texts, choices that are alike, digits
as labels, texts that begin with a special token, letters outside ASCII, and texts longer than a small model's context.
"""

import json
import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ITEMS = 100

SUBJECTS = """abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
college_computer_science college_mathematics college_medicine college_physics computer_security conceptual_physics
econometrics electrical_engineering elementary_mathematics formal_logic global_facts high_school_biology
high_school_chemistry high_school_computer_science high_school_european_history high_school_geography
high_school_government_and_politics high_school_macroeconomics high_school_mathematics high_school_microeconomics
high_school_physics high_school_psychology high_school_statistics high_school_us_history high_school_world_history
human_aging human_sexuality international_law jurisprudence logical_fallacies machine_learning management marketing
medical_genetics miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory professional_accounting
professional_law professional_medicine professional_psychology public_relations security_studies sociology
us_foreign_policy virology world_religions""".split()

NAMES = "Lily Tom Ben Mia Sam Anna Max Sue Tim Zoë Jürgen Noor".split()
ANIMALS = "dog cat bird frog duck bear bunny fish mouse cow owl fox".split()
THINGS = "ball book box cake car cup drum hat kite lamp leaf map rope shell stick stone toy boat".split()
PLACES = "park house garden forest river school kitchen beach hill farm shop lake".split()
KINDS = "big small red blue happy sad old new shiny soft cold warm wet dry loud quiet".split()
DEEDS = "found lost hid threw washed painted shared dropped carried kept broke mended".split()
STUFF = "ice water sand wood iron wool glass clay sugar salt paper rain".split()
TURNS = "melts floats sinks burns rusts grows bends cracks shines dries freezes glows".split()
ODD = ["naïve café", "日本の亀", "🐢 and 🐇", "“quoted” – dash", "e\u0301tude", "3 × 4 = 12", "C:\\temp\\new", "it's \"so\"", "½ cup", "ΟΔΟΣ"]


def write(path, rows, schema):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, path, compression="snappy", use_dictionary=False, write_statistics=False)


def card(folder, configs):
    """The part of a dataset's README.md that names its files."""
    lines = ["---", "configs:"]
    for name, splits in configs.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, path in splits.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


class Writer:
    """Sentences from a seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def of(self, words):
        return self.random.choice(words)

    def chance(self, share):
        return self.random.random() < share

    def clause(self):
        return f"{self.of(NAMES)} {self.of(DEEDS)} the {self.of(KINDS)} {self.of(THINGS)} in the {self.of(PLACES)}"

    def sentence(self):
        forms = [
            lambda: f"{self.clause()}.",
            lambda: f"One day, {self.clause()}, and the {self.of(ANIMALS)} was {self.of(KINDS)}.",
            lambda: f"The {self.of(ANIMALS)} saw that {self.clause()}.",
            lambda: f'"Where is my {self.of(THINGS)}?" asked {self.of(NAMES)}.',
            lambda: f"{self.of(STUFF).capitalize()} {self.of(TURNS)} when the {self.of(PLACES)} is {self.of(KINDS)}.",
        ]
        return self.of(forms)()

    def passage(self, sentences):
        return " ".join(self.sentence() for _ in range(sentences))

    def question(self):
        forms = [
            lambda: f"What did {self.of(NAMES)} do with the {self.of(KINDS)} {self.of(THINGS)}?",
            lambda: f"Which {self.of(ANIMALS)} lives near the {self.of(PLACES)} when it is {self.of(KINDS)}?",
            lambda: f"Why does {self.of(STUFF)} that is {self.of(KINDS)} look like {self.of(STUFF)}?",
            lambda: f"{self.clause()}. What happens next?",
        ]
        return self.of(forms)()

    def phrase(self):
        forms = [
            lambda: f"the {self.of(KINDS)} {self.of(ANIMALS)}",
            lambda: f"It {self.of(TURNS)}",
            lambda: self.of(STUFF),
            lambda: f"{self.of(NAMES)} and the {self.of(ANIMALS)} went to the {self.of(PLACES)}.",
            lambda: str(self.random.randrange(2000)),
            lambda: f"by making the {self.of(THINGS)} {self.of(KINDS)} and then {self.of(KINDS)}",
        ]
        return self.of(forms)()

    def phrases(self, count):
        found = []
        while len(found) < count:
            phrase = self.phrase()
            if phrase not in found:
                found.append(phrase)
        return found

    def odd(self, text):
        """The text, now and then with something unusual in it."""
        if not self.chance(0.25):
            return text
        forms = [
            lambda: text + " ",
            lambda: "  " + text,
            lambda: text.replace(" ", "  ", 1),
            lambda: f"{text} ({self.of(ODD)})",
            lambda: f"{self.of(ODD)}: {text}",
            lambda: text + "\n",
            lambda: text + "\u00a0",
        ]
        return self.of(forms)()


def choices_of(writer, count):
    """Choices with texts and labels as ARC and OpenBookQA have them, and the label of the right one."""
    texts = [writer.odd(phrase) for phrase in writer.phrases(count)]
    labels = [str(i + 1) for i in range(count)] if writer.chance(0.2) else list("ABCDE"[:count])
    return {"text": texts, "label": labels}, writer.of(labels)


CHOICES = pa.struct([("text", pa.list_(pa.string())), ("label", pa.list_(pa.string()))])


def arc(root):
    schema = pa.schema([("id", pa.string()), ("question", pa.string()), ("choices", CHOICES), ("answerKey", pa.string())])
    folder, configs = root / "allenai/ai2_arc", {}
    # Python samples differently from few and from many rows.
    for name, train in [("ARC-Easy", 40), ("ARC-Challenge", 15)]:
        writer = Writer(name)

        def row(index):
            choices, answer = choices_of(writer, writer.of([3, 4, 4, 4, 4, 5]))
            return {"id": f"Made_{index}", "question": writer.odd(writer.question()), "choices": choices, "answerKey": answer}

        rows = [row(index) for index in range(ITEMS + train)]
        # Two choices that are alike: the first of equals counts.
        rows[7]["choices"]["text"][:2] = ["the same"] * 2
        configs[name] = {}
        for split, part in [("train", rows[ITEMS:]), ("validation", rows[ITEMS : ITEMS + 2]), ("test", rows[:ITEMS])]:
            path = f"{name}/{split}-00000-of-00001.parquet"
            write(folder / path, part, schema)
            configs[name][split] = path
    card(folder, configs)


def hellaswag(root):
    writer = Writer("hellaswag")
    marks = ["[header]", "[step]", "[substeps]", "[title]"]

    def ending():
        text = f"{writer.of(DEEDS)} the {writer.of(KINDS)} {writer.of(THINGS)}"
        text += writer.of([".", f" and looks at the {writer.of(ANIMALS)}.", f". The {writer.of(ANIMALS)} is {writer.of(KINDS)}.", ""])
        if writer.chance(0.2):
            text = writer.of([f"{text} {writer.of(marks)} Next.", f"{writer.of(marks)} {text}", f"{text} {writer.of(marks)}"])
        return writer.odd(text)

    def row(index):
        name = writer.of(NAMES)
        how = ctx = f"{writer.sentence()} {name} is in the {writer.of(PLACES)}."
        if writer.chance(0.4):
            how = f"{writer.of(marks)} How to keep {writer.of(STUFF)} {writer.of(KINDS)} [title] Get a {writer.of(THINGS)}. {ctx}"
        after = writer.of(["", f"{name.lower()} then", f"the {writer.of(ANIMALS)}", f"{name} AND The {writer.of(ANIMALS)}", "ΟΔΟΣ AND İ then"])
        if writer.chance(0.15):
            after += writer.of([" [step]", " ", "   slowly", " [substeps] [title] Go"])
        return {
            "ind": index,
            "activity_label": writer.odd(f"{writer.of(DEEDS).capitalize()} a {writer.of(THINGS)}"),
            "ctx_a": how,
            "ctx_b": after,
            "ctx": f"{how} {after}",
            "endings": [ending() for _ in range(4)],
            "source_id": f"made~{index}",
            "split": "val",
            "split_type": writer.of(["indomain", "zeroshot"]),
            "label": str(writer.random.randrange(4)),
        }

    rows = [row(index) for index in range(ITEMS + 30)]
    # Nothing is left of an ending.
    rows[11]["endings"][2] = "[header]"
    text = "activity_label ctx_a ctx_b ctx".split()
    schema = pa.schema(
        [("ind", pa.int32())]
        + [(name, pa.string()) for name in text]
        + [("endings", pa.list_(pa.string()))]
        + [(name, pa.string()) for name in "source_id split split_type label".split()]
    )
    splits(root / "Rowan/hellaswag", "default", "data", {"train": rows[ITEMS:], "validation": rows[:ITEMS]}, schema)


def splits(folder, config, under, parts, schema):
    """One configuration, its splits in one folder."""
    paths = {split: f"{under}/{split}-00000-of-00001.parquet" for split in parts}
    for split, rows in parts.items():
        write(folder / paths[split], rows, schema)
    card(folder, {config: paths})


def piqa(root):
    writer = Writer("piqa")

    def row(_):
        goal = f"How do you keep the {writer.of(KINDS)} {writer.of(THINGS)} {writer.of(KINDS)} at the {writer.of(PLACES)}"
        goal = writer.of([goal + "?", f"To make {writer.of(STUFF)} {writer.of(KINDS)},", writer.sentence()])
        step = f"Put the {writer.of(THINGS)} on the {writer.of(THINGS)}"
        solutions = [
            writer.odd(f"{step} and add {writer.of(STUFF)}."),
            writer.odd(f"{step} and then wait until the {writer.of(STUFF)} {writer.of(TURNS)}, {writer.of(NAMES)} said."),
        ]
        writer.random.shuffle(solutions)
        return {"goal": writer.odd(goal), "sol1": solutions[0], "sol2": solutions[1], "label": writer.random.randrange(2)}

    rows = [row(index) for index in range(ITEMS + 5)]
    # Few examples, some of which are the question itself.
    train = rows[ITEMS:] + rows[:4]
    schema = pa.schema([("goal", pa.string()), ("sol1", pa.string()), ("sol2", pa.string()), ("label", pa.int64())])
    splits(root / "baber/piqa", "default", "data", {"train": train, "validation": rows[:ITEMS]}, schema)


def winogrande(root):
    writer = Writer("winogrande")

    def row(_):
        one, two = writer.random.sample(THINGS, 2)
        forms = [
            f"The {one} did not fit in the {two} because the _ was too {writer.of(KINDS)}.",
            f"{writer.of(NAMES)} put the {one} near the {two}, so the _ got {writer.of(KINDS)}  quickly .",
            f"_ was {writer.of(KINDS)}, and {writer.of(NAMES)} {writer.of(DEEDS)} it in the {writer.of(PLACES)}.",
            f"{writer.of(NAMES)} wanted the {one} and not the {two}; that is the _.",
            f"He saw the {one} and the {two}, but it was the _",
            f"Between {one} and {two} the _ wins, and _ loses.",
        ]
        options = [one, two]
        if writer.chance(0.2):
            options = [f"the {one} ", f"{writer.of(ODD)} {two}"]
        return {"sentence": writer.of(forms), "option1": options[0], "option2": options[1], "answer": writer.of("12")}

    rows = [row(index) for index in range(ITEMS + 25)]
    schema = pa.schema([(name, pa.string()) for name in "sentence option1 option2 answer".split()])
    parts = {"train": rows[ITEMS:], "validation": rows[:ITEMS]}
    splits(root / "allenai/winogrande", "winogrande_xl", "winogrande_xl", parts, schema)


def openbookqa(root):
    writer = Writer("openbookqa")

    def row(index):
        choices, answer = choices_of(writer, 4)
        stem = f"{writer.of(STUFF)} that is {writer.of(KINDS)} {writer.of(['makes', 'needs', 'is like', 'turns into'])}"
        stem = writer.odd(writer.of([stem, writer.question(), f"{writer.clause()} because"]))
        return {"id": f"{index}-made", "question_stem": stem, "choices": choices, "answerKey": writer.of(["", "", " "]) + answer}

    rows = [row(index) for index in range(ITEMS + 30)]
    # A choice after nothing at all.
    rows[5]["question_stem"] = ""
    schema = pa.schema(
        [("id", pa.string()), ("question_stem", pa.string()), ("choices", CHOICES), ("answerKey", pa.string())]
    )
    parts = {"train": rows[ITEMS:], "validation": rows[ITEMS : ITEMS + 2], "test": rows[:ITEMS]}
    splits(root / "allenai/openbookqa", "main", "main", parts, schema)


def boolq(root):
    writer = Writer("boolq")

    def row(index):
        # Every twelfth is longer than the context of a small model.
        passage = writer.passage(40 if index % 12 == 3 else writer.random.randrange(2, 5))
        question = f"{writer.of(['is', 'did', 'can'])} the {writer.of(ANIMALS)} {writer.of(KINDS)} in the {writer.of(PLACES)}"
        passage = f"{writer.of(NAMES)} -- {writer.odd(passage)}"
        return {"question": writer.odd(question), "passage": passage, "idx": index, "label": writer.random.randrange(2)}

    rows = [row(index) for index in range(ITEMS + 20)]
    # Special tokens as text, at the beginning and within.
    rows[20]["passage"] = "<s>" + rows[20]["passage"]
    rows[21]["passage"] = "<|im_start|>" + rows[21]["passage"]
    rows[22]["passage"] += " </s><s><|im_end|>"
    schema = pa.schema([("question", pa.string()), ("passage", pa.string()), ("idx", pa.int32()), ("label", pa.int64())])
    splits(root / "aps/super_glue", "boolq", "boolq", {"train": rows[ITEMS:], "validation": rows[:ITEMS]}, schema)


def mmlu(root):
    folder, configs = root / "cais/mmlu", {}
    schema = pa.schema(
        [("question", pa.string()), ("subject", pa.string()), ("choices", pa.list_(pa.string())), ("answer", pa.int64())]
    )
    for number, subject in enumerate(SUBJECTS):
        writer = Writer(subject)

        def row():
            question = writer.odd(writer.question())
            if writer.chance(0.1):
                question = f" {question}\n{writer.sentence()}\nWhich is right? "
            choices = [writer.odd(phrase) for phrase in writer.phrases(4)]
            return {"question": question, "subject": subject, "choices": choices, "answer": writer.random.randrange(4)}

        configs[subject] = {}
        for split, rows in [("test", 3 if number % 7 == 0 else 2), ("dev", 5)]:
            path = f"{subject}/{split}-00000-of-00001.parquet"
            write(folder / path, [row() for _ in range(rows)], schema)
            configs[subject][split] = path
    card(folder, configs)


def last_words(root):
    writer = Writer("lambada")

    def text(_):
        name, thing = writer.of(NAMES), f"{writer.of(KINDS)} {writer.of(THINGS)}"
        before = writer.odd(writer.passage(writer.random.randrange(1, 3))).rstrip("\n\u00a0")
        last = writer.of(ODD) if writer.chance(0.08) else thing.split()[1]
        return f"{before} {name} had a {thing}. {name} liked to play with the {last}"

    texts = [text(index) for index in range(2 * ITEMS)]
    texts[13] = "hello"
    texts[14] += " "
    texts[15] = writer.passage(40) + " " + texts[15]
    for name, part, config in [("EleutherAI/lambada_openai", texts[:ITEMS], "default"), ("cimec/lambada", texts[ITEMS:], "plain_text")]:
        folder = root / name
        rows = [{"text": text} for text in part]
        if name.startswith("cimec"):
            rows = [{**row, "domain": None} for row in rows]
            schema = pa.schema([("text", pa.string()), ("domain", pa.string())])
            splits(folder, config, config, {"validation": rows[:20], "test": rows}, schema)
            continue
        path = folder / "data/lambada_test.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        card(folder, {config: {"test": "data/lambada_test.jsonl"}})


def main():
    root = Path(sys.argv[1])
    for make in [arc, hellaswag, piqa, winogrande, openbookqa, boolq, mmlu, last_words]:
        make(root)


if __name__ == "__main__":
    main()
