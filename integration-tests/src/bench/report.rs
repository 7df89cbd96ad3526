//! What the benchmark prints.

use std::time::Duration;

/// A line of the report.
pub fn line(name: &str, value: &str, aim: &str) {
    let aim = if aim.is_empty() { String::new() } else { format!("   (aim {aim})") };
    #[allow(clippy::print_stdout, reason = "the benchmark prints its report")]
    {
        println!("  {name:<58} {value:>22}{aim}");
    }
}

/// A heading of the report.
pub fn heading(text: &str) {
    #[allow(clippy::print_stdout, reason = "the benchmark prints its report")]
    {
        println!("\n{text}");
    }
}

/// Events a second, readable.
#[allow(clippy::cast_precision_loss, reason = "for people to read")]
pub fn rate(events: u64, time: Duration) -> String {
    format!("{:.0} /s", events as f64 / time.as_secs_f64())
}

/// A percentile of durations, which get sorted.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index of a list"
)]
pub fn percentile(times: &mut [Duration], percent: f64) -> Duration {
    times.sort_unstable();
    let place = ((times.len() as f64 - 1.0) * percent / 100.0).round() as usize;
    times.get(place).copied().unwrap_or_default()
}

/// p50, p99 and how many, readable.
pub fn percentiles(times: &mut [Duration]) -> String {
    let (p50, p99) = (percentile(times, 50.0), percentile(times, 99.0));
    format!("p50 {:.2} ms p99 {:.2} ms", p50.as_secs_f64() * 1e3, p99.as_secs_f64() * 1e3)
}
