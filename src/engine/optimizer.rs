//! `AdamW` with clipping by the global norm, as in `PyTorch`; moments are stored by parameter name.
//!
//! Burn's own optimizer clips each tensor separately and stores its state under generated ids,
//! which do not survive a checkpoint in Hugging Face's format.

use std::collections::BTreeMap;

use burn::tensor::{Bool, Tensor};

use crate::config::OptimizerConfig;
use crate::engine::compute::Path;
use crate::engine::gradients::Gradients;
use crate::engine::kernels::adamw::{self, Rule};
use crate::engine::kernels::team::Team;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::named_tensor::NamedTensor;
use crate::engine::ops::cpu::{Floats, into_vec, tensor};

/// First and second moment of one parameter, as matrices.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Running mean of the gradient.
    pub exp_avg: Tensor<2>,
    /// Running mean of its square.
    pub exp_avg_sq: Tensor<2>,
}

/// The optimizer and its state.
#[derive(Debug, Clone)]
pub struct AdamW {
    /// Its learning rate is not used: the rate of each step comes with its [`Update`].
    config: OptimizerConfig,
    /// Moments by parameter name; empty before the first update.
    pub moments: BTreeMap<String, Moments>,
    /// Updates since the optimizer state was reset.
    pub count: u64,
}

/// Settings of an update.
#[derive(Debug, Clone)]
pub struct Update {
    /// Learning rate.
    pub learning_rate: f64,
    /// Global norm of the gradients, `[1]`.
    pub norm: Tensor<1>,
    /// If given, `[1]`, and true: nothing changes. For devices on which the host does not wait for
    /// loss and norm.
    pub skip: Option<Tensor<1, Bool>>,
}

impl Moments {
    fn zeros_like(gradient: &Tensor<2>) -> Self {
        Self { exp_avg: gradient.zeros_like(), exp_avg_sq: gradient.zeros_like() }
    }
}

impl AdamW {
    /// An optimizer with a reset state.
    pub fn new(config: OptimizerConfig) -> Self {
        Self { config, moments: BTreeMap::new(), count: 0 }
    }

    /// Resets moments and step count.
    pub fn reset(&mut self) {
        self.moments.clear();
        self.count = 0;
    }

    /// Updates `model` with the gradients of one step.
    pub fn step(
        &mut self,
        model: LlamaForCausalLM,
        mut gradients: Gradients,
        update: &Update,
    ) -> LlamaForCausalLM {
        self.count += 1;
        let clip = self.clip(update);
        let compute = gradients.compute.clone();
        model.map(&mut |weight| {
            let Some(gradient) = gradients.take(&weight) else { return weight };
            let NamedTensor { name, dims, values } = weight;
            let values = match compute.path(&values) {
                Path::Cpu(team) => self.updated_on_cpu(team, &name, [values, gradient], update),
                Path::Composed => self.updated(&name, values, gradient * clip.clone(), update),
            };
            NamedTensor { name, dims, values }
        })
    }

    /// Clipping factor of the gradients, `[1, 1]`, as in `torch.nn.utils.clip_grad_norm_`.
    fn clip(&self, update: &Update) -> Tensor<2> {
        (update.norm.clone().add_scalar(1e-6).recip() * self.config.gradient_clip)
            .clamp_max(1.0)
            .unsqueeze()
    }

    /// As [`Self::updated`], in one pass.
    fn updated_on_cpu(
        &mut self,
        team: &Team,
        name: &str,
        [parameter, gradient]: [Tensor<2>; 2],
        update: &Update,
    ) -> Tensor<2> {
        if update.skip.as_ref().is_some_and(|skip| skip.clone().into_scalar::<bool>()) {
            return parameter;
        }
        let (rule, dims) = (self.rule(name, update), parameter.dims());
        let old = self.moments.remove(name).unwrap_or_else(|| Moments::zeros_like(&gradient));
        let [mut parameter, mut exp_avg, mut exp_avg_sq] =
            [parameter, old.exp_avg, old.exp_avg_sq].map(into_vec);
        let state = adamw::State {
            parameter: &mut parameter,
            exp_avg: &mut exp_avg,
            exp_avg_sq: &mut exp_avg_sq,
        };
        adamw::update(team, state, &Floats::from(gradient), rule);
        let [parameter, exp_avg, exp_avg_sq] =
            [parameter, exp_avg, exp_avg_sq].map(|values| tensor(values, dims));
        self.moments.insert(name.to_owned(), Moments { exp_avg, exp_avg_sq });
        parameter
    }

    fn rule(&self, name: &str, update: &Update) -> Rule {
        let [beta1, beta2] = self.config.betas;
        let count = i32::try_from(self.count).unwrap_or(i32::MAX);
        let norm = update.norm.clone().into_scalar::<f32>();
        Rule {
            clip: ((norm + 1e-6).recip() * self.config.gradient_clip as f32).min(1.0),
            betas: [beta1 as f32, beta2 as f32],
            root_bias: (1.0 - beta2.powi(count)).sqrt() as f32,
            epsilon: self.config.epsilon as f32,
            step_size: (update.learning_rate / (1.0 - beta1.powi(count))) as f32,
            decay: if is_norm(name) {
                1.0
            } else {
                (1.0 - update.learning_rate * self.config.weight_decay) as f32
            },
        }
    }

    /// The new value of one parameter. Weight decay applies to matrices, the embedding table
    /// included, but not to norms.
    fn updated(
        &mut self,
        name: &str,
        parameter: Tensor<2>,
        gradient: Tensor<2>,
        update: &Update,
    ) -> Tensor<2> {
        let [beta1, beta2] = self.config.betas;
        let count = i32::try_from(self.count).unwrap_or(i32::MAX);
        let old = self.moments.remove(name).unwrap_or_else(|| Moments::zeros_like(&gradient));
        // Kept in case the step is skipped, which is known only on the device.
        let before =
            update.skip.as_ref().map(|skip| (skip.clone(), parameter.clone(), old.clone()));
        let exp_avg = old.exp_avg * beta1 + gradient.clone() * (1.0 - beta1);
        let exp_avg_sq = old.exp_avg_sq * beta2 + gradient.square() * (1.0 - beta2);
        let root =
            exp_avg_sq.clone().sqrt() / (1.0 - beta2.powi(count)).sqrt() + self.config.epsilon;
        let direction = exp_avg.clone() / root * (update.learning_rate / (1.0 - beta1.powi(count)));
        let decay =
            if is_norm(name) { 1.0 } else { 1.0 - update.learning_rate * self.config.weight_decay };
        let new = parameter * decay - direction;
        let (new, moments) = match before {
            None => (new, Moments { exp_avg, exp_avg_sq }),
            Some((skip, parameter, old)) => {
                let skip = skip.unsqueeze::<2>().expand(new.dims());
                let exp_avg = exp_avg.mask_where(skip.clone(), old.exp_avg);
                let exp_avg_sq = exp_avg_sq.mask_where(skip.clone(), old.exp_avg_sq);
                (new.mask_where(skip, parameter), Moments { exp_avg, exp_avg_sq })
            }
        };
        self.moments.insert(name.to_owned(), moments);
        new
    }
}

/// Whether a parameter is a norm's scale, which has no weight decay by Hugging Face's rule.
fn is_norm(name: &str) -> bool {
    name.rsplit('.').nth(1).is_some_and(|layer| layer.ends_with("norm"))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device};

    use super::*;
    use crate::engine::compute::Compute;
    use crate::engine::ops::testing::{assert_same, noise};

    /// A parameter `name` and its moments after three updates, each with a gradient norm of `norm`,
    /// in `dtype`.
    fn updated(name: &str, dtype: DType, norm: f32, skip: Option<bool>) -> [Tensor<2>; 3] {
        let config = OptimizerConfig {
            learning_rate: 1e-3,
            betas: [0.9, 0.95],
            epsilon: 1e-8,
            weight_decay: 0.1,
            gradient_clip: 1.0,
        };
        let mut optimizer = AdamW::new(config);
        let (compute, device) = (Compute::cpu(), Device::flex());
        let mut parameter = noise([5, 9], 1, dtype);
        for seed in 2..5 {
            optimizer.count += 1;
            let skip = skip.map(|skip| Tensor::<1, Bool>::from_data([skip], &device));
            let update = Update {
                learning_rate: 0.01,
                norm: Tensor::<1>::from_data([norm], &device).cast(dtype),
                skip,
            };
            let gradient = noise([5, 9], seed, dtype);
            parameter = match compute.path(&parameter) {
                Path::Cpu(team) => {
                    optimizer.updated_on_cpu(team, name, [parameter, gradient], &update)
                }
                Path::Composed => {
                    let clip = optimizer.clip(&update);
                    optimizer.updated(name, parameter, gradient * clip, &update)
                }
            };
        }
        let moments =
            optimizer.moments.remove(name).unwrap_or_else(|| Moments::zeros_like(&parameter));
        [parameter, moments.exp_avg, moments.exp_avg_sq]
    }

    #[test]
    fn the_pass_on_the_cpu_and_the_tensor_operations_agree() {
        for name in ["model.norm.weight", "lm_head.weight"] {
            for (norm, skip) in [(0.5, None), (3.0, None), (3.0, Some(false)), (3.0, Some(true))] {
                let host = updated(name, DType::F32, norm, skip);
                let composed = updated(name, DType::F64, norm, skip);
                for (host, composed) in host.into_iter().zip(composed) {
                    assert_same(name, host, composed.cast(DType::F32));
                }
            }
        }
    }
}
