//! Fits the warm-up and the decay of a schedule into the steps of a stage, and warns about what
//! that changes.
//!
//! A schedule whose parts fit is returned unchanged, so that its rates stay those of Hugging Face.
//! Start at [`fit`].

use crate::config::ScheduleKind;
use crate::plan::Schedule;
use crate::text::format::counted;

/// With fewer decay steps the rate never falls: the first step of a decay still has the peak rate.
const LEAST_DECAY: u64 = 2;

/// The schedule of a stage, cut so that its parts are no longer than the stage; `stage` is counted
/// from 1.
pub(super) fn fit(asked: &Schedule, stage: usize, warnings: &mut Vec<String>) -> Schedule {
    if asked.steps == 1 {
        return of_one_step(asked, stage, warnings);
    }
    let warmup_steps = asked.warmup_steps.min(asked.steps);
    let left = asked.steps - warmup_steps;
    let fitted =
        Schedule { warmup_steps, decay_steps: asked.decay_steps.min(left), ..asked.clone() };
    warnings.extend(
        complaint(asked, &fitted, left).map(|complaint| format!("stage {stage}: {complaint}")),
    );
    fitted
}

/// The first step of a warm-up has a rate of 0: a stage of one such step would learn nothing.
fn of_one_step(asked: &Schedule, stage: usize, warnings: &mut Vec<String>) -> Schedule {
    if asked.warmup_steps > 0 {
        warnings.push(format!(
            "stage {stage}: no warm-up, because the stage has 1 step and a warm-up starts with a \
             learning rate of 0"
        ));
    }
    Schedule { warmup_steps: 0, decay_steps: asked.decay_steps.min(1), ..asked.clone() }
}

/// The warning about the `asked` schedule if it does not fit; `left` steps follow the warm-up.
fn complaint(asked: &Schedule, fitted: &Schedule, left: u64) -> Option<String> {
    let (steps, warmup, decay) = (asked.steps, asked.warmup_steps, asked.decay_steps);
    let decays = asked.kind != ScheduleKind::Constant && asked.minimum < asked.peak;
    if left == 0 {
        let cut = if warmup > steps {
            format!("is cut from {warmup} to {steps} steps and")
        } else {
            format!("of {warmup} steps")
        };
        return Some(format!(
            "the warm-up {cut} takes the whole stage: the learning rate never reaches its peak"
        ));
    }
    if decay > left {
        let kept = counted(fitted.decay_steps, "step");
        return Some(format!(
            "warm-up ({}) and decay ({}) overlap in {steps} steps: the decay is cut to {kept}",
            counted(warmup, "step"),
            counted(decay, "step")
        ));
    }
    if decays && left == 1 {
        return Some(format!(
            "the warm-up takes {warmup} of {steps} steps: the learning rate never decays"
        ));
    }
    let is_too_short = decays && asked.kind == ScheduleKind::Wsd && decay < LEAST_DECAY;
    is_too_short.then(|| {
        format!(
            "the decay of {} out of {steps} is too short: the learning rate never decays",
            counted(decay, "step")
        )
    })
}
