//! The workloads of bench/compare.sh on Tokio: `peer-tokio WORKLOAD WORKERS [quick]` measures one of them after a
//! warm-up and prints a line for each metric; `peer-tokio echo|http --workers N …` is a server (server.rs).
//!
//! One worker is the current-thread runtime, more are the multi-thread one with as many worker threads. With
//! PEER_FLAVOR=multi one worker is the multi-thread runtime too.

mod communication;
mod harness;
mod memory;
mod scheduling;
mod server;
mod timing;

use harness::Workload;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn workloads() -> Vec<Workload> {
    let mut all = Vec::new();
    all.extend(scheduling::workloads());
    all.extend(memory::workloads());
    all.extend(communication::workloads());
    all.extend(timing::workloads());
    all
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--list") => workloads().iter().for_each(|workload| println!("{}", workload.id)),
        Some("--version") => println!("{}", env!("CARGO_PKG_VERSION")),
        Some("echo") | Some("http") => server::main(&arguments),
        Some(id) => match workloads().into_iter().find(|workload| workload.id == id) {
            Some(workload) => harness::run(&workload, &arguments[1..]),
            None => usage(),
        },
        None => usage(),
    }
}

fn usage() {
    eprintln!(
        "usage: peer-tokio WORKLOAD WORKERS [quick] | echo|http [--port N] [--workers N] [--seconds S] | --list"
    );
    std::process::exit(2);
}
