//! What a load found, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bare::Bare;
use crate::ceiling::Ceiling;
use crate::failure::Failure;
use crate::fanout::{Fanout, Round};
use crate::idle::Idle;
use crate::memory::MemoryUse;
use crate::neighbour::{Answers, Neighbour};
use crate::options::Options;
use crate::ramp::Ramp;

/// Raised when a field changes its meaning or goes; new fields may come at any time.
const FORMAT: u32 = 1;

/// The share of a core from which on the load is what limits.
const BUSY: f64 = 0.9;

/// The result of a run. Its JSON is a stable contract.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub format: u32,
    pub url: String,
    pub clients: u32,
    pub channel: String,
    pub pid: Option<u32>,
    pub ceiling: Option<Ceiling>,
    pub ramp: Ramp,
    /// Where a slope was asked for: how the first part came in; `ramp` is the rest then.
    pub ramp_before_slope: Option<Ramp>,
    pub memory: MemoryUse,
    /// One at a time, then with more in flight where that was asked for.
    pub fanout: Vec<Fanout>,
    /// The ten publications before them, which warm up.
    pub first_messages: Option<Round>,
    pub neighbour: Option<Neighbour>,
    pub idle: Option<Idle>,
    pub bare: Option<Bare>,
    /// Clients that were in and did not stay.
    pub lost_clients: u32,
    /// What happened to clients, by kind.
    pub troubles: BTreeMap<String, u64>,
    /// What ended the fan-out or the neighbour early, where something did.
    pub stopped: Option<Failure>,
    /// The first thing that went wrong; `None` when nothing did.
    pub first_failure: Option<Failure>,
}

impl Report {
    pub(crate) fn new(options: &Options, ceiling: Ceiling) -> Self {
        Self {
            format: FORMAT,
            url: options.url.clone(),
            clients: options.clients,
            channel: options.channel.clone(),
            pid: options.pid,
            ceiling: Some(ceiling),
            ..Self::default()
        }
    }

    /// Deliveries that were not as they should be, as a failure.
    pub(crate) fn shortfall(&self) -> Option<Failure> {
        let sum = |value: fn(&Round) -> u64| -> u64 {
            let rounds = self.fanout.iter().map(|fanout| &fanout.median);
            rounds.chain(&self.first_messages).map(value).sum()
        };
        let lost = sum(|round| round.lost);
        let duplicates = sum(|round| round.duplicates);
        let disordered = sum(|round| round.disordered);
        if lost + duplicates + disordered == 0 {
            return None;
        }
        Some(Failure::new(
            "not every client has every message once and in order",
            format_args!("{lost} lost, {duplicates} twice, {disordered} out of order"),
            "see who was slow with throng who",
        ))
    }

    fn bare_lines(&self, out: &mut fmt::Formatter<'_>, bare: &Bare) -> fmt::Result {
        writeln!(out, "bare loop   {} bytes a frame; {}", bare.frame_bytes, bare.ramp)?;
        writeln!(out, "            {:.0} bytes per connection", bare.memory_per_connection)?;
        for fanout in &bare.fanout {
            writeln!(out, "            {fanout}")?;
        }
        for ratio in &bare.ratios {
            writeln!(
                out,
                "ratio       {:.2} times the bare loop's CPU per delivery, {} in flight \
                 ({:.2} to {:.2} in single rounds)",
                ratio.ratio, ratio.in_flight, ratio.least, ratio.most
            )?;
        }
        if let Some(percent) = bare.idle_core_percent {
            write!(out, "            idle: bare loop {percent:.2} % of a core")?;
            match bare.idle_ratio {
                Some(ratio) => writeln!(out, ", the server {ratio:.2} times that")?,
                None => writeln!(out)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.url)?;
        if let Some(ceiling) = &self.ceiling {
            writeln!(out, "ceiling     {ceiling}")?;
        }
        for ramp in self.ramp_before_slope.iter().chain([&self.ramp]) {
            writeln!(out, "ramp        {ramp}")?;
        }
        if !self.memory.points.is_empty() {
            writeln!(out, "memory      {}", self.memory)?;
        }
        for fanout in &self.fanout {
            writeln!(out, "fan-out     {fanout}")?;
        }
        if let Some(neighbour) = &self.neighbour {
            writeln!(out, "neighbour   {neighbour}")?;
        }
        if let Some(idle) = &self.idle {
            writeln!(out, "idle        {idle}")?;
        }
        if let Some(bare) = &self.bare {
            self.bare_lines(out, bare)?;
        }
        for (kind, count) in &self.troubles {
            writeln!(out, "trouble     {count} x {kind}")?;
        }
        if let Some(stopped) = &self.stopped {
            writeln!(out, "stopped     {stopped}")?;
        }
        match &self.first_failure {
            Some(failure) => write!(out, "failed      {failure}"),
            None => write!(out, "nothing failed"),
        }
    }
}

impl fmt::Display for Ramp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} of {} in within {:.2} s: {:.0}/s, p50 {:.1} ms, p99 {:.1} ms",
            self.ready, self.tried, self.seconds, self.per_second, self.p50_ms, self.p99_ms
        )?;
        if let Some(cpu) = self.server_cpu_s_per_10k {
            write!(out, ", {cpu:.2} CPU-s per 10,000")?;
        }
        write_load(out, self.load_core_share)
    }
}

impl fmt::Display for MemoryUse {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = [
            (self.per_connection, "bytes per connection"),
            (self.per_connection_after_messages, "after 10 messages"),
            (self.per_connection_at_end, "at the end"),
            (self.slope, "as the slope"),
        ];
        let base = self.points.first().map_or(0, |point| point.resident);
        write!(out, "base {:.1} MB", base as f64 / 1e6)?;
        for (value, name) in values {
            if let Some(value) = value {
                write!(out, ", {value:.0} {name}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Fanout {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Round { receivers, deliveries, per_second, p50_ms, p99_ms, .. } = &self.median;
        write!(
            out,
            "{} in flight to {receivers}: {per_second:.0}/s, p50 {p50_ms:.2} ms, \
             p99 {p99_ms:.2} ms, last {:.2} ms",
            self.in_flight, self.median.last_receiver_ms
        )?;
        if let Some(cpu) = self.median.server_cpu_us {
            write!(out, ", {cpu:.2} µs of CPU per delivery")?;
        }
        let Round { lost, duplicates, disordered, .. } = &self.median;
        write!(
            out,
            "; {deliveries} delivered, {lost} lost, {duplicates} twice, {disordered} out of order"
        )?;
        write_load(out, self.median.load_core_share)
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.1} s", self.seconds)?;
        if self.intervals > 0 {
            write!(out, " ({} whole ping intervals)", self.intervals)?;
        }
        write!(out, ": {} pings to {} clients", self.pings, self.clients)?;
        if let Some(percent) = self.server_core_percent {
            write!(out, ", {percent:.2} % of a core")?;
        }
        write_load(out, self.load_core_share)
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { quiet, burst, burst_messages, own_lateness_p99_ms, .. } = self;
        write!(
            out,
            "quiet {quiet}; during bursts of {burst_messages}: {burst}; \
             own lateness p99 {own_lateness_p99_ms:.2} ms"
        )
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50_ms, p99_ms, longest_ms } = self;
        write!(out, "p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, max {longest_ms:.2} ms (n {count})")
    }
}

fn write_load(out: &mut fmt::Formatter<'_>, share: f64) -> fmt::Result {
    write!(out, "; load {:.0} % of a core", share * 100.0)?;
    if share >= BUSY {
        write!(out, " (it is what limits)")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
