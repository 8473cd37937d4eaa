//! Chat templates: a chat as the text that a model was trained on.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use serde_json::Value as Json;

use crate::error::CalibError;
use crate::text::tokens::python_json::python_json;
use crate::text::tokens::python_methods::python_method;
use crate::text::tokens::template_files::{DEFAULT_TEMPLATE, NamedTemplate, json_of, templates_of};

/// One turn of a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl ChatMessage {
    /// A turn of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::of("user", content)
    }

    /// A turn of the assistant.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::of("assistant", content)
    }

    /// Instructions in front of a chat.
    pub fn system(content: impl Into<String>) -> Self {
        Self::of("system", content)
    }

    fn of(role: &str, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }
}

/// What a template may use up: instructions, and units of 64 bytes that it makes.
const FUEL: u64 = 5_000_000;

/// Most bytes of a rendered chat.
const LARGEST_TEXT: usize = 64 << 20;

/// Keys of tokenizer_config.json whose tokens a template may use.
const SPECIAL_TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// A model's own chat template, in Jinja, with what transformers offers to it.
///
/// Blocks are trimmed as transformers has it (`trim_blocks`, `lstrip_blocks`), and templates may call `raise_exception`,
/// `strftime_now`, `tojson` and the methods of Python's strings, lists and dictionaries.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: Vec<(String, Value)>,
    file: String,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// The template of a model's folder: `chat_template.jinja`, else `chat_template.json`, else the key `chat_template` of
    /// `tokenizer_config.json`, a string or a list of named ones of which `default` is taken; nothing if there is none.
    ///
    /// # Errors
    /// Files that cannot be read or are no JSON, a template that is no Jinja, a list without `default`.
    pub fn from_folder(folder: &Path) -> Result<Option<Self>, CalibError> {
        let config = json_of(folder, "tokenizer_config.json")?;
        let Some(template) = default_of(templates_of(folder, config.as_ref())?)? else {
            return Ok(None);
        };
        let tokens = match config {
            Some(config) => special_tokens(&config),
            None => Vec::new(),
        };
        Self::parse(&template.file, &template.source, tokens).map(Some)
    }

    /// A template from its source.
    ///
    /// `special_tokens` are the variables such as `bos_token` that it may use; `file` is what errors name.
    ///
    /// # Errors
    /// [`CalibError::ChatTemplate`] for what is no Jinja.
    pub fn parse(file: &str, source: &str, special_tokens: Vec<(String, String)>) -> Result<Self, CalibError> {
        let parsed = || {
            let mut environment = Environment::new();
            environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
            environment.set_fuel(Some(FUEL));
            environment.set_auto_escape_callback(|_| AutoEscape::None);
            environment.set_unknown_method_callback(python_method);
            environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, message))
            });
            environment.add_filter("tojson", |value: Value, options: Kwargs| -> Result<String, Error> {
                python_json(&value, options.get("indent")?)
            });
            environment.add_template_owned(file.to_owned(), without_generation_tags(source))?;
            Ok(environment)
        };
        let environment = parsed().map_err(|error| refused(file, error))?;
        Ok(Self {
            environment,
            special_tokens: special_tokens
                .into_iter()
                .map(|(name, token)| (name, Value::from(token)))
                .collect(),
            file: file.to_owned(),
        })
    }

    /// Lets the template know the time, in UTC; without one `strftime_now` is not defined, as in older versions of
    /// transformers, and templates have a date of their own.
    #[must_use]
    pub fn at(mut self, now: SystemTime) -> Self {
        if let Ok(now) = Timestamp::try_from(now) {
            self.environment
                .add_function("strftime_now", move |format: String| -> Result<String, Error> {
                    jiff::fmt::strtime::format(&format, now)
                        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
                });
        }
        self
    }

    /// A special token of the model by the key of tokenizer_config.json that names it, such as `eos_token`.
    pub fn special_token(&self, name: &str) -> Option<&str> {
        let token = self.special_tokens.iter().find(|(key, _)| key == name)?;
        token.1.as_str()
    }

    /// The error of a chat that this template has no form for.
    pub(crate) fn refusal(&self, problem: &str) -> CalibError {
        CalibError::unusable_template(&self.file, problem)
    }

    /// The text of a chat; with `add_generation_prompt` up to where the assistant's answer begins.
    ///
    /// # Errors
    /// [`CalibError::ChatTemplate`] for what the template refuses (its own words), fails at, or does without end.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, CalibError> {
        let message = |message: &ChatMessage| {
            Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())])
        };
        let mut context = self.special_tokens.clone();
        context.extend(
            [
                ("messages", messages.iter().map(message).collect()),
                ("tools", Value::from(())),
                ("documents", Value::from(())),
                ("add_generation_prompt", Value::from(add_generation_prompt)),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let mut text = Bounded(Vec::new());
        let rendered = self.environment.get_template(&self.file).and_then(|template| {
            template
                .render_captured_to(Value::from_pairs(context), &mut text)
                .map(drop)
        });
        rendered.map_err(|error| refused(&self.file, error))?;
        Ok(String::from_utf8_lossy(&text.0).into_owned())
    }
}

/// The template for plain chats among those of a folder.
fn default_of(templates: Vec<NamedTemplate>) -> Result<Option<NamedTemplate>, CalibError> {
    let Some(file) = templates.first().map(|template| template.file.clone()) else {
        return Ok(None);
    };
    let names: Vec<String> = templates.iter().map(|template| template.name.clone()).collect();
    let default = templates.into_iter().find(|template| template.name == DEFAULT_TEMPLATE);
    default.map(Some).ok_or_else(|| {
        let names = names.join(", ");
        CalibError::unusable_template(file, format!("no template is named {DEFAULT_TEMPLATE}; found: {names}"))
    })
}

/// Special tokens by the names that templates know them by.
fn special_tokens(config: &Json) -> Vec<(String, String)> {
    let token = |name: &&str| {
        let token = config.get(*name)?;
        let content = token.as_str().or_else(|| token.get("content")?.as_str())?;
        Some(((*name).to_owned(), content.to_owned()))
    };
    SPECIAL_TOKENS.iter().filter_map(token).collect()
}

/// What the engine says: a template's own words alone, or what is wrong in which line.
fn refused(file: &str, error: Error) -> CalibError {
    let problem = match (error.kind(), error.detail(), error.line()) {
        (ErrorKind::InvalidOperation, Some(words), _) => words.to_owned(),
        (ErrorKind::OutOfFuel, ..) => "it does not come to an end".to_owned(),
        (kind, Some(detail), Some(line)) => format!("{kind}: {detail}, in line {line}"),
        _ => error.to_string(),
    };
    CalibError::chat_template(file, problem, error)
}

/// A text that does not grow beyond [`LARGEST_TEXT`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LARGEST_TEXT {
            return Err(io::Error::other(format!("the text has over {LARGEST_TEXT} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A template without the tags that transformers adds to mark what the assistant says: they change no text.
fn without_generation_tags(source: &str) -> String {
    let mut rest = source;
    let mut result = String::with_capacity(source.len());
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let tag = &rest[start + 2..start + length];
        result.push_str(&rest[..start + 2]);
        match tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => result.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => result.push_str(&tag.replace("endgeneration", "endif")),
            _ => result.push_str(tag),
        }
        result.push_str("%}");
        rest = &rest[start + length + 2..];
    }
    result.push_str(rest);
    result
}
