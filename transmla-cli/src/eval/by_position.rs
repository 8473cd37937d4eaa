//! Perplexity and divergence by position in a window, as results and as lines.

use serde::Serialize;
use transmla_eval::{PositionDivergence, PositionPerplexity};

use super::measured::Measured;
use crate::table::Table;

/// The perplexity of predictions behind the tokens at some positions.
#[derive(Debug, Serialize)]
pub struct MeasuredRange {
    /// The first position and the last, from 0.
    positions: [usize; 2],
    #[serde(flatten)]
    measured: Measured,
    predictions: usize,
}

/// The same of another model, and how far the predictions of the two are apart.
#[derive(Debug, Serialize)]
pub struct ComparedRange {
    #[serde(flatten)]
    range: MeasuredRange,
    kl: f64,
    top1_agreement: f64,
}

impl From<PositionPerplexity> for MeasuredRange {
    fn from(found: PositionPerplexity) -> Self {
        Self {
            positions: [found.positions.start, found.positions.end - 1],
            measured: (&found).into(),
            predictions: found.predictions,
        }
    }
}

pub fn measured_ranges(found: Vec<PositionPerplexity>) -> Vec<MeasuredRange> {
    found.into_iter().map(MeasuredRange::from).collect()
}

/// Ranges of both, which are the same but for one of a single position, behind which nothing is predicted.
pub fn compared_ranges(theirs: Vec<PositionPerplexity>, compared: Vec<PositionDivergence>) -> Vec<ComparedRange> {
    let pairs = theirs.into_iter().zip(compared);
    let compared = pairs.map(|(theirs, compared)| ComparedRange {
        range: theirs.into(),
        kl: compared.kl,
        top1_agreement: compared.top1_agreement,
    });
    compared.collect()
}

pub fn describe(table: &mut Table, ranges: &[MeasuredRange]) {
    for (index, range) in ranges.iter().enumerate() {
        let label = if index == 0 { "by position" } else { "" };
        let value = range.measured.perplexity();
        table.row(label, format!("{:11}  perplexity {value}", positions(range)));
    }
}

pub fn describe_comparison(table: &mut Table, ranges: &[ComparedRange]) {
    for ComparedRange {
        range,
        kl,
        top1_agreement,
    } in ranges
    {
        let line = format!(
            "{:11}  perplexity {}, KL {kl:.6}, same {:.2} %",
            positions(range),
            range.measured.perplexity(),
            100.0 * top1_agreement
        );
        table.row("", line);
    }
}

fn positions(range: &MeasuredRange) -> String {
    let [first, last] = range.positions;
    format!("{first} to {last}")
}
