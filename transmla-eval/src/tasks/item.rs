//! A record as questions and answers.

use transmla_calib::Record;

use crate::tasks::python_text::strip;
use crate::tasks::spec::{TaskKind, TaskSpec};
use crate::tasks::template::Templates;

/// A record as a task asks it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    /// One, or one for each answer ([`TaskKind::FillIn`]).
    pub questions: Vec<String>,
    /// Continuations without the delimiter; one for all questions where there are several.
    pub answers: Vec<String>,
    /// The right one; nothing if it is not among them.
    pub gold: Option<usize>,
}

impl Item {
    /// Reads a record; what is wrong with it in words.
    pub fn of(spec: &TaskSpec, templates: &Templates, record: &Record) -> Result<Self, String> {
        let question = templates.render("question", record)?;
        if spec.kind == TaskKind::LastWord {
            // Single spaces divide words, no other white space.
            let (before, last) = question.rsplit_once(' ').unwrap_or(("", &question));
            return Ok(Self {
                questions: vec![before.to_owned()],
                answers: vec![format!(" {last}")],
                gold: Some(0),
            });
        }
        let (Some(choices), Some(_)) = (&spec.choices, &spec.answer) else {
            return Err("`choices` and `answer` are required".into());
        };
        let choices = templates.list("choices", choices, record)?;
        let choices: Vec<String> = choices
            .iter()
            .map(|choice| templates.choice(record, choice))
            .collect::<Result<_, _>>()?;
        let answer = templates.render("answer", record)?;
        let gold = match &spec.labels {
            Some(labels) => {
                let labels = templates.list("labels", labels, record)?;
                let index = labels.iter().position(|label| *label == answer);
                Some(index.ok_or_else(|| format!("answer {answer:?} is none of the labels {}", labels.join(", ")))?)
            }
            None => answer.trim().parse::<usize>().ok(),
        };
        let gold = gold.filter(|gold| *gold < choices.len());
        if spec.kind == TaskKind::MultipleChoice {
            return Ok(Self {
                questions: vec![question],
                answers: choices,
                gold,
            });
        }
        let (before, behind) = question
            .split_once('_')
            .ok_or_else(|| format!("the sentence has no _ to fill in: {question:?}"))?;
        Ok(Self {
            questions: choices.iter().map(|choice| format!("{before}{choice}")).collect(),
            answers: vec![strip(behind).to_owned()],
            gold,
        })
    }

    /// Question and answer where the record is an example.
    pub fn example(&self) -> (String, String) {
        let gold = self.gold.unwrap_or(0);
        let of = |texts: &[String]| texts.get(gold).or(texts.first()).cloned().unwrap_or_default();
        (of(&self.questions), of(&self.answers))
    }

    /// Number of choices.
    pub fn choices(&self) -> usize {
        self.questions.len().max(self.answers.len())
    }
}
