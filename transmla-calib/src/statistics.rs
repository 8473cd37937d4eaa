//! What calibration measures of a layer.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `moment` | the second moment of a layer's inputs |
//! | `gradient` | what the loss notices of each layer's attention output |
//! | `sensitivity` | which scores, queries and values the loss notices |

mod gradient;
mod moment;
mod sensitivity;

pub use gradient::output_gradients;
pub use moment::SecondMoment;
pub use sensitivity::Sensitivity;
