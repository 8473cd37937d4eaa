//! Pages: which parts appear, that they are well-formed, that text stays text, that nothing is fetched.

use roxmltree::{Document, ParsingOptions};
use transmla_report::{
    ConversionReport, Fact, LayerFigures, Measured, Phase, RopeFigures, Sample, Score, SweepCurve, SweepPoint,
    SweepReport, TaskFigures,
};

const LAYERS: usize = 6;

fn conversion() -> ConversionReport {
    let layer = |layer: usize| LayerFigures {
        layer,
        kept_energy: Some(0.95),
        key_error: None,
        output_error: Some(0.02 * (layer + 1) as f64),
        spectrum: (0..96).map(|rank| (-0.1 * f64::from(rank)).exp()).collect(),
        rope: Some(RopeFigures {
            frequencies: vec![1.0, 0.1, 0.01, 0.001],
            slots: vec![0.01, 1.0],
            shares: vec![vec![0.0, 0.0, 0.7, 0.1], vec![0.8, 0.1, 0.0, 0.0]],
        }),
        refinement: vec![(0, 0.4), (50, 0.2), (100, 0.1)],
    };
    ConversionReport {
        model: "org/model".into(),
        method: "coherent, 100 refinement steps".into(),
        facts: vec![Fact {
            name: "attention".into(),
            value: "3 key/value heads of 64".into(),
        }],
        evaluation: Some("20 windows of 512 tokens of wikitext2".into()),
        original: Measured {
            cache: 384,
            perplexity: Some(34.6),
        },
        converted: Measured {
            cache: 160,
            perplexity: Some(39.0),
        },
        partial_rope: None,
        rank: 28,
        layers: (0..LAYERS).map(layer).collect(),
        phases: vec![
            Phase {
                name: "Evaluate the original".into(),
                seconds: 3.0,
                peak_bytes: Some(1 << 30),
            },
            Phase {
                name: "Factorise and write".into(),
                seconds: 61.0,
                peak_bytes: Some(3 << 29),
            },
        ],
        total_seconds: Some(64.5),
        peak_bytes: Some(3 << 29),
        tasks: vec![task(&[0.61, 0.54])],
        samples: vec![Sample {
            prompt: "Once upon a time".into(),
            original: Some(", there was a model.".into()),
            converted: ", there was a smaller one.".into(),
        }],
        recipe: Some("kv-lora-rank = 28\n".into()),
        generator: "transmla 0.1.0".into(),
    }
}

/// A task with the scores of the original and of the converted model.
fn task(scores: &[f64; 2]) -> TaskFigures {
    let [original, converted] = scores.map(|value| Score {
        value,
        standard_error: Some(0.05),
    });
    TaskFigures {
        task: "arc_easy".into(),
        records: 100,
        metric: "acc_norm".into(),
        original,
        converted,
        lost: 9,
        gained: 2,
        kl: Some(0.125),
    }
}

fn sweep() -> SweepReport {
    let point = |rope_dim, rank, perplexity: f64| SweepPoint {
        rope_dim,
        rank,
        cache: rope_dim + rank,
        perplexity,
        tasks: vec![task(&[0.61, 2.0 / perplexity])],
        ..SweepPoint::default()
    };
    SweepReport {
        model: "a <model> & \"more\"".into(),
        evaluation: "3 windows of 512 tokens of some text".into(),
        original: Measured {
            cache: 64,
            perplexity: Some(4.0),
        },
        curves: vec![
            SweepCurve {
                label: "transmla".into(),
                points: vec![point(8, 28, 8.0), point(8, 12, 16.0)],
            },
            SweepCurve {
                label: "coherent, refine 100".into(),
                points: vec![point(8, 28, 4.5), point(4, 28, 5.0)],
            },
        ],
        ..SweepReport::default()
    }
}

/// The page as XML: its elements without an end get one.
fn parsed(page: &str) -> String {
    let body = page.strip_prefix("<!DOCTYPE html>\n").unwrap();
    let mut xml = String::new();
    for line in body.lines() {
        xml += line;
        if line.starts_with("<meta ") {
            xml += "</meta>";
        }
        xml.push('\n');
    }
    xml
}

fn document(xml: &str) -> Document<'_> {
    Document::parse_with_options(xml, ParsingOptions::default()).unwrap_or_else(|error| panic!("{error}\n{xml}"))
}

/// Ids of what the page has, in order.
fn parts(page: &str) -> Vec<String> {
    let xml = parsed(page);
    let ids = document(&xml);
    let ids = ids.descendants().filter_map(|node| node.attribute("id"));
    ids.map(str::to_owned).collect()
}

#[test]
fn a_conversion_has_all_parts_that_are_known() {
    let page = conversion().html().unwrap();
    let all = [
        "before-after",
        "errors",
        "spectrum",
        "rotary",
        "refinement",
        "phases",
        "tasks",
        "samples",
        "recipe",
        "layers",
    ];
    assert_eq!(parts(&page), all);
    let xml = parsed(&page);
    let document = document(&xml);
    let pictures = document
        .descendants()
        .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "svg")));
    assert_eq!(pictures.count(), 6);
    let texts: Vec<&str> = document
        .descendants()
        .filter_map(|node| node.text())
        .map(str::trim)
        .collect();
    for text in [
        "org/model",
        "41.7\u{a0}%",
        "384 → 160 numbers per token and layer",
        "original 34.6, +12.7\u{a0}%",
        "64 s",
        "0.6100 ± 0.0500",
        "0.5400 ± 0.0500",
        "0.1250",
        "rank 28",
        "layer 2: output (held-out) 6.00 %",
        "one turn in 63 tokens: 10.0 % in the rotary key",
        "layer 0: 40.0 % → 10.0 %",
        "transmla 0.1.0",
    ] {
        assert!(texts.iter().any(|it| it.contains(text)), "{text} is not in {texts:?}");
    }
}

#[test]
fn what_is_not_known_is_left_out() {
    let nothing = ConversionReport::default().html().unwrap();
    assert!(parts(&nothing).is_empty() && !nothing.contains("<svg"), "{nothing}");
    let unmeasured = ConversionReport {
        original: Measured {
            cache: 384,
            perplexity: None,
        },
        converted: Measured {
            cache: 160,
            perplexity: None,
        },
        ..ConversionReport::default()
    };
    let page = unmeasured.html().unwrap();
    assert!(page.contains("41.7\u{a0}%") && parts(&page).is_empty(), "{page}");
    // The published method refines nothing and has no error of outputs.
    let mut published = conversion();
    published.partial_rope = Some(36.0);
    for layer in &mut published.layers {
        layer.refinement.clear();
        layer.output_error = None;
    }
    let page = published.html().unwrap();
    assert!(!parts(&page).contains(&"refinement".to_owned()));
    assert!(
        page.contains("partial RoPE") && !page.contains("Output error"),
        "{page}"
    );
    // Layers that an earlier run has solved.
    let mut resumed = conversion();
    for layer in &mut resumed.layers[..2] {
        (layer.spectrum, layer.rope, layer.refinement) = Default::default();
    }
    let page = resumed.html().unwrap();
    assert_eq!(page.matches("2 layers were taken over from an earlier run").count(), 3);
}

#[test]
fn tasks_of_a_sweep_have_a_column_for_each_model() {
    let page = sweep().html().unwrap();
    let xml = parsed(&page);
    let document = document(&xml);
    let section = document
        .descendants()
        .find(|node| node.attribute("id") == Some("tasks"));
    let cells = section.unwrap().descendants().filter_map(|node| node.text());
    let cells: Vec<&str> = cells.map(str::trim).filter(|text| !text.is_empty()).collect();
    for text in [
        "coherent, refine 100, 4 + 28",
        "0.6100 ± 0.0500",
        "0.2500 ± 0.0500",
        "0.1250 ± 0.0500",
    ] {
        assert!(cells.contains(&text), "{text} is not in {cells:?}");
    }
    let without = SweepReport {
        curves: Vec::new(),
        ..sweep()
    };
    assert!(!parts(&without.html().unwrap()).contains(&"tasks".to_owned()));
}

#[test]
fn values_that_cannot_be_drawn_do_no_harm() {
    for bad in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
        let mut report = conversion();
        report.original.perplexity = Some(bad);
        report.converted.perplexity = Some(bad);
        report.rank = 1000;
        for layer in &mut report.layers {
            (layer.output_error, layer.kept_energy) = (Some(bad), Some(bad));
            layer.spectrum[3] = bad;
            layer.refinement[1].1 = bad;
            if let Some(rope) = &mut layer.rope {
                (rope.frequencies[0], rope.shares[0][0]) = (bad, bad);
            }
        }
        // Too few shares for the slots.
        if let Some(rope) = &mut report.layers[2].rope {
            rope.shares.pop();
        }
        let page = parsed(&report.html().unwrap());
        for node in document(&page).descendants() {
            for attribute in node.attributes() {
                let value = attribute.value();
                assert!(!value.contains("NaN") && !value.contains("inf"), "{value}");
            }
        }
        let mut report = sweep();
        report.original.perplexity = Some(bad);
        report.curves[0].points[0].perplexity = bad;
        document(&parsed(&report.html().unwrap()));
        document(&report.svg().unwrap());
    }
}

#[test]
fn text_stays_text() {
    let evil = "</style><script>alert('1')</script>\u{0}\u{ffff} & \"<b>";
    let text = || evil.to_owned();
    let mut report = conversion();
    (report.model, report.method, report.generator) = (text(), text(), text());
    (report.evaluation, report.recipe) = (Some(text()), Some(text()));
    report.facts[0] = Fact {
        name: text(),
        value: text(),
    };
    report.phases[0].name = text();
    report.tasks[0].task = text();
    report.samples[0] = Sample {
        prompt: text(),
        original: Some(text()),
        converted: text(),
    };
    let mut several = sweep();
    (several.model, several.evaluation, several.recipe) = (text(), text(), Some(text()));
    several.curves[0].label = text();
    for page in [report.html().unwrap(), several.html().unwrap()] {
        let xml = parsed(&page);
        let document = document(&xml);
        assert!(!page.contains("<script") && !page.contains('\u{0}'), "{page}");
        assert_eq!(
            document.descendants().filter(|node| node.has_tag_name("style")).count(),
            1
        );
        let shown = evil.replace(['\u{0}', '\u{ffff}'], " ");
        assert!(document.descendants().any(|node| node.text() == Some(&shown)), "{page}");
    }
    let picture = several.svg().unwrap();
    let document = document(&picture);
    assert!(
        document
            .descendants()
            .any(|node| node.text().is_some_and(|it| it.contains("<script>")))
    );
}

#[test]
fn pages_fetch_nothing_and_are_the_same_every_time() {
    for (first, second) in [
        (conversion().html().unwrap(), conversion().html().unwrap()),
        (sweep().html().unwrap(), sweep().html().unwrap()),
    ] {
        assert_eq!(first, second);
        let xml = parsed(&first);
        for node in document(&xml).descendants() {
            for name in ["src", "href", "xlink:href", "onload", "onclick"] {
                assert!(node.attribute(name).is_none(), "{node:?}");
            }
        }
        assert!(!first.contains("url(") && !first.contains("@import"));
    }
}

#[test]
fn every_colour_of_a_picture_has_one_in_the_dark() {
    let mut report = conversion();
    report.layers[0].key_error = Some(0.1);
    report.partial_rope = Some(36.0);
    for page in [report.html().unwrap(), sweep().html().unwrap()] {
        let xml = parsed(&page);
        for node in document(&xml)
            .descendants()
            .filter(|node| node.tag_name().namespace() == Some("http://www.w3.org/2000/svg"))
        {
            for name in ["fill", "stroke"] {
                let Some(colour) = node.attribute(name).filter(|colour| *colour != "none") else {
                    continue;
                };
                assert!(page.contains(&format!("svg [{name}=\"{colour}\"]")), "{name} {colour}");
            }
        }
    }
}

#[test]
fn every_point_of_a_sweep_is_in_its_place() {
    let picture = sweep().svg().unwrap();
    let document = document(&picture);
    let of = |name: &str| {
        document
            .descendants()
            .filter(|node| node.tag_name().name() == name)
            .collect::<Vec<_>>()
    };
    let texts: Vec<&str> = document
        .descendants()
        .filter_map(|node| node.text())
        .map(str::trim)
        .collect();
    for text in [
        "Perplexity by size of the KV cache: a <model> & \"more\"",
        "on 3 windows of 512 tokens of some text",
        "original: 64 KV numbers, perplexity 4.0000",
        "transmla at 8 + 12: 20 KV numbers, perplexity 16.0000",
        "coherent, refine 100",
        "d_r = 4",
        "16.0",
        "31 %",
    ] {
        assert!(texts.contains(&text), "{text} is not in {texts:?}");
    }
    // Two points are joined by a line of two pixels, in ten units each.
    let joined = |node: &roxmltree::Node<'_, '_>| node.attribute("stroke-width") == Some("20");
    let lines: Vec<_> = of("polyline").into_iter().filter(joined).collect();
    assert_eq!(lines.len(), 1);
    let points = lines[0].attribute("points").unwrap();
    let places: Vec<f64> = points
        .split([' ', ','])
        .filter_map(|number| number.parse().ok())
        .collect();
    let [x20, y16, x36, y8] = places[..] else {
        panic!("{places:?}")
    };
    let hint = |end: &str| {
        let mut titles = of("title").into_iter();
        let title = titles
            .rfind(|node| node.text().is_some_and(|text| text.ends_with(end)))
            .unwrap();
        let circle = title.parent().unwrap();
        ["cx", "cy"].map(|name| circle.attribute(name).unwrap().parse::<f64>().unwrap())
    };
    // Half the cache of the original is half way to it, and twice the perplexity is higher by what it is again higher at
    // four times.
    let [x64, y4] = hint("perplexity 4.0000");
    assert_eq!(hint("perplexity 16.0000"), [x20, y16]);
    assert!(((x36 - x20) / (x64 - x36) - 16.0 / 28.0).abs() < 1e-2);
    assert!(((y4 - y8) - (y8 - y16)).abs() <= 2.0);
    assert!(hint("perplexity 4.5000")[1] > hint("perplexity 5.0000")[1]);
}

#[test]
fn a_sweep_has_picture_and_table() {
    let page = sweep().html().unwrap();
    assert_eq!(parts(&page), ["trade-off", "points", "tasks"]);
    let xml = parsed(&page);
    let document = document(&xml);
    let points = document
        .descendants()
        .find(|node| node.attribute("id") == Some("points"));
    let rows: Vec<Vec<&str>> = points
        .unwrap()
        .descendants()
        .filter(|node| node.has_tag_name("tr"))
        .map(|row| row.children().filter_map(|cell| cell.text()).collect())
        .collect();
    assert_eq!(rows.len(), 1 + 1 + 4);
    assert_eq!(
        rows[0],
        ["Method", "d_r + r", "KV numbers", "Share", "Perplexity", "Change"]
    );
    assert_eq!(rows[2], ["transmla", "8 + 28", "36", "56.2 %", "8.0000", "+100 %"]);
    // Half of 64 is met by one model.
    assert!(
        page.contains("coherent, refine 100 at 4 + 28") && page.contains("at half the cache"),
        "{page}"
    );
    assert!(parts(&SweepReport::default().html().unwrap()).is_empty());
    assert!(SweepReport::default().svg().unwrap().contains("</svg>"));
}

#[test]
fn reports_are_data() {
    let mut report = conversion();
    for (index, layer) in report.layers.iter_mut().enumerate() {
        layer.spectrum = vec![4.0, 2.0, 0.25];
        layer.output_error = Some(index as f64 / 8.0);
    }
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<ConversionReport>(&json).unwrap(), report);
    let report: SweepReport = serde_json::from_str(r#"{"model": "org/model"}"#).unwrap();
    assert_eq!(report.model, "org/model");
}
