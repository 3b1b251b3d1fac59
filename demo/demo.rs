//! The main job, shown: SQL written to a node by four clients, the process killed, every acknowledged row found.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "stops at the first failure"
)]
#![allow(clippy::disallowed_methods, reason = "a program of its own")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dqlite::codec::client::{
    Context, Format, Frame, Header, OwnedParams, PROTOCOL_VERSION, Param, Request, Response, Schema,
};

const CLIENTS: i64 = 4;

struct Client(TcpStream);

impl Client {
    fn connect(address: &str) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        stream.write_all(&PROTOCOL_VERSION.to_le_bytes())?;
        let mut client = Self(stream);
        client.call(&Request::Open { filename: b"demo", flags: 0, vfs: b"" })?;
        Ok(client)
    }

    /// One request, one answer; a failure is an error with its text.
    fn call(&mut self, request: &Request<'_>) -> std::io::Result<Vec<u8>> {
        self.0.write_all(&request.encode().expect("the request fits a message"))?;
        let mut head = [0; 8];
        self.0.read_exact(&mut head)?;
        let header = Header::decode(head);
        let mut body = vec![0; usize::try_from(header.body_bytes()).unwrap()];
        self.0.read_exact(&mut body)?;
        let context = Context { legacy: false, format: Format::Roles };
        match Response::decode(Frame { header, body: &body }, context) {
            Ok(Response::Failure { code, text }) => {
                Err(std::io::Error::other(format!("failure {code}: {}", String::from_utf8_lossy(text))))
            }
            Ok(_) => Ok(body),
            Err(error) => Err(std::io::Error::other(error.to_string())),
        }
    }

    fn exec(&mut self, sql: &str, params: &[Param<'_>]) -> std::io::Result<()> {
        let params = OwnedParams::new(params);
        let request =
            Request::ExecSql { schema: Schema::V0, db: 0, sql: sql.as_bytes(), params: params.view() };
        self.call(&request).map(drop)
    }

    /// The one integer that the query gives.
    fn number(&mut self, sql: &str) -> std::io::Result<i64> {
        let params = OwnedParams::new(&[]);
        let request =
            Request::QuerySql { schema: Schema::V0, db: 0, sql: sql.as_bytes(), params: params.view() };
        let body = self.call(&request)?;
        // The value stands before the end marker.
        let at = body.len() - 16;
        Ok(i64::from_le_bytes(body[at..at + 8].try_into().unwrap()))
    }
}

fn start(host: &str, address: &str, directory: &str) -> Child {
    let mut child = Command::new(host)
        .args(["1", address, directory])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the node's program starts");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("READY"), "the node did not start: {line}");
    println!("  {}", line.trim());
    child
}

/// Writes numbered rows until the node dies; returns how many were acknowledged.
fn write_until(address: &str, client: i64, stop: &AtomicBool) -> i64 {
    let mut connection = Client::connect(address).expect("a client connects");
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        let row = [Param::Integer(client), Param::Integer(acknowledged)];
        if connection.exec("INSERT INTO rows(client, number) VALUES(?, ?)", &row).is_err() {
            break;
        }
        acknowledged += 1;
    }
    acknowledged
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let host = arguments.next().expect("usage: demo HOST DIRECTORY");
    let directory = arguments.next().expect("usage: demo HOST DIRECTORY");
    if !Path::new(&directory).exists() {
        std::fs::create_dir_all(&directory).unwrap();
    }
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();

    println!("1. a C program starts a node on {address}");
    let mut node = start(&host, &address, &directory);
    Client::connect(&address)
        .and_then(|mut client| client.exec("CREATE TABLE rows(client INT, number INT)", &[]))
        .expect("the table is made");

    println!("2. {CLIENTS} clients insert rows, each waiting for every answer, for three seconds");
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let writers: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (address, stop) = (address.clone(), Arc::clone(&stop));
            std::thread::spawn(move || write_until(&address, client, &stop))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(3));

    println!("3. the process is killed with SIGKILL while they write");
    node.kill().unwrap();
    node.wait().unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let acknowledged: Vec<i64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    let total: i64 = acknowledged.iter().sum();
    println!("  {total} inserts were acknowledged, {:.0} per second", total as f64 / seconds);

    println!("4. it starts again on the same directory");
    let mut node = start(&host, &address, &directory);
    let mut reader = Client::connect(&address).expect("a client connects");
    let mut lost = 0;
    for (client, count) in acknowledged.iter().enumerate() {
        let found = reader
            .number(&format!("SELECT count(*) FROM rows WHERE client = {client} AND number < {count}"))
            .expect("the rows are counted");
        println!("  client {client}: {count} acknowledged, {found} found");
        lost += count - found;
    }
    drop(node.stdin.take());
    node.wait().unwrap();
    assert!(total > 0, "nothing was acknowledged: nothing was shown");
    if lost > 0 {
        println!("FAILED: {lost} acknowledged rows are lost");
        std::process::exit(1);
    }
    println!("OK: no acknowledged row was lost");
}
