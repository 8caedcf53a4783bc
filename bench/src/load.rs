//! Closed loops: as many calls in flight as there are lanes, each lane sending its next call when the last is
//! answered.
//!
//! Reference and subject take turns, round by round, so that whatever else the machine does hits both; the
//! ratio is the median of the rounds' ratios. A call that fails, or is answered wrongly, ends the run.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::process;

/// Calls in flight.
pub const LANES: usize = 64;
/// HTTP/2 connections they share.
pub const CONNECTIONS: usize = 8;

/// How long and how often to measure.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Rounds, of which the median counts.
    pub rounds: u32,
    /// Time at the beginning of a round that does not count.
    pub warm_up: Duration,
    /// Time that counts.
    pub window: Duration,
}

/// One caller with one call in flight.
pub trait Lane: Send + 'static {
    /// Sends a call and checks its answer.
    fn call(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// A server under load.
pub struct Subject<L> {
    name: &'static str,
    lanes: Vec<L>,
    pid: u32,
}

/// What was measured, each the median of the rounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Calls answered per second.
    pub per_second: f64,
    /// Half the calls were answered within this.
    pub p50_us: f64,
    /// All but one in a hundred were answered within this.
    pub p99_us: f64,
    /// CPU time of the server process for a call.
    pub cpu_us: f64,
}

/// Subject and reference.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// What was measured of the reference.
    pub reference: Figures,
    /// What was measured of the subject.
    pub subject: Figures,
    /// Calls per second of the subject over those of the reference.
    pub ratio: f64,
}

impl<L: Lane> Subject<L> {
    /// A server with that process id, called by those lanes.
    pub fn new(name: &'static str, pid: u32, lanes: Vec<L>) -> Subject<L> {
        Subject { name, lanes, pid }
    }

    async fn round(&mut self, pace: Pace) -> Result<Figures> {
        let begin = Instant::now() + pace.warm_up;
        let end = begin + pace.window;
        let mut tasks = JoinSet::new();
        for lane in self.lanes.drain(..) {
            tasks.spawn(drive(lane, begin, end));
        }
        sleep_until(begin).await;
        let cpu_before = process::cpu_time(self.pid)?;
        sleep_until(end).await;
        let cpu = process::cpu_time(self.pid)?.saturating_sub(cpu_before);
        let mut latencies_us = Vec::new();
        while let Some(done) = tasks.join_next().await {
            let (lane, of_lane) = done?.with_context(|| format!("a call of {} failed", self.name))?;
            self.lanes.push(lane);
            latencies_us.extend(of_lane);
        }
        anyhow::ensure!(!latencies_us.is_empty(), "{} answered no call within {:?}", self.name, pace.window);
        latencies_us.sort_unstable();
        let calls = latencies_us.len() as f64;
        let at = |share: f64| f64::from(latencies_us[((calls - 1.0) * share).round() as usize]);
        Ok(Figures {
            per_second: calls / pace.window.as_secs_f64(),
            p50_us: at(0.5),
            p99_us: at(0.99),
            cpu_us: cpu.as_secs_f64() * 1e6 / calls,
        })
    }
}

async fn drive<L: Lane>(mut lane: L, begin: Instant, end: Instant) -> Result<(L, Vec<u32>)> {
    let mut latencies_us = Vec::with_capacity(4096);
    loop {
        let sent = Instant::now();
        if sent >= end {
            return Ok((lane, latencies_us));
        }
        lane.call().await?;
        let answered = Instant::now();
        if answered >= begin && answered <= end {
            latencies_us.push((answered - sent).as_micros().try_into().unwrap_or(u32::MAX));
        }
    }
}

/// Measures reference and subject in turn.
pub async fn compare<R: Lane, S: Lane>(
    pace: Pace,
    reference: &mut Subject<R>,
    subject: &mut Subject<S>,
) -> Result<Comparison> {
    let (mut references, mut subjects, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=pace.rounds {
        // Whoever comes second finds a warmer machine, so they take turns at that too.
        let (of_reference, of_subject) = if round.is_multiple_of(2) {
            let of_subject = subject.round(pace).await?;
            (reference.round(pace).await?, of_subject)
        } else {
            (reference.round(pace).await?, subject.round(pace).await?)
        };
        ratios.push(of_subject.per_second / of_reference.per_second);
        eprintln!(
            "  round {round} of {}: {} {:.0}/s, {} {:.0}/s",
            pace.rounds, reference.name, of_reference.per_second, subject.name, of_subject.per_second
        );
        references.push(of_reference);
        subjects.push(of_subject);
    }
    Ok(Comparison { reference: medians(&references), subject: medians(&subjects), ratio: median(ratios) })
}

fn medians(rounds: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure).collect());
    Figures {
        per_second: of(|round| round.per_second),
        p50_us: of(|round| round.p50_us),
        p99_us: of(|round| round.p99_us),
        cpu_us: of(|round| round.cpu_us),
    }
}

/// The middle of the figures, or the mean of the two in the middle; 0 of none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.as_slice() {
        [] => 0.0,
        figures if figures.len().is_multiple_of(2) => (figures[middle - 1] + figures[middle]) / 2.0,
        figures => figures[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(u32);

    impl Lane for Failing {
        async fn call(&mut self) -> Result<()> {
            self.0 += 1;
            anyhow::ensure!(self.0 < 3, "a wrong answer");
            Ok(())
        }
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[tokio::test]
    async fn a_wrong_answer_ends_the_run() {
        let pace = Pace { rounds: 1, warm_up: Duration::ZERO, window: Duration::from_millis(1) };
        let mut subject = Subject::new("failing", std::process::id(), vec![Failing(0), Failing(0)]);
        let error = subject.round(pace).await.unwrap_err();
        assert!(format!("{error:#}").contains("a wrong answer"));
    }
}
