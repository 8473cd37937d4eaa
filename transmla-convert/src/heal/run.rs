//! A healing with both models and the text at hand.

use std::path::Path;

use transmla_core::checkpoint::{Claim, Place};
use transmla_core::{Decoder, LayeredModel, Residency};

use crate::heal::order::Division;
use crate::heal::pair::{check_configs, check_embeddings};
use crate::heal::request::HealRequest;
use crate::heal::size::disk_bytes;
use crate::heal::state::{Origin, StateStore, teacher_folder};
use crate::heal::student::Student;
use crate::heal::teacher::{Table, Teacher, Teaching};
use crate::heal::training::Training;
use crate::heal::written::{Healed, write};
use crate::output::manifest::{check_replaceable, list_files};
use crate::output::resume_cache::forget;
use crate::output::room::check_room;
use crate::spec::error::ConvertError;
use crate::spec::healing_report::HealReport;
use crate::spec::report::{Observer, Stage};

/// Trains a converted model to predict what its original predicts, and writes it in the form that it was read in.
///
/// Weights are trained in `f32`, whatever their files hold; norms stay as they are, latent norms that change nothing included, for
/// the model is trained with them in place. A held-out part of the text picks the step that is kept. The folder appears as
/// the last step, complete. A run that was ended goes on where its state was last saved, and gives the same bytes as one that
/// was not.
///
/// # Errors
/// Models that do not belong together; too little text; a folder that exists, has another writer or cannot be written; a model
/// that changes while it is read, or whose output is not finite; a failing device.
pub fn heal(request: &HealRequest<'_>, observer: &mut dyn Observer) -> Result<HealReport, ConvertError> {
    let HealRequest {
        converted,
        original,
        text,
        healing,
        save_path,
        ..
    } = *request;
    healing.check()?;
    check_configs(converted.config(), original.config())?;
    check_embeddings(converted, original)?;
    let division = Division::of(text.batch(), healing.held_out, healing.text.seed);
    let division = division.ok_or(ConvertError::FewSamples {
        found: text.batch(),
        needed: 2,
        why: "one is trained on and one picks the step",
    })?;
    // Released last: nobody else comes to this place before everything is there or gone.
    let _claim = Claim::of(save_path)?;
    match request.replace {
        true => check_replaceable(save_path)?,
        false => check_free(save_path)?,
    }
    let mut student = Student::new(converted, healing)?;
    check_room(save_path, disk_bytes(converted, &student, healing, text))?;
    let origin = Origin {
        converted,
        original,
        text,
        healing,
    };
    let store = StateStore::of(&origin, save_path)?;
    let teacher = match healing.teacher_top_k {
        None => Teacher::model(original)?,
        Some(count) => {
            let teaching = Teaching {
                original,
                text,
                count,
                at_once: healing.micro_batch,
            };
            Teacher::Table(Table::find_or_make(&teacher_folder(save_path)?, &teaching, observer)?)
        }
    };
    let training = Training {
        teacher: &teacher,
        text,
        division: &division,
        healing,
        store: &store,
    };
    observer.begin(Stage::Heal);
    let position = training.run(&mut student, observer)?;
    observer.end(Stage::Heal, None);

    let healed = Healed {
        request,
        student: &student,
        position: &position,
    };
    let mut writer = write(&healed)?;
    let written = Decoder::open(writer.work_folder(), converted.device(), Residency::Streamed)?;
    observer.begin(Stage::CheckHealed);
    let found = training.held_out(&written, Stage::CheckHealed, observer)?;
    observer.end(Stage::CheckHealed, None);
    drop(written);
    let moving = student.weights.iter().flatten().map(|weights| weights.moving() as u64);
    let report = HealReport {
        checks: position.checks.clone(),
        kept: position.kept,
        written: found,
        tokens: (healing.steps * healing.batch_size * text.sequence()) as u64,
        trained: moving.sum(),
    };
    healed.describe(&mut writer, &report)?;
    list_files(&writer)?;
    if request.replace {
        // Much may have come there in the meantime.
        check_replaceable(save_path)?;
    }
    writer.commit()?;
    forget(save_path)?;
    Ok(report)
}

/// Refuses a place that something is at, before any work.
fn check_free(save_path: &Path) -> Result<(), ConvertError> {
    let place = Place::of(save_path)?;
    if place.target().symlink_metadata().is_ok() {
        return Err(ConvertError::NotOurs {
            folder: place.target().to_path_buf(),
            problem: "it exists, and `replace` is not set".into(),
        });
    }
    Ok(())
}
