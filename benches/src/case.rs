//! A problem with its data, and comparison of results.

use anyhow::ensure;
use burn::tensor::Tensor;

/// One run of a strategy, after all preparation that is not timed.
pub(crate) type Timed<'a> = Box<dyn FnOnce() + 'a>;

/// A problem with its data.
pub(crate) trait Case {
    /// Compares every strategy with the plain reference, or a single strategy with its defining property.
    ///
    /// # Errors
    /// What differs, and by how much.
    fn check(&self) -> anyhow::Result<()>;

    /// One run of the strategy with this index in the catalogue.
    fn prepare(&self, strategy: usize) -> Timed<'_>;
}

/// Compares two results: the largest difference must be small relative to the largest value.
pub(crate) fn compare<const D: usize>(
    what: &str,
    found: &Tensor<D>,
    expected: &Tensor<D>,
    tolerance: f64,
) -> anyhow::Result<()> {
    let difference: f32 = (found.clone() - expected.clone()).abs().max().into_scalar();
    let scale: f32 = expected.clone().abs().max().into_scalar();
    within(what, f64::from(difference), f64::from(scale), tolerance)
}

/// Fails unless a difference is at most `tolerance` times a scale; a NaN always fails.
pub(crate) fn within(what: &str, difference: f64, scale: f64, tolerance: f64) -> anyhow::Result<()> {
    ensure!(
        difference <= tolerance * scale && scale > 0.0,
        "{what}: differs by {difference:.2e} where values reach {scale:.2e}"
    );
    Ok(())
}
