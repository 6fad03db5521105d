//! Measures the speed of matrix products on this device, the upper bound for a step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::{Distribution, Tensor};

use crate::engine::error::EngineError;
use crate::engine::kernels::matmul;
use crate::engine::kernels::matrix::{self, Matrix, MatrixMut, Old};
use crate::engine::workers::Workers;

/// The first size tried.
const LEAST_SIZE: usize = 256;
/// A faster product measures launch overhead rather than speed: the next size is twice as large.
const LEAST_TIME: Duration = Duration::from_millis(5);
/// Maximum matrix size on the CPU (16 MB each), and on a GPU.
const MOST_SIZE_ON_CPU: usize = 2048;
const MOST_SIZE_ON_GPU: usize = 8192;
/// How long products of the chosen size are repeated.
const REPEATED_FOR: Duration = Duration::from_millis(300);

/// The fastest product of two square f32 matrices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatmulPeak {
    /// Rows and columns.
    pub size: usize,
    /// Floating-point operations per second: two per multiplication and addition.
    pub flops_per_second: f64,
}

/// Measures it on the device of `workers`, with all threads and the kernel used in training; takes
/// less than a second, unless a single product takes longer.
///
/// # Errors
/// When the device fails.
pub fn measure_matmul_peak(workers: &Workers) -> Result<MatmulPeak, EngineError> {
    let most = if workers.compute.device.is_cpu { MOST_SIZE_ON_CPU } else { MOST_SIZE_ON_GPU };
    let mut size = LEAST_SIZE;
    let fastest = loop {
        let mut product = Product::new(workers, size);
        // The first product pays for page faults, compiling and tuning.
        product.time(workers)?;
        let time = product.time(workers)?;
        if time < LEAST_TIME && size < most {
            size *= 2;
            continue;
        }
        let (begun, mut fastest) = (Instant::now(), time);
        while begun.elapsed() < REPEATED_FOR {
            fastest = fastest.min(product.time(workers)?);
        }
        break fastest;
    };
    Ok(MatmulPeak { size, flops_per_second: 2.0 * (size as f64).powi(3) / fastest.as_secs_f64() })
}

/// Two matrices on the device.
enum Product {
    /// `None` only while a thread is multiplying them.
    Host(Option<Box<HostMatrices>>),
    Device(Box<[Tensor<2>; 2]>),
}

/// In the memory of the process.
struct HostMatrices {
    size: usize,
    a: Vec<f32>,
    b: Vec<f32>,
    out: Vec<f32>,
}

impl Product {
    fn new(workers: &Workers, size: usize) -> Self {
        if workers.compute.device.is_cpu {
            let values = |step: usize| {
                (0..size * size).map(|idx| (idx * step % 251) as f32 / 251.0 - 0.5).collect()
            };
            return Self::Host(Some(Box::new(HostMatrices {
                size,
                a: values(7),
                b: values(11),
                out: vec![0.0; size * size],
            })));
        }
        let random = || {
            let device = &workers.compute.device.device;
            Tensor::random([size, size], Distribution::Uniform(-0.5, 0.5), device)
        };
        Self::Device(Box::new([random(), random()]))
    }

    /// Duration of one product.
    fn time(&mut self, workers: &Workers) -> Result<Duration, EngineError> {
        match self {
            Self::Host(matrices) => {
                let Some(mut taken) = matrices.take() else { return Ok(Duration::ZERO) };
                let team = Arc::clone(&workers.compute.team);
                // Timed inside the pool, where training multiplies.
                let timed = workers.run(move || {
                    let HostMatrices { size, a, b, out } = &mut *taken;
                    let begun = Instant::now();
                    let (a, b) = (Matrix::new(a, *size, *size), Matrix::new(b, *size, *size));
                    let out = MatrixMut::new(out, *size, *size);
                    matmul::compute(&team, [matrix::Product { out, old: Old::Replaced, a, b }]);
                    (begun.elapsed(), taken)
                });
                let Some((time, taken)) = timed else { return Ok(Duration::ZERO) };
                *matrices = Some(taken);
                Ok(time)
            }
            Self::Device(matrices) => {
                let [a, b] = &**matrices;
                let device = &workers.compute.device.device;
                device.sync()?;
                let begun = Instant::now();
                let product = a.clone().matmul(b.clone());
                device.sync()?;
                let time = begun.elapsed();
                drop(product);
                Ok(time)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::compute::Compute;
    use crate::steer::StopFlag;

    #[test]
    fn the_cpu_multiplies() {
        let workers = Workers::start(Compute::cpu(), StopFlag::default()).unwrap();
        let peak = measure_matmul_peak(&workers).unwrap();
        assert!(
            peak.size >= LEAST_SIZE
                && peak.flops_per_second > 1e6
                && peak.flops_per_second.is_finite(),
            "{peak:?}"
        );
    }
}
