//! Measurements, each against its peer in the same run; printed as tables, never asserted.

pub mod database;
pub mod disk;
pub mod first_sync;
mod histogram;
pub mod idle;
pub mod lag;
pub mod nfs;
pub mod proxy;
pub mod rename;
pub mod tree;

use std::time::Duration;

/// Middle value.
pub fn median(values: &mut [f64]) -> f64 {
    percentile(values, 50.0)
}

/// Nearest-rank percentile.
pub fn percentile(values: &mut [f64], percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    if values.is_empty() {
        return f64::NAN;
    }
    let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}

/// Seconds as text.
pub fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// Prints a table with aligned columns; the first row is the head.
pub fn print_table(title: &str, rows: &[Vec<String>]) {
    println!("\n## {title}\n");
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = (0..columns)
            .map(|column| format!("{:<w$}", row.get(column).map_or("", String::as_str), w = width(column)))
            .collect();
        println!("| {} |", cells.join(" | "));
        if number == 0 {
            let lines: Vec<String> = (0..columns).map(|column| "-".repeat(width(column))).collect();
            println!("|-{}-|", lines.join("-|-"));
        }
    }
}
