//! Measurements joined with the catalogue.

use benches::catalogue::{Problem, yardstick};

use super::criterion::Medians;

/// What was measured, in the catalogue's order.
#[derive(Debug, Default)]
pub struct Results {
    /// One per measured strategy.
    pub rows: Vec<Row>,
}

/// One strategy.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Problem, as in the catalogue.
    pub problem: String,
    /// Strategy, as in the catalogue.
    pub strategy: String,
    /// Median time of a run, in nanoseconds.
    pub median_ns: f64,
    /// How many times faster than the problem's first strategy, if that was measured too.
    pub speed_up: Option<f64>,
    /// Billions of operations a second, if their number is known.
    pub gflops: Option<f64>,
    /// That rate over the rate of a plain product in the same number format.
    pub share: Option<f64>,
}

impl Results {
    /// Rates and ratios of those strategies that have a median.
    pub fn new(problems: &[Problem], medians: &Medians) -> Self {
        let median = |problem: &str, strategy: &str| medians.get(&(problem.to_owned(), strategy.to_owned())).copied();
        // Operations per nanosecond are billions per second.
        let rate = |problem: &Problem, index: usize| {
            let strategy = &problem.strategies[index];
            Some(strategy.flops? as f64 / median(&problem.name, &strategy.name)?)
        };
        let product_rate = |problem: &Problem| {
            let name = yardstick(&problem.kind);
            rate(problems.iter().find(|p| p.name == name)?, 0)
        };
        let mut rows = Vec::new();
        for problem in problems {
            let reference = median(&problem.name, &problem.strategies[0].name);
            for (index, strategy) in problem.strategies.iter().enumerate() {
                let Some(median_ns) = median(&problem.name, &strategy.name) else {
                    continue;
                };
                let gflops = rate(problem, index);
                rows.push(Row {
                    problem: problem.name.clone(),
                    strategy: strategy.name.clone(),
                    median_ns,
                    speed_up: reference.map(|reference| reference / median_ns),
                    gflops,
                    share: gflops.zip(product_rate(problem)).map(|(rate, product)| rate / product),
                });
            }
        }
        Self { rows }
    }

    /// Whether nothing but the yardsticks was measured.
    pub fn only_yardsticks(&self) -> bool {
        self.rows.iter().all(|row| row.problem.starts_with("matmul/"))
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
        let results = Results::new(&catalogue(false), &measured);
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
    fn a_strategy_without_its_reference_has_no_speed_up() {
        let results = Results::new(
            &catalogue(false),
            &medians(&[("moment/2048x576", "second-moment", 1e6)]),
        );
        assert_eq!(results.rows[0].speed_up, None);
        assert!(results.rows[0].gflops.is_some());
        assert_eq!(results.rows[0].share, None);
    }

    #[test]
    fn yardsticks_alone_are_recognised() {
        assert!(Results::new(&catalogue(false), &medians(&[("matmul/f32-1024", "burn", 1e6)])).only_yardsticks());
    }
}
