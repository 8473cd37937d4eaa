//! Pages and pictures of conversions: plain data in, one HTML file or one SVG picture out.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`conversion`] | [`ConversionReport`]: one model before and after, layer by layer |
//! | [`sweep`] | [`SweepReport`]: several models of one original, perplexity by size of the cache |
//! | [`tasks`] | [`TaskFigures`]: accuracy before and after, in both |
//! | [`error`] | [`ReportError`] |
//!
//! A page needs no network and no script, follows the reader's light or dark setting, prints, and fits a phone. Figures that
//! are not known are left out. Nothing is read or written, and no clock is asked: the same data gives the same bytes.
//!
//! # Example
//!
//! ```
//! use transmla_report::{ConversionReport, Measured};
//!
//! let report = ConversionReport {
//!     model: "org/model".into(),
//!     original: Measured { cache: 384, perplexity: Some(34.6) },
//!     converted: Measured { cache: 160, perplexity: Some(39.0) },
//!     ..ConversionReport::default()
//! };
//! let page = report.html()?;
//! assert!(page.contains("<svg") && !page.contains("<script"));
//! # Ok::<(), transmla_report::ReportError>(())
//! ```

mod axis;
mod canvas;
pub mod conversion;
mod conversion_page;
pub mod error;
mod format;
mod html;
mod labels;
mod pictures;
pub mod sweep;
mod sweep_page;
pub mod tasks;
mod tasks_page;

pub use conversion::{ConversionReport, Fact, LayerFigures, Measured, Phase, RopeFigures, Sample};
pub use error::ReportError;
pub use sweep::{SweepCurve, SweepPoint, SweepReport};
pub use tasks::{Score, TaskFigures};
