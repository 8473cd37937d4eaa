//! The texts of a task, as templates over the columns of a record.

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use transmla_calib::{Record, RecordValue};

use crate::tasks::catalogue::Part;
use crate::tasks::error::TaskError;
use crate::tasks::python_text::{capitalize, strip, without_brackets};
use crate::tasks::spec::{Choices, TaskSpec};

/// What a template may use up, so that every one comes to an end.
const FUEL: u64 = 1_000_000;

/// The templates of one task.
pub(super) struct Templates {
    environment: Environment<'static>,
    config: Value,
}

impl Templates {
    /// Parses all of them.
    pub fn of(part: &Part) -> Result<Self, TaskError> {
        let spec = &part.spec;
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        environment.set_syntax(syntax.map_err(|error| TaskError::Definition {
            file: format!("task {}", part.name),
            problem: error.to_string(),
        })?);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("stripped", |text: String| strip(&text).to_owned());
        environment.add_filter("capitalized", |text: String| capitalize(&text));
        environment.add_filter("without_brackets", |text: String| without_brackets(&text));
        environment.add_filter("spaced", |text: String| text.replace('_', " "));
        for (name, source) in sources(spec) {
            environment
                .add_template_owned(name.clone(), source)
                .map_err(|error| TaskError::Definition {
                    file: format!("task {}", part.name),
                    problem: format!("`{name}`: {error}"),
                })?;
        }
        Ok(Self {
            environment,
            config: Value::from(spec.config.clone().unwrap_or_default()),
        })
    }

    /// A text of a record; what is wrong with it in words.
    pub fn render(&self, name: &str, record: &Record) -> Result<String, String> {
        self.with(name, record, None)
    }

    /// What becomes of a choice.
    pub fn choice(&self, record: &Record, choice: &str) -> Result<String, String> {
        match self.environment.get_template("choice") {
            Ok(_) => self.with("choice", record, Some(choice)),
            Err(_) => Ok(choice.to_owned()),
        }
    }

    /// Texts that a column has, or templates make.
    pub fn list(&self, name: &str, choices: &Choices, record: &Record) -> Result<Vec<String>, String> {
        match choices {
            Choices::Templates(templates) => (0..templates.len())
                .map(|index| self.render(&format!("{name}.{index}"), record))
                .collect(),
            Choices::Column(column) => {
                let found = record.get(column).ok_or_else(|| absent(column, record))?;
                let list = found.as_list().ok_or_else(|| format!("column {column} is no list"))?;
                Ok(list.iter().map(|value| of_value(value).to_string()).collect())
            }
        }
    }

    fn with(&self, name: &str, record: &Record, choice: Option<&str>) -> Result<String, String> {
        let columns = record
            .columns()
            .iter()
            .map(|(name, value)| (name.clone(), of_value(value)));
        let mut context: Vec<(String, Value)> = columns.collect();
        context.push(("config".into(), self.config.clone()));
        context.extend(choice.map(|choice| ("choice".to_owned(), Value::from(choice))));
        let template = self.environment.get_template(name).map_err(|error| error.to_string())?;
        template.render(Value::from_pairs(context)).map_err(|error| {
            let columns: Vec<&str> = record.columns().iter().map(|(name, _)| name.as_str()).collect();
            format!("`{name}`: {error}; columns: {}", columns.join(", "))
        })
    }
}

fn absent(column: &str, record: &Record) -> String {
    let columns: Vec<&str> = record.columns().iter().map(|(name, _)| name.as_str()).collect();
    format!("there is no column {column}; found {}", columns.join(", "))
}

/// Names and sources of all templates.
fn sources(spec: &TaskSpec) -> Vec<(String, String)> {
    let one = |name: &str, text: &Option<String>| text.clone().map(|text| (name.to_owned(), text));
    let many = |name: &str, choices: &Option<Choices>| match choices {
        Some(Choices::Templates(templates)) => {
            let named = |(index, text): (usize, &String)| (format!("{name}.{index}"), text.clone());
            templates.iter().enumerate().map(named).collect()
        }
        _ => Vec::new(),
    };
    let mut found = vec![
        ("question".to_owned(), spec.question.clone()),
        ("description".to_owned(), spec.description.clone()),
    ];
    found.extend(one("answer", &spec.answer));
    found.extend(one("choice", &spec.choice));
    found.extend(many("choices", &spec.choices));
    found.extend(many("labels", &spec.labels));
    found
}

fn of_value(value: &RecordValue) -> Value {
    match value {
        RecordValue::Null => Value::from(()),
        RecordValue::Bool(value) => Value::from(*value),
        RecordValue::Int(value) => Value::from(*value),
        RecordValue::Float(value) => Value::from(*value),
        RecordValue::Text(text) => Value::from(text.as_str()),
        RecordValue::List(values) => values.iter().map(of_value).collect(),
        RecordValue::Record(record) => {
            let columns = record.columns().iter();
            Value::from_pairs(columns.map(|(name, value)| (name.clone(), of_value(value))))
        }
    }
}
