//! Matrix products: one safe function that dispatches to [`tiles`](super::tiles) for large
//! products, to sums over rows for results with few rows, and to the `gemm` crate otherwise.

use gemm::Parallelism;

use super::matrix::{Matrix, MatrixMut, Old, Product};
use super::team::Team;
use super::tiles::{self, PARTS_PER_THREAD};
use super::vector::{best, sum};

/// Computes `products`, which must not read each other's results, on all threads: each is split by
/// rows or columns. No sum is split, so that the number of threads does not change any value.
///
/// # Panics
/// When the shapes do not match.
pub fn compute<const N: usize>(team: &Team, products: [Product<'_>; N]) {
    let mut parts = Vec::new();
    for product in products {
        let compute = product.kernel();
        let product = product.split(team.threads());
        let count = product.len();
        parts.extend(
            product.into_iter().enumerate().map(|(idx, part)| (idx * SCALE / count, compute, part)),
        );
    }
    // The first parts of all products come first: a thread's share of the list is then the same
    // share of the rows of each.
    parts.sort_by_key(|(position, ..)| *position);
    team.for_each(parts, |(_, compute, part)| compute(part));
}

/// The end of a list of parts, for positions in lists of different lengths.
const SCALE: usize = 1 << 16;

/// A sum in whose memory it is continued, if there is one, and the two factors of what is added.
pub type Term<'a> = (Option<Vec<f32>>, Matrix<'a>, Matrix<'a>);

/// `sum + a b` for each of `terms`, `[rows of a, columns of b]`.
///
/// # Panics
/// When the shapes do not match, or there are no terms.
#[expect(unsafe_code, reason = "a large buffer is not zeroed before all of it is written")]
pub fn sums<const N: usize>(team: &Team, terms: [Term<'_>; N]) -> [Vec<f32>; N] {
    let mut results = terms.map(|(sum, a, b)| {
        assert!(a.columns > 0, "a product has terms");
        let old = if sum.is_some() { Old::Kept } else { Old::Replaced };
        (sum.unwrap_or_else(|| Vec::with_capacity(a.rows * b.columns)), old, a, b)
    });
    let products = results.each_mut().map(|(values, old, a, b)| {
        let (rows, columns) = (a.rows, b.columns);
        let out = match old {
            Old::Kept => MatrixMut::new(values, rows, columns),
            Old::Replaced => {
                let room = &mut values.spare_capacity_mut()[..rows * columns];
                // SAFETY: this product replaces the old values, so that it writes each of them
                // without reading it.
                unsafe { MatrixMut::of_room(room, rows, columns) }
            }
        };
        Product { out, old: *old, a: *a, b: *b }
    });
    compute(team, products);
    results.map(|(mut values, _, a, b)| {
        // SAFETY: the values are within the capacity, and the product has written all of them.
        unsafe { values.set_len(a.rows * b.columns) };
        values
    })
}

/// Minimum number of multiplications per part.
const WORTH_A_PART: usize = 1 << 18;

/// Up to this many rows and columns of a result, `gemm` adds terms in another order than for larger
/// ones.
const SMALL: usize = 64;

/// The same for results with fewer rows or columns than this.
const NARROW: usize = 16;

/// Results of up to this many rows are computed value by value, as when a network reads one token
/// of each of a few texts: repacking all of `b` would take longer.
const FEW: usize = 4;

impl Product<'_> {
    /// Splits it into parts for this many threads. The terms of each sum are added in the same
    /// order as in the whole product.
    fn split(self, threads: usize) -> Vec<Self> {
        let Self { out, a, b, .. } = &self;
        let shapes = (out.rows, out.columns, a.columns) == (a.rows, b.columns, b.rows);
        assert!(
            shapes,
            "{}x{} = {}x{} times {}x{}",
            out.rows, out.columns, a.rows, a.columns, b.rows, b.columns
        );
        let (longer, shorter) = (out.rows.max(out.columns), out.rows.min(out.columns));
        let worth = out.rows * out.columns * a.columns / WORTH_A_PART;
        let parts = if threads == 1 { 1 } else { (PARTS_PER_THREAD * threads).min(worth) };
        if tiles::pays(&self) {
            return tiles::split(self, parts.max(1));
        }
        if self.has_few_rows() {
            let width = self.out.columns.div_ceil(parts.clamp(1, threads));
            return self.split_columns(width);
        }
        let parts = if shorter < NARROW { 1 } else { parts.min(longer / (2 * SMALL)) };
        if parts <= 1 {
            return vec![self];
        }
        let Self { out, old, a, b } = self;
        let mut size = longer.div_ceil(parts).next_multiple_of(NARROW);
        // The last part must not be too small either.
        while (1..=SMALL).contains(&(longer % size)) {
            size += NARROW;
        }
        if out.rows >= out.columns {
            out.split_rows(size)
                .into_iter()
                .zip(a.split_rows(size))
                .map(|(out, a)| Self { out, old, a, b })
                .collect()
        } else {
            Self { out, old, a, b }.split_columns(size)
        }
    }

    /// Splits it into parts of `width` columns.
    fn split_columns(self, width: usize) -> Vec<Self> {
        let Self { out, old, a, b } = self;
        let parts = out.split_columns(width).into_iter().zip(b.transposed().split_rows(width));
        parts.map(|(out, b)| Self { out, old, a, b: b.transposed() }).collect()
    }

    /// Whether to compute it value by value: few rows, and contiguous terms.
    fn has_few_rows(&self) -> bool {
        self.out.rows <= FEW && self.a.column_stride == 1 && self.b.row_stride == 1
    }

    /// The algorithm for it and its parts, which may be smaller: their size must not change any
    /// value.
    fn kernel(&self) -> for<'p> fn(Product<'p>) {
        if tiles::pays(self) {
            tiles::compute
        } else if self.has_few_rows() {
            |product| best!(product.compute_each())
        } else {
            |product| product.compute()
        }
    }

    /// Computes it value by value, on the calling thread.
    #[expect(
        clippy::inline_always,
        reason = "only code inlined into the closure of `best` is compiled for the instruction set"
    )]
    #[expect(unsafe_code, reason = "the old values may be uninitialized memory")]
    #[inline(always)]
    fn compute_each(self) {
        let Self { mut out, old, a, b } = self;
        for (column, weights) in (0..out.columns).map(|column| (column, b.transposed().row(column)))
        {
            for row in 0..out.rows {
                let value =
                    a.factor * b.factor * sum([a.row(row), weights], |[x, weight]| x * weight);
                let place = out.start_of(row, column).0;
                // SAFETY: the row and the column are in bounds, and nothing else accesses `out`; a
                // value that is added to was written before.
                unsafe { place.write(if old == Old::Kept { *place + value } else { value }) };
            }
        }
    }

    /// Computes it on the calling thread. The shapes match.
    #[expect(unsafe_code, reason = "the gemm crate takes pointers")]
    fn compute(self) {
        let Self { out, old, a, b } = self;
        let (step, keep) = (
            |stride: usize| isize::try_from(stride).expect("slices are shorter"),
            old == Old::Kept,
        );
        // SAFETY: the strides of the views keep every element inside the slices they were made of
        // (checked on construction; a part of rows or columns is inside the whole), the
        // shapes match (checked when the product was split), and `out`, which nothing else
        // accesses, shares no value with the two others.
        unsafe {
            gemm::gemm(
                out.rows,
                out.columns,
                a.columns,
                out.start,
                1,
                step(out.row_stride),
                keep,
                a.values.as_ptr(),
                step(a.column_stride),
                step(a.row_stride),
                b.values.as_ptr(),
                step(b.column_stride),
                step(b.row_stride),
                1.0,
                a.factor * b.factor,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::matrix::testing::values;
    use super::*;

    proptest! {
        #[test]
        fn a_product_is_the_sum_of_products(rows in 1..40_usize, depth in 1..40_usize, columns in 1..40_usize, gap in 0..3_usize, flags in 0..4_u8) {
            let (team, turned, kept) = (Team::new(2), flags & 1 > 0, flags & 2 > 0);
            let (a, b) = (values(rows * (depth + gap), 1), values(depth * columns, 2));
            let at = |row: usize, idx: usize| if turned { b[idx * depth + row] } else { b[row * columns + idx] };
            let mut out = values(rows * columns, 3);
            let expected: Vec<f32> = (0..rows * columns).map(|idx| {
                let (row, column) = (idx / columns, idx % columns);
                let product: f32 = (0..depth).map(|step| a[row * (depth + gap) + step] * at(step, column)).sum();
                product * 0.5 + if kept { out[idx] } else { 0.0 }
            }).collect();
            let right = if turned { Matrix::new(&b, columns, depth).transposed() } else { Matrix::new(&b, depth, columns) };
            let old = if kept { Old::Kept } else { Old::Replaced };
            let left = Matrix::strided(&a, rows, depth, depth + gap).times(0.5);
            if !kept {
                prop_assert_eq!(&sums(&team, [(None, left, right)])[0], &expected);
            }
            compute(&team, [Product { out: MatrixMut::new(&mut out, rows, columns), old, a: left, b: right }]);
            // All numbers are small multiples of 1/64: the sums are exact in any order.
            prop_assert_eq!(out, expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// A run may resume with another number of threads, and must then compute the same values.
        #[test]
        fn the_number_of_parts_changes_no_bit(rows in prop_oneof![1..=FEW, 1..400_usize], depth in 1..1400_usize, columns in 1..400_usize, threads in 2..20_usize, layout in 0..4_u8) {
            // Sums of thirds are rounded, so that another order of the terms gives another sum.
            let [a, b] = [(rows * depth, 1), (depth * columns, 2)].map(|(count, seed)| values(count, seed).iter().map(|value| value / 3.0).collect::<Vec<_>>());
            let left = if layout & 1 > 0 { Matrix::new(&a, depth, rows).transposed() } else { Matrix::new(&a, rows, depth) };
            let right = if layout & 2 > 0 { Matrix::new(&b, columns, depth).transposed() } else { Matrix::new(&b, depth, columns) };
            let (mut whole, mut cut) = (values(rows * columns, 3), values(rows * columns, 3));
            let product = |out| Product { out: MatrixMut::new(out, rows, columns), old: Old::Kept, a: left, b: right };
            let whole_product = product(&mut whole);
            let compute = whole_product.kernel();
            compute(whole_product);
            product(&mut cut).split(threads).into_iter().for_each(compute);
            prop_assert!(whole == cut);
        }
    }

    #[test]
    #[should_panic(expected = "1x1 = 1x2 times 3x1")]
    fn shapes_must_fit() {
        let out = &mut [0.0];
        let product = Product {
            out: MatrixMut::new(out, 1, 1),
            old: Old::Replaced,
            a: Matrix::new(&[0.0; 2], 1, 2),
            b: Matrix::new(&[0.0; 3], 3, 1),
        };
        compute(&Team::new(1), [product]);
    }
}
