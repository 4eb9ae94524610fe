//! A: scheduling. A3, A5, A6 and A7 follow Tokio's own benchmarks of the multi-thread scheduler.

use crate::harness::*;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, Notify};
use tokio::task::{yield_now, JoinHandle};

pub fn workloads() -> Vec<Workload> {
    vec![
        Workload { id: "A1", measure: yield_alone, fresh: false },
        Workload { id: "A2", measure: yield_among_1000, fresh: false },
        Workload { id: "A3", measure: yield_many, fresh: false },
        Workload { id: "A4", measure: spawn_await, fresh: false },
        Workload { id: "A5", measure: spawn_many, fresh: false },
        Workload { id: "A6", measure: chained, fresh: false },
        Workload { id: "A7", measure: ping_pong, fresh: false },
        Workload { id: "A8", measure: skynet, fresh: true },
        Workload { id: "A8.yield", measure: skynet_yielding, fresh: true },
        Workload { id: "A8.chan", measure: skynet_channels, fresh: true },
        Workload { id: "A9", measure: fib_30, fresh: false },
        Workload { id: "A11", measure: from_outside, fresh: false },
        Workload { id: "A12", measure: wake_latency, fresh: false },
        Workload { id: "A13", measure: idle, fresh: true },
    ]
}

fn yield_alone(setting: &Setting) -> Metrics {
    let count = if setting.quick { 2_000_000 } else { 10_000_000 };
    let elapsed = setting.run(async move {
        let start = Instant::now();
        for _ in 0..count {
            yield_now().await;
        }
        start.elapsed()
    });
    vec![metric("A1", nanoseconds(elapsed) / count as f64, "ns")]
}

fn yielders(setting: &Setting, tasks: usize, yields: usize) -> f64 {
    let elapsed = setting.run(async move {
        let start = Instant::now();
        let handles: Vec<_> = (0..tasks)
            .map(|_| {
                tokio::spawn(async move {
                    for _ in 0..yields {
                        yield_now().await;
                    }
                })
            })
            .collect();
        for handle in handles {
            handle.await.unwrap();
        }
        start.elapsed()
    });
    nanoseconds(elapsed)
}

fn yield_among_1000(setting: &Setting) -> Metrics {
    let yields = if setting.quick { 1000 } else { 10_000 };
    vec![metric("A2", yielders(setting, 1000, yields) / (1000 * yields) as f64, "ns")]
}

fn yield_many(setting: &Setting) -> Metrics {
    vec![metric("A3", yielders(setting, 200, 1000) / 1e3, "us")]
}

fn spawn_await(setting: &Setting) -> Metrics {
    let rounds = if setting.quick { 300 } else { 1000 };
    let elapsed = setting.run(async move {
        let mut handles = Vec::with_capacity(1000);
        let mut sum = 0;
        let start = Instant::now();
        for _ in 0..rounds {
            handles.extend((0..1000).map(|_| tokio::spawn(async { 1 })));
            for handle in handles.drain(..) {
                sum += handle.await.unwrap();
            }
        }
        assert_eq!(sum, rounds * 1000);
        start.elapsed()
    });
    vec![metric("A4", nanoseconds(elapsed) / (rounds * 1000) as f64, "ns")]
}

const ROUNDS: u32 = 50;

fn spawn_many(setting: &Setting) -> Metrics {
    const SPAWNS: usize = 10_000;
    let elapsed = setting.run(async {
        let start = Instant::now();
        let left = Arc::new(AtomicUsize::new(0));
        let (done, mut dones) = mpsc::channel(1);
        for _ in 0..ROUNDS {
            left.store(SPAWNS, Ordering::Relaxed);
            for _ in 0..SPAWNS {
                let left = left.clone();
                let done = done.clone();
                tokio::spawn(async move {
                    if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                        done.send(()).await.unwrap();
                    }
                });
            }
            dones.recv().await.unwrap();
        }
        start.elapsed()
    });
    vec![metric("A5", nanoseconds(elapsed / ROUNDS) / 1e3, "us")]
}

fn link(done: oneshot::Sender<()>, left: usize) {
    if left == 0 {
        done.send(()).unwrap();
    } else {
        tokio::spawn(async move { link(done, left - 1) });
    }
}

fn chained(setting: &Setting) -> Metrics {
    let elapsed = setting.run(async {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            let (done, waits) = oneshot::channel();
            link(done, 1000);
            waits.await.unwrap();
        }
        start.elapsed()
    });
    vec![metric("A6", nanoseconds(elapsed / ROUNDS) / 1e3, "us")]
}

fn ping_pong(setting: &Setting) -> Metrics {
    const PAIRS: usize = 1000;
    let elapsed = setting.run(async {
        let start = Instant::now();
        let left = Arc::new(AtomicUsize::new(0));
        let (done, mut dones) = mpsc::channel(1);
        for _ in 0..ROUNDS {
            left.store(PAIRS, Ordering::Relaxed);
            for _ in 0..PAIRS {
                let left = left.clone();
                let done = done.clone();
                tokio::spawn(async move {
                    let (there, ball) = oneshot::channel();
                    let (back, answer) = oneshot::channel();
                    tokio::spawn(async move {
                        let message: i32 = ball.await.unwrap();
                        back.send(message).unwrap();
                    });
                    there.send(1).unwrap();
                    assert_eq!(answer.await.unwrap(), 1);
                    if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                        done.send(()).await.unwrap();
                    }
                });
            }
            dones.recv().await.unwrap();
        }
        start.elapsed()
    });
    vec![metric("A7", nanoseconds(elapsed / ROUNDS) / 1e3, "us")]
}

// ---- A8: skynet. The functions spawn, and return the handle: so the recursive future needs no second box. ----

const LEAVES: u64 = 1_000_000;
const WAYS: u64 = 10;

fn node(first: u64, leaves: u64) -> JoinHandle<u64> {
    tokio::spawn(async move {
        if leaves == 1 {
            return first;
        }
        let share = leaves / WAYS;
        let children: [_; WAYS as usize] = std::array::from_fn(|i| node(first + i as u64 * share, share));
        let mut sum = 0;
        for child in children {
            sum += child.await.unwrap();
        }
        sum
    })
}

fn yielding_node(first: u64, leaves: u64) -> JoinHandle<u64> {
    tokio::spawn(async move {
        yield_now().await;
        if leaves == 1 {
            return first;
        }
        let share = leaves / WAYS;
        let children: [_; WAYS as usize] = std::array::from_fn(|i| yielding_node(first + i as u64 * share, share));
        let mut sum = 0;
        for child in children {
            sum += child.await.unwrap();
        }
        sum
    })
}

fn channel_node(out: mpsc::Sender<u64>, first: u64, leaves: u64) {
    tokio::spawn(async move {
        let mut sum = first;
        if leaves > 1 {
            let share = leaves / WAYS;
            let (sender, mut parts) = mpsc::channel(WAYS as usize);
            for i in 0..WAYS {
                channel_node(sender.clone(), first + i * share, share);
            }
            drop(sender);
            sum = 0;
            while let Some(part) = parts.recv().await {
                sum += part;
            }
        }
        out.send(sum).await.unwrap();
    });
}

fn skynet_with(setting: &Setting, key: &str, root: impl Future<Output = u64> + Send + 'static) -> Metrics {
    let start = Instant::now();
    let sum = setting.run(root);
    let elapsed = start.elapsed();
    assert_eq!(sum, LEAVES * (LEAVES - 1) / 2);
    vec![metric(key, nanoseconds(elapsed) / 1e6, "ms")]
}

fn skynet(setting: &Setting) -> Metrics {
    skynet_with(setting, "A8", async { node(0, LEAVES).await.unwrap() })
}

fn skynet_yielding(setting: &Setting) -> Metrics {
    skynet_with(setting, "A8.yield", async { yielding_node(0, LEAVES).await.unwrap() })
}

fn skynet_channels(setting: &Setting) -> Metrics {
    skynet_with(setting, "A8.chan", async {
        let (sender, mut sums) = mpsc::channel(1);
        channel_node(sender, 0, LEAVES);
        sums.recv().await.unwrap()
    })
}

fn fib(n: u64) -> Pin<Box<dyn Future<Output = u64> + Send>> {
    if n < 2 {
        return Box::pin(std::future::ready(n));
    }
    Box::pin(async move {
        let left = tokio::spawn(fib(n - 1));
        let right = fib(n - 2).await;
        left.await.unwrap() + right
    })
}

fn fib_30(setting: &Setting) -> Metrics {
    let start = Instant::now();
    let result = setting.run(fib(30));
    let elapsed = start.elapsed();
    assert_eq!(result, 832_040);
    vec![metric("A9", nanoseconds(elapsed) / 1e6, "ms")]
}

// ---- A11 … A13: from outside, and idle ----

fn from_outside(setting: &Setting) -> Metrics {
    const TASKS: usize = 12_800;
    [1usize, 2, 4, 8]
        .into_iter()
        .map(|threads| {
            let ns = setting.beside(move |handle| {
                let left = Arc::new(AtomicUsize::new(TASKS));
                let barrier = Arc::new(Barrier::new(threads));
                let submitters: Vec<_> = (0..threads)
                    .map(|_| {
                        let (handle, left, barrier) = (handle.clone(), left.clone(), barrier.clone());
                        std::thread::spawn(move || {
                            barrier.wait();
                            let start = Instant::now();
                            for _ in 0..TASKS / threads {
                                let left = left.clone();
                                handle.spawn(async move {
                                    left.fetch_sub(1, Ordering::Relaxed);
                                });
                            }
                            (start, Instant::now())
                        })
                    })
                    .collect();
                let times: Vec<_> = submitters.into_iter().map(|thread| thread.join().unwrap()).collect();
                let start = times.iter().map(|time| time.0).min().unwrap();
                let end = times.iter().map(|time| time.1).max().unwrap();
                while left.load(Ordering::Relaxed) > 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                nanoseconds(end - start)
            });
            metric(&format!("A11.{threads}"), ns / TASKS as f64, "ns")
        })
        .collect()
}

fn wake_latency(setting: &Setting) -> Metrics {
    let count = if setting.quick { 500 } else { 3000 };
    let mut latencies = setting.beside(move |handle| {
        let waits: Vec<_> = (0..count)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(1));
                let sent = Instant::now();
                handle.spawn(async move { sent.elapsed().as_nanos() as i64 })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(20));
        let (sender, results) = std::sync::mpsc::channel();
        handle.spawn(async move {
            for wait in waits {
                sender.send(wait.await.unwrap()).unwrap();
            }
        });
        results.into_iter().collect::<Vec<i64>>()
    });
    assert_eq!(latencies.len(), count);
    vec![
        metric("A12.p50", quantile(&mut latencies, 0.5) as f64 / 1e3, "us"),
        metric("A12.p99", quantile(&mut latencies, 0.99) as f64 / 1e3, "us"),
    ]
}

fn idle(setting: &Setting) -> Metrics {
    const PARKED: usize = 10_000;
    let quick = setting.quick;
    let release = Arc::new(Notify::new());
    let released = release.clone();
    let (cpu, switches) = setting.beside(move |handle| {
        let tasks: Vec<_> = (0..PARKED)
            .map(|_| {
                let release = release.clone();
                handle.spawn(async move { release.notified().await })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(500));
        let (before, own_before) = (process_usage(), thread_usage());
        std::thread::sleep(Duration::from_secs(if quick { 2 } else { 10 }));
        let (after, own_after) = (process_usage(), thread_usage());
        released.notify_waiters();
        let (sender, ended) = std::sync::mpsc::channel();
        handle.spawn(async move {
            for task in tasks {
                task.await.unwrap();
            }
            sender.send(()).unwrap();
        });
        ended.recv().unwrap();
        (
            (after.cpu_s - before.cpu_s) - (own_after.cpu_s - own_before.cpu_s),
            (after.switches - before.switches) - (own_after.switches - own_before.switches),
        )
    });
    vec![metric("A13.cpu", cpu * 1e3, "ms"), metric("A13.switches", switches as f64, "1")]
}
