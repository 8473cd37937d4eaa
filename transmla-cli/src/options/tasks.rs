//! Options on the tasks that a model is measured on.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use transmla_convert::RecipeTasks;
use transmla_eval::tasks::TaskOptions;

use super::set::set;
use super::values;

/// Which tasks, in a conversion.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tasks")]
pub struct RecipeTaskArguments {
    /// Measure both models' accuracy on tasks as well: arc_easy, hellaswag, mmlu, needle ..., or a file with tasks (.toml); see
    /// `transmla help eval`
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    tasks: Option<Vec<String>>,

    #[command(flatten)]
    asking: AskingArguments,
}

impl RecipeTaskArguments {
    /// Sets the fields whose options are given.
    ///
    /// # Errors
    /// There are no tasks that the options could be for.
    pub fn apply(&self, tasks: &mut RecipeTasks) -> anyhow::Result<()> {
        set(&mut tasks.names, self.tasks.clone());
        self.asking.apply(tasks)
    }
}

/// Which tasks, for a model that is there, and where results go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tasks")]
pub struct TaskArguments {
    /// Tasks: arc_easy, arc_challenge, boolq, hellaswag, lambada_openai, lambada_standard, mmlu, mmlu_cloze, openbookqa, piqa,
    /// winogrande, needle; parts such as mmlu_anatomy; or a file with tasks (.toml)
    #[arg(long, value_name = "LIST", value_delimiter = ',', group = "text")]
    tasks: Vec<String>,

    #[command(flatten)]
    asking: AskingArguments,

    /// Where results go, as lm-evaluation-harness writes them: a folder, or a .json file
    #[arg(long = "output", value_name = "PATH", requires = "tasks", conflicts_with_all = ["dataset", "tokens"])]
    pub output_path: Option<PathBuf>,

    /// Write every record with its answers as well
    #[arg(long, requires = "output_path")]
    pub log_samples: bool,
}

impl TaskArguments {
    /// The tasks and how they are asked; none where a text is measured on.
    ///
    /// # Errors
    /// There are no tasks that the options could be for.
    pub fn recipe(&self) -> anyhow::Result<RecipeTasks> {
        let mut tasks = RecipeTasks {
            names: self.tasks.clone(),
            ..RecipeTasks::default()
        };
        self.asking.apply(&mut tasks)?;
        Ok(tasks)
    }
}

/// How tasks are asked.
#[derive(Debug, Args)]
struct AskingArguments {
    /// Folder that has the datasets under the names that they have on the hub [default: the hub]
    #[arg(long, value_name = "FOLDER")]
    tasks_data: Option<PathBuf>,

    /// Examples in front of each question [default: 0]
    #[arg(long, value_name = "N")]
    num_fewshot: Option<usize>,

    /// Records of each task: a number, or below 1 a share [default: all]
    #[arg(long, value_name = "N", value_parser = limit)]
    limit: Option<f64>,

    /// Ask as a chat, by the model's own chat template
    #[arg(long)]
    apply_chat_template: bool,

    /// Whether examples in a chat are turns of their own [default: true]
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    fewshot_as_multiturn: Option<bool>,

    /// Instructions in front of everything
    #[arg(long, value_name = "TEXT")]
    system_instruction: Option<String>,

    /// Lengths of the texts of `needle`, in tokens [default: 256, 512, 1024 ... up to the model's context]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = values::positive)]
    needle_lengths: Option<Vec<usize>>,
}

impl AskingArguments {
    fn apply(&self, tasks: &mut RecipeTasks) -> anyhow::Result<()> {
        if let (true, Some(option)) = (tasks.is_empty(), self.first_given()) {
            bail!("{option} says how tasks are asked, and there are none; name them by --tasks");
        }
        set(&mut tasks.data, self.tasks_data.clone().map(Some));
        set(&mut tasks.num_fewshot, self.num_fewshot);
        set(&mut tasks.limit, self.limit.map(Some));
        set(&mut tasks.apply_chat_template, self.apply_chat_template.then_some(true));
        set(&mut tasks.fewshot_as_multiturn, self.fewshot_as_multiturn);
        set(&mut tasks.system_instruction, self.system_instruction.clone().map(Some));
        set(&mut tasks.needle_lengths, self.needle_lengths.clone());
        Ok(())
    }

    fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--tasks-data", self.tasks_data.is_some()),
            ("--num-fewshot", self.num_fewshot.is_some()),
            ("--limit", self.limit.is_some()),
            ("--apply-chat-template", self.apply_chat_template),
            ("--fewshot-as-multiturn", self.fewshot_as_multiturn.is_some()),
            ("--system-instruction", self.system_instruction.is_some()),
            ("--needle-lengths", self.needle_lengths.is_some()),
        ];
        given.into_iter().find_map(|(option, given)| given.then_some(option))
    }
}

fn limit(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    let fits = number.filter(|limit| TaskOptions::is_limit(*limit));
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
