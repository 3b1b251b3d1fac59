//! From what the connections saw to figures.

use std::collections::BTreeMap;

use super::Options;
use super::worker::Seen;

/// Bytes that a process has sent towards the disk.
pub fn bytes_written(pid: Option<u32>) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/io", pid?)).ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}

/// What a process has in memory now, and had at most.
pub fn memory_kib(pid: Option<u32>) -> Option<serde_json::Value> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", pid?)).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    Some(serde_json::json!({ "now": field("VmRSS:"), "peak": field("VmHWM:") }))
}

/// `percent` of the sorted latencies, in milliseconds.
fn percentile(sorted: &[u32], percent: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a position within the slice"
    )]
    let position = (sorted.len() as f64 * percent / 100.0) as usize;
    let micros = sorted.get(position.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default();
    f64::from(micros) / 1000.0
}

fn latencies(mut all: Vec<u32>, seconds: f64) -> serde_json::Value {
    all.sort_unstable();
    serde_json::json!({
        "count": all.len(),
        "per_second": (all.len() as f64 / seconds * 10.0).round() / 10.0,
        "p50_ms": percentile(&all, 50.0),
        "p90_ms": percentile(&all, 90.0),
        "p99_ms": percentile(&all, 99.0),
        "max_ms": percentile(&all, 100.0),
    })
}

pub fn report(options: &Options, seen: Vec<Seen>, seconds: f64, written: Option<u64>) -> serde_json::Value {
    let each: Vec<usize> = seen.iter().filter(|one| one.writes).map(|one| one.commits.len()).collect();
    let total: usize = each.iter().sum();
    let mean = total as f64 / each.len().max(1) as f64;
    let least = each.iter().min().copied().unwrap_or_default() as f64;
    let mut refusals: BTreeMap<String, u64> = BTreeMap::new();
    let (mut commits, mut reads, mut ever) = (Vec::new(), Vec::new(), 0);
    for one in seen {
        commits.extend(one.commits);
        reads.extend(one.reads);
        ever += one.commits_ever;
        one.refusals.iter().for_each(|(code, count)| *refusals.entry(code.to_string()).or_default() += count);
    }
    serde_json::json!({
        "label": options.label,
        "connections": options.connections,
        "reads_percent": options.reads_percent,
        "statements": options.statements,
        "value_bytes": options.value_bytes,
        "seconds": (seconds * 100.0).round() / 100.0,
        "commits": latencies(commits, seconds),
        "reads": latencies(reads, seconds),
        "refusals": refusals,
        // Of the commits per connection: 1 is perfectly fair, 0 means that somebody starved.
        "fairness": if mean > 0.0 { (least / mean * 1000.0).round() / 1000.0 } else { 0.0 },
        "bytes_per_commit": written.filter(|_| total > 0).map(|bytes| bytes / total as u64),
        "commits_ever": ever,
        "memory": memory_kib(options.pid),
    })
}
