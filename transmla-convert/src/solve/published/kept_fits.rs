//! What the first pass finds, as it is kept until the model stands.

use transmla_rope::{FoldSpec, HeadShape, KeyRotation};

use crate::layer::key_norm::LinearKeys;
use crate::solve::kept::{Kept, pack, unpack};
use crate::spec::error::ConvertError;

/// What the first pass finds of a layer.
#[derive(Debug, Clone, Default)]
pub(crate) struct LayerFit {
    /// One rotation for each folding, fitted on all text.
    pub all: Vec<KeyRotation>,
    /// The same without the held-out text; empty if there is none.
    pub part: Vec<KeyRotation>,
    /// Keys, where the source normalises them: fitted on all text, and without the held-out text.
    pub keys: Option<LinearKeys>,
    pub part_keys: Option<LinearKeys>,
}

/// Where the fits of all layers are kept.
pub(crate) struct KeptFits<'a> {
    pub kept: &'a mut dyn Kept,
    pub shape: HeadShape,
    pub folds: &'a [FoldSpec],
}

impl KeptFits<'_> {
    /// That of a layer, if it is there.
    pub fn find(&self, layer: usize) -> Option<LayerFit> {
        let bytes = self.kept.read(&name(layer))?;
        let mut fields = Fields(&bytes);
        let fit = LayerFit {
            all: self.rotations(&mut fields)?,
            part: self.rotations(&mut fields)?,
            keys: keys(&mut fields)?,
            part_keys: keys(&mut fields)?,
        };
        fields.0.is_empty().then_some(fit)
    }

    /// Keeps that of a layer.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&mut self, layer: usize, fit: &LayerFit) -> Result<(), ConvertError> {
        let mut bytes = Vec::new();
        for rotations in [&fit.all, &fit.part] {
            put(&mut bytes, [rotations.len() as u64]);
            for rotation in rotations {
                let values: Vec<f64> = rotation.values().collect();
                put(&mut bytes, [values.len() as u64]);
                put(&mut bytes, values);
            }
        }
        for keys in [&fit.keys, &fit.part_keys] {
            put(&mut bytes, [u64::from(keys.is_some())]);
            if let Some(keys) = keys {
                let (weights, rest) = keys.parts();
                put(&mut bytes, [weights.len() as u64, rest.len() as u64]);
                put(&mut bytes, weights.iter().copied());
                put(&mut bytes, rest);
            }
        }
        self.kept.write(&name(layer), bytes)
    }

    fn rotations(&self, fields: &mut Fields<'_>) -> Option<Vec<KeyRotation>> {
        let count = fields.count()?;
        if count > self.folds.len() {
            return None;
        }
        let mut one = |fold: &FoldSpec| {
            let numbers = fields.count()?;
            KeyRotation::from_values(self.shape, fold, &fields.numbers(numbers)?)
        };
        self.folds.iter().take(count).map(&mut one).collect()
    }
}

fn name(layer: usize) -> String {
    format!("layer-{layer:05}")
}

/// Nothing in nothing if the bytes are not those of keys or of their absence.
fn keys(fields: &mut Fields<'_>) -> Option<Option<LinearKeys>> {
    if fields.count()? == 0 {
        return Some(None);
    }
    let counts = [fields.count()?, fields.count()?];
    let weights = fields.numbers::<f32>(counts[0])?;
    LinearKeys::from_parts(weights, &fields.numbers(counts[1])?).map(Some)
}

fn put<T: crate::solve::kept::Packed>(bytes: &mut Vec<u8>, numbers: impl IntoIterator<Item = T>) {
    bytes.extend(pack(numbers));
}

/// The rest of some bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn numbers<T: crate::solve::kept::Packed>(&mut self, count: usize) -> Option<Vec<T>> {
        let (taken, rest) = self.0.split_at_checked(count.checked_mul(T::BYTES)?)?;
        self.0 = rest;
        Some(unpack(taken, count)?.collect())
    }

    fn count(&mut self) -> Option<usize> {
        let count = self.numbers::<u64>(1)?.pop()?;
        usize::try_from(count).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use faer::Mat;

    use super::*;

    #[derive(Default)]
    struct Memory(BTreeMap<String, Vec<u8>>);

    impl Kept for Memory {
        fn write(&mut self, part: &str, contents: Vec<u8>) -> Result<(), ConvertError> {
            self.0.insert(part.into(), contents);
            Ok(())
        }
        fn read(&self, part: &str) -> Option<Vec<u8>> {
            self.0.get(part).cloned()
        }
        fn remove(&mut self, part: &str) -> Result<(), ConvertError> {
            self.0.remove(part);
            Ok(())
        }
        fn lost(&self, _: &str) -> ConvertError {
            ConvertError::Activations { layer: 0 }
        }
    }

    #[test]
    fn what_is_kept_of_a_layer_comes_back_to_the_bit() {
        let shape = HeadShape::new(4, 2, 8).unwrap();
        let folds = [2, 4].map(|fold| FoldSpec::new(shape, 4, fold).unwrap());
        let moment = Mat::from_fn(16, 16, |i, j| 1.0 / (1.0 + (i as f64 - j as f64).abs()));
        let fitted = folds.map(|fold| KeyRotation::fit(moment.as_ref(), shape, &fold).unwrap());
        let still = folds.map(|fold| KeyRotation::without_positions(shape, &fold));
        let keys = |error: f64, gains: &[f64]| {
            let rest: Vec<f64> = [2.0, error].into_iter().chain(gains.iter().copied()).collect();
            LinearKeys::from_parts(vec![1.5, -0.0, 3.0, 1e-30], &rest)
        };
        let mut kept = Memory::default();
        let mut fits = KeptFits {
            kept: &mut kept,
            shape,
            folds: &folds,
        };
        for fit in [
            LayerFit {
                all: fitted.to_vec(),
                part: still.to_vec(),
                keys: keys(0.1, &[]),
                part_keys: None,
            },
            LayerFit {
                all: still[..1].to_vec(),
                part: Vec::new(),
                keys: None,
                part_keys: keys(f64::NAN, &[0.3, 1.0 / 3.0]),
            },
        ] {
            fits.keep(3, &fit).unwrap();
            // NaN is not itself, but written alike.
            assert_eq!(format!("{:?}", fits.find(3).unwrap()), format!("{fit:?}"));
            assert!(fits.find(2).is_none());
        }
        let whole = fits.kept.read("layer-00003").unwrap();
        for length in 0..whole.len() {
            fits.kept.write("layer-00003", whole[..length].to_vec()).unwrap();
            assert!(fits.find(3).is_none(), "{length}");
        }
    }
}
