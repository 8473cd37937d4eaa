//! Needles in haystacks: a number is told once in a long text, and asked for at its end. Everything is made from a seed.

use transmla_calib::{Record, RecordValue};

use crate::tasks::catalogue::{NEEDLE, Part};
use crate::tasks::error::TaskError;
use crate::tasks::pair::Pairs;
use crate::tasks::prepared::{ModelText, PreparedItem, PreparedTask, TaskOptions};
use crate::tasks::python_random::PythonRandom;
use crate::tasks::spec::{FewshotRule, Mean, Metric, PairRule, TaskKind, TaskSpec};

const SEED: u64 = 42;

/// Depths of the needle, as shares of the text, and texts for each.
const DEPTHS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
const TEXTS: usize = 8;

/// Numbers to choose from.
const CHOICES: usize = 4;

/// Shortest and longest text that is asked for where no lengths are given, in tokens.
const SHORTEST: usize = 256;
const LONGEST: usize = 32_768;

const WHO: [&str; 12] = [
    "The baker",
    "A young woman",
    "My neighbour",
    "The old sailor",
    "His sister",
    "The teacher",
    "A tired traveller",
    "The gardener",
    "Our friend",
    "The doctor",
    "A little boy",
    "The painter",
];
const WHAT: [&str; 12] = [
    "walked slowly to",
    "looked for a friend at",
    "bought some bread near",
    "told a story about",
    "waited a long time at",
    "carried a heavy bag to",
    "read a letter in",
    "drew a picture of",
    "sang a song beside",
    "found a coin in front of",
    "drank a cup of tea at",
    "planted a tree behind",
];
const WHERE: [&str; 12] = [
    "the market",
    "the station",
    "the river",
    "the old bridge",
    "the school",
    "the harbour",
    "the library",
    "the big park",
    "the mill",
    "the town hall",
    "the church",
    "the lake",
];
const WHEN: [&str; 6] = [
    "in the morning",
    "after the rain",
    "before it was dark",
    "on a warm day",
    "with a smile",
    "without a word",
];
const KEEPERS: [&str; 10] = [
    "Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Ida", "Jack",
];

/// The tasks, one for each length.
pub(super) struct Needles {
    pub tasks: Vec<PreparedTask>,
}

impl Needles {
    /// Texts of the lengths that are asked for, or of 256, 512, 1024 … tokens up to what the model reads.
    pub fn new(model: &ModelText<'_>, options: &TaskOptions) -> Result<Self, TaskError> {
        let doubled = std::iter::successors(Some(SHORTEST), |length| Some(2 * length));
        let most = model.max_length.min(LONGEST);
        let mut lengths = match options.needle_lengths.is_empty() {
            true => doubled.take_while(|length| *length <= most).collect(),
            false => options.needle_lengths.clone(),
        };
        lengths.dedup();
        if let Some(length) = lengths.iter().find(|length| !(64..=model.max_length).contains(*length)) {
            return Err(TaskError::Definition {
                file: "needle".into(),
                problem: format!(
                    "texts of {length} tokens were asked for; expected 64 to {}, which the model reads",
                    model.max_length
                ),
            });
        }
        let tasks = lengths.into_iter().map(|length| task(length, model, options));
        Ok(Self {
            tasks: tasks.collect::<Result<_, _>>()?,
        })
    }
}

fn task(length: usize, model: &ModelText<'_>, options: &TaskOptions) -> Result<PreparedTask, TaskError> {
    let mut random = PythonRandom::new(SEED + length as u64);
    let pairs = Pairs {
        tokenizer: model.tokenizer,
        start: model.tokenizer.start_token(),
    };
    let mut items = Vec::new();
    for _ in 0..TEXTS {
        for depth in DEPTHS {
            items.push(item(length, depth, &mut random, &pairs)?);
        }
    }
    let records = items.len();
    if let Some(limit) = options.limit {
        let kept = if limit < 1.0 {
            (records as f64 * limit).ceil()
        } else {
            limit
        };
        items.truncate(kept as usize);
    }
    Ok(PreparedTask {
        part: Part {
            name: format!("{NEEDLE}_{length}"),
            alias: format!("{NEEDLE}_{length}"),
            spec: spec(),
        },
        shots: 0,
        records,
        items,
    })
}

fn spec() -> TaskSpec {
    TaskSpec {
        kind: TaskKind::MultipleChoice,
        dataset: NEEDLE.into(),
        config: None,
        revision: String::new(),
        file: None,
        groups: Vec::new(),
        split: "test".into(),
        fewshot_split: None,
        fewshot: FewshotRule::First,
        fewshot_excludes_item: false,
        description: String::new(),
        question: String::new(),
        choices: None,
        choice: None,
        answer: None,
        labels: None,
        target_delimiter: " ".into(),
        metrics: vec![Metric::Acc],
        mean: Mean::OfRecords,
        pairs: PairRule::Harness,
        version: 1.0,
    }
}

/// A text of at most `length` tokens with the needle at a depth of it, and numbers to choose from.
fn item(length: usize, depth: f64, random: &mut PythonRandom, pairs: &Pairs<'_>) -> Result<PreparedItem, TaskError> {
    let keeper = pick(&KEEPERS, random);
    let mut numbers: Vec<usize> = Vec::new();
    while numbers.len() < CHOICES {
        let number = 1000 + random.sample(9000, 1)[0];
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    let gold = random.sample(CHOICES, 1)[0];
    let needle = format!("The secret number of {keeper} is {}.", numbers[gold]);
    let question = format!("The secret number of {keeper} is");
    let mut sentences: Vec<String> = Vec::new();
    let text = |sentences: &[String]| {
        let place = (depth * sentences.len() as f64).round() as usize;
        let (before, behind) = sentences.split_at(place);
        let parts = before.iter().chain([&needle]).chain(behind).chain([&question]);
        parts.map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    let number = |index: usize| format!(" {}", numbers[index]);
    let tokens = |sentences: &[String]| -> Result<usize, TaskError> {
        let request = pairs.encode(&text(sentences), &number(gold), PairRule::Harness)?;
        Ok(request.map_or(0, |request| request.context.len() + request.continuation.len()))
    };
    // Sentences are about as long as each other: most of them at once, the last ones one by one.
    let first: Vec<String> = (0..8).map(|_| sentence(random)).collect();
    let each = tokens(&first)?
        .saturating_sub(tokens(&[])?)
        .div_ceil(first.len())
        .max(1);
    let many = (length.saturating_sub(tokens(&[])?) / each).saturating_sub(4);
    sentences.extend((0..many).map(|_| sentence(random)));
    while tokens(&sentences)? > length && sentences.pop().is_some() {}
    loop {
        sentences.push(sentence(random));
        if tokens(&sentences)? > length {
            sentences.pop();
            break;
        }
    }
    let context = text(&sentences);
    let texts: Vec<(String, String)> = (0..CHOICES).map(|index| (context.clone(), number(index))).collect();
    let requests = texts
        .iter()
        .map(|(context, continuation)| {
            let request = pairs.encode(context, continuation, PairRule::Harness)?;
            request.ok_or(TaskError::NoStart {
                task: NEEDLE.into(),
                record: 0,
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(PreparedItem {
        record: Record::new(vec![
            ("needle".into(), RecordValue::Text(needle.clone())),
            ("depth".into(), RecordValue::Float(depth)),
            ("tokens".into(), RecordValue::Int(tokens(&sentences)? as i64)),
        ]),
        texts,
        requests,
        lengths: vec![4; CHOICES],
        gold: Some(gold),
    })
}

fn sentence(random: &mut PythonRandom) -> String {
    let (who, what) = (pick(&WHO, random), pick(&WHAT, random));
    let (place, when) = (pick(&WHERE, random), pick(&WHEN, random));
    format!("{who} {what} {place} {when}.")
}

fn pick<'a>(from: &[&'a str], random: &mut PythonRandom) -> &'a str {
    from[random.choice(from.len())]
}
