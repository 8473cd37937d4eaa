//! Options on the tasks that a model is measured on.

use std::path::PathBuf;

use clap::Args;
use transmla_eval::tasks::TaskOptions;

use super::values;

/// Which tasks, and how they are asked.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tasks")]
pub struct TaskArguments {
    /// Tasks: arc_easy, arc_challenge, boolq, hellaswag, lambada_openai, lambada_standard, mmlu, mmlu_cloze, openbookqa, piqa,
    /// winogrande, needle; parts such as mmlu_anatomy; or a file with tasks (.toml)
    #[arg(long, value_name = "LIST", value_delimiter = ',', group = "text")]
    pub tasks: Vec<String>,

    /// Folder that has the datasets under the names that they have on the hub [default: the hub]
    #[arg(long, value_name = "FOLDER", requires = "tasks", conflicts_with_all = ["dataset", "tokens"])]
    pub tasks_data: Option<PathBuf>,

    /// Examples in front of each question
    #[arg(long, value_name = "N", default_value = "0", requires = "tasks", conflicts_with_all = ["dataset", "tokens"])]
    pub num_fewshot: usize,

    /// Records of each task: a number, or below 1 a share [default: all]
    #[arg(long, value_name = "N", value_parser = limit, requires = "tasks", conflicts_with_all = ["dataset", "tokens"])]
    pub limit: Option<f64>,

    /// Ask as a chat, by the model's own chat template
    #[arg(long, requires = "tasks", conflicts_with_all = ["dataset", "tokens"])]
    pub apply_chat_template: bool,

    /// Whether examples in a chat are turns of their own
    #[arg(long, value_name = "BOOL", default_value = "true", action = clap::ArgAction::Set, requires = "tasks", conflicts_with_all = ["dataset", "tokens"])]
    pub fewshot_as_multiturn: bool,

    /// Instructions in front of everything
    #[arg(long, value_name = "TEXT", requires = "tasks", conflicts_with_all = ["dataset", "tokens"])]
    pub system_instruction: Option<String>,

    /// Lengths of the texts of `needle`, in tokens [default: 256, 512, 1024 ... up to the model's context]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = values::positive, requires = "tasks", conflicts_with_all = ["dataset", "tokens"])]
    pub needle_lengths: Vec<usize>,

    /// Where results go, as lm-evaluation-harness writes them: a folder, or a .json file
    #[arg(long = "output", value_name = "PATH", requires = "tasks", conflicts_with_all = ["dataset", "tokens"])]
    pub output_path: Option<PathBuf>,

    /// Write every record with its answers as well
    #[arg(long, requires = "output_path")]
    pub log_samples: bool,
}

impl TaskArguments {
    /// How tasks are asked.
    pub fn options(&self) -> TaskOptions {
        TaskOptions {
            num_fewshot: self.num_fewshot,
            limit: self.limit,
            apply_chat_template: self.apply_chat_template,
            fewshot_as_multiturn: self.fewshot_as_multiturn,
            system_instruction: self.system_instruction.clone(),
            needle_lengths: self.needle_lengths.clone(),
        }
    }
}

fn limit(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    let whole = |limit: &f64| *limit < 1.0 || limit.fract() == 0.0;
    let fits = number.filter(|limit| *limit > 0.0 && limit.is_finite() && whole(limit));
    fits.ok_or_else(|| "expected a number of records, or a share such as 0.1".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_a_share() {
        assert_eq!((limit("100"), limit("0.25")), (Ok(100.0), Ok(0.25)));
        for text in ["0", "-1", "2.5", "nan", "inf", "many"] {
            assert!(limit(text).is_err(), "{text}");
        }
    }
}
