//! Sudoku of 4x4 cells: rows, columns and 2x2 boxes hold each of 1 to 4 once.
//!
//! All 288 solved grids are in memory: a puzzle's solutions are those that keep its clues. Puzzles are drawn uniformly
//! among those with one solution. The split goes by solved grid: a model can learn 288 grids by heart, so training sees
//! no puzzle with a held-out solution.

use std::sync::LazyLock;

use agrpo_spec::{Purpose, Seed, SudokuTask};

use super::question::Question;

pub(super) const CELLS: usize = 16;

/// Digits as text, row by row; `0` is a blank.
type Grid = [u8; CELLS];

/// Every solved grid, in lexical order.
static GRIDS: LazyLock<Vec<Grid>> = LazyLock::new(|| {
    let mut grids = Vec::with_capacity(288);
    fill(&mut [b'0'; CELLS], 0, &mut grids);
    grids
});

/// Tries every digit in every cell from `cell` on.
fn fill(grid: &mut Grid, cell: usize, grids: &mut Vec<Grid>) {
    if cell == CELLS {
        grids.push(*grid);
        return;
    }
    for digit in b'1'..=b'4' {
        if (0..cell).all(|other| grid[other] != digit || !shares_a_unit(cell, other)) {
            grid[cell] = digit;
            fill(grid, cell + 1, grids);
        }
    }
}

fn shares_a_unit(a: usize, b: usize) -> bool {
    let box_of = |cell: usize| (cell / 8, cell % 4 / 2);
    a / 4 == b / 4 || a % 4 == b % 4 || box_of(a) == box_of(b)
}

/// Whether every clue of the puzzle stands in the grid.
fn keeps_clues(puzzle: &[u8], grid: &Grid) -> bool {
    puzzle.len() == CELLS
        && puzzle.iter().zip(grid).all(|(clue, cell)| *clue == b'0' || clue == cell)
}

/// The only solution, as an index into [`GRIDS`].
fn only_solution(puzzle: &[u8]) -> Option<usize> {
    let mut solutions = (0..GRIDS.len()).filter(|&i| keeps_clues(puzzle, &GRIDS[i]));
    let solution = solutions.next()?;
    solutions.next().is_none().then_some(solution)
}

fn text(grid: &[u8]) -> String {
    grid.iter().copied().map(char::from).collect()
}

/// One try at a problem and its solution; `None` where the puzzle has more than one.
pub(super) fn draw(task: &SudokuTask, seed: Seed) -> Option<(Question, String)> {
    let grid = usize::try_from(seed.below(GRIDS.len() as u64, 0, 0)).expect("below 288");
    let mut puzzle = GRIDS[grid];
    let cells = seed.child(Purpose::Permutation, 0).permutation(16);
    for &cell in &cells[..task.blanks as usize] {
        puzzle[cell as usize] = b'0';
    }
    only_solution(&puzzle)?;
    let solution = text(&GRIDS[grid]);
    Some((Question::Sudoku { puzzle: text(&puzzle), solution: solution.clone() }, solution))
}

/// Whether training never sees a puzzle with this solution. The share is rounded to whole grids, some on either
/// side.
pub(super) fn is_held_out(task: &SudokuTask, solution: &str) -> bool {
    let count = GRIDS.len();
    let order = Seed::new(task.seed).child(Purpose::Split, 0).permutation(288);
    let is_before = |rank: usize| (rank as f64 + 0.5) < task.held_out.get() * count as f64;
    let rank = order.iter().position(|&i| GRIDS[i as usize] == *solution.as_bytes());
    rank.is_some_and(is_before)
}

/// Whether the solution is a solved grid that keeps the puzzle's clues.
pub(super) fn is_solution(puzzle: &str, solution: &str) -> bool {
    GRIDS.iter().any(|grid| grid == solution.as_bytes() && keeps_clues(puzzle.as_bytes(), grid))
}

/// The noisy demonstration of a puzzle with two blanks or more in its first row: the last blank stays open.
pub(super) fn noisy(puzzle: &str, solution: &str) -> Option<String> {
    let blanks = puzzle.bytes().take(4).filter(|&cell| cell == b'0').count();
    let last = puzzle.rfind('0').filter(|_| blanks >= 2)?;
    Some(format!("{}0{}", &solution[..last], &solution[last + 1..]))
}

#[cfg(test)]
mod tests {
    use agrpo_grading::cells;

    use super::*;

    #[test]
    fn all_288_grids_are_known() {
        assert_eq!(GRIDS.len(), 288);
        assert!(GRIDS.is_sorted());
        let units = (0..4).flat_map(|i| {
            let corner = i / 2 * 8 + i % 2 * 2;
            [
                [4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3],
                [i, i + 4, i + 8, i + 12],
                [corner, corner + 1, corner + 4, corner + 5],
            ]
        });
        for unit in units {
            for grid in GRIDS.iter() {
                let mut digits = unit.map(|cell: usize| grid[cell]);
                digits.sort_unstable();
                assert_eq!(&digits, b"1234", "{}", text(grid));
            }
        }
    }

    #[test]
    fn a_puzzle_has_one_solution_or_is_none() {
        let solve = |puzzle: &str| only_solution(puzzle.as_bytes()).map(|n| text(&GRIDS[n]));
        assert_eq!(solve("0204032001400402").as_deref(), Some("1234432121433412"));
        for puzzle in
            ["0000000000000000", "1100000012342341", "", "02040320014004020", "020403200140040x"]
        {
            assert_eq!(solve(puzzle), None, "{puzzle}");
        }
    }

    #[test]
    fn cells_count_where_the_puzzle_is_blank() {
        let share = |answer| cells("1234432121430000", "1234432121433412", answer).share();
        for (answer, expected) in [
            ("0000000000003412", 1.0),
            ("12344321214334", 0.5),
            ("12344321214334129", 1.0),
            ("3412", 0.0),
            ("ééééééééééééé412", 0.75),
        ] {
            assert_eq!(share(answer), expected, "{answer}");
        }
    }
}
