//! What the processor and the memory of this machine are.

/// The processor, as far as the kernels care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    /// Threads that run at once.
    pub threads: usize,
    /// The widest vector instructions that the kernels have code for and this processor has; `None` for those of any.
    pub vectors: Option<&'static str>,
}

/// The processor of this machine.
pub fn processor() -> Processor {
    Processor {
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        vectors: vectors(),
    }
}

#[cfg(target_arch = "x86_64")]
fn vectors() -> Option<&'static str> {
    let all = |found: &[bool]| found.iter().all(|found| *found);
    let avx2 = all(&[
        is_x86_feature_detected!("avx2"),
        is_x86_feature_detected!("fma"),
        is_x86_feature_detected!("bmi2"),
    ]);
    let avx512 = all(&[
        is_x86_feature_detected!("avx512f"),
        is_x86_feature_detected!("avx512bw"),
        is_x86_feature_detected!("avx512cd"),
        is_x86_feature_detected!("avx512dq"),
        is_x86_feature_detected!("avx512vl"),
    ]);
    match (avx2, avx512) {
        (true, true) => Some("AVX-512"),
        (true, false) => Some("AVX2"),
        _ => None,
    }
}

#[cfg(target_arch = "aarch64")]
fn vectors() -> Option<&'static str> {
    Some("NEON")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn vectors() -> Option<&'static str> {
    None
}

/// Bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All there is.
    pub total: u64,
    /// What a program may still take.
    pub available: u64,
}

/// The memory of this machine, or of the container that it is asked in; nothing where the system does not tell.
pub fn memory() -> Option<Memory> {
    let machine = memory_in(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let number = |name: &str| {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let container = number("memory.max").zip(number("memory.current"));
    Some(within(machine, container))
}

/// The memory within a container's limit, of which so much is in use.
fn within(machine: Memory, container: Option<(u64, u64)>) -> Memory {
    match container {
        Some((limit, used)) if limit < machine.total => Memory {
            total: limit,
            available: machine.available.min(limit.saturating_sub(used)),
        },
        _ => machine,
    }
}

fn memory_in(meminfo: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    };
    Some(Memory {
        total: bytes("MemTotal:")?,
        available: bytes("MemAvailable:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_that_of_the_container() {
        let machine = memory_in("MemTotal:  4096 kB\nMemFree: 1 kB\nMemAvailable:    2048 kB\n").unwrap();
        let mebibyte = 1 << 20;
        assert_eq!((machine.total, machine.available), (4 * mebibyte, 2 * mebibyte));
        assert_eq!(within(machine, None), machine);
        assert_eq!(within(machine, Some((8 * mebibyte, 0))), machine);
        let small = within(machine, Some((mebibyte, mebibyte / 4)));
        assert_eq!((small.total, small.available), (mebibyte, 3 * mebibyte / 4));
        assert_eq!(within(machine, Some((1, 2))).available, 0);
        assert_eq!(memory_in("MemTotal: 4096 kB\n"), None);
    }
}
