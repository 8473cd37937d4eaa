//! What a problem with its data can do, and how results are compared.

use anyhow::ensure;
use burn::tensor::Tensor;

/// One run of a strategy, with everything that is not to be timed done.
pub(crate) type Timed<'a> = Box<dyn FnOnce() + 'a>;

/// A problem with its data.
pub(crate) trait Case {
    /// Compares every strategy with the plain reference, or a single one with what it must satisfy.
    ///
    /// # Errors
    /// What differs, and by how much.
    fn check(&self) -> anyhow::Result<()>;

    /// One run of the strategy with this index in the catalogue.
    fn prepare(&self, strategy: usize) -> Timed<'_>;
}

/// Compares two results: the largest difference must be small beside the largest value.
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

/// Whether a difference is at most `tolerance` of a scale; a NaN never is.
pub(crate) fn within(what: &str, difference: f64, scale: f64, tolerance: f64) -> anyhow::Result<()> {
    ensure!(
        difference <= tolerance * scale && scale > 0.0,
        "{what}: differs by {difference:.2e} where values reach {scale:.2e}"
    );
    Ok(())
}
