//! `AdamW` update of one parameter on the CPU, in one pass over its values.

use super::team::Team;
use super::vector::{best, settled};

/// Values per block.
const BLOCK: usize = 16_384;

/// Factors shared by all values of a parameter.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Factor of the gradient: less than 1 if its norm is clipped.
    pub clip: f32,
    /// Decay of the two moments.
    pub betas: [f32; 2],
    /// Bias correction of the second moment: `sqrt(1 - beta2^count)`, as a factor of its root.
    pub root_bias: f32,
    /// Epsilon.
    pub epsilon: f32,
    /// Learning rate divided by `1 - beta1^count`.
    pub step_size: f32,
    /// Factor of the parameter: less than 1 with weight decay.
    pub decay: f32,
}

/// A parameter and its two moments.
#[derive(Debug)]
pub struct State<'a> {
    /// The parameter.
    pub parameter: &'a mut [f32],
    /// Running mean of the gradient.
    pub exp_avg: &'a mut [f32],
    /// Running mean of its square.
    pub exp_avg_sq: &'a mut [f32],
}

/// Values of the parameter, its two moments and its gradient.
type Block<'a> = (((&'a mut [f32], &'a mut [f32]), &'a mut [f32]), &'a [f32]);

/// Updates a parameter and its two moments.
pub fn update(team: &Team, state: State<'_>, gradient: &[f32], rule: Rule) {
    let State { parameter, exp_avg, exp_avg_sq } = state;
    let [beta1, beta2] = rule.betas;
    let blocks = parameter
        .chunks_mut(BLOCK)
        .zip(exp_avg.chunks_mut(BLOCK))
        .zip(exp_avg_sq.chunks_mut(BLOCK))
        .zip(gradient.chunks(BLOCK));
    team.for_each(blocks.collect(), |(((parameter, exp_avg), exp_avg_sq), gradient): Block<'_>| {
        best!({
            for (((parameter, mean), square), gradient) in
                parameter.iter_mut().zip(exp_avg).zip(exp_avg_sq).zip(gradient)
            {
                let gradient = gradient * rule.clip;
                // The moments of a token that no longer occurs shrink with every step.
                *mean = settled(*mean * beta1 + gradient * (1.0 - beta1), f32::MIN_POSITIVE);
                *square = settled(
                    *square * beta2 + gradient * gradient * (1.0 - beta2),
                    f32::MIN_POSITIVE,
                );
                let root = square.sqrt() / rule.root_bias + rule.epsilon;
                *parameter = *parameter * rule.decay - *mean / root * rule.step_size;
            }
        });
    });
}
