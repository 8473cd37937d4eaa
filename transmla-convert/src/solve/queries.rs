//! Queries through a latent, by whichever method keys and values are found.

use faer::MatRef;
use transmla_lowrank::query_pca;

use crate::layer::factors::Queries;
use crate::spec::error::ConvertError;
use crate::spec::plan::Plan;

/// Share of the mean diagonal added to second moments before their eigenvectors are taken, as published.
pub(crate) const DAMPING: f64 = 0.01;

/// The queries as they are, or through a latent if the plan has one.
pub(crate) fn factorise_queries(
    plan: &Plan,
    layer: usize,
    queries: MatRef<'_, f64>,
    moment: MatRef<'_, f64>,
) -> Result<Queries, ConvertError> {
    let Some(rank) = plan.recipe().q_lora_rank else {
        return Ok(Queries::Full(queries.to_owned()));
    };
    // The bias is kept exactly, so only what varies with the input has to go through the latent.
    let hidden = plan.source().hidden_size;
    let (linear, bias) = queries.split_at_col(hidden);
    let moment = moment.submatrix(0, 0, hidden, hidden);
    Ok(Queries::LowRank {
        factors: query_pca(linear, moment, rank, DAMPING).map_err(ConvertError::lowrank(layer))?,
        bias: (bias.ncols() == 1).then(|| bias.col(0).iter().copied().collect()),
    })
}
