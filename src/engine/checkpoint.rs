//! Weights and optimizer state to and from a checkpoint directory.
//!
//! `model.safetensors` uses Hugging Face's names, `optimizer.safetensors` stores the moments under
//! the same names; equal states give identical bytes. [`crate::record::Checkpoints`] handles the save
//! order and the validity of the files.

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::{OptimizerConfig, RecordedConfig};
use crate::engine::model::LlamaForCausalLM;
use crate::engine::named_tensor::{NamedTensor, matrix_dims};
use crate::engine::optimizer::{AdamW, Moments};
use crate::engine::tensor_file::{TensorFile, TensorFileError, write_tensors};
use crate::plan::ModelShape;
use crate::record::{
    Checkpoint, CheckpointError, Checkpoints, EventSender, MODEL_FILE, NewCheckpoint,
    OPTIMIZER_FILE, TrainerState,
};
use crate::steer::{StopFlag, StopLevel};

/// The state to save.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// Weights.
    pub model: &'a LlamaForCausalLM,
    /// Optimizer state.
    pub optimizer: &'a AdamW,
    /// Position of the run.
    pub state: TrainerState,
    /// Time in steps per stage so far, in seconds.
    pub active_seconds: Vec<f64>,
    /// Token loss (K = 1) of this step, if it was measured.
    pub token_loss: Option<f64>,
    /// Whether pruning keeps the checkpoint.
    pub permanent: bool,
    /// Configuration of the run.
    pub config: RecordedConfig,
}

/// Saves `snapshot` after the lines of all earlier `events`. Returns whether a checkpoint was
/// written.
///
/// # Errors
/// As [`Checkpoints::save`].
pub fn save(
    checkpoints: &Checkpoints,
    snapshot: Snapshot<'_>,
    events: &EventSender,
    stop: &StopFlag,
) -> Result<(Checkpoint, bool), CheckpointError> {
    let weights: Vec<NamedTensor> = snapshot.model.weights().cloned().collect();
    let moments = moments(snapshot.model, snapshot.optimizer);
    let tensor_bytes = weights
        .iter()
        .chain(&moments)
        .map(|tensor| (size_of::<f32>() * tensor.dims.iter().product::<usize>()) as u64)
        .sum();
    let (mut weights, mut moments) = (Some(weights), Some(moments));
    checkpoints.save(NewCheckpoint {
        state: snapshot.state,
        active_seconds: snapshot.active_seconds,
        token_loss: snapshot.token_loss,
        permanent: snapshot.permanent,
        tensor_bytes,
        config: snapshot.config,
        write_tensors: &mut |name, path| {
            let tensors = if name == MODEL_FILE { weights.take() } else { moments.take() };
            write_tensors(path, tensors.unwrap_or_default()).map_err(Into::into)
        },
        sync_lines: &|| events.sync_lines(),
        stop: &|| stop.level() == StopLevel::Now,
    })
}

/// Weights of `checkpoint`, on `device`.
///
/// # Errors
/// When a tensor is missing, its shape does not match `shape`, or it contains a number that no
/// network can compute with.
pub fn load_model(
    checkpoint: &Checkpoint,
    shape: &ModelShape,
    device: &Device,
) -> Result<LlamaForCausalLM, TensorFileError> {
    let mut file = TensorFile::open(&checkpoint.path.join(MODEL_FILE))?;
    LlamaForCausalLM::new(shape, &mut |name, dims| file.read_weight(name, dims), device)
}

/// The optimizer of `checkpoint`, with its moments on `device`.
///
/// # Errors
/// When a weight of `model` has no moments or moments of another shape, or moments have no weight.
pub fn load_optimizer(
    checkpoint: &Checkpoint,
    config: OptimizerConfig,
    model: &LlamaForCausalLM,
    device: &Device,
) -> Result<AdamW, TensorFileError> {
    let path = checkpoint.path.join(OPTIMIZER_FILE);
    let mut file = TensorFile::open(&path)?;
    let mut optimizer = AdamW::new(config);
    optimizer.count = checkpoint.state.optimizer_count;
    let weights: Vec<&NamedTensor> =
        if optimizer.count == 0 { Vec::new() } else { model.weights().collect() };
    for NamedTensor { name, dims, .. } in &weights {
        let mut moment = |suffix: &str| -> Result<Tensor<2>, TensorFileError> {
            Ok(Tensor::from_data(
                TensorData::new(file.read(&format!("{name}.{suffix}"), dims)?, matrix_dims(dims)),
                device,
            ))
        };
        let moments = Moments { exp_avg: moment("exp_avg")?, exp_avg_sq: moment("exp_avg_sq")? };
        optimizer.moments.insert(name.clone(), moments);
    }
    let (found, expected) = (file.shapes().len(), 2 * weights.len());
    if found != expected {
        return Err(TensorFileError::Damaged {
            path,
            problem: format!("it has {found} moments instead of {expected}"),
        });
    }
    Ok(optimizer)
}

/// The moments of all weights that have any, named after their weights.
fn moments(model: &LlamaForCausalLM, optimizer: &AdamW) -> Vec<NamedTensor> {
    let of_weight = |weight: &NamedTensor| {
        let named = |suffix: &str, values: &Tensor<2>| NamedTensor {
            name: format!("{}.{suffix}", weight.name),
            dims: weight.dims.clone(),
            values: values.clone(),
        };
        let moments = optimizer.moments.get(&weight.name)?;
        Some([named("exp_avg", &moments.exp_avg), named("exp_avg_sq", &moments.exp_avg_sq)])
    };
    model.weights().filter_map(of_weight).flatten().collect()
}
