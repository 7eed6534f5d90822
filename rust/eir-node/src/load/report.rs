//! Counting and timing the answers of a run.
//!
//! `peer` tells the [`Tally`] what it sent and got; at the end it becomes the [`LoadReport`]. Requests sent before the
//! measured time began are passed over. Never prints and never reads a clock.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::answers::Verdict;
use super::messages::SUCCESS;
use super::outstanding::Request;

/// Latencies above this are recorded as this: no run waits so long for an answer.
const LONGEST_NS: u64 = 60_000_000_000;

/// Equipment-Status of an answer (3GPP TS 29.272 clause 7.3.51), or that it had none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 0, WHITELISTED.
    White,
    /// 1, BLACKLISTED.
    Black,
    /// 2, GREYLISTED.
    Grey,
    /// An error, or no Equipment-Status that is one of the three.
    None,
}

/// One recorded answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The device asked about, 14 digits.
    pub imei: u64,
    /// What the node said.
    pub status: Status,
}

/// Latency in nanoseconds, to three significant digits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Latency {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

/// What one run found. All counts are of requests sent in the measured time, and of their answers whenever they came:
/// `sent = answered + lost`, `answered = white + black + grey + no_status + the sum of errors`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadReport {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
    /// Answers with Equipment-Status 0.
    pub white: u64,
    /// Answers with Equipment-Status 1.
    pub black: u64,
    /// Answers with Equipment-Status 2.
    pub grey: u64,
    /// Answers without an error and without an Equipment-Status that could be read.
    pub no_status: u64,
    /// Answers with a Result-Code or Experimental-Result-Code that is no success, by that code.
    pub errors: BTreeMap<u32, u64>,
    /// Requests that had no answer when the run ended.
    pub lost: u64,
    /// Open loop: requests that fell due while too many were outstanding, and were never sent. Not part of `sent`.
    pub unsent: u64,
    /// Answers to nothing that was outstanding, warm-up included.
    pub unmatched: u64,
    /// Connections that the node ended, or that broke, before the run was over.
    pub connections_lost: u64,
    /// Why the first of them was lost.
    pub first_loss: Option<String>,
    /// From the begin of the measured time to its last answer.
    pub elapsed: Duration,
    /// Answers per second of `elapsed`.
    pub rate: f64,
    /// From sending (closed loop) or from when sending was due (open loop) to the read that brought the answer.
    pub latency: Latency,
    /// Every answer in the order of arrival, warm-up included, where the plan asked for them.
    pub answers: Vec<Answer>,
}

impl LoadReport {
    /// Answers with whatever they said, by what fell due; 1 where nothing did.
    #[must_use]
    pub fn share_answered(&self) -> f64 {
        match self.sent + self.unsent {
            0 => 1.0,
            due => self.answered as f64 / due as f64,
        }
    }
}

/// The report in the making. Times are nanoseconds since the start of the run.
pub(super) struct Tally {
    measured_from: u64,
    last_answer: u64,
    record: bool,
    latency: Histogram<u64>,
    /// `count` answers in a row had latency `ns`, and are not in the histogram yet. Answers that were asked in one write
    /// and come in one read share both times, so a batch costs the histogram one entry.
    run_length: (u64, u64),
    report: LoadReport,
}

impl Tally {
    /// A tally of what is sent at or after `measured_from`.
    ///
    /// # Errors
    /// The histogram's, which cannot occur with the bounds given here.
    pub(super) fn new(measured_from: u64, record: bool) -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            measured_from,
            last_answer: measured_from,
            record,
            latency: Histogram::new_with_bounds(1, LONGEST_NS, 3)?,
            run_length: (0, 0),
            report: LoadReport::default(),
        })
    }

    /// A request was sent, or was due, at `time`.
    #[inline]
    pub(super) fn sent(&mut self, time: u64) {
        self.report.sent += u64::from(time >= self.measured_from);
    }

    /// A request was due at `time` and is not sent at all.
    #[inline]
    pub(super) fn unsent(&mut self, time: u64) {
        self.report.unsent += u64::from(time >= self.measured_from);
    }

    /// A connection was lost.
    pub(super) fn connection_lost(&mut self, why: impl FnOnce() -> String) {
        self.report.connections_lost += 1;
        self.report.first_loss.get_or_insert_with(why);
    }

    /// An answer came that nothing was waiting for.
    pub(super) fn unmatched(&mut self) {
        self.report.unmatched += 1;
    }

    /// The answer to `request` came at `now`.
    #[inline]
    pub(super) fn answered(&mut self, request: Request, verdict: Verdict, now: u64) {
        let error = verdict.result.filter(|code| code / 1000 != SUCCESS / 1000);
        let status = match (error, verdict.status) {
            (None, Some(0)) => Status::White,
            (None, Some(1)) => Status::Black,
            (None, Some(2)) => Status::Grey,
            _ => Status::None,
        };
        if self.record {
            self.report.answers.push(Answer { imei: request.imei, status });
        }
        if request.sent < self.measured_from {
            return;
        }
        self.report.answered += 1;
        match (error, status) {
            (Some(code), _) => *self.report.errors.entry(code).or_default() += 1,
            (None, Status::White) => self.report.white += 1,
            (None, Status::Black) => self.report.black += 1,
            (None, Status::Grey) => self.report.grey += 1,
            (None, Status::None) => self.report.no_status += 1,
        }
        self.last_answer = now;
        let latency = now.saturating_sub(request.sent);
        if self.run_length.0 == latency {
            self.run_length.1 += 1;
        } else {
            self.flush_latency();
            self.run_length = (latency, 1);
        }
    }

    fn flush_latency(&mut self) {
        let (latency, count) = self.run_length;
        if count > 0 {
            self.latency.saturating_record_n(latency.clamp(1, LONGEST_NS), count);
        }
    }

    /// The report of a run that is over.
    pub(super) fn finish(mut self) -> LoadReport {
        self.flush_latency();
        let at = |quantile| self.latency.value_at_quantile(quantile);
        let latency = Latency {
            mean: self.latency.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.latency.max(),
        };
        let mut report = self.report;
        report.latency = latency;
        report.lost = report.sent.saturating_sub(report.answered);
        report.elapsed = Duration::from_nanos(self.last_answer - self.measured_from);
        if !report.elapsed.is_zero() {
            report.rate = report.answered as f64 / report.elapsed.as_secs_f64();
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHITE: Verdict = Verdict { result: Some(2001), status: Some(0) };

    fn tally(measured_from: u64) -> Tally {
        Tally::new(measured_from, true).unwrap()
    }

    fn request(sent: u64) -> Request {
        Request { sent, imei: 35_209_900_176_148 }
    }

    #[test]
    fn percentiles_are_of_each_answer() {
        let mut tally = tally(0);
        for latency in 1..=1000 {
            tally.sent(0);
            tally.answered(request(0), WHITE, latency * 1000);
        }
        let report = tally.finish();
        let near = |found: u64, expected: u64| found.abs_diff(expected) <= expected / 500;
        assert!(near(report.latency.p50, 500_000), "{:?}", report.latency);
        assert!(near(report.latency.p90, 900_000));
        assert!(near(report.latency.p99, 990_000));
        assert!(near(report.latency.p999, 999_000));
        assert!(near(report.latency.max, 1_000_000));
        assert!((report.latency.mean / 500_500.0 - 1.0).abs() < 0.002);
        assert_eq!(report.elapsed, Duration::from_micros(1000));
        assert!((report.rate - 1e6).abs() < 1.0);
    }

    #[test]
    fn answers_of_one_batch_all_count_in_the_histogram() {
        let mut tally = tally(0);
        for (latency, times) in [(50, 99), (7000, 1), (50, 99), (9000, 1)] {
            for _ in 0..times {
                tally.answered(request(0), WHITE, latency);
            }
        }
        let report = tally.finish();
        assert_eq!((report.latency.p50, report.latency.p99), (50, 50));
        assert!((report.latency.mean - (198.0 * 50.0 + 16_000.0) / 200.0).abs() < 1.0);
    }

    #[test]
    fn every_answer_ends_in_one_count() {
        let mut tally = tally(0);
        let verdicts = [
            (Some(2001), Some(0)),
            (None, Some(1)),
            (Some(2001), Some(2)),
            (Some(2001), Some(3)),
            (None, None),
            (Some(5422), None),
            (Some(3004), Some(1)),
            (Some(5422), None),
        ];
        for (result, status) in verdicts {
            tally.sent(1);
            tally.answered(request(1), Verdict { result, status }, 2);
        }
        tally.sent(1);
        let report = tally.finish();
        assert_eq!((report.white, report.black, report.grey, report.no_status), (1, 1, 1, 2));
        assert_eq!(report.errors, BTreeMap::from([(3004, 1), (5422, 2)]));
        assert_eq!((report.sent, report.answered, report.lost), (9, 8, 1));
        assert!((report.share_answered() - 8.0 / 9.0).abs() < 1e-9);
        assert_eq!(report.answers.len(), 8);
        assert_eq!(report.answers[2].status, Status::Grey);
        assert_eq!(report.answers[6].status, Status::None);
    }

    #[test]
    fn the_warm_up_is_recorded_but_not_counted() {
        let mut tally = tally(1000);
        for sent in [999, 1000] {
            tally.sent(sent);
            tally.answered(request(sent), WHITE, 1500);
        }
        tally.unsent(999);
        let report = tally.finish();
        assert_eq!((report.sent, report.answered, report.white, report.unsent), (1, 1, 1, 0));
        assert_eq!(report.answers.len(), 2);
        assert_eq!(report.elapsed, Duration::from_nanos(500));
    }

    #[test]
    fn a_run_without_answers_has_no_rate() {
        let report = tally(5).finish();
        assert!((report.share_answered() - 1.0).abs() < 1e-9);
        assert_eq!((report.rate, report.latency.max, report.elapsed), (0.0, 0, Duration::ZERO));
    }
}
