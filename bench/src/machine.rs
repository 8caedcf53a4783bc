//! What the figures were measured on.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::load::median;

/// A line about CPU, cores, kernel, and what the storage under `directory` takes to make a write durable.
pub fn describe(directory: &Path) -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism()?;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    Ok(format!(
        "Machine: {}, {cores} cores, Linux {}, fdatasync {:.2} ms (median of 200 writes of 4 KiB), load average {} \
         when the run began.",
        model.map_or("unknown CPU", |(_, model)| model.trim()),
        kernel.trim(),
        fdatasync_ms(directory)?,
        load.split_whitespace().next().unwrap_or("unknown"),
    ))
}

fn fdatasync_ms(directory: &Path) -> Result<f64> {
    let path = directory.join("fdatasync");
    let mut file = File::create(&path)?;
    let mut times_ms = Vec::new();
    for _ in 0..200 {
        file.write_all(&[0x55; 4096])?;
        let begin = Instant::now();
        file.sync_data()?;
        times_ms.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    fs::remove_file(path)?;
    Ok(median(times_ms))
}
