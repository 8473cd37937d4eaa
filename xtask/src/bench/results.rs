//! Measurements joined with the catalogue.

use benches::catalogue::{Problem, Strategy, copy, yardstick};

use super::criterion::{Medians, Memory};
use super::torch;

/// Measurements in the order of the catalogue.
#[derive(Debug, Default)]
pub struct Results {
    /// One row per measured strategy.
    pub rows: Vec<Row>,
}

/// Measurements of a strategy.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// Problem, as in the catalogue.
    pub problem: String,
    /// Strategy, as in the catalogue.
    pub strategy: String,
    /// Median time of a run, in nanoseconds.
    pub median_ns: f64,
    /// Speed-up over the problem's first strategy, if that was measured too.
    pub speed_up: Option<f64>,
    /// Speed-up over grouped queries at equal context, for decoding.
    pub over_grouped: Option<f64>,
    /// The ratio of both rooflines: the speed-up if only bytes and operations mattered on this machine.
    pub predicted: Option<f64>,
    /// Speed-up over torch with expanded keys and values, if that was measured.
    pub over_torch: Option<f64>,
    /// Billions of operations per second, if their number is known.
    pub gflops: Option<f64>,
    /// Billions of bytes moved per second, if their number is known.
    pub gigabytes: Option<f64>,
    /// Tokens per second through a whole model, for evaluations.
    pub tokens: Option<f64>,
    /// Share of the roofline: the longer of its operations at the rate of a plain product in the same number format, and of
    /// its bytes at the rate of a copy, over the time it took. More than 1 where caches give more than memory does.
    pub share: Option<f64>,
    /// Peak bytes of a run beyond its inputs.
    pub memory: Option<u64>,
}

/// A strategy of the catalogue with its times.
struct Timed<'a> {
    problem: &'a Problem,
    strategy: &'a Strategy,
    median_ns: f64,
    /// Lower bound of the time on this machine, in nanoseconds.
    roofline_ns: Option<f64>,
}

impl Timed<'_> {
    fn is(&self, problem: &str, strategy: &str) -> bool {
        self.problem.name == problem && self.strategy.name == strategy
    }
}

impl Results {
    /// Computes rates and ratios of the strategies that have a median.
    pub fn new(problems: &[Problem], medians: &Medians, memory: &Memory) -> Self {
        let median = |problem: &Problem, strategy: &Strategy| {
            let key = (problem.name.clone(), strategy.name.clone());
            medians.get(&key).copied()
        };
        // Per nanosecond, which is billions per second.
        let rate = |name: &str, of: fn(&Strategy) -> Option<u64>| {
            let problem = problems.iter().find(|problem| problem.name == name)?;
            let strategy = problem.strategies.first()?;
            Some(of(strategy)? as f64 / median(problem, strategy)?)
        };
        let bandwidth = rate(&copy().name, |strategy| strategy.bytes);
        let roofline = |problem: &Problem, strategy: &Strategy| {
            let computing = match strategy.flops {
                Some(flops) => Some(flops as f64 / rate(&yardstick(&problem.kind), |strategy| strategy.flops)?),
                None => None,
            };
            let moving = match strategy.bytes {
                Some(bytes) => Some(bytes as f64 / bandwidth?),
                None => None,
            };
            computing.into_iter().chain(moving).reduce(f64::max)
        };
        let each = problems
            .iter()
            .flat_map(|problem| problem.strategies.iter().map(move |strategy| (problem, strategy)));
        let timed: Vec<Timed<'_>> = each
            .filter_map(|(problem, strategy)| {
                Some(Timed {
                    problem,
                    strategy,
                    median_ns: median(problem, strategy)?,
                    roofline_ns: roofline(problem, strategy),
                })
            })
            .collect();
        let find = |problem: &str, strategy: &str| timed.iter().find(|timed| timed.is(problem, strategy));
        let row = |one: &Timed<'_>| {
            let reference = find(&one.problem.name, &one.problem.strategies[0].name);
            let grouped = one.problem.grouped.as_ref();
            let grouped = grouped.and_then(|(problem, strategy)| find(problem, strategy));
            let torch = find(&one.problem.name, torch::EXPANDED);
            let per_ns = |count: Option<u64>| count.map(|count| count as f64 / one.median_ns);
            let key = (one.problem.name.clone(), one.strategy.name.clone());
            Row {
                problem: key.0.clone(),
                strategy: key.1.clone(),
                median_ns: one.median_ns,
                speed_up: reference.map(|reference| reference.median_ns / one.median_ns),
                over_grouped: grouped.map(|grouped| grouped.median_ns / one.median_ns),
                predicted: grouped
                    .and_then(|grouped| grouped.roofline_ns)
                    .zip(one.roofline_ns)
                    .map(|(grouped, own)| grouped / own),
                over_torch: torch.map(|torch| torch.median_ns / one.median_ns),
                gflops: per_ns(one.strategy.flops),
                gigabytes: per_ns(one.strategy.bytes),
                tokens: per_ns(one.strategy.tokens).map(|rate| 1e9 * rate),
                share: one.roofline_ns.map(|roofline| roofline / one.median_ns),
                memory: memory.get(&key).copied(),
            }
        };
        Self {
            rows: timed.iter().map(row).collect(),
        }
    }

    /// Whether only the yardsticks were measured.
    pub fn only_yardsticks(&self) -> bool {
        self.rows
            .iter()
            .all(|row| row.problem.starts_with("matmul/") || row.problem == copy().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use benches::catalogue::catalogue;

    fn medians(entries: &[(&str, &str, f64)]) -> Medians {
        let entry = |(problem, strategy, ns): &(&str, &str, f64)| ((problem.to_string(), strategy.to_string()), *ns);
        entries.iter().map(entry).collect()
    }

    #[test]
    fn rates_and_ratios() {
        let measured = medians(&[
            ("matmul/f32-1024", "burn", 2e9 * 1.024 * 1.024 * 1.024),
            ("moment/2048x576", "matmul", 2.0 * 2048.0 * 576.0 * 576.0 * 2.0),
            ("moment/2048x576", "second-moment", 2.0 * 2048.0 * 576.0 * 576.0 * 4.0),
            ("rope/smollm2-192-fold1", "rororope", 5e6),
            ("another/benchmark", "of-an-old-catalogue", 1.0),
        ]);
        let results = Results::new(&catalogue(false), &measured, &Memory::new());
        assert!(!results.only_yardsticks());
        let find = |strategy: &str| results.rows.iter().find(|row| row.strategy == strategy).unwrap();
        assert_eq!(results.rows.len(), 4);
        assert!((find("burn").gflops.unwrap() - 1.0).abs() < 1e-9);
        assert_eq!((find("matmul").speed_up, find("matmul").gflops), (Some(1.0), Some(0.5)));
        assert_eq!(
            (find("second-moment").speed_up, find("second-moment").gflops),
            (Some(0.5), Some(0.25))
        );
        assert!((find("second-moment").share.unwrap() - 0.25).abs() < 1e-9);
        assert_eq!((find("rororope").gflops, find("rororope").share), (None, None));
    }

    #[test]
    fn an_eigensolver_is_set_against_a_product_of_doubles() {
        let measured = medians(&[
            ("matmul/f32-1024", "burn", 1.0),
            ("matmul/f64-1024", "faer", 2.0 * 1024f64.powi(3) / 40.0),
            ("eigen/576", "principal-components", 14.0 * 192.0 * 576.0 * 576.0 / 10.0),
        ]);
        let results = Results::new(&catalogue(false), &measured, &Memory::new());
        let eigen = results.rows.last().unwrap();
        assert!((eigen.gflops.unwrap() - 10.0).abs() < 1e-9);
        assert!((eigen.share.unwrap() - 0.25).abs() < 1e-9);
        assert_eq!(eigen.tokens, None);
    }

    #[test]
    fn an_evaluation_is_set_against_a_forward() {
        let name = "evaluate/stories260k";
        let measured = medians(&[(name, "forward", 2e8), (name, "perplexity", 2.5e8)]);
        let results = Results::new(&catalogue(false), &measured, &Memory::new());
        assert!(!results.only_yardsticks());
        let [forward, perplexity] = &results.rows[..] else {
            panic!("{results:?}");
        };
        // 4 windows of 512 tokens.
        assert_eq!((forward.tokens, perplexity.tokens), (Some(10240.0), Some(8192.0)));
        assert_eq!((forward.speed_up, perplexity.speed_up), (Some(1.0), Some(0.8)));
        // No product was measured.
        assert_eq!(forward.share, None);
    }

    #[test]
    fn a_strategy_without_its_reference_has_no_speed_up() {
        let results = Results::new(
            &catalogue(false),
            &medians(&[("moment/2048x576", "second-moment", 1e6)]),
            &Memory::new(),
        );
        assert_eq!(results.rows[0].speed_up, None);
        assert!(results.rows[0].gflops.is_some());
        assert_eq!(results.rows[0].share, None);
    }

    #[test]
    fn yardsticks_alone_are_recognised() {
        let yardsticks = medians(&[("matmul/f32-1024", "burn", 1e6), ("copy/f32-128mib", "stream", 1e6)]);
        assert!(Results::new(&catalogue(false), &yardsticks, &Memory::new()).only_yardsticks());
    }

    /// A machine of 100 GFLOP/s and 10 GB/s: a cache of many heads is bound by memory, a latent for many heads by computing.
    #[test]
    fn the_slower_of_bytes_and_operations_is_the_roofline() {
        let problems = catalogue(false);
        let (gqa, mla) = ("attend/llama2_7b_decode-2048", "attend/mla_absorbed_512_64-2048");
        let measured = medians(&[
            ("matmul/f32-1024", "burn", 2.0 * 1024f64.powi(3) / 100.0),
            ("copy/f32-128mib", "stream", 2.0 * 4.0 * f64::from(1 << 25) / 10.0),
            (gqa, "fused", 1e7),
            (mla, "fused", 2e6),
        ]);
        let memory = Memory::from([((mla.to_owned(), "fused".to_owned()), 5)]);
        let results = Results::new(&problems, &measured, &memory);
        let find = |name: &str| results.rows.iter().find(|row| row.problem == name).unwrap();
        let bytes = 4.0 * (2048.0 * 32.0 * 256.0 + 32.0 * 256.0);
        let flops = 2.0 * 32.0 * 2048.0 * 1088.0;
        let close = |found: Option<f64>, expected: f64| (found.unwrap() / expected - 1.0).abs() < 1e-9;
        assert!(close(find(gqa).share, bytes / 10.0 / 1e7));
        assert!(close(find(gqa).gigabytes, bytes / 1e7));
        assert!(close(find(mla).share, flops / 100.0 / 2e6));
        assert!(close(find(mla).over_grouped, 5.0));
        assert!(close(find(mla).predicted, (bytes / 10.0) / (flops / 100.0)));
        assert_eq!(
            (find(mla).memory, find(gqa).memory, find(mla).speed_up),
            (Some(5), None, None)
        );
    }
}
