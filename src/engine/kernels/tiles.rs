//! Large products of matrices: what is copied for them, and in which order their tiles are computed.
//!
//! ```text
//!            b: panels of four vectors of columns      A tile of the result is as large as the registers can hold. Its row of a
//!            ┌───┬───┬───┐                             panel and its column of `a` are loaded once for each term; what they are
//!   a        │   │   │   │ terms                       loaded for are as many multiplications as the tile has values.
//!  ┌─────┐   ├───┼───┼───┤
//!  │  ─  │   │   │   │   │                             At most `TERMS` terms are summed in the registers before the tile is written,
//!  ├─────┤   └───┴───┴───┘                             so that some panels stay in the second cache while the rows of `a`
//!  │     │   ┌───┬───┬───┐                             pass by.
//!  └─────┘   │ ─ │   │   │ out: tiles
//!            └───┴───┴───┘
//! ```
//!
//! The tiles are those of the `gemm` crate. What differs is how `b` is brought into the order in which a tile reads it. The crate copies
//! all of `b` for each part of the rows, and a transposed `b` value by value, where the values of a column push each other out of the
//! cache if rows are a power of two long. Here a column is copied once, or once per thread, and a transposed `b` block by block.
//! Products whose `a` would have to be copied as well, the gradients of weights, are left to the crate: it is not slower there.
//!
//! A value is the sum over its terms in their order, in chunks of at most [`TERMS`] that depend on the number of terms alone: neither
//! tiles nor threads change it.

#![expect(clippy::inline_always, reason = "only what is compiled into the closure of `best` knows the instruction set")]

use std::cell::Cell;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use gemm_f32::microkernel;

use super::matmul::{Matrix, MatrixMut, Old, Product};
use super::vector::best;

/// Terms that are summed in registers, at most.
const TERMS: usize = 512;
/// Values of a cache line.
const LINE: usize = 16;
/// Columns that are used together: half a megabyte.
const COLUMNS: usize = 256;
/// Rows of a tile.
const ROWS: usize = 6;
/// Rows and columns of a part, at least.
const LEAST_ROWS: usize = 48;
const LEAST_COLUMNS: usize = 128;
/// Fewer rows, columns or terms are not worth copies.
const LEAST: usize = 32;

/// The tiles of an instruction set.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "other processors have none"))]
enum Tiles {
    Avx512,
    Fma,
}

/// Computes a tile: its columns, rows and terms; the tile, the panel, the rows of `a`; from row to row of the tile and from column to
/// column; from term to term of the panel; from term to term and from row to row of `a`; factors of the old and the new values;
/// whether the old ones count; and what is of no use here.
type Kernel = unsafe fn(usize, usize, usize, *mut f32, *const f32, *const f32, isize, isize, isize, isize, isize, f32, f32, u8, bool, bool, bool, *const f32);

impl Tiles {
    /// Those that the `gemm` crate chooses as well; none where there are no vectors of eight.
    fn here() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let (avx512, fma) = (std::arch::is_x86_feature_detected!("avx512f"), std::arch::is_x86_feature_detected!("fma"));
            if avx512 { Some(Self::Avx512) } else { fma.then_some(Self::Fma) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// Values of a vector.
    fn lanes(self) -> usize {
        match self {
            Self::Avx512 => 16,
            Self::Fma => 8,
        }
    }

    /// Columns of a tile and of a panel.
    fn width(self) -> usize {
        match self {
            Self::Avx512 => 64,
            Self::Fma => 16,
        }
    }

    /// What computes tiles of so many columns and rows.
    #[cfg(target_arch = "x86_64")]
    fn kernel(self, columns: usize, rows: usize) -> Kernel {
        match self {
            Self::Avx512 => microkernel::avx512f::f32::UKR[columns.div_ceil(16) - 1][rows - 1],
            Self::Fma => microkernel::fma::f32::UKR[columns.div_ceil(8) - 1][rows - 1],
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn kernel(self, _: usize, _: usize) -> Kernel {
        unreachable!("nobody gets tiles here")
    }

    /// Copies columns of `b`, which are the rows of `lines`, into panels.
    fn copy(self, lines: Matrix<'_>, panels: &mut [f32]) {
        match self {
            Self::Avx512 => best!(copy::<64>(lines, 16, panels)),
            Self::Fma => best!(copy::<16>(lines, 8, panels)),
        }
    }
}

/// Whether `product` is one for this module.
pub(super) fn pays(product: &Product<'_>) -> bool {
    let Product { out, a, .. } = product;
    a.column_stride == 1 && out.rows.min(out.columns).min(a.columns) >= LEAST && Tiles::here().is_some()
}

/// Cuts the result of `product`, for which it [`pays`], into about `parts`, each of which copies what it needs.
pub(super) fn split(product: Product<'_>, parts: usize) -> Vec<Product<'_>> {
    let Product { out, old, a, b } = product;
    let (rows, columns) = (out.rows, out.columns);
    // Where there are many rows each thread takes some of them, which it finds in its cache afterwards; then all copy every column.
    let across = if rows >= 4 * columns { 2 } else { parts };
    let across = across.min(parts).min(columns / LEAST_COLUMNS).max(1);
    let down = parts.div_ceil(across).min(rows / LEAST_ROWS).max(1);
    let (height, width) = (rows.div_ceil(down).next_multiple_of(ROWS), columns.div_ceil(across).next_multiple_of(LINE));
    let mut found = Vec::new();
    for (first, out) in (0..).step_by(height).zip(out.split_rows(height)) {
        let a = a.block(first..first + out.rows, 0..a.columns);
        let blocks = out.split_columns(width).into_iter().zip(b.transposed().split_rows(width));
        found.extend(blocks.map(|(out, b)| Product { out, old, a, b: b.transposed() }));
    }
    found
}

/// Computes `product`, for which it [`pays`] or of which it is a part, by the calling thread.
///
/// # Panics
/// When this CPU has no tiles.
pub(super) fn compute(product: Product<'_>) {
    let tiles = Tiles::here().expect("the caller asked whether it pays");
    let Product { mut out, old, a, b } = product;
    let (rows, columns_of_b) = (out.rows, b.transposed());
    let chunk = a.columns.div_ceil(a.columns.div_ceil(TERMS));
    let mut room = Room::new(chunk * COLUMNS.min(out.columns.next_multiple_of(tiles.lanes())));
    for terms in ranges(0..a.columns, chunk) {
        let old = if terms.start == 0 { old } else { Old::Kept };
        for columns in ranges(0..out.columns, COLUMNS) {
            tiles.copy(columns_of_b.block(columns.clone(), terms.clone()), room.values());
            let mut block = Block { tiles, out: &mut out, old, factor: a.factor * b.factor };
            for rows in ranges(0..rows, ROWS) {
                let left = a.block(rows.clone(), terms.clone());
                for tile in ranges(columns.clone(), tiles.width()) {
                    let panel = &room.values()[(tile.start - columns.start) * terms.len()..];
                    block.tile(left, panel, (rows.clone(), tile));
                }
            }
        }
    }
}

/// Cuts `range` into ranges of `size`, the last one of what is left.
fn ranges(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(size).map(move |start| start..range.end.min(start + size))
}

/// Tiles that are computed in the same way.
struct Block<'a, 'b> {
    tiles: Tiles,
    out: &'a mut MatrixMut<'b>,
    old: Old,
    factor: f32,
}

impl Block<'_, '_> {
    /// Computes a tile from rows of `a` and a panel.
    #[expect(unsafe_code, reason = "the kernels of the gemm crate take pointers")]
    fn tile(&mut self, left: Matrix<'_>, panel: &[f32], (rows, columns): (Range<usize>, Range<usize>)) {
        let (terms, width) = (left.columns, columns.len().next_multiple_of(self.tiles.lanes()));
        assert!(rows.end <= self.out.rows && columns.end <= self.out.columns, "the tile lies in the result");
        assert!(rows.len() <= left.rows && width * terms <= panel.len(), "there are rows and columns for the tile");
        let (kernel, step) = (self.tiles.kernel(columns.len(), rows.len()), |stride: usize| isize::try_from(stride).expect("slices are shorter"));
        let (start, row_stride) = self.out.start_of(rows.start, columns.start);
        // SAFETY: this CPU has the instructions (`Tiles::here`). The kernel reads `width` values of each term of the panel, as many values
        // of `left` as there are rows, and reads and writes the rows and columns of the tile, all of which exist: that was just checked, and
        // for `left`, a block of a matrix, when that was made; `out`, which nobody else has, shares no value with the others.
        unsafe {
            kernel(
                columns.len(),
                rows.len(),
                terms,
                start,
                panel.as_ptr(),
                left.values.as_ptr(),
                step(row_stride),
                1,
                step(width),
                step(left.column_stride),
                step(left.row_stride),
                1.0,
                self.factor,
                u8::from(self.old == Old::Kept),
                false,
                false,
                false,
                std::ptr::null(),
            );
        }
    }
}

/// Copies the rows of `lines` into panels of `WIDTH`: for each term the values of the rows, one after the other. The last panel may
/// have fewer rows, and zeros up to a multiple of `unit`.
#[inline(always)]
fn copy<const WIDTH: usize>(lines: Matrix<'_>, unit: usize, mut panels: &mut [f32]) {
    /// More panels would push each other out of the cache: their distance may be a power of two.
    const TOGETHER: usize = 4;
    for rows in ranges(0..lines.rows, TOGETHER * WIDTH) {
        let lines = lines.block(rows, 0..lines.columns);
        let mut panels = panels.split_off_mut(..lines.rows.next_multiple_of(unit) * lines.columns).expect("there is room for the rows");
        if lines.row_stride == 1 {
            copy_terms::<WIDTH>(lines, panels);
            continue;
        }
        for rows in ranges(0..lines.rows, WIDTH) {
            let lines = lines.block(rows, 0..lines.columns);
            let padded = lines.rows.next_multiple_of(unit);
            let panel = panels.split_off_mut(..padded * lines.columns).expect("there is room for the rows");
            // Where the compiler knows the width it does not count.
            if padded == WIDTH { turn(lines, WIDTH, panel) } else { turn(lines, padded, panel) }
        }
    }
}

/// Copies rows whose values of a term lie one after the other already.
#[inline(always)]
fn copy_terms<const WIDTH: usize>(lines: Matrix<'_>, panels: &mut [f32]) {
    let (terms, whole) = (lines.columns, lines.rows - lines.rows % WIDTH);
    let last = panels.len() / terms - whole;
    for term in 0..terms {
        let (groups, rest) = lines.values[term * lines.column_stride..][..lines.rows].split_at(whole);
        for (number, group) in groups.as_chunks::<WIDTH>().0.iter().enumerate() {
            panels[(number * terms + term) * WIDTH..][..WIDTH].copy_from_slice(group);
        }
        if last > 0 {
            let place = &mut panels[whole * terms + term * last..][..last];
            place[..rest.len()].copy_from_slice(rest);
            place[rest.len()..].fill(0.0);
        }
    }
}

/// Copies the rows of one panel, whose terms lie one after the other.
#[inline(always)]
fn turn(lines: Matrix<'_>, width: usize, panel: &mut [f32]) {
    /// Rows and terms that are turned together: more rows would push each other out of the cache.
    const BLOCK: usize = 8;
    let (terms, whole) = (lines.columns, lines.rows - lines.rows % BLOCK);
    for first in (0..whole).step_by(BLOCK) {
        let rows: [&[f32]; BLOCK] = std::array::from_fn(|idx| lines.row(first + idx));
        let blocks = rows.map(|row| row.as_chunks::<BLOCK>().0);
        for start in 0..terms / BLOCK {
            for term in 0..BLOCK {
                let values: [f32; BLOCK] = std::array::from_fn(|idx| blocks[idx][start][term]);
                panel[(start * BLOCK + term) * width + first..][..BLOCK].copy_from_slice(&values);
            }
        }
        for term in terms - terms % BLOCK..terms {
            rows.iter().enumerate().for_each(|(idx, row)| panel[term * width + first + idx] = row[term]);
        }
    }
    for row in whole..width {
        for term in 0..terms {
            panel[term * width + row] = if row < lines.rows { lines.row(row)[term] } else { 0.0 };
        }
    }
}

thread_local! {
    /// The memory of the product before, so that it is neither asked for nor cleared again.
    static MEMORY: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Memory for panels, which begins with a cache line.
struct Room {
    memory: Vec<f32>,
    first: usize,
}

impl Room {
    fn new(length: usize) -> Self {
        let mut memory = MEMORY.take();
        if memory.len() < length + LINE {
            memory.resize(length + LINE, 0.0);
        }
        let first = memory.as_ptr().align_offset(LINE * size_of::<f32>());
        Self { memory, first }
    }

    fn values(&mut self) -> &mut [f32] {
        &mut self.memory[self.first..]
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        MEMORY.set(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::matmul::testing::values;
    use super::*;

    /// `out + 0.5 a b` of thirds, in `parts` parts, and the same in f64. `turned`: whether the columns of `b` lie in order.
    fn computed([rows, columns, terms]: [usize; 3], turned: bool, parts: usize) -> (Vec<f32>, Vec<f64>) {
        // Sums of thirds are rounded, so that another order of the terms gives another sum.
        let [a, b] = [(rows * terms, 1), (terms * columns, 2)].map(|(count, seed)| values(count, seed).iter().map(|value| value / 3.0).collect::<Vec<_>>());
        let left = Matrix::new(&a, rows, terms);
        let right = if turned { Matrix::new(&b, columns, terms).transposed() } else { Matrix::new(&b, terms, columns) };
        let mut out = values(rows * columns, 3);
        let value = |matrix: Matrix<'_>, row: usize, column: usize| f64::from(matrix.values[row * matrix.row_stride + column * matrix.column_stride]);
        let expected = |(idx, old): (usize, &f32)| {
            let (row, column) = (idx / columns, idx % columns);
            f64::from(*old) + 0.5 * (0..terms).map(|term| value(left, row, term) * value(right, term, column)).sum::<f64>()
        };
        let expected = out.iter().enumerate().map(expected).collect();
        let product = Product { out: MatrixMut::new(&mut out, rows, columns), old: Old::Kept, a: left.times(0.5), b: right };
        split(product, parts).into_iter().for_each(compute);
        (out, expected)
    }

    /// No term is larger than 1.
    fn furthest(found: &[f32], expected: &[f64]) -> f64 {
        found.iter().zip(expected).map(|(found, expected)| (f64::from(*found) - expected).abs()).fold(0.0, f64::max)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_number_of_parts_changes_no_bit(
            rows in 1..600_usize, columns in 1..300_usize, terms in 1..1400_usize, turned in any::<bool>(), parts in 2..20_usize,
        ) {
            let shape = [rows, columns, terms];
            let (whole, expected) = computed(shape, turned, 1);
            prop_assert!(furthest(&whole, &expected) <= 1e-6 * terms as f64, "{}", furthest(&whole, &expected));
            prop_assert!(whole == computed(shape, turned, parts).0);
        }
    }
}
