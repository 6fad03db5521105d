//! Matrix products: views of slices, and one safe function that dispatches to
//! [`tiles`](super::tiles) for large products, to sums over rows for results with few rows, and to
//! the `gemm` crate otherwise.

use std::marker::PhantomData;
use std::ops::Range;

use gemm::Parallelism;

use super::rows::for_each;
use super::team::threads;
use super::tiles;
use super::vector::{best, sum};

/// A matrix in a slice. Either its rows or its columns are contiguous.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
    /// Factor of every value.
    pub(super) factor: f32,
}

impl<'a> Matrix<'a> {
    /// All of `values`, row after row.
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns)
    }

    /// Rows of `columns` values with a stride of `row_stride` values.
    ///
    /// # Panics
    /// When the last row ends beyond `values`.
    pub fn strided(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(
            rows == 0 || (rows - 1) * row_stride + columns <= values.len(),
            "{rows} x {columns} in {} values",
            values.len()
        );
        Self { values, rows, columns, row_stride, column_stride: 1, factor: 1.0 }
    }

    /// One row of a matrix with contiguous rows.
    pub(super) fn row(&self, row: usize) -> &'a [f32] {
        debug_assert_eq!(self.column_stride, 1, "rows are contiguous");
        &self.values[row * self.row_stride..][..self.columns]
    }

    /// A contiguous copy of its rows.
    pub(super) fn to_rows(self) -> Vec<f32> {
        assert!(
            self.column_stride == 1 && self.factor.to_bits() == 1.0_f32.to_bits(),
            "rows are contiguous, and a copy has no factor"
        );
        let mut values = Vec::with_capacity(self.rows * self.columns);
        (0..self.rows).for_each(|row| values.extend_from_slice(self.row(row)));
        values
    }

    /// The transpose; no data is moved.
    #[must_use]
    pub fn transposed(self) -> Self {
        let Self { values, rows, columns, row_stride, column_stride, factor } = self;
        Self {
            values,
            rows: columns,
            columns: rows,
            row_stride: column_stride,
            column_stride: row_stride,
            factor,
        }
    }

    /// A submatrix.
    ///
    /// # Panics
    /// When it is out of bounds.
    pub(super) fn block(self, rows: Range<usize>, columns: Range<usize>) -> Self {
        assert!(
            rows.end <= self.rows && columns.end <= self.columns,
            "{rows:?} x {columns:?} of {} x {}",
            self.rows,
            self.columns
        );
        let values =
            &self.values[rows.start * self.row_stride + columns.start * self.column_stride..];
        Self { values, rows: rows.len(), columns: columns.len(), ..self }
    }

    /// Splits it into matrices of `height` rows; the last one has the remaining rows.
    pub(super) fn split_rows(self, height: usize) -> Vec<Self> {
        let part = |first: usize| Self {
            values: &self.values[first * self.row_stride..],
            rows: height.min(self.rows - first),
            ..self
        };
        (0..self.rows).step_by(height).map(part).collect()
    }

    /// The matrix times `factor`, evaluated lazily.
    #[must_use]
    pub fn times(self, factor: f32) -> Self {
        Self { factor: self.factor * factor, ..self }
    }
}

/// A mutable matrix. Rows may have gaps between them, which belong to other views.
pub struct MatrixMut<'a> {
    /// Pointer to the first value.
    start: *mut f32,
    pub(super) rows: usize,
    pub(super) columns: usize,
    row_stride: usize,
    owner: PhantomData<&'a mut [f32]>,
}

#[expect(
    unsafe_code,
    reason = "the pointer refers to a part of a slice that nothing else accesses"
)]
// SAFETY: as for `&mut [f32]`, of which it is a part: no two views that exist at the same time
// share a value.
unsafe impl Send for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    /// All of `values`, row after row.
    ///
    /// # Panics
    /// When `values` has another length.
    pub fn new(values: &'a mut [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "{rows} x {columns}");
        Self { start: values.as_mut_ptr(), rows, columns, row_stride: columns, owner: PhantomData }
    }

    /// Rows of `columns` values with a stride of `row_stride` values.
    ///
    /// # Panics
    /// When the last row ends beyond `values`, or rows overlap.
    pub(super) fn strided(
        values: &'a mut [f32],
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Self {
        assert!(
            columns <= row_stride && rows * row_stride <= values.len(),
            "{rows} x {columns} in {} values",
            values.len()
        );
        Self { start: values.as_mut_ptr(), rows, columns, row_stride, owner: PhantomData }
    }

    /// Splits it into matrices of `width` columns; the last one has the remaining columns.
    pub fn split_columns(self, width: usize) -> Vec<Self> {
        let Self { start, rows, columns, row_stride, owner } = self;
        let part = |first: usize| Self {
            start: start.wrapping_add(first),
            rows,
            columns: width.min(columns - first),
            row_stride,
            owner,
        };
        (0..columns).step_by(width).map(part).collect()
    }

    /// Splits it into matrices of `height` rows; the last one has the remaining rows.
    pub(super) fn split_rows(self, height: usize) -> Vec<Self> {
        let Self { start, rows, columns, row_stride, owner } = self;
        let part = |first: usize| Self {
            start: start.wrapping_add(first * row_stride),
            rows: height.min(rows - first),
            columns,
            row_stride,
            owner,
        };
        (0..rows).step_by(height).map(part).collect()
    }

    /// The rows `first..first + rows`, for as long as the borrow lasts.
    ///
    /// # Panics
    /// When they are out of bounds.
    pub fn rows(&mut self, first: usize, rows: usize) -> MatrixMut<'_> {
        assert!(first + rows <= self.rows, "{first} + {rows} rows of {}", self.rows);
        MatrixMut {
            start: self.start.wrapping_add(first * self.row_stride),
            rows,
            owner: PhantomData,
            ..*self
        }
    }

    /// The value at a row and a column, and the row stride.
    pub(super) fn start_of(&mut self, row: usize, column: usize) -> (*mut f32, usize) {
        (self.start.wrapping_add(row * self.row_stride + column), self.row_stride)
    }

    /// One row.
    ///
    /// # Panics
    /// When it is out of bounds.
    #[expect(unsafe_code, reason = "a row of a view is a slice again")]
    pub fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: a view is a part of one slice; each of its rows has `columns` values of that
        // slice, which no other view has, and the borrow of `self` prevents this view from
        // handing them out twice.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.start.wrapping_add(row * self.row_stride),
                self.columns,
            )
        }
    }
}

/// What happens to the old values of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Old {
    /// They are overwritten.
    Replaced,
    /// The product is added to them.
    Kept,
}

/// A product and its destination: `out = a b`, or `out += a b`.
pub struct Product<'a> {
    /// The result.
    pub out: MatrixMut<'a>,
    /// What happens to its old values.
    pub old: Old,
    /// The left factor.
    pub a: Matrix<'a>,
    /// The right factor.
    pub b: Matrix<'a>,
}

/// Computes `products`, which must not read each other's results, on all threads: each is split by
/// rows or columns. No sum is split, so that the number of threads does not change any value.
///
/// # Panics
/// When the shapes do not match.
pub fn compute<const N: usize>(products: [Product<'_>; N]) {
    let threads = threads();
    let mut parts = Vec::new();
    for product in products {
        let compute = product.kernel();
        let product = product.split(threads);
        let count = product.len();
        parts.extend(
            product.into_iter().enumerate().map(|(idx, part)| (idx * SCALE / count, compute, part)),
        );
    }
    // The first parts of all products come first: a thread's share of the list is then the same
    // share of the rows of each.
    parts.sort_by_key(|(position, ..)| *position);
    for_each(parts, |(_, compute, part)| compute(part));
}

/// The end of a list of parts, for positions in lists of different lengths.
const SCALE: usize = 1 << 16;

/// `sum + a b` for each of `terms`, `[rows of a, columns of b]`, in place of the sum, or in new
/// memory without one.
///
/// # Panics
/// When the shapes do not match, or there are no terms.
#[expect(unsafe_code, reason = "a large buffer is not zeroed before all of it is written")]
pub fn sums<const N: usize>(
    terms: [(Option<Vec<f32>>, Matrix<'_>, Matrix<'_>); N],
) -> [Vec<f32>; N] {
    let mut results = terms.map(|(sum, a, b)| {
        assert!(a.columns > 0, "a product has terms");
        let length = a.rows * b.columns;
        let old = if sum.is_some() { Old::Kept } else { Old::Replaced };
        let values = sum.unwrap_or_else(|| Vec::with_capacity(length));
        assert!(
            old == Old::Replaced || values.len() == length,
            "{} values for {} x {}",
            values.len(),
            a.rows,
            b.columns
        );
        (values, old, a, b)
    });
    compute(results.each_mut().map(|(values, old, a, b)| {
        let out = MatrixMut {
            start: values.as_mut_ptr(),
            rows: a.rows,
            columns: b.columns,
            row_stride: b.columns,
            owner: PhantomData,
        };
        Product { out, old: *old, a: *a, b: *b }
    }));
    results.map(|(mut values, _, a, b)| {
        // SAFETY: the product's result covers all of these values, which are within the capacity,
        // and a product that replaces old values writes each of them without reading it.
        unsafe { values.set_len(a.rows * b.columns) };
        values
    })
}

/// Parts per thread, so that a thread that is delayed has less to do.
pub(super) const PARTS_PER_THREAD: usize = 2;

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
pub(super) mod testing {
    /// Multiples of 1/8 from -4 to 4.
    pub(in super::super) fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|idx| ((idx * 37 + seed * 11) % 64) as f32 / 8.0 - 4.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::values;
    use super::*;

    proptest! {
        #[test]
        fn a_product_is_the_sum_of_products(rows in 1..40_usize, depth in 1..40_usize, columns in 1..40_usize, gap in 0..3_usize, flags in 0..4_u8) {
            let (turned, kept) = (flags & 1 > 0, flags & 2 > 0);
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
                prop_assert_eq!(&sums([(None, left, right)])[0], &expected);
            }
            compute([Product { out: MatrixMut::new(&mut out, rows, columns), old, a: left, b: right }]);
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
    fn parts_of_a_matrix_are_changed_in_their_place() {
        let mut values = vec![0.0; 12];
        let mut parts = MatrixMut::new(&mut values, 2, 6).split_columns(4);
        assert_eq!(parts.len(), 2);
        parts[0].row(1).fill(1.0);
        parts[1].rows(1, 1).row(0).fill(2.0);
        assert_eq!(values, [0., 0., 0., 0., 0., 0., 1., 1., 1., 1., 2., 2.]);
    }

    #[test]
    #[should_panic(expected = "2 x 3 in 5 values")]
    fn a_matrix_does_not_reach_behind_its_slice() {
        let _ = Matrix::new(&[0.0; 5], 2, 3);
    }

    #[test]
    #[should_panic(expected = "1x1 = 1x2 times 3x1")]
    fn shapes_must_fit() {
        let out = &mut [0.0];
        compute([Product {
            out: MatrixMut::new(out, 1, 1),
            old: Old::Replaced,
            a: Matrix::new(&[0.0; 2], 1, 2),
            b: Matrix::new(&[0.0; 3], 3, 1),
        }]);
    }
}
