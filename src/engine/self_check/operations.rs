//! The compared operations: every operation of a step, forward and backward, as called by the
//! network.
//!
//! Each operation computes the same from the same inputs on any device; its outputs are read back
//! as plain numbers. Start at [`ALL`].

use burn::tensor::{ExecutionError, Tensor};

use crate::config::{OptimizerConfig, Precision};
use crate::engine::gradients::Gradients;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::ops::attention::{self, Heads};
use crate::engine::ops::head::{self, Targets};
use crate::engine::ops::linear::Sums;
use crate::engine::ops::rotary::Angles;
use crate::engine::ops::{embedding, linear, rms_norm, rotary, swiglu};
use crate::engine::optimizer::{AdamW, Update};
use crate::engine::positions::Positions;
use crate::engine::self_check::inputs::{Place, ids, mask, numbers};
use crate::engine::self_check::shapes::Shape;

/// One result of an operation.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its name, e.g. `gradient of the weight`.
    pub name: String,
    /// Its values in row-major order.
    pub values: Vec<f32>,
}

/// Computes an operation on a shape, in a place.
pub type Computation = fn(&Shape, &Place) -> Result<Vec<Output>, ExecutionError>;

/// An operation of a step.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// Its name, as shown to users.
    pub name: &'static str,
    /// Whether it depends on the patch size.
    pub knows_patches: bool,
    /// Maximum difference that rounding explains, relative to the largest value of an output.
    pub tolerance: Tolerance,
    /// Computes it.
    pub compute: Computation,
}

/// Tolerances by number format.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// For f32.
    pub f32: f64,
    /// For bf16, which has 8 significant bits: 0.4 % per rounding.
    pub bf16: f64,
}

impl Tolerance {
    /// The tolerance for `precision`.
    pub fn of(self, precision: Precision) -> f64 {
        match precision {
            Precision::F32 => self.f32,
            Precision::Bf16 => self.bf16,
        }
    }
}

/// Maximum difference of the results of a whole step between two computations on the same GPU,
/// relative to the largest value.
pub fn step_tolerance(precision: Precision) -> f64 {
    DIFFERENCES.of(precision)
}

/// Sums of products. CUDA multiplies f32 with 10 bits (TF32) where that is faster, and there is no
/// switch: 0.05 % per product.
const PRODUCTS: Tolerance = Tolerance { f32: 4e-3, bf16: 3e-2 };
/// Differences of such sums that partly cancel out.
const DIFFERENCES: Tolerance = Tolerance { f32: 8e-3, bf16: 6e-2 };
/// Single values, and sums of them.
const VALUES: Tolerance = Tolerance { f32: 1e-4, bf16: 2e-2 };
/// Operations that are always computed in f32.
const ALWAYS_F32: Tolerance = Tolerance { f32: 1e-4, bf16: 1e-4 };
/// The same, with products.
const F32_PRODUCTS: Tolerance = Tolerance { f32: 4e-3, bf16: 4e-3 };

/// All operations of a step.
pub const ALL: &[Operation] = &[
    Operation { name: "embedding", knows_patches: true, tolerance: ALWAYS_F32, compute: embed },
    Operation { name: "rms_norm", knows_patches: false, tolerance: VALUES, compute: norm },
    Operation { name: "linear", knows_patches: false, tolerance: PRODUCTS, compute: multiply },
    Operation { name: "rotary", knows_patches: false, tolerance: VALUES, compute: turn },
    Operation { name: "attention", knows_patches: false, tolerance: DIFFERENCES, compute: attend },
    Operation { name: "swiglu", knows_patches: false, tolerance: VALUES, compute: gate },
    Operation {
        name: "head and cross-entropy",
        knows_patches: true,
        tolerance: F32_PRODUCTS,
        compute: score,
    },
    Operation {
        name: "gradient norm and AdamW",
        knows_patches: false,
        tolerance: ALWAYS_F32,
        compute: update,
    },
];

/// Reads `tensor` back.
pub fn output<const D: usize>(
    name: impl Into<String>,
    tensor: Tensor<D>,
) -> Result<Output, ExecutionError> {
    Ok(Output { name: name.into(), values: tensor.try_into_data()?.iter::<f32>().collect() })
}

fn embed(shape: &Shape, at: &Place) -> Result<Vec<Output>, ExecutionError> {
    let (vocab, hidden, k) = (shape.model.vocab_size, shape.model.hidden_size, shape.patch_size);
    let num_rows = shape.plain_rows(hidden * k.get());
    let ids = ids(num_rows * k.get(), 1, vocab);
    let out = embedding::forward(&at.compute, &at.wide([vocab, hidden], 2, 1.0), &ids, k);
    let d_table = embedding::backward(
        &at.compute,
        at.wide([vocab, hidden], 3, 1.0),
        &ids,
        k,
        at.wide([num_rows, hidden], 4, 1.0),
    );
    Ok(vec![output("output", out)?, output("gradient of the embedding", d_table)?])
}

fn norm(shape: &Shape, at: &Place) -> Result<Vec<Output>, ExecutionError> {
    let (hidden, with) = (shape.model.hidden_size, (1.0, shape.precision));
    let num_rows = shape.plain_rows(hidden);
    let weight = at.wide([1, hidden], 1, 1.0);
    let (out, saved) = rms_norm::forward(
        &at.compute,
        at.narrow([num_rows, hidden], 2, with),
        &weight,
        shape.model.rms_norm_eps,
    );
    let (d_out, around) =
        (at.narrow([num_rows, hidden], 3, with), at.narrow([num_rows, hidden], 4, with));
    let (d_rows, d_weight) = rms_norm::backward(&at.compute, saved, &weight, d_out, Some(around));
    Ok(vec![
        output("output", out)?,
        output("gradient of the input", d_rows)?,
        output("gradient of the weight", d_weight)?,
    ])
}

fn multiply(shape: &Shape, at: &Place) -> Result<Vec<Output>, ExecutionError> {
    let model = &shape.model;
    let key_value = model.num_key_value_heads * model.head_dim();
    let mut weights = vec![
        [model.hidden_size, model.hidden_size],
        [key_value, model.hidden_size],
        [model.intermediate_size, model.hidden_size],
        [model.hidden_size, model.intermediate_size],
    ];
    weights.dedup();
    let mut outputs = Vec::new();
    for [outputs_wide, inputs] in weights {
        let num_rows = shape.product_rows(outputs_wide, inputs);
        let weight =
            at.narrow([outputs_wide, inputs], 1, ((inputs as f32).powf(-0.5), shape.precision));
        let rows = at.narrow([num_rows, inputs], 2, (1.0, shape.precision));
        let (out, saved) = linear::forward(&at.compute, rows, &weight);
        let sums = Sums {
            d_rows: Some(at.narrow([num_rows, inputs], 3, (1.0, shape.precision))),
            d_weight: Some(at.wide([outputs_wide, inputs], 4, 1.0)),
        };
        let (d_rows, d_weight) = linear::backward(
            &at.compute,
            saved,
            &weight,
            at.narrow([num_rows, outputs_wide], 5, (1.0, shape.precision)),
            sums,
        );
        let name = |what: &str| format!("{what}, {num_rows} x {inputs} to {outputs_wide}");
        outputs.extend([
            output(name("output"), out)?,
            output(name("gradient of the input"), d_rows)?,
            output(name("gradient of the weight"), d_weight)?,
        ]);
    }
    Ok(outputs)
}

fn turn(shape: &Shape, at: &Place) -> Result<Vec<Output>, ExecutionError> {
    let (model, with) = (&shape.model, (1.0, shape.precision));
    let dims =
        [shape.plain_sequences(), shape.positions, model.num_attention_heads, model.head_dim()];
    let positions: Vec<usize> = (0..shape.positions).collect();
    let device = &at.compute.device.device;
    let angles =
        Angles::at(&positions, model.head_dim(), model.rope_theta, device).in_type(at.wide);
    let out = rotary::forward(&at.compute, at.narrow(dims, 1, with), &angles);
    let d_heads = rotary::backward(&at.compute, at.narrow(dims, 2, with), &angles);
    Ok(vec![output("heads", out)?, output("gradient of the heads", d_heads)?])
}

fn attend(shape: &Shape, at: &Place) -> Result<Vec<Output>, ExecutionError> {
    let ((heads, groups), head_dim, with) =
        (shape.heads(), shape.model.head_dim(), (1.0, shape.precision));
    let positions = Positions::of_sequence(shape.positions);
    let d_out = at.narrow([1, shape.positions, heads, head_dim], 4, with);
    let heads = Heads {
        queries: at.narrow([1, shape.positions, heads, head_dim], 1, (3.0, shape.precision)),
        keys: at.narrow([1, shape.positions, groups, head_dim], 2, (3.0, shape.precision)),
        values: at.narrow([1, shape.positions, groups, head_dim], 3, with),
    };
    let out = attention::forward(&at.compute, &heads, positions);
    let gradients = attention::backward(&at.compute, heads, positions, &d_out);
    Ok(vec![
        output("attention output", out)?,
        output("gradient of the queries", gradients.queries)?,
        output("gradient of the keys", gradients.keys)?,
        output("gradient of the values", gradients.values)?,
    ])
}

fn gate(shape: &Shape, at: &Place) -> Result<Vec<Output>, ExecutionError> {
    let width = shape.model.intermediate_size;
    let dims = [shape.plain_rows(width), width];
    let (out, saved) = swiglu::forward(
        &at.compute,
        at.narrow(dims, 1, (4.0, shape.precision)),
        at.narrow(dims, 2, (1.0, shape.precision)),
    );
    let d_out = at.narrow(dims, 3, (1.0, shape.precision));
    let (d_gate, d_up) = swiglu::backward(&at.compute, saved, d_out);
    Ok(vec![
        output("product", out)?,
        output("gradient of the gate", d_gate)?,
        output("gradient of the up input", d_up)?,
    ])
}

fn score(shape: &Shape, at: &Place) -> Result<Vec<Output>, ExecutionError> {
    let (vocab, hidden, k) =
        (shape.model.vocab_size, shape.model.hidden_size, shape.patch_size.get());
    let num_rows = shape.head_rows();
    let (rows, weight) = (
        at.wide([num_rows, hidden], 1, 1.0),
        at.wide([vocab, hidden], 2, 4.0 * (hidden as f32).powf(-0.5)),
    );
    let count = num_rows * k;
    let targets = Targets { ids: ids(count, 3, vocab), per_row: k, mask: Some(mask(count)) };
    let input = head::Input { rows: &rows, weight: &weight, targets: &targets };
    let losses = head::forward(&at.compute, input);
    let step = head::forward_backward(&at.compute, input, 1.0 / count as f64, None);
    Ok(vec![
        output("losses", losses)?,
        output("sum of the losses", step.loss_sum)?,
        output("gradient of the input", step.d_rows)?,
        output("gradient of the weight", step.d_weight)?,
    ])
}

fn update(shape: &Shape, at: &Place) -> Result<Vec<Output>, ExecutionError> {
    let model = shape.updated_model();
    let Ok(mut model) = LlamaForCausalLM::new(&model, &mut weights(1), &at.compute);
    model = model.map(&mut |mut weight| {
        weight.values = weight.values.cast(at.wide);
        weight
    });
    let config = OptimizerConfig {
        learning_rate: 0.1,
        betas: [0.9, 0.95],
        epsilon: 1e-8,
        weight_decay: 0.1,
        gradient_clip: 1.0,
    };
    let mut optimizer = AdamW::new(config);
    let mut outputs = Vec::new();
    // The first update sees moments of zero, the second does not.
    for count in 0..2 {
        let mut gradients = Gradients::new(&at.compute);
        for (seed, weight) in model.weights().enumerate() {
            gradients
                .put(weight, at.wide(weight.values.dims(), 10 * (count + 1) + seed as u64, 1.0));
        }
        let norm = gradients.norm().expect("a network has at least one weight");
        outputs.push(output("gradient norm", norm.clone())?);
        model = optimizer.step(model, gradients, &Update { learning_rate: 0.1, norm, skip: None });
    }
    for weight in model.weights() {
        let moments = &optimizer.moments[&weight.name];
        outputs.push(output(weight.name.clone(), weight.values.clone())?);
        outputs.push(output(format!("first moment of {}", weight.name), moments.exp_avg.clone())?);
        outputs
            .push(output(format!("second moment of {}", weight.name), moments.exp_avg_sq.clone())?);
    }
    Ok(outputs)
}

/// Pseudorandom weights.
fn weights(seed: u64) -> impl FnMut(&str, &[usize]) -> Result<Vec<f32>, std::convert::Infallible> {
    let mut seed = seed;
    move |_, dims| {
        seed += 1;
        Ok(numbers(dims.iter().product(), seed, 0.5))
    }
}
