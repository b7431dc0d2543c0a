//! Docker's table layout: left-aligned cells, three spaces between columns, nothing after the last.
//!
//! It is Go's `text/tabwriter` with `minwidth 10`, `padding 3` and a space as pad byte, which the
//! docker command line uses for every table; scripts cut columns at its offsets.

/// Narrowest column, without its padding.
const MIN_WIDTH: usize = 10;
/// Spaces after the widest cell of a column.
const PADDING: usize = 3;

/// Lays out rows of cells; every row may have its own number of cells.
///
/// As in tabwriter a column is a run of neighbouring rows that all have a cell ended by a tab
/// there; the last cell of a row is never padded.
pub fn layout(rows: &[Vec<String>]) -> String {
    layout_from(MIN_WIDTH, rows)
}

/// The same with columns of at least `narrowest` characters, padding and all.
pub fn layout_from(narrowest: usize, rows: &[Vec<String>]) -> String {
    let columns = rows
        .iter()
        .map(|row| row.len().saturating_sub(1))
        .max()
        .unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        let padded = row.len().saturating_sub(1);
        for (width, cell) in widths.iter_mut().zip(&row[..padded]) {
            *width = (*width).max(cell.chars().count() + PADDING).max(narrowest);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if index + 1 < row.len() {
                let gap = widths[index].saturating_sub(cell.chars().count());
                text.extend(std::iter::repeat_n(' ', gap));
            }
        }
        text.push('\n');
    }
    text
}

/// The same from lines whose cells are separated by tabs.
pub fn layout_lines(lines: &[String]) -> String {
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect();
    layout(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_docker_volume_ls_is_reproduced_to_the_byte() {
        let lines = ["DRIVER\tVOLUME NAME".to_owned(), "local\tdata".to_owned()];
        assert_eq!(
            layout_lines(&lines),
            "DRIVER    VOLUME NAME\nlocal     data\n"
        );
    }

    #[test]
    fn a_wide_cell_pushes_its_column_by_three_spaces() {
        let lines = ["NAME\tX".to_owned(), "twelve-chars\ty".to_owned()];
        assert_eq!(layout_lines(&lines), "NAME           X\ntwelve-chars   y\n");
    }

    #[test]
    fn the_last_cell_has_no_trailing_spaces() {
        let lines = ["A\tB".to_owned(), "a\t".to_owned()];
        assert_eq!(layout_lines(&lines), "A         B\na         \n");
    }
}
