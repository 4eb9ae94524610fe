//! B: memory. Tokio's tasks have no stacks: it takes part in B2.

use crate::harness::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, Notify};

pub fn workloads() -> Vec<Workload> {
    vec![
        Workload { id: "B2", measure: million_parked, fresh: true },
        Workload { id: "B2s", measure: million_sleeping, fresh: true },
    ]
}

fn many(setting: &Setting) -> usize {
    if setting.quick {
        200_000
    } else {
        1_000_000
    }
}

struct Countdown {
    left: AtomicUsize,
    over: Notify,
}

impl Countdown {
    fn new(count: usize) -> Self {
        Countdown { left: AtomicUsize::new(count), over: Notify::new() }
    }

    fn count_down(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.over.notify_one();
        }
    }
}

struct Shared {
    arrived: Countdown,
    ended: Countdown,
    release: Notify,
}

fn million_parked(setting: &Setting) -> Metrics {
    let tasks = many(setting);
    setting.run(async { tokio::task::yield_now().await });
    let before = resident_bytes();
    let (spawn, end, parked) = setting.run(async move {
        let shared = Arc::new(Shared {
            arrived: Countdown::new(tasks),
            ended: Countdown::new(tasks),
            release: Notify::new(),
        });
        let start = Instant::now();
        for _ in 0..tasks {
            let shared = shared.clone();
            tokio::spawn(async move {
                // Exists before the count, so that notify_waiters cannot miss it.
                let released = shared.release.notified();
                shared.arrived.count_down();
                released.await;
                shared.ended.count_down();
            });
        }
        shared.arrived.over.notified().await;
        let spawn = start.elapsed();
        let parked = resident_bytes();
        let start = Instant::now();
        shared.release.notify_waiters();
        shared.ended.over.notified().await;
        (spawn, start.elapsed(), parked)
    });
    vec![
        metric("B2.bytes", (parked - before) / tasks as f64, "B"),
        metric("B2.spawn", nanoseconds(spawn) / 1e6, "ms"),
        metric("B2.end", nanoseconds(end) / 1e6, "ms"),
    ]
}

fn million_sleeping(setting: &Setting) -> Metrics {
    let tasks = many(setting);
    let nap = Duration::from_secs(if setting.quick { 2 } else { 10 });
    setting.run(async { tokio::task::yield_now().await });
    let cpu = process_usage().cpu_s;
    let before = resident_bytes();
    let (sender, parked) = oneshot::channel();
    setting.run(async move {
        let handles: Vec<_> = (0..tasks).map(|_| tokio::spawn(tokio::time::sleep(nap))).collect();
        tokio::time::sleep(nap / 2).await;
        sender.send(resident_bytes()).unwrap();
        for handle in handles {
            handle.await.unwrap();
        }
    });
    let parked = parked.blocking_recv().unwrap();
    vec![
        metric("B2s.bytes", (parked - before) / tasks as f64, "B"),
        metric("B2s.cpu", process_usage().cpu_s - cpu, "s"),
    ]
}
