//! How layers were solved, beyond what the report says.

/// How a layer was solved. A layer that an earlier run has solved has none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LayerFigures {
    /// The layer.
    pub layer: usize,
    /// Energy of each direction that a latent of full rank would have, descending: of balanced keys and values (published
    /// method), or in the metric of the attention output (coherent method).
    pub spectrum: Vec<f64>,
    /// Share of each key pair's energy that each slot of the rotary key carries, `[slot][pair]`, 0 to 1; pairs and slots in
    /// the order of their frequencies in the source's and the converted configuration.
    pub slot_energy: Vec<Vec<f64>>,
    /// Held-out error after so many steps of refinement, as [`output_error`](crate::LayerReport::output_error); the last
    /// step need not be the one that is kept.
    pub refinement: Vec<(usize, f64)>,
}
