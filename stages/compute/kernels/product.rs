//! Products of matrices, and the linear layer.
//!
//! ```text
//! forward   y = x W'          N x I times (O x I)'
//! backward  dx = dy W         N x O times O x I
//!           dW = dy' x        (N x O)' times N x I
//! ```
//! A number of a product is the sum of K terms: each 256 of them one after another by fused multiply-add from 0, and
//! the sums of 256 added in their order. `matrixmultiply` computes so with every kernel that it has for processors with FMA,
//! whatever the other sizes are (`tests` below compares it with that law, bit by bit).

#![expect(unsafe_code, reason = "matrixmultiply takes pointers and strides")]

use tch::Tensor;

use super::custom::differentiable;
use super::memory::{filled, in_one_piece, numbers};
use super::phases;

/// A matrix in row-major memory, or the transpose of one.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    numbers: &'a [f32],
    rows: usize,
    columns: usize,
    is_transposed: bool,
}

impl<'a> Matrix<'a> {
    pub(super) fn new(numbers: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(numbers.len(), rows * columns, "a matrix has rows times columns numbers");
        Self { numbers, rows, columns, is_transposed: false }
    }

    /// A contiguous tensor as rows of so many numbers.
    pub(super) fn with(tensor: &'a Tensor, columns: i64) -> Self {
        let (all, columns) = (numbers(tensor), usize::try_from(columns).expect("sizes count"));
        Self::new(all, all.len() / columns.max(1), columns)
    }

    pub(super) fn transposed(self) -> Self {
        let Self { rows, columns, is_transposed, .. } = self;
        Self { rows: columns, columns: rows, is_transposed: !is_transposed, ..self }
    }

    /// How far the next row is, and the next column.
    fn strides(&self) -> (isize, isize) {
        let long = if self.is_transposed { self.rows } else { self.columns };
        let long = isize::try_from(long).expect("sizes are small");
        if self.is_transposed { (1, long) } else { (long, 1) }
    }
}

/// a b, written to `into`, row-major.
pub(super) fn multiply(a: Matrix<'_>, b: Matrix<'_>, into: &mut [f32]) {
    assert_eq!(a.columns, b.rows, "the sizes of a product match");
    assert_eq!(into.len(), a.rows * b.columns, "the result of a product has its size");
    let ((row_a, column_a), (row_b, column_b)) = (a.strides(), b.strides());
    let row = isize::try_from(b.columns).expect("sizes are small");
    let sgemm = || unsafe {
        // SAFETY: by the assertions here and in `new`, all indices lie inside the slices.
        matrixmultiply::sgemm(
            a.rows,
            a.columns,
            b.columns,
            1.0,
            a.numbers.as_ptr(),
            row_a,
            column_a,
            b.numbers.as_ptr(),
            row_b,
            column_b,
            0.0,
            into.as_mut_ptr(),
            row,
            1,
        );
    };
    phases::product([a.rows, a.columns, b.columns], sgemm);
}

/// x W', ... x I to ... x O. A row does not depend on the other rows.
pub(crate) fn linear(x: &Tensor, weight_OxI: &Tensor) -> Tensor {
    let (x_NI, w_OI) = (in_one_piece(&x.detach()), in_one_piece(&weight_OxI.detach()));
    let (outputs, inputs) = w_OI.size2().expect("a weight is a matrix");
    let mut size = x.size();
    assert_eq!(size.pop(), Some(inputs), "the input of a linear layer has its width");
    size.push(outputs);
    let y = filled(&size, |y| {
        multiply(Matrix::with(&x_NI, inputs), Matrix::with(&w_OI, inputs).transposed(), y);
    });
    let asked = [x.requires_grad(), weight_OxI.requires_grad()];
    differentiable(&[x, weight_OxI], y, move |dy| {
        let dy = in_one_piece(dy);
        let dy_NO = Matrix::with(&dy, outputs);
        let dx = || filled(&x_NI.size(), |dx| multiply(dy_NO, Matrix::with(&w_OI, inputs), dx));
        let dw = || {
            let x_NI = Matrix::with(&x_NI, inputs);
            filled(&[outputs, inputs], |dw| multiply(dy_NO.transposed(), x_NI, dw))
        };
        vec![asked[0].then(dx), asked[1].then(dw)]
    })
}

#[cfg(test)]
mod tests;
