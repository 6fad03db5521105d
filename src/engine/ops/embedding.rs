//! Token ids to input rows: the mean over the table rows of the K tokens of a patch (arXiv
//! 2407.12665, figure 3). With K = 1 this is a plain embedding, bit for bit.
//!
//! ```text
//! d table[id] = sum over the occurrences of id of dy of its patch / K
//! ```

use burn::tensor::{IndexingUpdateOp, Tensor};

use crate::config::PatchSize;
use crate::engine::compute::{Compute, Path};
use crate::engine::kernels::embedding;
use crate::engine::kernels::matrix::MatrixMut;
use crate::engine::ops::cpu::{Floats, Rows, changed, tensor};
use crate::engine::ops::format::id_tensor;

/// `table`: `[V, D]`, `ids`: `[N * K]`, patch after patch. Returns `[N, D]`.
pub fn forward(
    compute: &Compute,
    table: &Tensor<2>,
    ids: &[u32],
    patch_size: PatchSize,
) -> Tensor<2> {
    match compute.path(table) {
        Path::Cpu(team) => {
            let (table, k) = (Rows::of(table), patch_size.get());
            let rows = embedding::forward(team, table.matrix(), ids, k);
            tensor(rows, [ids.len() / k, table.dims[1]])
        }
        Path::Composed => {
            let ids = id_tensor(ids, [ids.len()], &table.device());
            let tokens = table.clone().select(0, ids); // [N * K, D]
            if patch_size == PatchSize::ONE {
                return tokens;
            }
            let ([num_tokens, hidden_size], k) = (tokens.dims(), patch_size.get());
            tokens
                .reshape([num_tokens / k, k, hidden_size]) // [N, K, D]
                .mean_dim(1) // [N, 1, D]
                .squeeze_dim(1) // [N, D]
        }
    }
}

/// `d_out`: `[N, D]`. Returns `sum`, `[V, D]`, plus the gradient of the table, which is nonzero
/// only in the rows of `ids`.
pub fn backward(
    compute: &Compute,
    sum: Tensor<2>,
    ids: &[u32],
    patch_size: PatchSize,
    d_out: Tensor<2>,
) -> Tensor<2> {
    match compute.path(&sum) {
        Path::Cpu(team) => {
            let ([rows, columns], d_out) = (sum.dims(), Floats::from(d_out));
            changed(sum, |sum| {
                let sum = MatrixMut::new(sum, rows, columns);
                embedding::backward(team, sum, ids, patch_size.get(), &d_out);
            })
        }
        Path::Composed => {
            let ([num_patches, hidden_size], k) = (d_out.dims(), patch_size.get());
            let d_tokens = if k == 1 {
                d_out
            } else {
                d_out
                    .div_scalar(k as f64)
                    .unsqueeze_dim::<3>(1) // [N, 1, D]
                    .expand([num_patches, k, hidden_size])
                    .reshape([num_patches * k, hidden_size]) // [N * K, D]
            };
            // Not `select_assign`, which on a GPU processes all tokens sequentially in each column
            // (burn-cubecl 0.22.1); this adds them in parallel, in an order that is not fixed.
            let rows = id_tensor(ids, [ids.len(), 1], &sum.device());
            let rows = rows.expand([ids.len(), hidden_size]);
            sum.scatter(0, rows, d_tokens, IndexingUpdateOp::Add)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::testing::{assert_same, dtypes, noise, random_ids, recorded};

    #[test]
    fn gradients_are_those_that_burn_derives_and_are_added() {
        let compute = Compute::cpu();
        for dtype in dtypes() {
            for k in [1, 3] {
                let (table, sum, d_out) =
                    (noise([5, 4], 1, dtype), noise([5, 4], 2, dtype), noise([8, 4], 3, dtype));
                let ids = random_ids(8 * k, 5);
                let patch_size = PatchSize::new(k as u64).unwrap();
                let out = forward(&compute, &table, &ids, patch_size);
                let found = backward(&compute, sum.clone(), &ids, patch_size, d_out.clone());

                let table = recorded(&table);
                let ids = id_tensor(&ids, [ids.len()], &sum.device());
                let tokens = table.clone().select(0, Tensor::from_inner(ids));
                let expected = tokens.reshape([8, k, 4]).mean_dim(1).squeeze_dim::<2>(1);
                let gradients = (expected.clone() * Tensor::from_inner(d_out)).sum().backward();
                assert_same("out", out, expected.inner());
                assert_same("d_table", found, sum + table.grad(&gradients).unwrap());
            }
        }
    }
}
