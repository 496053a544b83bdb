//! Interval logs of an experiment: one `ARM-CLASS.hlog` for each side and class, in the text format
//! that the HdrHistogram tools read (version 1.3: V2 histograms, deflated, in base64).
//!
//! Service time in microseconds. Times of intervals are seconds since the log's `BaseTime`. It writes
//! what it is given; it decides nothing.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError},
    },
};
use understudy_crds::experiment::StatementClass;
use understudy_mirror::measure::interval::Interval;

/// An interval log that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the interval log {path} can't be written: {source}; see that the directory is writable and has space")]
pub struct HlogError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// The interval logs of one experiment, written as intervals come.
pub struct IntervalLogs {
    directory: PathBuf,
    experiment: String,
    began: SystemTime,
    serializer: V2DeflateSerializer,
    /// By side, then class: all four from the first interval that the side had a part in.
    logs: BTreeMap<String, BTreeMap<StatementClass, Log>>,
}

struct Log {
    path: PathBuf,
    file: BufWriter<File>,
}

impl IntervalLogs {
    /// Logs in `directory`, of an experiment whose observation began at `began`.
    pub fn new(directory: &Path, experiment: &str, began: SystemTime) -> Self {
        Self {
            directory: directory.to_owned(),
            experiment: experiment.to_owned(),
            began,
            serializer: V2DeflateSerializer::new(),
            logs: BTreeMap::new(),
        }
    }

    /// Adds an interval to the logs of every side that had a part in it.
    pub fn push(&mut self, interval: &Interval) -> Result<(), HlogError> {
        let start = Duration::from_micros(interval.start_us);
        let length = Duration::from_micros(interval.length_us);
        for (arm, measured) in &interval.arms {
            if !self.logs.contains_key(arm) {
                let logs = self.create(arm)?;
                self.logs.insert(arm.clone(), logs);
            }
            let Some(logs) = self.logs.get_mut(arm) else { continue };
            for (class, service) in measured.service.iter().filter(|(_, service)| !service.is_empty()) {
                if let Some(log) = logs.get_mut(class) {
                    write_interval(&mut log.file, &mut self.serializer, service, start, length)
                        .map_err(|source| HlogError { path: log.path.clone(), source })?;
                }
            }
        }
        Ok(())
    }

    /// Writes what is still in memory, and says which files there are.
    pub fn finish(self) -> Result<Vec<PathBuf>, HlogError> {
        let mut paths = Vec::new();
        for Log { path, mut file } in self.logs.into_values().flat_map(BTreeMap::into_values) {
            file.flush().map_err(|source| HlogError { path: path.clone(), source })?;
            paths.push(path);
        }
        Ok(paths)
    }

    fn create(&mut self, arm: &str) -> Result<BTreeMap<StatementClass, Log>, HlogError> {
        let mut logs = BTreeMap::new();
        for class in StatementClass::ALL {
            let path = self.directory.join(format!("{arm}-{}.hlog", class.name()));
            let failed = |source| HlogError { path: path.clone(), source };
            let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
            write_header(&mut file, &mut self.serializer, &self.experiment, arm, class, self.began).map_err(failed)?;
            logs.insert(class, Log { path, file });
        }
        Ok(logs)
    }
}

fn write_header(
    out: &mut impl Write,
    serializer: &mut V2DeflateSerializer,
    experiment: &str,
    arm: &str,
    class: StatementClass,
    began: SystemTime,
) -> io::Result<()> {
    IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!("[Understudy experiment: {experiment}]"))
        .add_comment(&format!("[Arm: {arm}]"))
        .add_comment(&format!("[Class: {}]", class.name()))
        .add_comment("[Unit: microseconds of service time, sent to answered]")
        .with_start_time(began)
        .with_base_time(began)
        .begin_log_with(out, serializer)?;
    writeln!(out, r#""StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram""#)
}

fn write_interval(
    out: &mut impl Write,
    serializer: &mut V2DeflateSerializer,
    service: &Histogram<u64>,
    start: Duration,
    length: Duration,
) -> io::Result<()> {
    IntervalLogWriterBuilder::new()
        .begin_log_with(out, serializer)?
        .write_histogram(service, start, length, None)
        .map_err(|error| match error {
            IntervalLogWriterError::IoError(error) => error,
            IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
        })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use hdrhistogram::serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    };
    use understudy_mirror::measure::interval::{ArmInterval, histogram};

    use super::*;

    fn interval(index: u64, values_us: &[u64]) -> Interval {
        let mut service = histogram();
        for value in values_us {
            service.record(*value).unwrap();
        }
        let arm = ArmInterval { service: BTreeMap::from([(StatementClass::Read, service)]), ..ArmInterval::default() };
        Interval {
            index,
            start_us: index * 500_000,
            length_us: 500_000,
            arms: BTreeMap::from([("baseline".to_owned(), arm)]),
        }
    }

    fn written(intervals: &[Interval]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let directory = tempfile::tempdir().unwrap();
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let mut logs = IntervalLogs::new(directory.path(), "user-id-index", began);
        for interval in intervals {
            logs.push(interval).unwrap();
        }
        let paths = logs.finish().unwrap();
        (directory, paths)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (directory, paths) = written(&[interval(0, &[100, 2_000, 30_000]), interval(1, &[]), interval(2, &[7])]);
        assert_eq!(paths.len(), StatementClass::ALL.len());
        let text = std::fs::read(directory.path().join("baseline-read.hlog")).unwrap();
        let mut seen = Vec::new();
        for entry in IntervalLogIterator::new(&text) {
            let LogEntry::Interval(entry) = entry.unwrap() else { continue };
            let bytes = base64::engine::general_purpose::STANDARD.decode(entry.encoded_histogram()).unwrap();
            let service: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
            seen.push((
                entry.start_timestamp().as_millis(),
                entry.duration().as_millis(),
                service.len(),
                service.max(),
            ));
        }
        let max = |value: u64| interval(0, &[value]).arms["baseline"].service[&StatementClass::Read].max();
        assert_eq!(seen, [(0, 500, 3, max(30_000)), (1000, 500, 1, 7)]);
    }

    #[test]
    fn the_header_names_arm_class_and_unit() {
        let (directory, _) = written(&[interval(0, &[])]);
        let header = std::fs::read_to_string(directory.path().join("baseline-commit.hlog")).unwrap();
        assert_eq!(
            header,
            "#[Histogram log format version 1.3]\n\
             #[Understudy experiment: user-id-index]\n\
             #[Arm: baseline]\n\
             #[Class: commit]\n\
             #[Unit: microseconds of service time, sent to answered]\n\
             #[StartTime: 1800000000.000 (seconds since epoch)]\n\
             #[BaseTime: 1800000000.000 (seconds since epoch)]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n"
        );
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let mut logs = IntervalLogs::new(Path::new("/nonexistent/out"), "x", SystemTime::UNIX_EPOCH);
        let error = logs.push(&interval(0, &[1])).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/out/baseline-read.hlog"), "{error}");
    }
}
