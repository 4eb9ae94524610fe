//! The servers: echo with a task for each connection, and HTTP plaintext on hyper.

use crate::harness::build_runtime;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderValue, CONTENT_TYPE, SERVER};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use std::convert::Infallible;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

struct Options {
    http: bool,
    port: u16,
    workers: usize,
    seconds: u64,
    compute: usize,
    stuck: usize,
}

fn parse(arguments: &[String]) -> Options {
    let mut options =
        Options { http: arguments[0] == "http", port: 0, workers: 1, seconds: 60, compute: 0, stuck: 0 };
    for pair in arguments[1..].chunks(2) {
        let value: usize = pair.get(1).and_then(|text| text.parse().ok()).expect("a number after each option");
        match pair[0].as_str() {
            "--port" => options.port = value as u16,
            "--workers" => options.workers = value,
            "--seconds" => options.seconds = value as u64,
            "--compute" => options.compute = value,
            "--stuck" => options.stuck = value,
            other => panic!("unknown option {other}"),
        }
    }
    options
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(length) if length > 0 => {
                if stream.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

async fn answer(request: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/plaintext" {
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let mut response = Response::new(Full::new(Bytes::from_static(b"Hello, World!")));
    response.headers_mut().insert(SERVER, HeaderValue::from_static("hyper"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

async fn http(stream: TcpStream) {
    let _ = hyper::server::conn::http1::Builder::new()
        .pipeline_flush(true)
        .serve_connection(hyper_util::rt::TokioIo::new(stream), service_fn(answer))
        .await;
}

/// Computes for 1 ms, ten times a second.
async fn compute() {
    loop {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1) {
            std::hint::spin_loop();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Blocks its worker for 500 ms at a time, as no program should.
async fn stick() {
    loop {
        std::thread::sleep(Duration::from_millis(500));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn raise_descriptor_limit() {
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

async fn serve(options: Options) {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.set_reuseaddr(true).expect("SO_REUSEADDR");
    socket.bind(([127, 0, 0, 1], options.port).into()).expect("bind");
    let listener = socket.listen(4096).expect("listen");
    println!("listening on {}", listener.local_addr().expect("address"));
    for _ in 0..options.compute {
        tokio::spawn(compute());
    }
    for _ in 0..options.stuck {
        tokio::spawn(stick());
    }
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        if options.http {
            tokio::spawn(http(stream));
        } else {
            tokio::spawn(echo(stream));
        }
    }
}

pub fn main(arguments: &[String]) {
    let options = parse(arguments);
    let limit = Duration::from_secs(options.seconds);
    raise_descriptor_limit();
    build_runtime(options.workers).block_on(async move {
        let server = tokio::spawn(serve(options));
        tokio::time::sleep(limit).await;
        server.abort();
    });
}
