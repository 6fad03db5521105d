//! Weights and optimizer state to and from a checkpoint directory.
//!
//! `model.safetensors` uses Hugging Face's names, `optimizer.safetensors` stores the moments under
//! the same names; equal states give identical bytes. [`crate::record::Checkpoints`] handles the save
//! order and the validity of the files.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};

use crate::config::{OptimizerConfig, RecordedConfig};
use crate::engine::compute::Compute;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::named_tensor::{NamedTensor, matrix_dims};
use crate::engine::optimizer::{AdamW, Moments};
use crate::engine::tensor_file::{TensorFile, TensorFileError, write_tensors_to};
use crate::plan::ModelShape;
use crate::record::{
    Checkpoint, CheckpointError, Checkpoints, EventSender, HashedReader, MODEL_FILE, NewCheckpoint,
    TrainerState,
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
        write_tensors: &mut |file| {
            let is_model = file.path().ends_with(MODEL_FILE);
            let tensors = if is_model { weights.take() } else { moments.take() };
            let path = file.path();
            write_tensors_to(file, path, tensors.unwrap_or_default()).map_err(Into::into)
        },
        sync_lines: &|| events.sync_lines(),
        stop: &|| stop.level() == StopLevel::Now,
    })
}

/// The tensor files of a checkpoint, read while it was checked, by their names.
#[derive(Debug, Default)]
pub struct LoadedTensors(BTreeMap<String, Result<TensorFile, TensorFileError>>);

impl LoadedTensors {
    /// Reads `file`; one of the same name, of another checkpoint, is forgotten.
    pub fn read(&mut self, file: &mut HashedReader<'_>) {
        let (path, bytes) = (file.path(), file.bytes());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // There is memory for one of them.
        self.0.remove(&name);
        self.0.insert(name, TensorFile::load(path, file, bytes));
    }

    /// The file `name`, which must have been read.
    ///
    /// # Errors
    /// As [`TensorFile::load`].
    pub fn take(&mut self, name: &str) -> Result<TensorFile, TensorFileError> {
        self.0.remove(name).unwrap_or_else(|| {
            Err(TensorFileError::Damaged { path: name.into(), problem: "it was not read".into() })
        })
    }
}

/// The weights in `file`, for `compute`.
///
/// # Errors
/// When a tensor is missing, is not of a network of this `shape`, or contains a number that no
/// network can compute with.
pub fn load_model(
    mut file: TensorFile,
    shape: &ModelShape,
    compute: &Compute,
) -> Result<LlamaForCausalLM, TensorFileError> {
    let model =
        LlamaForCausalLM::new(shape, &mut |name, dims| file.read_weight(name, dims), compute)?;
    // Every weight of the network exists; there must not be others, of layers that the shape does
    // not have.
    let numbers = |dims: &Vec<usize>| dims.iter().product::<usize>() as u64;
    let (found, expected) =
        (file.shapes().values().map(numbers).sum::<u64>(), shape.num_parameters());
    if found == expected {
        Ok(model)
    } else {
        let problem = format!("it has {found} weights instead of {expected}");
        Err(TensorFileError::Damaged { path: file.path().to_owned(), problem })
    }
}

/// The optimizer with the moments in `file`, after `count` updates, on the device of `model`.
///
/// # Errors
/// When a weight of `model` has no moments or moments of another shape, or moments have no weight.
pub fn load_optimizer(
    mut file: TensorFile,
    count: u64,
    config: OptimizerConfig,
    model: &LlamaForCausalLM,
) -> Result<AdamW, TensorFileError> {
    let device = &model.compute().device.device;
    let mut optimizer = AdamW::new(config);
    optimizer.count = count;
    let weights: Vec<&NamedTensor> =
        if count == 0 { Vec::new() } else { model.weights().collect() };
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
            path: file.path().to_owned(),
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
