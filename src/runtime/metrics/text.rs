//! The text form of figures that Prometheus reads, version 0.0.4. Everything is written into memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::base::latency::Latencies;
use crate::base::meter::Sizes;

/// What kind of figure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up, from 0 at the start of the node.
    Counter,
    /// Counts by size.
    Histogram,
}

/// One figure that is told, for each node, and perhaps for each of something else.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it says.
    pub help: &'static str,
}

/// Durations are told up to 2 to the power of so many nanoseconds: from 16 us to 8.6 s.
const POWERS: std::ops::RangeInclusive<u32> = 14..=33;

/// A page of figures, to which nodes add theirs one after the other.
#[derive(Debug, Default)]
pub struct Exposition {
    samples: BTreeMap<&'static str, String>,
}

/// What tells samples of one figure apart: name and value.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Exposition {
    /// Adds a whole number.
    pub fn add(&mut self, name: &'static str, labels: Labels<'_>, value: u64) {
        self.line(name, "", labels, None, &value);
    }

    /// Adds a histogram of durations, in seconds.
    pub fn add_latencies(&mut self, name: &'static str, labels: Labels<'_>, found: &Latencies) {
        for power in POWERS {
            let end = std::time::Duration::from_nanos(1 << power).as_secs_f64().to_string();
            self.line(name, "_bucket", labels, Some(&end), &found.below_power(power));
        }
        self.line(name, "_bucket", labels, Some("+Inf"), &found.count());
        self.line(name, "_sum", labels, None, &found.total().as_secs_f64());
        self.line(name, "_count", labels, None, &found.count());
    }

    /// Adds a histogram of sizes.
    pub fn add_sizes(&mut self, name: &'static str, labels: Labels<'_>, found: &Sizes) {
        let mut count = 0;
        for (end, up_to) in found.up_to() {
            let end = end.map_or_else(|| "+Inf".to_owned(), |end| end.to_string());
            self.line(name, "_bucket", labels, Some(&end), &up_to);
            count = up_to;
        }
        self.line(name, "_sum", labels, None, &found.total());
        self.line(name, "_count", labels, None, &count);
    }

    fn line(
        &mut self,
        name: &'static str,
        part: &str,
        labels: Labels<'_>,
        end: Option<&str>,
        value: &dyn std::fmt::Display,
    ) {
        let out = self.samples.entry(name).or_default();
        out.push_str(name);
        out.push_str(part);
        let all = labels.iter().copied().chain(end.map(|end| ("le", end)));
        for (number, (label, text)) in all.enumerate() {
            out.push(if number == 0 { '{' } else { ',' });
            out.push_str(label);
            out.push_str("=\"");
            push_escaped(out, text);
            out.push('"');
        }
        if !labels.is_empty() || end.is_some() {
            out.push('}');
        }
        // Writing to a string does not fail.
        let _ = writeln!(out, " {value}");
    }

    /// The page: the figures in the order of `metrics`, without those that nobody added.
    #[must_use]
    pub fn render(&self, metrics: &[Metric]) -> String {
        let mut page = String::new();
        for Metric { name, kind, help } in metrics {
            let Some(samples) = self.samples.get(name) else { continue };
            let kind = match kind {
                Kind::Gauge => "gauge",
                Kind::Counter => "counter",
                Kind::Histogram => "histogram",
            };
            // Writing to a string does not fail.
            let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
        }
        page
    }

    /// The names that were added, for tests.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.samples.keys().copied()
    }
}

fn push_escaped(out: &mut String, text: &str) {
    for found in text.chars() {
        match found {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Exposition, Kind, Metric};
    use crate::base::latency::Latency;
    use crate::base::meter::Sizes;

    const TABLE: &[Metric] = &[
        Metric { name: "b", kind: Kind::Counter, help: "Second." },
        Metric { name: "a", kind: Kind::Gauge, help: "First." },
        Metric { name: "h", kind: Kind::Histogram, help: "Third." },
        Metric { name: "unused", kind: Kind::Gauge, help: "Nobody added it." },
    ];

    #[test]
    fn samples_of_several_nodes_stand_together_and_labels_are_escaped() {
        let mut page = Exposition::default();
        for node in ["1", "2"] {
            page.add("a", &[("node", node), ("database", "x\"\\\n")], 7);
            page.add("b", &[("node", node)], u64::MAX);
        }
        assert_eq!(
            page.render(TABLE),
            "# HELP b Second.\n# TYPE b counter\nb{node=\"1\"} 18446744073709551615\n\
             b{node=\"2\"} 18446744073709551615\n# HELP a First.\n# TYPE a gauge\n\
             a{node=\"1\",database=\"x\\\"\\\\\\n\"} 7\na{node=\"2\",database=\"x\\\"\\\\\\n\"} 7\n"
        );
    }

    #[test]
    fn histograms_add_up() {
        let (mut page, latency, sizes) = (Exposition::default(), Latency::default(), Sizes::default());
        for us in [10, 20, 1_000_000, 60_000_000] {
            latency.record(Duration::from_micros(us));
        }
        page.add_latencies("h", &[], &latency.read());
        let text = page.render(TABLE);
        for line in [
            "h_bucket{le=\"0.000016384\"} 1\n",
            "h_bucket{le=\"0.000032768\"} 2\n",
            "h_bucket{le=\"1.073741824\"} 3\n",
            "h_bucket{le=\"8.589934592\"} 3\n",
            "h_bucket{le=\"+Inf\"} 4\n",
            "h_sum 61.00003\n",
            "h_count 4\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        sizes.record(3);
        let mut page = Exposition::default();
        page.add_sizes("h", &[("x", "y")], &sizes);
        let text = page.render(TABLE);
        assert!(text.contains("h_bucket{x=\"y\",le=\"2\"} 0\nh_bucket{x=\"y\",le=\"4\"} 1\n"), "{text}");
        assert!(
            text.ends_with("h_bucket{x=\"y\",le=\"+Inf\"} 1\nh_sum{x=\"y\"} 3\nh_count{x=\"y\"} 1\n"),
            "{text}"
        );
    }
}
