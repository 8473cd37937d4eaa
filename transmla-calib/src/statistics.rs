//! Statistics of a model's layers on calibration text.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `moment` | the second moment of a layer's inputs |
//! | `gradient` | gradients of the loss with respect to each layer's attention output |
//! | `sensitivity` | sensitivity of the loss to attention scores, queries and values |

mod gradient;
mod moment;
mod sensitivity;

pub use gradient::{AttentionGradients, GradientPass, output_gradients};
pub use moment::SecondMoment;
pub use sensitivity::Sensitivity;
