//! How long a byte takes to another thread and back over 127.0.0.1: what no server can be faster than.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::error::BenchError;
use crate::recorder::latency_histogram;
use crate::report::Latency;

/// Round trips before the measured ones.
const WARMUP_TRIPS: usize = 1000;

/// Sends one byte at a time for `length`, and waits for each to come back.
pub fn measure(length: Duration) -> Result<Latency, BenchError> {
    trips(length).map_err(BenchError::io("measure the loopback round trip"))
}

fn trips(length: Duration) -> io::Result<Latency> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let echo = std::thread::spawn(move || -> io::Result<()> {
        let mut byte = [0];
        while server.read(&mut byte)? == 1 {
            server.write_all(&byte)?;
        }
        Ok(())
    });
    let mut histogram = latency_histogram();
    let mut trip = || -> io::Result<u64> {
        let begun = Instant::now();
        client.write_all(&[7])?;
        client.read_exact(&mut [0])?;
        Ok(begun.elapsed().as_nanos() as u64)
    };
    for _ in 0..WARMUP_TRIPS {
        trip()?;
    }
    let deadline = Instant::now() + length;
    while Instant::now() < deadline {
        histogram.saturating_record(trip()?);
    }
    drop(client);
    echo.join().expect("the echo does not panic")?;
    Ok(Latency::of(&histogram))
}
