//! Two programs' scores of the same items.

use serde_json::{Map, Value};

use super::scored::{Choice, Scored};

/// Largest difference of two log-likelihoods.
const TOLERANCE: f64 = 1e-3;

/// Largest difference of two metrics, as a share of the larger: the rounding of sums.
const METRIC_TOLERANCE: f64 = 1e-9;

/// Columns of the table.
pub fn print_head() {
    println!("| task | shots | chat | items | largest difference | acc | acc_norm | perplexity |");
    println!("|{}", " --- |".repeat(8));
}

/// Prints a row for each task that was asked for; returns what differs.
pub fn report(theirs: &Scored, ours: &Scored) -> Vec<String> {
    let mut faults = Vec::new();
    for task in &theirs.run.tasks {
        let names = theirs
            .items
            .keys()
            .filter(|name| parent(name, &theirs.run.tasks) == Some(task));
        let (mut items, mut largest) = (0, 0.0_f64);
        for name in names {
            let found = ours.items.get(name).map_or(&[] as &[_], Vec::as_slice);
            match differences(&theirs.items[name], found) {
                Ok(difference) => largest = largest.max(difference),
                Err(fault) => faults.push(format!("{name}: {fault}")),
            }
            items += found.len();
        }
        if largest >= TOLERANCE {
            faults.push(format!("{task}: log-likelihoods differ by {largest:.1e}"));
        }
        let metric = |name: &str| {
            let value = ours
                .results
                .get(task)
                .and_then(|metrics| metrics.get(&format!("{name},none")));
            value
                .and_then(Value::as_f64)
                .map_or(String::new(), |value| format!("{value:.4}"))
        };
        let numbers = ["acc", "acc_norm", "perplexity"].map(metric).join(" | ");
        let run = &theirs.run;
        let chat = if run.chat { "yes" } else { "" };
        println!(
            "| {task} | {} | {chat} | {items} | {largest:.1e} | {numbers} |",
            run.num_fewshot
        );
    }
    for (name, metrics) in &theirs.results {
        match ours.results.get(name) {
            Some(found) => faults.extend(other_metrics(metrics, found).map(|metric| format!("{name}: {metric}"))),
            None => faults.push(format!("{name}: no metrics")),
        }
    }
    faults
}

/// The task that was asked for, of which this is one or a part.
fn parent<'a>(name: &str, asked: &'a [String]) -> Option<&'a String> {
    let of = |task: &&String| {
        let rest = name.strip_prefix(task.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    };
    asked.iter().filter(of).max_by_key(|task| task.len())
}

/// The largest difference of log-likelihoods, if the choices are as many and what is greedy is the same.
fn differences(theirs: &[Vec<Choice>], ours: &[Vec<Choice>]) -> Result<f64, String> {
    if theirs.len() != ours.len() {
        return Err(format!("{} items, and {} by the harness", ours.len(), theirs.len()));
    }
    let mut largest = 0.0_f64;
    for (index, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
        if theirs.len() != ours.len() {
            return Err(format!(
                "item {index} has {} choices, and {} by the harness",
                ours.len(),
                theirs.len()
            ));
        }
        for (theirs, ours) in theirs.iter().zip(ours) {
            let difference = (theirs.0 - ours.0).abs();
            // What is not a number is as far off as can be.
            largest = largest.max(if difference.is_nan() { f64::INFINITY } else { difference });
            if theirs.1 != ours.1 {
                return Err(format!("item {index} is greedy in one program only"));
            }
        }
    }
    Ok(largest)
}

/// Metrics of the harness that ours are not.
fn other_metrics<'a>(
    theirs: &'a Map<String, Value>,
    ours: &'a Map<String, Value>,
) -> impl Iterator<Item = String> + 'a {
    let compared = theirs.iter().filter(|(name, _)| name.ends_with(",none"));
    compared.filter_map(|(name, theirs)| {
        let same = match (theirs.as_f64(), ours.get(name).and_then(Value::as_f64)) {
            (Some(theirs), Some(ours)) => {
                // A perplexity follows from log-likelihoods, which are alike but not equal.
                let tolerance = if name.starts_with("perplexity") {
                    TOLERANCE
                } else {
                    METRIC_TOLERANCE
                };
                (theirs - ours).abs() <= tolerance * theirs.abs().max(ours.abs())
            }
            _ => Some(theirs) == ours.get(name),
        };
        let found = || ours.get(name).map_or("nothing".into(), Value::to_string);
        (!same).then(|| format!("{name} is {}, and {theirs} by the harness", found()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scored(ll: f64, greedy: bool, acc: f64) -> Scored {
        let mut scored: Scored = serde_json::from_value(json!({
            "tasks": ["arc_easy"], "num_fewshot": 0, "limit": null, "chat": false,
            "results": {"arc_easy": {"acc,none": acc, "acc_stderr,none": "N/A", "alias": "arc_easy"}},
            "items": {},
        }))
        .unwrap();
        // Not by JSON, which has no NaN.
        let choices = vec![(ll, greedy), (-3.0, false)];
        scored.items.insert("arc_easy".into(), vec![choices]);
        scored
    }

    #[test]
    fn what_differs_is_told() {
        let theirs = scored(-1.0, false, 0.5);
        let faults = |ours: &Scored| report(&theirs, ours).join("; ");
        assert_eq!(faults(&scored(-1.0005, false, 0.5)), "");
        assert!(faults(&scored(-1.002, false, 0.5)).contains("differ by 2.0e-3"));
        assert!(faults(&scored(f64::NAN, false, 0.5)).contains("inf"));
        assert!(faults(&scored(-1.0, true, 0.5)).contains("item 0 is greedy"));
        assert!(faults(&scored(-1.0, false, 0.51)).contains("acc,none is 0.51, and 0.5"));
        let mut fewer = theirs.clone();
        fewer.items.get_mut("arc_easy").unwrap().clear();
        assert!(faults(&fewer).contains("0 items, and 1"));
        fewer.results.clear();
        assert!(faults(&fewer).contains("no metrics"));
    }

    #[test]
    fn subjects_belong_to_the_longest_name() {
        let asked = ["mmlu", "mmlu_cloze"].map(str::to_owned);
        assert_eq!(parent("mmlu_anatomy", &asked), Some(&asked[0]));
        assert_eq!(parent("mmlu_cloze_anatomy", &asked), Some(&asked[1]));
        assert_eq!(parent("mmlu", &asked), Some(&asked[0]));
        assert_eq!(parent("mmluish", &asked), None);
    }
}
