//! The steps of a training, and the looks at held-out text between them.

use transmla_core::model::LossSums;
use transmla_core::{CoreError, LayeredModel, TokenBatch};

use crate::heal::adam::StepSize;
use crate::heal::forward::Batch;
use crate::heal::order::Division;
use crate::heal::pass::{Gradients, add_gradients, distance};
use crate::heal::state::{Position, StateStore};
use crate::heal::student::Student;
use crate::heal::teacher::Teacher;
use crate::heal::weights::squares;
use crate::spec::error::ConvertError;
use crate::spec::healing::Healing;
use crate::spec::healing_report::{Distance, HealCheck, HealStep};
use crate::spec::report::{Observer, Stage};

/// A training, from its first step to its last.
pub(crate) struct Training<'a> {
    pub teacher: &'a Teacher<'a>,
    pub text: &'a TokenBatch,
    pub division: &'a Division,
    pub healing: &'a Healing,
    pub store: &'a StateStore,
}

impl Training<'_> {
    /// Goes on from where an earlier run was, if there was one; gives what is kept.
    pub fn run(&self, student: &mut Student<'_>, observer: &mut dyn Observer) -> Result<Position, ConvertError> {
        let (healing, steps) = (self.healing, self.healing.steps);
        let device = student.device().clone();
        let mut position = match self.store.find(student, &device) {
            Some(position) => {
                observer.heal_resumed(position.done, steps);
                position
            }
            None => {
                let mut position = Position::default();
                self.check(student, &mut position, observer)?;
                position
            }
        };
        while position.done < steps {
            let step = self.step(student, position.done)?;
            position.done += 1;
            observer.heal_step(&step);
            observer.advance(position.done as u64, steps as u64);
            if healing.is_check(position.done) {
                self.check(student, &mut position, observer)?;
                self.store.keep(student, &position)?;
                observer.heal_saved(position.done, steps);
            }
        }
        Ok(position)
    }

    /// The step of this index.
    fn step(&self, student: &mut Student<'_>, index: usize) -> Result<HealStep, ConvertError> {
        let healing = self.healing;
        let rows = self.division.of_step(index, healing.batch_size);
        let mut sums: Option<Gradients> = None;
        let mut loss = LossSums::default();
        for rows in rows.chunks(healing.micro_batch) {
            let batch = Batch { text: self.text, rows };
            let of_batch = add_gradients(student, self.teacher, batch, (healing, healing.batch_size), &mut sums)?;
            loss = loss.and(of_batch);
        }
        let gradients = sums.unwrap_or_default();
        let mut by_weights = Vec::new();
        let mut square = 0.0;
        for (weights, gradient) in student.weights.iter().flatten().zip(gradients.into_iter().flatten()) {
            let own = weights.gradients(gradient);
            for gradient in &own {
                square += squares(gradient)?;
            }
            by_weights.push(own);
        }
        let length = f64::sqrt(square);
        if !length.is_finite() {
            return Err(CoreError::NonFiniteLogits.into());
        }
        let shorter = match healing.max_grad_norm {
            longest if longest > 0.0 && length > longest => longest / length,
            _ => 1.0,
        };
        let size = StepSize {
            rate: healing.rate(index),
            decay: healing.weight_decay,
        };
        for (weights, gradients) in student.weights.iter_mut().flatten().zip(by_weights) {
            let gradients = gradients.into_iter().map(|gradient| match shorter {
                1.0 => gradient,
                shorter => gradient.mul_scalar(shorter),
            });
            weights.step(gradients.collect(), size, index + 1);
        }
        Ok(HealStep {
            done: index + 1,
            steps: healing.steps,
            tokens: healing.batch_size * self.text.sequence(),
            distance: Distance::from(loss),
            gradient: length,
            rate: size.rate,
        })
    }

    /// Looks at the held-out text, and keeps the weights if they are the best so far.
    fn check(
        &self,
        student: &Student<'_>,
        position: &mut Position,
        observer: &mut dyn Observer,
    ) -> Result<(), ConvertError> {
        let check = HealCheck {
            done: position.done,
            distance: self.held_out(student, Stage::Heal, observer)?,
        };
        let loss = |distance: &Distance| {
            self.healing.kl_weight * distance.kl + self.healing.ce_weight * distance.cross_entropy
        };
        let best = position
            .checks
            .iter()
            .map(|check| loss(&check.distance))
            .reduce(f64::min);
        let is_best = best.is_none_or(|best| loss(&check.distance) < best);
        if is_best {
            position.best = student.values();
            position.kept = position.done;
        }
        position.checks.push(check);
        observer.heal_check(&check, is_best);
        Ok(())
    }

    /// How far a model is from the teacher and from the text on held-out text.
    ///
    /// # Errors
    /// The model or the teacher fails.
    pub fn held_out(
        &self,
        model: &dyn LayeredModel,
        stage: Stage,
        observer: &mut dyn Observer,
    ) -> Result<Distance, ConvertError> {
        let batch = Batch {
            text: self.text,
            rows: &self.division.held_out,
        };
        let (mut done, all) = (0, batch.rows.len());
        let mut tell = |sequences: usize| {
            done += sequences;
            // In the course of a training its steps are told.
            if stage == Stage::CheckHealed {
                observer.advance(done as u64, all as u64);
            }
        };
        Ok(distance(
            model,
            self.teacher,
            batch,
            self.healing.micro_batch,
            &mut tell,
        )?)
    }
}
