//! D: timers and the blocking pool (512 threads at most).

use crate::harness::*;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

pub fn workloads() -> Vec<Workload> {
    vec![
        Workload { id: "D1", measure: many_sleepers, fresh: true },
        Workload { id: "D1.few", measure: thousand_sleepers, fresh: true },
        Workload { id: "D2", measure: unused_timeouts, fresh: false },
        Workload { id: "D3", measure: short_sleep, fresh: false },
        Workload { id: "D4", measure: trivial_calls, fresh: false },
        Workload { id: "D5", measure: sleeping_calls, fresh: false },
        Workload { id: "D6", measure: calls_at_once, fresh: false },
    ]
}

/// The same naps in every program; and the longest sum of one sleeper's.
fn assign_naps(sleepers: usize) -> (Vec<[Duration; 3]>, Duration) {
    let mut state: u64 = 88172645463325252;
    let naps: Vec<[Duration; 3]> = (0..sleepers)
        .map(|_| {
            std::array::from_fn(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                Duration::from_millis(1 + state % 1000)
            })
        })
        .collect();
    let longest = naps.iter().map(|of_one| of_one.iter().sum()).max().unwrap();
    (naps, longest)
}

/// How much longer than ideal all took, and each sleep's overshoot in ns.
fn sleep_crowd(setting: &Setting, count: usize) -> (f64, Vec<i64>) {
    let (naps, ideal) = assign_naps(count);
    let (elapsed, over) = setting.run(async move {
        let start = Instant::now();
        let tasks: Vec<_> = naps
            .into_iter()
            .map(|naps| {
                tokio::spawn(async move {
                    let mut over = [0i64; 3];
                    for (nap, over) in naps.into_iter().zip(&mut over) {
                        let start = Instant::now();
                        tokio::time::sleep(nap).await;
                        *over = (start.elapsed() - nap).as_nanos() as i64;
                    }
                    over
                })
            })
            .collect();
        let mut over = Vec::with_capacity(3 * count);
        for task in tasks {
            over.extend(task.await.unwrap());
        }
        (start.elapsed(), over)
    });
    (nanoseconds(elapsed) - nanoseconds(ideal), over)
}

fn many_sleepers(setting: &Setting) -> Metrics {
    let cpu = process_usage().cpu_s;
    let (over, _) = sleep_crowd(setting, 100_000);
    vec![metric("D1.over", over / 1e6, "ms"), metric("D1.cpu", process_usage().cpu_s - cpu, "s")]
}

fn thousand_sleepers(setting: &Setting) -> Metrics {
    let (_, mut over) = sleep_crowd(setting, 1000);
    vec![metric("D1.p99", quantile(&mut over, 0.99) as f64 / 1e6, "ms")]
}

fn unused_timeouts(setting: &Setting) -> Metrics {
    let count = if setting.quick { 1_000_000 } else { 10_000_000 };
    let elapsed = setting.run(async move {
        let mutex = Mutex::new(0u64);
        let start = Instant::now();
        for _ in 0..count {
            tokio::time::timeout(Duration::from_secs(1), async { *mutex.lock().await += 1 }).await.unwrap();
        }
        assert_eq!(mutex.into_inner(), count);
        start.elapsed()
    });
    vec![metric("D2", nanoseconds(elapsed) / count as f64, "ns")]
}

fn short_sleep(setting: &Setting) -> Metrics {
    const NAP: Duration = Duration::from_micros(100);
    let mut errors = setting.run(async {
        let mut errors = Vec::with_capacity(2000);
        for _ in 0..2000 {
            let start = Instant::now();
            tokio::time::sleep(NAP).await;
            errors.push((start.elapsed() - NAP).as_nanos() as i64);
        }
        errors
    });
    vec![
        metric("D3.p50", quantile(&mut errors, 0.5) as f64 / 1e3, "us"),
        metric("D3.p99", quantile(&mut errors, 0.99) as f64 / 1e3, "us"),
    ]
}

fn callers(setting: &Setting, tasks: usize, calls: usize, call: fn() -> usize) -> f64 {
    let elapsed = setting.run(async move {
        let start = Instant::now();
        let callers: Vec<_> = (0..tasks)
            .map(|_| {
                tokio::spawn(async move {
                    let mut made = 0;
                    for _ in 0..calls {
                        made += spawn_blocking(call).await.unwrap();
                    }
                    made
                })
            })
            .collect();
        let mut made = 0;
        for caller in callers {
            made += caller.await.unwrap();
        }
        assert_eq!(made, tasks * calls);
        start.elapsed()
    });
    nanoseconds(elapsed)
}

fn trivial_calls(setting: &Setting) -> Metrics {
    let calls = if setting.quick { 200 } else { 1000 };
    vec![metric("D4", callers(setting, 100, calls, || 1) / 1e3 / (100 * calls) as f64, "us")]
}

fn sleeping_calls(setting: &Setting) -> Metrics {
    let ns = callers(setting, 2000, 1, || {
        std::thread::sleep(Duration::from_millis(100));
        1
    });
    vec![metric("D5", ns / 1e6, "ms")]
}

fn calls_at_once(setting: &Setting) -> Metrics {
    [1usize, 4, 16]
        .into_iter()
        .map(|tasks| {
            let elapsed = setting.run(async move {
                let start = Instant::now();
                for _ in 0..100 {
                    let batches: Vec<_> = (0..tasks)
                        .map(|_| {
                            tokio::spawn(async {
                                let calls: [_; 16] = std::array::from_fn(|_| spawn_blocking(|| 1));
                                let mut made = 0;
                                for call in calls {
                                    made += call.await.unwrap();
                                }
                                made
                            })
                        })
                        .collect();
                    for batch in batches {
                        assert_eq!(batch.await.unwrap(), 16);
                    }
                }
                start.elapsed()
            });
            metric(&format!("D6.{tasks}"), nanoseconds(elapsed) / 1e3 / (tasks * 1600) as f64, "us")
        })
        .collect()
}
