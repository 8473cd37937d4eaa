//! The problems that are measured: names and sizes, without data.

mod problem;
mod problems;

pub use problem::{Attend, Bench, Heads, Kind, Network, Precision, Problem, Questions, Strategy, Weights};
pub use problems::{catalogue, copy, yardstick};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_every_problem_has_its_yardstick() {
        let problems = catalogue(true);
        let names: BTreeSet<&str> = problems.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names.len(), problems.len());
        for problem in &problems {
            assert!(names.contains(yardstick(&problem.kind).as_str()), "{}", problem.name);
            if let Some((grouped, name)) = &problem.grouped {
                let grouped = problems.iter().find(|p| p.name == *grouped).unwrap();
                assert!(grouped.strategies.iter().any(|s| s.name == *name), "{}", problem.name);
            }
            let strategies: BTreeSet<&str> = problem.strategies.iter().map(|s| s.name.as_str()).collect();
            assert_eq!(strategies.len(), problem.strategies.len());
        }
        assert!(names.contains(copy().name.as_str()));
        assert!(catalogue(false).len() < problems.len());
        let yardsticks = |problem: &&Problem| problem.kind.on_gpu();
        for problem in problems.iter().filter(yardsticks) {
            let yardstick = problems.iter().find(|p| p.name == yardstick(&problem.kind)).unwrap();
            assert!(yardstick.kind.on_gpu(), "{}", problem.name);
        }
    }

    #[test]
    fn operations_of_an_eigenproblem_and_of_an_evaluation() {
        let problems = catalogue(true);
        let strategy = |problem: &str, strategy: &str| {
            let problem = problems.iter().find(|p| p.name == problem).unwrap();
            problem.strategies.iter().find(|s| s.name == strategy).unwrap()
        };
        assert_eq!(
            strategy("eigen/576", "principal-components").flops,
            Some(14 * 576u64.pow(3) / 3)
        );
        let (forward, evaluation) = (
            strategy("evaluate/smollm2-135m-30-layers", "forward"),
            strategy("evaluate/smollm2-135m-30-layers", "perplexity"),
        );
        // 134,515,008 parameters, of which 61 norms of 576 are no matrices; 30 layers of 9 heads whose scores are 256 wide.
        let matrices = 134_515_008 - 61 * 576;
        let token = 2 * matrices + 30 * 4 * 9 * 64 * 256;
        assert_eq!(forward.flops, Some(1024 * token));
        // Nothing is predicted from the last token of each of the 4 windows.
        assert_eq!(forward.flops.unwrap() - evaluation.flops.unwrap(), 4 * 2 * 576 * 49152);
        assert_eq!((forward.tokens, evaluation.tokens), (Some(1024), Some(1024)));
    }
}
