//! The processor, the backends and the memory.

use burn::tensor::Device;
use transmla_core::DeviceChoice;

use super::finding::Finding;
use crate::system::{Memory, Processor};
use crate::table;

const MEBIBYTE: u64 = 1 << 20;

/// The least memory that a conversion of the embedded model needs with some to spare.
const LEAST_MEMORY: u64 = 256 * MEBIBYTE;

/// Parameters of models, and what a conversion of them takes with the default options (docs/families.md).
const NEEDS: [(&str, u64); 5] = [
    ("135 million", 1200 * MEBIBYTE),
    ("1 billion", 2800 * MEBIBYTE),
    ("7 billion", 9650 * MEBIBYTE),
    ("47 billion", 16600 * MEBIBYTE),
    ("72 billion", 30000 * MEBIBYTE),
];

/// The processor's threads and vector instructions.
pub fn processor(processor: &Processor) -> Finding {
    let threads = table::plural(processor.threads, "thread");
    match processor.vectors {
        Some(vectors) => Finding::ok("processor", format!("{threads}, kernels with {vectors}")),
        None => Finding::warn(
            "processor",
            format!("{threads}, without vector instructions that the kernels know: several times slower"),
            "use a processor with AVX2 (Intel since 2013, AMD since 2015) or an ARM one",
        ),
    }
}

/// What is built in, and the devices of each backend.
pub fn backends() -> Vec<Finding> {
    let built = [
        ("cuda", cfg!(feature = "cuda")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("ndarray", cfg!(feature = "ndarray")),
    ];
    let names = |wanted: bool| {
        let names = built.iter().filter(|(_, built)| *built == wanted);
        names.map(|(name, _)| *name).collect::<Vec<_>>()
    };
    let mut found = format!(
        "cpu{}",
        names(true).iter().map(|name| format!(", {name}")).collect::<String>()
    );
    let missing = names(false);
    if !missing.is_empty() {
        found.push_str(&format!(
            "; not built in: {} (cargo install --path transmla-cli --locked --features NAME)",
            missing.join(", ")
        ));
    }
    let mut findings = vec![Finding::ok("backends", found)];
    if cfg!(feature = "cuda") {
        findings.push(devices(
            "cuda",
            &listed(DeviceChoice::Cuda),
            "install the NVIDIA driver",
        ));
    }
    if cfg!(feature = "wgpu") {
        let fix = "install the GPU's Vulkan driver; Mesa's lavapipe (mesa-vulkan-drivers) does it in software";
        findings.push(devices("wgpu", &listed(DeviceChoice::Wgpu), fix));
    }
    findings.push(automatic());
    findings
}

/// Most devices of a backend that are looked for.
const MOST_DEVICES: usize = 64;

/// What `--device NAME:N` gives for each N.
fn listed(choice: impl Fn(usize) -> DeviceChoice) -> Vec<String> {
    let devices = (0..MOST_DEVICES).map_while(|index| {
        let device = choice(index).open().ok()?;
        Some(format!("{} is {device:?}", choice(index)))
    });
    devices.collect()
}

fn devices(name: &'static str, devices: &[String], fix: &str) -> Finding {
    match devices.is_empty() {
        true => Finding::warn(name, "no device found", fix),
        false => Finding::ok(name, devices.join("; ")),
    }
}

/// What is computed on unless `--device` says otherwise.
fn automatic() -> Finding {
    match DeviceChoice::Auto.open() {
        Ok(device) if device == Device::flex() => Finding::ok("device", "--device auto takes the CPU"),
        Ok(device) => Finding::ok("device", format!("--device auto takes {device:?}")),
        Err(error) => Finding::fail("device", error.to_string(), "use --device cpu"),
    }
}

/// Whether the memory is enough, and for how large a model.
pub fn memory(memory: Option<Memory>) -> Finding {
    const NAME: &str = "memory";
    const FIX: &str = "close other programs, or calibrate on less text (--cal-nsamples) with --method transmla; \
                       `transmla convert --dry-run` estimates what a conversion takes";
    let Some(memory) = memory else {
        return Finding::ok(NAME, "this system does not tell how much there is");
    };
    let amount = format!(
        "{} available of {}",
        table::bytes(memory.available),
        table::bytes(memory.total)
    );
    let fits = NEEDS.iter().rev().find(|(_, needed)| *needed <= memory.available);
    match fits {
        Some((parameters, needed)) => {
            let needed = table::bytes(*needed);
            let found = format!("{amount}: enough to convert models of {parameters} parameters, which takes {needed}");
            Finding::ok(NAME, found)
        }
        None if memory.available < LEAST_MEMORY => Finding::fail(NAME, amount, FIX),
        None => {
            let (parameters, needed) = NEEDS[0];
            let needed = table::bytes(needed);
            let found = format!("{amount}: converting a model of {parameters} parameters takes {needed}");
            Finding::warn(NAME, found, FIX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn processors_without_vectors_are_told() {
        let processor = |vectors| super::processor(&Processor { threads: 4, vectors });
        assert_eq!(processor(Some("AVX2")).found, "4 threads, kernels with AVX2");
        let slow = processor(None);
        assert!(slow.state == State::Warn && slow.fix.unwrap().contains("AVX2"));
    }

    #[test]
    fn memory_is_set_against_models() {
        let with = |available| {
            let total = 64 << 30;
            super::memory(Some(Memory { total, available }))
        };
        for (available, state, words) in [
            (1 << 40, State::Ok, "72 billion"),
            (10 << 30, State::Ok, "7 billion parameters, which takes 9.4 GiB"),
            (2 << 30, State::Ok, "135 million"),
            (1 << 30, State::Warn, "1.0 GiB available of 64.0 GiB"),
            (1 << 20, State::Fail, "1.0 MiB available"),
        ] {
            let finding = with(available);
            assert_eq!(finding.state, state, "{finding:?}");
            assert!(finding.found.contains(words), "{finding:?}");
            assert_eq!(finding.fix.is_some(), state != State::Ok);
        }
        assert_eq!(super::memory(None).state, State::Ok);
    }

    #[test]
    fn a_backend_without_devices_is_told() {
        assert_eq!(devices("cuda", &[], "install it").fix.as_deref(), Some("install it"));
        assert_eq!(devices("cuda", &["cuda:0 is X".into()], "").found, "cuda:0 is X");
    }
}
