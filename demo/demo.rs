//! The main job, shown: a cluster of three processes, clients that write all the time, the leader killed and started
//! again three times, every acknowledged row found.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "stops at the first failure"
)]
#![allow(clippy::disallowed_methods, reason = "a program of its own")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dqlite::base::{NodeId, Role};
use dqlite::codec::client::{
    Context, Format, Frame, Header, OwnedParams, PROTOCOL_VERSION, Param, Request, Response, Schema,
};

const CLIENTS: u64 = 4;
const KILLS: usize = 3;

/// How long the demonstration waits for anything before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

type Result<T> = std::io::Result<T>;

struct Client(TcpStream);

impl Client {
    fn connect(address: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        stream.write_all(&PROTOCOL_VERSION.to_le_bytes())?;
        Ok(Self(stream))
    }

    /// One request, one answer, of which `read` takes what it wants; a failure is an error with its text.
    fn call<T>(&mut self, request: &Request<'_>, read: impl FnOnce(&Response<'_>) -> T) -> Result<T> {
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
            Ok(response) => Ok(read(&response)),
            Err(error) => Err(std::io::Error::other(error.to_string())),
        }
    }

    fn open(&mut self) -> Result<()> {
        self.call(&Request::Open { filename: b"demo", flags: 0, vfs: b"" }, |_| ())
    }

    fn exec(&mut self, sql: &str, params: &[Param<'_>]) -> Result<()> {
        let params = OwnedParams::new(params);
        self.call(
            &Request::ExecSql { schema: Schema::V0, db: 0, sql: sql.as_bytes(), params: params.view() },
            |_| (),
        )
    }

    /// The one number that the query gives.
    fn number(&mut self, sql: &str) -> Result<u64> {
        let params = OwnedParams::new(&[]);
        let request =
            Request::QuerySql { schema: Schema::V0, db: 0, sql: sql.as_bytes(), params: params.view() };
        self.call(&request, |response| match response {
            Response::Rows(rows) => match rows.rows.first().and_then(|row| row.first()) {
                Some(dqlite::codec::client::Cell::Integer(number)) => u64::try_from(*number).unwrap(),
                other => panic!("a number expected, found {other:?}"),
            },
            other => panic!("rows expected, found {other:?}"),
        })
    }

    /// The database as this node has it.
    fn dump(&mut self) -> Result<Vec<u8>> {
        self.call(&Request::Dump { filename: b"demo" }, |response| match response {
            Response::Files(files) => files[0].bytes.to_vec(),
            other => panic!("files expected, found {other:?}"),
        })
    }
}

/// One node: a C program that uses the library.
struct Node {
    id: usize,
    host: String,
    address: String,
    directory: String,
    process: Option<Child>,
}

impl Node {
    fn start(&mut self) {
        let id = self.id.to_string();
        let mut child = Command::new(&self.host)
            .args([&id, &self.address, &self.directory, "latency=50"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the node's program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("READY"), "node {id} did not start: {line}");
        self.process = Some(child);
    }

    fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            process.wait().unwrap();
        }
    }
}

/// The place of the node that leads by its own account.
fn leader(addresses: &[String]) -> Option<usize> {
    addresses.iter().position(|address| {
        let asked = Client::connect(address).and_then(|mut client| {
            client.call(&Request::Leader, |response| match response {
                Response::Server { address: found, .. } => *found == address.as_bytes(),
                _ => false,
            })
        });
        asked.unwrap_or(false)
    })
}

fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Writes numbered rows, each until it is acknowledged by whoever leads; returns how many were. What fails may be
/// there all the same: the number is the key, so that a second try does no harm.
fn write_until(addresses: &[String], client: u64, stop: &AtomicBool, total: &AtomicU64) -> u64 {
    let (mut connection, mut acknowledged) = (None, 0);
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = &mut connection else {
            connection = leader(addresses).and_then(|place| {
                let mut found = Client::connect(&addresses[place]).ok()?;
                found.open().ok().map(|()| found)
            });
            if connection.is_none() {
                thread::sleep(Duration::from_millis(10));
            }
            continue;
        };
        let row = [Param::Integer(client as i64), Param::Integer(acknowledged as i64)];
        match Client::exec(open, "INSERT OR IGNORE INTO rows(client, number) VALUES(?, ?)", &row) {
            Ok(()) => {
                acknowledged += 1;
                total.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => connection = None,
        }
    }
    acknowledged
}

fn form_cluster(nodes: &[Node]) {
    let mut client = Client::connect(&nodes[0].address).unwrap();
    for node in &nodes[1..] {
        let id = NodeId(node.id as u64);
        client.call(&Request::Add { id, address: node.address.as_bytes() }, |_| ()).expect("a node is added");
        client.call(&Request::Assign { id, role: Role::Voter }, |_| ()).expect("it becomes a voter");
    }
    client.open().unwrap();
    client
        .exec("CREATE TABLE rows(client INT, number INT, PRIMARY KEY(client, number))", &[])
        .expect("the table is made");
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let host = arguments.next().expect("usage: demo HOST DIRECTORY");
    let directory = arguments.next().expect("usage: demo HOST DIRECTORY");
    let free: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<String> = free.iter().map(|socket| socket.local_addr().unwrap().to_string()).collect();
    drop(free);
    let mut nodes: Vec<Node> = (1..)
        .zip(&addresses)
        .map(|(id, address)| {
            let directory = format!("{directory}/{id}");
            std::fs::create_dir_all(&directory).unwrap();
            Node { id, host: host.clone(), address: address.clone(), directory, process: None }
        })
        .collect();

    println!("1. three C programs start a node each: {}", addresses.join(", "));
    nodes.iter_mut().for_each(Node::start);
    println!("2. node 1 is a cluster; it takes in the others as voters");
    form_cluster(&nodes);

    println!(
        "3. {CLIENTS} clients insert rows at the leader, whoever that is, each waiting for every answer"
    );
    let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let writers: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (addresses, stop, total) = (addresses.clone(), Arc::clone(&stop), Arc::clone(&total));
            thread::spawn(move || write_until(&addresses, client, &stop, &total))
        })
        .collect();
    for _ in 0..KILLS {
        thread::sleep(Duration::from_secs(2));
        let place = wait_for("a leader", || leader(&addresses));
        let before = total.load(Ordering::Relaxed);
        nodes[place].kill();
        let killed = Instant::now();
        // Each client may be about to count an answer that came before.
        let settled = total.load(Ordering::Relaxed) + CLIENTS;
        wait_for("a write on another leader", || (total.load(Ordering::Relaxed) > settled).then_some(()));
        let next = wait_for("a leader", || leader(&addresses));
        println!(
            "   {before} rows acknowledged: node {} led and is killed with SIGKILL; {:.1} s later node {} leads and writes",
            place + 1,
            killed.elapsed().as_secs_f64(),
            next + 1,
        );
        nodes[place].start();
        println!("   node {} starts again and follows", place + 1);
    }
    thread::sleep(Duration::from_secs(1));
    stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<u64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    let sum: u64 = acknowledged.iter().sum();
    println!("4. {sum} inserts were acknowledged in {:.0} seconds", began.elapsed().as_secs_f64());
    let lost = count_lost(&addresses, &acknowledged);
    println!("5. the databases of all three nodes are compared");
    wait_for("equal databases", || {
        let dumps = addresses.iter().map(|address| Client::connect(address).and_then(|mut node| node.dump()));
        let dumps: Vec<Vec<u8>> = dumps.collect::<Result<_>>().ok()?;
        dumps.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
    });
    drop(nodes);
    assert!(sum > 0, "nothing was acknowledged: nothing was shown");
    if lost > 0 {
        println!("FAILED: {lost} acknowledged rows are lost");
        std::process::exit(1);
    }
    println!("OK: no acknowledged row was lost, and all nodes hold the same bytes");
}

fn count_lost(addresses: &[String], acknowledged: &[u64]) -> u64 {
    let mut reader = wait_for("a leader", || {
        let mut client = Client::connect(&addresses[leader(addresses)?]).ok()?;
        client.open().ok().map(|()| client)
    });
    let mut lost = 0;
    for (client, count) in acknowledged.iter().enumerate() {
        let found = reader
            .number(&format!("SELECT count(*) FROM rows WHERE client = {client} AND number < {count}"))
            .expect("the rows are counted");
        println!("   client {client}: {count} acknowledged, {found} found");
        lost += count - found;
    }
    lost
}
