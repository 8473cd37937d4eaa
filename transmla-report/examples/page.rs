//! Makes the page of a conversion from figures that are made up.

use transmla_report::{ConversionReport, LayerFigures, Measured, RopeFigures, Sample};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layer = |layer: usize| LayerFigures {
        layer,
        kept_energy: Some(0.97 - 0.01 * layer as f64),
        output_error: Some(0.02 + 0.01 * layer as f64),
        spectrum: (0..96).map(|rank| (-0.1 * f64::from(rank)).exp()).collect(),
        rope: Some(RopeFigures {
            frequencies: vec![1.0, 0.1, 0.01, 0.001],
            slots: vec![1.0, 0.01],
            shares: vec![vec![0.8, 0.1, 0.0, 0.0], vec![0.0, 0.0, 0.7, 0.1]],
        }),
        refinement: vec![(0, 0.06), (50, 0.03), (100, 0.02)],
        ..LayerFigures::default()
    };
    let report = ConversionReport {
        model: "org/model".into(),
        method: "coherent, 100 refinement steps".into(),
        original: Measured {
            cache: 384,
            perplexity: Some(34.6),
        },
        converted: Measured {
            cache: 160,
            perplexity: Some(39.0),
        },
        rank: 28,
        layers: (0..6).map(layer).collect(),
        samples: vec![Sample {
            prompt: "Once upon a time".into(),
            original: Some(", there was a model.".into()),
            converted: ", there was a smaller one.".into(),
        }],
        ..ConversionReport::default()
    };
    let page = report.html()?;
    println!(
        "a page of {} bytes with {} pictures",
        page.len(),
        page.matches("<svg").count()
    );
    Ok(())
}
