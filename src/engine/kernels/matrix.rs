//! Views of slices as matrices, and products of them that are still to be computed.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

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
    pub(super) start: *mut f32,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
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

    /// All of `values`, row after row, which need not be initialized.
    ///
    /// # Safety
    /// A value must be written before it is read: a product that replaces the old values does so.
    ///
    /// # Panics
    /// When `values` has another length.
    #[expect(unsafe_code, reason = "what the view is used for decides whether it is sound")]
    pub(super) unsafe fn of_room(
        values: &'a mut [MaybeUninit<f32>],
        rows: usize,
        columns: usize,
    ) -> Self {
        assert_eq!(values.len(), rows * columns, "{rows} x {columns}");
        let start = values.as_mut_ptr().cast();
        Self { start, rows, columns, row_stride: columns, owner: PhantomData }
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

#[cfg(test)]
pub(super) mod testing {
    /// Multiples of 1/8 from -4 to 4.
    pub(in super::super) fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|idx| ((idx * 37 + seed * 11) % 64) as f32 / 8.0 - 4.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
