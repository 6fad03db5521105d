//! Rotary position embedding in Hugging Face's half-split form, over positions 0..T (patch indices in a patch stage).

use burn::tensor::{Device, Tensor, TensorData};

use crate::plan::ModelShape;

/// Cosines and sines of every position and frequency.
#[derive(Debug, Clone)]
pub struct RotaryTables {
    cos: Tensor<4>, // [1, 1, T, H/2] with H the head's width
    sin: Tensor<4>,
}

impl RotaryTables {
    /// Tables for `num_positions` positions.
    pub fn new(shape: &ModelShape, num_positions: usize, device: &Device) -> Self {
        let half = shape.head_dim() / 2;
        let angle = |idx: usize| {
            let (position, pair) = (idx / half, idx % half);
            // In f32, as the reference computes it.
            let frequency = 1.0 / (shape.rope_theta as f32).powf(2.0 * pair as f32 / shape.head_dim() as f32);
            position as f32 * frequency
        };
        let table = |f: fn(f32) -> f32| {
            let values: Vec<f32> = (0..num_positions * half).map(|idx| f(angle(idx))).collect();
            Tensor::<4>::from_data(TensorData::new(values, [1, 1, num_positions, half]), device)
        };
        Self { cos: table(f32::cos), sin: table(f32::sin) }
    }

    /// Turns each pair (i, i + H/2) of `heads` by its position's angle. `heads`: `[B, heads, T, H]`, T as in the tables.
    pub fn rotate(&self, heads: Tensor<4>) -> Tensor<4> {
        let half = heads.dims()[3] / 2;
        let first = heads.clone().narrow(3, 0, half); // [B, heads, T, H/2]
        let second = heads.narrow(3, half, half); // [B, heads, T, H/2]
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let turned = vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin];
        Tensor::cat(turned, 3) // [B, heads, T, H]
    }
}
