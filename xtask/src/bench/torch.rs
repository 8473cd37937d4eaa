//! Attention of torch on the shapes of the catalogue, where a Python with torch is installed.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use benches::catalogue::{Attend, Kind, Problem, Strategy};
use serde::{Deserialize, Serialize};

use super::criterion::Medians;

/// The strategy for comparison: keys and values of every query head, expanded beforehand.
pub const EXPANDED: &str = "torch";

/// Query heads that share keys as rows of one query, so that nothing is expanded.
const SHARED: &str = "torch-shared";

const SCRIPT: &str = include_str!("torch.py");

/// One call of the operation.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Form {
    #[serde(skip)]
    problem: String,
    #[serde(skip)]
    name: &'static str,
    heads: usize,
    /// Query rows of each head.
    rows: usize,
    tokens: usize,
    width: usize,
    value_width: usize,
    /// Whether values are the first part of the keys.
    latent: bool,
}

impl Form {
    fn strategy(&self) -> Strategy {
        let numbers = self.width + if self.latent { 0 } else { self.value_width };
        let ends = self.heads * self.rows * (self.width + self.value_width);
        let flops = 2 * self.heads * self.rows * self.tokens * (self.width + self.value_width);
        Strategy {
            name: self.name.to_owned(),
            flops: Some(flops as u64),
            bytes: Some(4 * (self.heads * self.tokens * numbers + ends) as u64),
            tokens: None,
        }
    }
}

/// Times torch on the measured problems of single queries, and adds strategies and medians.
///
/// The default `python` is python3; if that does not exist or has no torch, a line reports it and nothing is added.
pub fn measure(
    python: Option<&Path>,
    quick: bool,
    problems: &mut [Problem],
    medians: &mut Medians,
) -> anyhow::Result<()> {
    let forms = forms(problems, medians);
    if forms.is_empty() {
        return Ok(());
    }
    let found = match run(python.unwrap_or(Path::new("python3")), quick, &forms) {
        Ok(found) => found,
        Err(error) if python.is_none() => {
            eprintln!("torch is not measured ({error:#}); --python names a Python that has it");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    eprintln!("torch {} is measured with {} threads", found.version, threads());
    for (form, median) in forms.into_iter().zip(found.medians_ns) {
        let key = (form.problem.clone(), form.name.to_owned());
        if let Some(problem) = problems.iter_mut().find(|problem| problem.name == form.problem) {
            problem.strategies.push(form.strategy());
            medians.insert(key, median);
        }
    }
    Ok(())
}

/// Calls of torch for the problems that have a median.
fn forms(problems: &[Problem], medians: &Medians) -> Vec<Form> {
    let measured = |problem: &&Problem| medians.keys().any(|(name, _)| *name == problem.name);
    let of_problem = |problem: &Problem| {
        let Kind::Attend { shape, context } = problem.kind else {
            return Vec::new();
        };
        let form = |name, heads, rows, [width, value_width]: [usize; 2], latent| Form {
            problem: problem.name.clone(),
            name,
            heads,
            rows,
            tokens: context,
            width,
            value_width,
            latent,
        };
        let Attend {
            groups,
            shared,
            width,
            value_width,
            latent,
        } = shape;
        let mut forms = vec![form(
            EXPANDED,
            groups * shared,
            1,
            expanded(problems, problem, shape),
            false,
        )];
        if shared > 1 {
            forms.push(form(SHARED, groups, shared, [width, value_width], latent));
        }
        forms
    };
    problems.iter().filter(measured).flat_map(of_problem).collect()
}

/// Widths of a head's expanded key and value: for a latent, those of the grouped heads that it replaces, plus the rotary key.
fn expanded(problems: &[Problem], problem: &Problem, shape: Attend) -> [usize; 2] {
    let grouped = problem.grouped.as_ref();
    let grouped = grouped.and_then(|(name, _)| problems.iter().find(|problem| problem.name == *name));
    match grouped.map(|grouped| grouped.kind) {
        Some(Kind::Attend { shape: heads, .. }) if shape.latent => {
            let rope = shape.width - shape.value_width;
            [heads.width + rope, heads.value_width]
        }
        _ => [shape.width, shape.value_width],
    }
}

#[derive(Debug, Deserialize)]
struct Found {
    version: String,
    medians_ns: Vec<f64>,
}

fn run(python: &Path, quick: bool, forms: &[Form]) -> anyhow::Result<Found> {
    let seconds = if quick { 0.5 } else { 3.0 };
    let request = serde_json::json!({"threads": threads(), "seconds": seconds, "forms": forms});
    let name = python.display();
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    if let Some(mut input) = child.stdin.take() {
        // A script that ended early has said why.
        let _ = input.write_all(request.to_string().as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{name}: {}",
            errors.lines().last().unwrap_or("it failed and said nothing")
        );
    }
    let found: Found = serde_json::from_slice(&output.stdout).with_context(|| format!("{name} printed no result"))?;
    ensure!(
        found.medians_ns.len() == forms.len() && found.medians_ns.iter().all(|median| *median > 0.0),
        "{name} printed {} medians, not {}",
        found.medians_ns.len(),
        forms.len()
    );
    Ok(found)
}

/// As many as the benchmarks use.
fn threads() -> usize {
    let asked = std::env::var("RAYON_NUM_THREADS")
        .ok()
        .and_then(|text| text.parse().ok());
    let available = || std::thread::available_parallelism().map_or(1, usize::from);
    asked.filter(|threads| *threads > 0).unwrap_or_else(available)
}

#[cfg(test)]
mod tests {
    use super::*;
    use benches::catalogue::catalogue;

    fn medians(problem: &str) -> Medians {
        Medians::from([((problem.to_owned(), "fused".to_owned()), 1.0)])
    }

    #[test]
    fn a_latent_is_expanded_to_the_heads_that_it_stands_for() {
        let problems = catalogue(false);
        let forms = forms(&problems, &medians("attend/mla_absorbed_512_64-512"));
        let shapes: Vec<_> = forms
            .iter()
            .map(|form| {
                (
                    form.name,
                    form.heads,
                    form.rows,
                    form.width,
                    form.value_width,
                    form.latent,
                )
            })
            .collect();
        assert_eq!(
            shapes,
            [
                ("torch", 32, 1, 192, 128, false),
                ("torch-shared", 1, 32, 576, 512, true)
            ]
        );
        let bytes = |form: &Form| form.strategy().bytes.unwrap();
        assert_eq!(bytes(&forms[0]), 4 * (32 * 512 * 320 + 32 * 320));
        assert_eq!(bytes(&forms[1]), 4 * (512 * 576 + 32 * 1088));
        assert_eq!(forms[1].strategy().flops, Some(2 * 32 * 512 * 1088));
    }

    #[test]
    fn what_was_not_measured_and_what_is_no_single_query_is_left_out() {
        let problems = catalogue(false);
        assert!(forms(&problems, &medians("decode/smollm2-512")).is_empty());
        // Multi-head attention has nothing to share.
        assert_eq!(forms(&problems, &medians("attend/llama2_7b_decode-512")).len(), 1);
    }

    #[test]
    fn a_python_that_was_asked_for_must_be_there() {
        let (mut problems, name) = (catalogue(false), "attend/smollm2_decode-512");
        let (count, mut medians) = (problems.clone(), medians(name));
        let absent = Path::new("no-such-python");
        let error = measure(Some(absent), true, &mut problems, &mut medians).unwrap_err();
        assert!(error.to_string().contains("no-such-python"));
        assert_eq!((problems, medians.len()), (count, 1));
    }
}
