//! The printed table.

use super::baseline::Baseline;
use super::results::{Results, Row};

/// One line per strategy with aligned columns; additional columns for whole models, torch and a baseline.
pub fn render(results: &Results, baseline: Option<&Baseline>) -> String {
    let mut header = vec![
        "problem",
        "strategy",
        "median",
        "speed-up",
        "vs. grouped",
        "predicted",
        "GFLOP/s",
        "GB/s",
        "of roofline",
        "memory",
    ];
    let with_tokens = results.rows.iter().any(|row| row.tokens.is_some());
    if with_tokens {
        header.push("tokens/s");
    }
    let with_torch = results.rows.iter().any(|row| row.over_torch.is_some());
    if with_torch {
        header.push("vs. torch");
    }
    if baseline.is_some() {
        header.push("vs. baseline");
    }
    let mut lines = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    let mut previous = "";
    for row in &results.rows {
        let repeated = row.problem == previous;
        previous = &row.problem;
        let mut line = cells(row, repeated);
        if with_tokens {
            line.push(or_dash(row.tokens.map(|rate| format!("{rate:.0}"))));
        }
        if with_torch {
            line.push(times(row.over_torch));
        }
        if let Some(baseline) = baseline {
            line.push(times(baseline.speed_up(row)));
        }
        lines.push(line);
    }
    align(&lines)
}

fn cells(row: &Row, repeated: bool) -> Vec<String> {
    vec![
        if repeated { String::new() } else { row.problem.clone() },
        row.strategy.clone(),
        duration(row.median_ns),
        times(row.speed_up),
        times(row.over_grouped),
        times(row.predicted),
        or_dash(row.gflops.map(|rate| format!("{rate:.1}"))),
        or_dash(row.gigabytes.map(|rate| format!("{rate:.1}"))),
        or_dash(row.share.map(|share| format!("{:.0} %", 100.0 * share))),
        or_dash(row.memory.map(bytes)),
    ]
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn times(ratio: Option<f64>) -> String {
    or_dash(ratio.map(|ratio| format!("{ratio:.2}x")))
}

fn duration(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

fn bytes(count: u64) -> String {
    match count as f64 / 1024.0 {
        kib if kib < 1024.0 => format!("{kib:.0} KiB"),
        kib => format!("{:.1} MiB", kib / 1024.0),
    }
}

/// Names to the left, numbers to the right, two spaces between columns.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let padded = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &width))| match column {
                0 | 1 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
        let padded: Vec<String> = padded.collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table() {
        let row = |strategy: &str, median_ns, speed_up, gflops: Option<f64>| Row {
            problem: "decode/m-512".into(),
            strategy: strategy.into(),
            median_ns,
            speed_up,
            gflops,
            share: gflops.map(|rate| rate / 80.0),
            ..Row::default()
        };
        let latent = Row {
            over_grouped: Some(3.906),
            predicted: Some(5.0),
            gigabytes: Some(1.25),
            memory: Some(3 << 19),
            ..row("latent", 640e3, Some(3.906), None)
        };
        let results = Results {
            rows: vec![
                row("grouped", 2.5e6, Some(1.0), Some(20.0)),
                latent,
                row("slow", 1.5e9, None, None),
            ],
        };
        let expected = "\
problem       strategy    median  speed-up  vs. grouped  predicted  GFLOP/s  GB/s  of roofline   memory
decode/m-512  grouped    2.50 ms     1.00x            -          -     20.0     -         25 %        -
              latent    640.0 us     3.91x        3.91x      5.00x        -   1.2            -  1.5 MiB
              slow        1.50 s         -            -          -        -     -            -        -
";
        assert_eq!(render(&results, None), expected);
        let with_torch = Results {
            rows: vec![Row {
                over_torch: Some(3.5),
                ..row("fused", 2e6, None, None)
            }],
        };
        let table = render(&with_torch, None);
        assert!(table.lines().next().unwrap().ends_with("memory  vs. torch"));
        assert!(table.lines().last().unwrap().ends_with("3.50x"));
        let with_tokens = Results {
            rows: vec![
                Row {
                    tokens: Some(1234.5),
                    ..row("perplexity", 2e6, None, None)
                },
                row("fused", 2e6, None, None),
            ],
        };
        let lines: Vec<_> = render(&with_tokens, None).lines().map(str::to_owned).collect();
        assert!(lines[0].ends_with("memory  tokens/s"));
        assert!(lines[1].ends_with("-      1234"));
        assert!(lines[2].ends_with("-         -"));
        let baseline = Baseline::from(&results);
        let compared = render(&results, Some(&baseline));
        assert!(compared.lines().next().unwrap().ends_with("vs. baseline"));
        assert!(compared.lines().skip(1).all(|line| line.ends_with("1.00x")));
    }
}
