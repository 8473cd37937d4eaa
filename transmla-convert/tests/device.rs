//! A whole conversion on a GPU against the same on the CPU: calibration, gradients, refinement and evaluation. A software adapter
//! will do.

#![cfg(any(feature = "cuda", feature = "wgpu"))]

use std::path::{Path, PathBuf};

use transmla_convert::{Conversion, LocalText, MethodName, Recipe, Report, Setup, Silent};
use transmla_core::DeviceChoice;
use transmla_core::burn::tensor::Device;

/// Largest relative difference of perplexities. NVIDIA's tensor cores round the numbers of an f32 product to TF32.
const LIMIT: f64 = if cfg!(feature = "cuda") { 1e-2 } else { 1e-3 };

/// The GPU that is tested; nothing, and a reason printed, where there is none.
fn device() -> Option<Device> {
    let choice = match cfg!(feature = "cuda") {
        true => DeviceChoice::Cuda(0),
        false => DeviceChoice::Wgpu(0),
    };
    choice.open().inspect_err(|error| eprintln!("left out: {error}")).ok()
}

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-cli/models")
}

fn converted(method: MethodName, device: Device) -> Report {
    let mut recipe = Recipe {
        model_path: models().join("stories260k").to_string_lossy().into_owned(),
        method,
        refine: (method == MethodName::Coherent).then_some(4),
        qk_mqa_dim: Some(8),
        kv_lora_rank: Some(28),
        ..Recipe::default()
    };
    recipe.calibration.cal_dataset = Some("stories".into());
    recipe.calibration.cal_nsamples = Some(16);
    recipe.calibration.cal_max_seqlen = Some(64);
    recipe.evaluation.eval_seqlen = Some(128);
    recipe.evaluation.eval_max_windows = Some(4);
    let setup = Setup {
        device,
        texts: vec![LocalText {
            name: "stories".into(),
            kind: "embedded".into(),
            folder: models().join("stories"),
        }],
        ..Setup::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let conversion = Conversion::new(recipe).unwrap().with(setup);
    conversion.run(&folder.path().join("converted"), &mut Silent).unwrap()
}

#[test]
fn a_device_gives_the_perplexities_of_the_cpu() {
    let Some(device) = device() else { return };
    for method in [MethodName::Transmla, MethodName::Coherent] {
        let [host, found] = [Device::flex(), device.clone()].map(|device| converted(method, device));
        let perplexities = |report: &Report| {
            let measured = [report.original, report.partial_rope, report.mla];
            measured.map(|measured| measured.map(|measured| measured.perplexity))
        };
        println!(
            "{method}: {:?} on the CPU, {:?}",
            perplexities(&host),
            perplexities(&found)
        );
        assert!(host.mla.is_some());
        for (host, found) in perplexities(&host).into_iter().zip(perplexities(&found)) {
            assert_eq!(host.is_some(), found.is_some(), "{method}");
            let (Some(host), Some(found)) = (host, found) else {
                continue;
            };
            assert!(
                (found / host - 1.0).abs() < LIMIT,
                "{method}: {found} where the CPU has {host}"
            );
        }
    }
}
