//! C: communication. Channels are tokio::sync::mpsc, which is bounded and has one receiver; for C3, with several
//! receivers, async-channel. Tokio has no channel without a buffer: the second form of C5 is left out. C6 is
//! async-stream: stable Rust has no generators of its own.

use crate::harness::*;
use futures_core::Stream;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, Mutex};

pub fn workloads() -> Vec<Workload> {
    vec![
        Workload { id: "C1", measure: ping_pong, fresh: false },
        Workload { id: "C2", measure: many_to_one, fresh: false },
        Workload { id: "C3", measure: many_to_many, fresh: false },
        Workload { id: "C4", measure: mutex, fresh: false },
        Workload { id: "C5", measure: select, fresh: false },
        Workload { id: "C6", measure: generator, fresh: false },
    ]
}

fn ping_pong(setting: &Setting) -> Metrics {
    let trips = if setting.quick { 300_000 } else { 1_000_000 };
    let elapsed = setting.run(async move {
        let (there, mut balls) = mpsc::channel::<i32>(1);
        let (back, mut answers) = mpsc::channel::<i32>(1);
        let other = tokio::spawn(async move {
            while let Some(ball) = balls.recv().await {
                back.send(ball).await.unwrap();
            }
        });
        let start = Instant::now();
        for i in 0..trips {
            there.send(i).await.unwrap();
            assert_eq!(answers.recv().await, Some(i));
        }
        let elapsed = start.elapsed();
        drop(there);
        other.await.unwrap();
        elapsed
    });
    vec![metric("C1", nanoseconds(elapsed) / trips as f64, "ns")]
}

fn many_to_one(setting: &Setting) -> Metrics {
    let messages: u64 = if setting.quick { 400_000 } else { 1_000_000 };
    let elapsed = setting.run(async move {
        let start = Instant::now();
        let (sender, mut receiver) = mpsc::channel::<u64>(128);
        for _ in 0..4 {
            let sender = sender.clone();
            tokio::spawn(async move {
                for i in 0..messages / 4 {
                    sender.send(i).await.unwrap();
                }
            });
        }
        drop(sender);
        let mut received = 0;
        while receiver.recv().await.is_some() {
            received += 1;
        }
        assert_eq!(received, messages);
        start.elapsed()
    });
    vec![metric("C2", nanoseconds(elapsed) / messages as f64, "ns")]
}

fn many_to_many(setting: &Setting) -> Metrics {
    let messages: u64 = if setting.quick { 1_000_000 } else { 10_000_000 };
    let elapsed = setting.run(async move {
        let start = Instant::now();
        let (sender, receiver) = async_channel::bounded::<u64>(1024);
        for _ in 0..4 {
            let sender = sender.clone();
            tokio::spawn(async move {
                for i in 0..messages / 4 {
                    sender.send(i).await.unwrap();
                }
            });
        }
        drop(sender);
        let receivers: Vec<_> = (0..4)
            .map(|_| {
                let receiver = receiver.clone();
                tokio::spawn(async move {
                    let mut received = 0u64;
                    while receiver.recv().await.is_ok() {
                        received += 1;
                    }
                    received
                })
            })
            .collect();
        let mut received = 0;
        for receiver in receivers {
            received += receiver.await.unwrap();
        }
        assert_eq!(received, messages);
        start.elapsed()
    });
    vec![metric("C3", nanoseconds(elapsed) / messages as f64, "ns")]
}

fn mutex(setting: &Setting) -> Metrics {
    const TASKS: u64 = 8;
    const TURNS: u64 = 200_000;
    let elapsed = setting.run(async {
        let counter = Arc::new(Mutex::new(0u64));
        let start = Instant::now();
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let counter = counter.clone();
                tokio::spawn(async move {
                    for _ in 0..TURNS {
                        *counter.lock().await += 1;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*counter.lock().await, TASKS * TURNS);
        start.elapsed()
    });
    vec![metric("C4", nanoseconds(elapsed) / (TASKS * TURNS) as f64, "ns")]
}

fn select(setting: &Setting) -> Metrics {
    let messages: u64 = if setting.quick { 300_000 } else { 1_000_000 };
    let elapsed = setting.run(async move {
        let (senders, mut receivers): (Vec<_>, Vec<_>) = (0..8).map(|_| mpsc::channel::<u64>(16)).unzip();
        let feeder = tokio::spawn(async move {
            for i in 0..messages {
                senders[(i % 8) as usize].send(i).await.unwrap();
            }
            senders // closed when all has been received: a closed channel is always ready
        });
        let [a, b, c, d, e, f, g, h] = &mut receivers[..] else { unreachable!() };
        let start = Instant::now();
        let mut sum = 0;
        for _ in 0..messages {
            sum += tokio::select! {
                Some(message) = a.recv() => message,
                Some(message) = b.recv() => message,
                Some(message) = c.recv() => message,
                Some(message) = d.recv() => message,
                Some(message) = e.recv() => message,
                Some(message) = f.recv() => message,
                Some(message) = g.recv() => message,
                Some(message) = h.recv() => message,
            };
        }
        let elapsed = start.elapsed();
        assert_eq!(sum, messages * (messages - 1) / 2);
        feeder.await.unwrap();
        elapsed
    });
    vec![metric("C5.buffered", nanoseconds(elapsed) / messages as f64, "ns")]
}

fn generator(setting: &Setting) -> Metrics {
    const VALUES: u64 = 10_000_000;
    let elapsed = setting.run(async {
        let mut values = pin!(async_stream::stream! {
            for i in 0..VALUES {
                yield i;
            }
        });
        let start = Instant::now();
        let mut sum = 0;
        while let Some(value) = poll_fn(|context| values.as_mut().poll_next(context)).await {
            sum += value;
        }
        assert_eq!(sum, VALUES * (VALUES - 1) / 2);
        start.elapsed()
    });
    vec![metric("C6.task", nanoseconds(elapsed) / VALUES as f64, "ns")]
}
