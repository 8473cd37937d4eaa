//! What a conversion is told and what follows from it without a weight: recipe, plan, engines, errors, reports.

pub mod budget;
pub mod calibration_text;
pub mod engine;
pub mod error;
pub mod figures;
pub mod groups;
pub mod healing;
pub mod healing_report;
pub mod hint;
pub mod options;
pub mod plan;
pub mod purpose;
pub mod recipe;
pub mod recipe_forms;
pub mod recipe_tasks;
pub mod report;
pub mod serving;
pub mod shapes;
pub mod support;
mod vllm;
