//! Small matrix products on the calling thread, as in attention: the operands are already in the
//! fast caches, so nothing is repacked, which would cost as much as the product.
//!
//! Every value is summed in term order, independent of the vector width.

#![expect(
    clippy::inline_always,
    reason = "only code inlined into `with_simd` is compiled for the instruction set"
)]

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::matrix::{Matrix, MatrixMut, Old};
use super::vector::ARCH;

/// Rows that share loaded values of `b`: with as many vectors of columns as fit, their sums fill
/// the registers.
const ROWS: usize = 6;

/// `out = a b`, or `out += a b`. The rows of `b` must be contiguous.
///
/// # Panics
/// When the shapes do not match, or the columns of `b` are contiguous instead of its rows.
pub(super) fn multiply(out: &mut MatrixMut<'_>, old: Old, a: Matrix<'_>, b: Matrix<'_>) {
    assert_eq!((a.rows, a.columns, b.columns), (out.rows, b.rows, out.columns), "shapes match");
    assert_eq!(b.column_stride, 1, "rows are contiguous");
    ARCH.dispatch(Product { out, old, a, b });
}

/// The transpose of `matrix` in new memory, row after row.
pub(super) fn transposed(matrix: Matrix<'_>) -> Vec<f32> {
    /// Rows and columns moved together, through registers.
    const BLOCK: usize = 8;
    assert!(
        matrix.column_stride == 1 && matrix.factor.to_bits() == 1.0_f32.to_bits(),
        "rows are contiguous, and a copy has no factor"
    );
    let (rows, columns) = (matrix.rows, matrix.columns);
    let mut out = vec![0.0; rows * columns];
    let (whole_rows, whole_columns) = (rows - rows % BLOCK, columns - columns % BLOCK);
    for start in (0..whole_columns).step_by(BLOCK) {
        for first in (0..whole_rows).step_by(BLOCK) {
            let block: [[f32; BLOCK]; BLOCK] = std::array::from_fn(|idx| {
                matrix.row(first + idx)[start..start + BLOCK]
                    .try_into()
                    .expect("a slice of this length")
            });
            for idx in 0..BLOCK {
                let column: [f32; BLOCK] = std::array::from_fn(|row| block[row][idx]);
                out[(start + idx) * rows + first..][..BLOCK].copy_from_slice(&column);
            }
        }
    }
    for row in 0..rows {
        let rest = if row < whole_rows { whole_columns } else { 0 };
        for (column, value) in matrix.row(row).iter().enumerate().skip(rest) {
            out[column * rows + row] = *value;
        }
    }
    out
}

/// A product, to be dispatched by instruction set.
struct Product<'a, 'b, 'c> {
    out: &'a mut MatrixMut<'b>,
    old: Old,
    a: Matrix<'c>,
    b: Matrix<'c>,
}

impl WithSimd for Product<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (lanes, columns) = (S::F32_LANES, self.b.columns);
        let mut first = 0;
        if S::REGISTER_COUNT >= 32 {
            while first + 4 * lanes <= columns {
                self.columns::<S, 4>(simd, first..first + 4 * lanes);
                first += 4 * lanes;
            }
        }
        while first + 2 * lanes <= columns {
            self.columns::<S, 2>(simd, first..first + 2 * lanes);
            first += 2 * lanes;
        }
        while first < columns {
            let end = columns.min(first + lanes);
            self.columns::<S, 1>(simd, first..end);
            first = end;
        }
    }
}

impl Product<'_, '_, '_> {
    /// Some columns of the product: `C` vectors; a single one may be partial.
    #[inline(always)]
    fn columns<S: Simd, const C: usize>(&mut self, simd: S, columns: Range<usize>) {
        let whole = self.a.rows - self.a.rows % ROWS;
        for row in (0..whole).step_by(ROWS) {
            self.tile::<S, ROWS, C>(simd, row, columns.clone());
        }
        let rest = self.a.rows - whole;
        let after_four = if rest >= 4 {
            self.tile::<S, 4, C>(simd, whole, columns.clone());
            whole + 4
        } else {
            whole
        };
        for row in after_four..self.a.rows {
            self.tile::<S, 1, C>(simd, row, columns.clone());
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const C: usize>(
        &mut self,
        simd: S,
        row: usize,
        columns: Range<usize>,
    ) {
        let (a, b) = (self.a, self.b);
        let mut sums = [[simd.splat_f32s(0.0); C]; R];
        for term in 0..b.rows {
            let right: [S::f32s; C] = load(simd, &b.values[term * b.row_stride..][columns.clone()]);
            let left = &a.values[row * a.row_stride + term * a.column_stride..];
            for r in 0..R {
                let left = simd.splat_f32s(left[r * a.row_stride]);
                for c in 0..C {
                    sums[r][c] = simd.mul_add_e_f32s(left, right[c], sums[r][c]);
                }
            }
        }
        let factor = simd.splat_f32s(a.factor * b.factor);
        for (r, sums) in sums.iter().enumerate() {
            let out = &mut self.out.row(row + r)[columns.clone()];
            let old: [S::f32s; C] =
                if self.old == Old::Kept { load(simd, out) } else { [simd.splat_f32s(0.0); C] };
            for c in 0..C {
                let end = out.len().min((c + 1) * S::F32_LANES);
                simd.partial_store_f32s(
                    &mut out[c * S::F32_LANES..end],
                    simd.mul_add_e_f32s(sums[c], factor, old[c]),
                );
            }
        }
    }
}

/// `C` vectors of `values`, padded with zeros.
#[inline(always)]
fn load<S: Simd, const C: usize>(simd: S, values: &[f32]) -> [S::f32s; C] {
    let (whole, rest) = S::as_simd_f32s(values);
    let mut vectors = [simd.splat_f32s(0.0); C];
    if whole.len() == C {
        vectors.copy_from_slice(whole);
    } else {
        vectors[0] = simd.partial_load_f32s(rest);
    }
    vectors
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::matrix::testing::values;
    use super::*;

    proptest! {
        #[test]
        fn a_product_is_the_sum_of_products(rows in 1..40_usize, depth in 1..40_usize, columns in 1..150_usize, gap in 0..3_usize, flags in 0..4_u8) {
            let (turned, kept) = (flags & 1 > 0, flags & 2 > 0);
            let (a, b, mut out) = (values(rows * depth, 1), values(depth * (columns + gap), 2), values(rows * columns, 3));
            let at = |row: usize, idx: usize| if turned { a[idx * rows + row] } else { a[row * depth + idx] };
            let expected: Vec<f32> = (0..rows * columns).map(|idx| {
                let (row, column) = (idx / columns, idx % columns);
                let product: f32 = (0..depth).map(|step| at(row, step) * b[step * (columns + gap) + column]).sum();
                product * 0.5 + if kept { out[idx] } else { 0.0 }
            }).collect();
            let left = if turned { Matrix::new(&a, depth, rows).transposed() } else { Matrix::new(&a, rows, depth) };
            let old = if kept { Old::Kept } else { Old::Replaced };
            multiply(&mut MatrixMut::new(&mut out, rows, columns), old, left.times(0.5), Matrix::strided(&b, depth, columns, columns + gap));
            // All numbers are small multiples of 1/64: the sums are exact in any order.
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn a_transposed_matrix_has_rows_for_columns(rows in 1..40_usize, columns in 1..40_usize, gap in 0..3_usize) {
            let all = values(rows * (columns + gap), 1);
            let found = transposed(Matrix::strided(&all, rows, columns, columns + gap));
            let expected: Vec<f32> = (0..rows * columns).map(|idx| all[idx % rows * (columns + gap) + idx / rows]).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
