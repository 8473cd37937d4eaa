//! How much memory and how much of the processors was used.

/// The most memory that this process has had in use so far, in bytes, where the system tells.
pub fn peak_bytes() -> Option<u64> {
    peak_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The seconds that all threads of this process have computed for so far, where the system tells.
pub fn cpu_seconds() -> Option<f64> {
    cpu_in(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// Ticks of a second in /proc: Linux counts in hundredths there, whatever its own clock does.
const TICKS: f64 = 100.0;

fn cpu_in(stat: &str) -> Option<f64> {
    // The second field is the program's name in parentheses, which may hold anything; utime and stime are 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    Some((ticks(14)? + ticks(15)?) / TICKS)
}

fn peak_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_high_water_mark() {
        assert_eq!(peak_in("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2 << 20));
        assert_eq!(peak_in("Name:\tx\n"), None);
    }

    #[test]
    fn reads_the_processor_time() {
        let stat = "42 (a (b) c) S 1 1 1 0 -1 4194304 900 0 0 0 1250 75 7 7 20 0 3 0 12345 1000 200";
        assert_eq!(cpu_in(stat), Some(13.25));
        assert_eq!(cpu_in("42 (a"), None);
        assert_eq!(cpu_in("42 (a) S 1"), None);
    }
}
