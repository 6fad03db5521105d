//! Measured losses in words, the same in lines, tables and on the screen.

use crate::record::{Evaluation, MeasuredLoss};
use crate::text::format::{count, loss, loss_with_error, perplexity};

/// A loss in all its units: `4.099 ± 0.012, 1.981 bits/byte, perplexity 60.3`.
#[must_use]
pub fn loss_text(measured: &MeasuredLoss) -> String {
    let MeasuredLoss { token_loss, standard_error, bits_per_byte, .. } = *measured;
    let bits = bits_per_byte.map_or_else(String::new, |bits| format!("{} bits/byte, ", loss(bits)));
    format!(
        "{}, {bits}perplexity {}",
        loss_with_error(token_loss, standard_error),
        perplexity(token_loss.exp())
    )
}

/// What an evaluation was measured on: `65.5k of 300k tokens`.
#[must_use]
pub fn evaluated_tokens(evaluation: &Evaluation) -> String {
    match evaluation.all_targets.filter(|all| *all > evaluation.targets) {
        Some(all) => format!("{} of {} tokens", count(evaluation.targets), count(all)),
        None => format!("{} tokens", count(evaluation.targets)),
    }
}

/// What the loss on the whole validation text was measured on: `all 300k validation tokens`.
#[must_use]
pub fn whole_tokens(whole: &MeasuredLoss) -> String {
    format!("all {} validation tokens", count(whole.targets))
}
