//! What all workloads share: the runtime, the warm-up, the printed line, resource usage.

use std::future::Future;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};

pub struct Setting {
    pub runtime: Runtime,
    pub quick: bool,
}

pub struct Metric {
    pub key: String,
    pub value: f64,
    pub unit: &'static str,
}

pub type Metrics = Vec<Metric>;

pub struct Workload {
    pub id: &'static str,
    pub measure: fn(&Setting) -> Metrics,
    /// Measures memory or first touches: no warm-up.
    pub fresh: bool,
}

pub fn metric(key: &str, value: f64, unit: &'static str) -> Metric {
    Metric { key: key.to_string(), value, unit }
}

pub fn build_runtime(workers: usize) -> Runtime {
    let multi = std::env::var("PEER_FLAVOR").is_ok_and(|flavor| flavor == "multi");
    let mut builder = if workers == 1 && !multi {
        Builder::new_current_thread()
    } else {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(workers);
        builder
    };
    builder.max_blocking_threads(512).enable_all().build().expect("runtime")
}

impl Setting {
    /// Runs a future as a task: block_on's own future would be polled by the thread that waits, and not by a worker.
    pub fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.block_on(async move { tokio::spawn(future).await.expect("task") })
    }

    /// Calls `submit` on a thread that is none of the runtime's, while the runtime runs.
    pub fn beside<T: Send + 'static>(&self, submit: impl FnOnce(Handle) -> T + Send + 'static) -> T {
        let handle = self.runtime.handle().clone();
        let (done, waits) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let result = submit(handle);
            let _ = done.send(());
            result
        });
        self.runtime.block_on(async move { waits.await.expect("submitting thread") });
        thread.join().expect("submitting thread")
    }
}

#[derive(Clone, Copy)]
pub struct Usage {
    pub cpu_s: f64,
    pub switches: i64,
}

fn usage_of(who: libc::c_int) -> Usage {
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(who, &mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Usage { cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime), switches: usage.ru_nvcsw + usage.ru_nivcsw }
}

pub fn process_usage() -> Usage {
    usage_of(libc::RUSAGE_SELF)
}

pub fn thread_usage() -> Usage {
    usage_of(libc::RUSAGE_THREAD)
}

/// VmHWM, since the rusage's peak is inherited from whoever has started the program.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    line.split_whitespace().nth(1).expect("peak").parse().expect("number")
}

pub fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: f64 = statm.split_whitespace().nth(1).expect("resident").parse().expect("number");
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as f64
}

pub fn quantile(values: &mut [i64], at: f64) -> i64 {
    values.sort_unstable();
    values[(at * (values.len() - 1) as f64 + 0.5) as usize]
}

pub fn nanoseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

pub fn run(workload: &Workload, arguments: &[String]) {
    let workers: usize = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(1);
    let quick = arguments.get(1).is_some_and(|text| text == "quick");
    let setting = Setting { runtime: build_runtime(workers), quick };
    if !workload.fresh {
        (workload.measure)(&setting);
    }
    let before = process_usage();
    let metrics = (workload.measure)(&setting);
    let after = process_usage();
    for metric in metrics {
        println!(
            "{} workers={} value={:.6} unit={} rss_kb={} cpu_s={:.6} ctxsw={}",
            metric.key,
            workers,
            metric.value,
            metric.unit,
            peak_kib(),
            after.cpu_s - before.cpu_s,
            after.switches - before.switches
        );
    }
}
