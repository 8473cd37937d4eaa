//! Healing: a converted model is trained, as a whole, to predict what its original predicts.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `plan` | [`Heal`], [`PlannedHeal`]: from two folders and options to a healed model |
//! | `request`, `run` | [`heal()`]: with models and text at hand |
//! | `pair` | whether two models are original and converted one |
//! | `student` | the model in training, its layers with the weights as they are now |
//! | `weights`, `adam` | what is trained, and a step of AdamW on it |
//! | `teacher` | the original, run at every step or its largest logits from disk |
//! | `order` | which sequences are held out, and which a step sees |
//! | `forward`, `pass` | a batch forwards, and backwards |
//! | `training` | steps, and the held-out text between them |
//! | `size` | what it takes of disk and memory |
//! | `state` | what a run that was ended goes on from |
//! | `written` | the files of the healed model |

pub mod adam;
pub mod forward;
pub mod order;
pub mod pair;
pub mod pass;
pub mod plan;
pub mod request;
pub mod run;
pub mod size;
pub mod splitmix;
pub mod state;
pub mod student;
pub mod teacher;
pub mod training;
pub mod weights;
pub mod written;
