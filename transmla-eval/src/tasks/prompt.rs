//! What stands in front of a question: instructions and examples, as text or as a chat.

use transmla_calib::{CalibError, ChatMessage, ChatTemplate};

/// Between examples, and between instructions and a description.
const BETWEEN: &str = "\n\n";

/// How prompts are made.
pub(super) struct Prompter<'a> {
    /// Instructions of the user's.
    pub system_instruction: Option<&'a str>,
    /// The task's own.
    pub description: String,
    /// Between question and answer of an example.
    pub delimiter: &'a str,
    /// Chats are rendered with it.
    pub template: Option<&'a ChatTemplate>,
    /// Whether each example is a turn of the chat; else all of them are one message.
    pub multiturn: bool,
}

impl Prompter<'_> {
    /// The context of a question, after examples of question and answer.
    pub fn context(&self, examples: &[(String, String)], question: &str) -> Result<String, CalibError> {
        let before = match (self.system_instruction, self.description.as_str()) {
            (Some(system), "") => system.to_owned(),
            (Some(system), description) => format!("{system}{BETWEEN}{description}"),
            (None, description) => description.to_owned(),
        };
        let Some(template) = self.template else {
            return Ok(before + &self.joined(examples) + question);
        };
        let mut messages = Vec::new();
        if !before.is_empty() {
            messages.push(ChatMessage::system(before));
        }
        match self.multiturn {
            true => {
                for (question, answer) in examples {
                    messages.push(ChatMessage::user(question));
                    messages.push(ChatMessage::assistant(answer));
                }
                messages.push(ChatMessage::user(question));
            }
            false => messages.push(ChatMessage::user(self.joined(examples) + question)),
        }
        match template.render(&messages, true) {
            // Some templates know no system.
            Err(_) if messages[0].role == "system" => template.render(&messages[1..], true),
            rendered => rendered,
        }
    }

    fn joined(&self, examples: &[(String, String)]) -> String {
        let one = |(question, answer): &(String, String)| match answer.is_empty() {
            true => question.clone(),
            false => format!("{question}{}{answer}{BETWEEN}", self.delimiter),
        };
        examples.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_stand_in_front() {
        let template = ChatTemplate::parse(
            "t",
            "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
            Vec::new(),
        )
        .unwrap();
        let mut prompter = Prompter {
            system_instruction: None,
            description: "D\n\n".into(),
            delimiter: " ",
            template: None,
            multiturn: true,
        };
        let examples = [("Q1".to_owned(), "A1".to_owned()), ("Q2".to_owned(), String::new())];
        assert_eq!(prompter.context(&examples, "Q").unwrap(), "D\n\nQ1 A1\n\nQ2Q");
        prompter.system_instruction = Some("S");
        assert_eq!(prompter.context(&[], "Q").unwrap(), "S\n\nD\n\nQ");
        prompter.template = Some(&template);
        assert_eq!(
            prompter.context(&examples[..1], "Q").unwrap(),
            "[system]S\n\nD\n\n[user]Q1[assistant]A1[user]Q[assistant]"
        );
        prompter.multiturn = false;
        assert_eq!(
            prompter.context(&examples[..1], "Q").unwrap(),
            "[system]S\n\nD\n\n[user]Q1 A1\n\nQ[assistant]"
        );
    }

    #[test]
    fn templates_without_a_system_get_none() {
        let source = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}\
                      [{{ m.role }}]{{ m.content }}{% endfor %}";
        let template = ChatTemplate::parse("t", source, Vec::new()).unwrap();
        let prompter = Prompter {
            system_instruction: None,
            description: "D".into(),
            delimiter: " ",
            template: Some(&template),
            multiturn: true,
        };
        assert_eq!(prompter.context(&[], "Q").unwrap(), "[user]Q");
    }
}
